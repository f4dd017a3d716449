//! `strait cluster up`: chooses, writes, starts, and says where everything is.

use std::fs::Permissions;
use std::io::{self, IsTerminal as _, Write as _};
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use strait_control::http::answer::encode_segment;
use tokio::signal::unix::{SignalKind, signal};

use super::layout::Layout;
use super::machine::{Machine, STOPPED};
use super::part;
use super::{Sql, Wanted, files};
use crate::dev::Programs;
use crate::fault::Fault;
use crate::state;

/// Does it. What was started ends again where a part does not start.
pub fn run(wanted: &Wanted, folder: &Path) -> Result<(), Fault> {
    if Machine::is_in(folder) {
        return Err(Fault::new(format!(
            "there is a cluster in {}; remedy: `strait cluster down`, or another folder with \
             --state-dir",
            folder.display()
        )));
    }
    // All of it goes when the cluster ends: nothing of others may be there.
    if std::fs::read_dir(folder).is_ok_and(|mut entries| entries.next().is_some()) {
        return Err(Fault::new(format!(
            "{} is not empty, and no cluster's folder; remedy: name a folder that is not there \
             with --state-dir",
            folder.display()
        )));
    }
    let programs = Programs::find(wanted.bin_dir.as_deref())?;
    let folder = state::make(folder)?;
    // It may have been there: passwords will be in it.
    std::fs::set_permissions(&folder, Permissions::from_mode(0o700))
        .map_err(|e| Fault::new(format!("cannot make {} private: {e}", folder.display())))?;
    state::socket(&folder.join("node-16"))?;
    let layout = Layout::choose(wanted, &folder, [programs.relay, programs.control]);
    let layout = layout.inspect_err(|_| {
        // Nothing is in it yet.
        let _others = std::fs::remove_dir(&folder);
    })?;
    let began = Instant::now();
    let stop = stopped()?;
    let mut machine = Machine::new(layout.clone())?;
    let started = start(&mut machine, &layout, &stop).map_err(|fault| {
        // Ctrl-C reaches the programs of MariaDB that make its tables, and they complain.
        match stop.load(Ordering::Relaxed) {
            true => Fault::new(STOPPED),
            false => fault,
        }
    });
    let outcome = started.and_then(|()| {
        print!("{}", welcome(&layout, began.elapsed().as_secs_f32()));
        // Who says so when nothing is waited for any more is heard as well.
        match stop.load(Ordering::Relaxed) {
            true => Err(Fault::new("stopped when all of it ran")),
            false => Ok(()),
        }
    });
    if outcome.is_err() {
        machine.down()?;
    }
    outcome
}

/// Turns true at Ctrl-C, or SIGTERM: half a cluster is of no use to anybody.
fn stopped() -> Result<Arc<AtomicBool>, Fault> {
    let fail = |e: io::Error| Fault::new(format!("cannot listen for signals: {e}"));
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.map_err(fail)?;
    let (mut interrupt, mut end) = {
        let _within = runtime.enter();
        (
            signal(SignalKind::interrupt()).map_err(fail)?,
            signal(SignalKind::terminate()).map_err(fail)?,
        )
    };
    let stop = Arc::new(AtomicBool::new(false));
    let told = Arc::clone(&stop);
    std::thread::spawn(move || {
        runtime.block_on(async {
            tokio::select! {
                _ = interrupt.recv() => {}
                _ = end.recv() => {}
            }
        });
        told.store(true, Ordering::Relaxed);
    });
    Ok(stop)
}

fn start(machine: &mut Machine, layout: &Layout, stop: &AtomicBool) -> Result<(), Fault> {
    if layout.sql == Sql::Mariadb {
        eprintln!("making the tables of MariaDB (some seconds)");
    }
    files::write(layout)?;
    let parts = part::all(layout);
    let is_screen = std::io::stderr().is_terminal();
    for (number, part) in (1..).zip(&parts) {
        let place = format!("[{number:2}/{}] {:14}", parts.len(), part.name);
        if is_screen {
            eprint!("{place} …");
            // It is a decoration: what cannot be written is not missed.
            let _decoration = std::io::stderr().flush();
        }
        let took = machine.start(part, stop).inspect_err(|_| eprintln!())?;
        let again = if is_screen { "\r" } else { "" };
        eprintln!("{again}{place} ready after {:.1} s", took.as_secs_f32());
    }
    files::certificates(layout)
}

fn welcome(layout: &Layout, seconds: f32) -> String {
    let strait = state::this_program();
    let mut text = format!("\n  The cluster runs (after {seconds:.1} s).\n\n");
    for node in &layout.nodes {
        let name = node.name();
        text += &format!("  {name:9} https://{}/   http://{}/\n", node.https(), node.http());
    }
    let Some(first) = layout.nodes.first() else { return text };
    let http = first.http();
    text += &format!(
        "
  Call        http://{http}/?token={token}   (each node redirects to the scope's own; an open
              page ends with its node, an SDK that has `resolvers` goes on with another)
  Where       curl 'http://{http}/resolve?applicationId=dev&scopeId=lobby'
  Dashboard   http://{http}/dashboard/   operator token: {operator}
  For clients {certificates}
  Logs        {folder}/*.log

  Next        {strait} cluster status
              {strait} cluster kill node-2       (then: start node-2)
              {strait} cluster kill redis-1a     (the master of a partition, at first)
              {strait} cluster drain node-3
              {strait} cluster down
",
        token = encode_segment(&layout.token),
        operator = layout.operator_token,
        certificates = layout.folder.join("certificates.pem").display(),
        folder = layout.folder.display(),
    );
    text
}
