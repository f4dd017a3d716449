//! How many clients a CnC tells their node, and how long that takes.

use std::io;
use std::thread;
use std::time::{Duration, Instant};

use super::bed::{Asker, Bed};
use crate::figure::{CLUSTER_RESOLVE_P99, CLUSTER_RESOLVES, Figure};

/// Connections that ask, each as fast as it is answered.
const CONNECTIONS: usize = 8;
/// Scopes that are asked for.
const SCOPES: usize = 100;
/// How long it is counted.
const COUNTED: Duration = Duration::from_secs(5);

/// Measures both.
pub fn measure(bed: &Bed) -> io::Result<[Figure; 2]> {
    let http = bed.http(1);
    let mut first = Asker::connect(http)?;
    for scope in 0..SCOPES {
        let (status, body) = first.resolve(&format!("figure-{scope}"))?;
        if status != 200 {
            return Err(io::Error::other(format!("/resolve: {status}: {body}")));
        }
    }
    let control = bed.process("control-1")?;
    let (cpu, began) = (control.cpu()?, Instant::now());
    let askers: Vec<_> = (0..CONNECTIONS)
        .map(|number| {
            thread::spawn(move || {
                let mut asker = Asker::connect(http)?;
                let mut times = Vec::new();
                for scope in (0..SCOPES).cycle().skip(number) {
                    let asked = Instant::now();
                    if asked.duration_since(began) > COUNTED {
                        break;
                    }
                    let (status, body) = asker.resolve(&format!("figure-{scope}"))?;
                    if status != 200 {
                        return Err(io::Error::other(format!("/resolve: {status}: {body}")));
                    }
                    times.push(asked.elapsed());
                }
                Ok(times)
            })
        })
        .collect();
    let mut times = Vec::new();
    for asker in askers {
        let told = asker.join().map_err(|_| io::Error::other("a thread that asks panicked"))?;
        times.extend(told?);
    }
    let (spent, lasted) = ((control.cpu()? - cpu).as_secs_f64(), began.elapsed().as_secs_f64());
    times.sort_unstable();
    let p99 = times.get(times.len() * 99 / 100).copied().unwrap_or(Duration::MAX);
    let count = times.len() as f64;
    let how = format!(
        "{count} answers about {SCOPES} scopes over {CONNECTIONS} connections in {lasted:.1} s, \
         {:.0}/s by the clock, {spent:.1} s of CPU time of strait-control",
        count / lasted
    );
    Ok([
        CLUSTER_RESOLVES.measured(count / spent, &how),
        CLUSTER_RESOLVE_P99.measured(p99.as_secs_f64() * 1e3, how),
    ])
}
