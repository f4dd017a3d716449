//! How soon who joins sees a picture, and how often the publisher is asked for it.

use std::time::Duration;

use strait_lab::link::Conditions;

use super::call::{Call, Plan};
use super::viewer::Viewer;
use crate::figure::{Figure, JOINER_PICTURE, KEY_FRAME_REQUESTS};

const JOINERS: u64 = 50;
/// Beside who joins, so that the camera is not new.
const BEGIN: Duration = Duration::from_secs(5);
const WITHIN: Duration = Duration::from_secs(1);
const DELAY: Duration = Duration::from_millis(20);

/// Both rows.
pub fn measure() -> Vec<Figure> {
    eprintln!("==> {JOINERS} joiners in a second");
    match trial() {
        Ok(figures) => figures,
        Err(why) => vec![JOINER_PICTURE.missed(&why), KEY_FRAME_REQUESTS.missed(why)],
    }
}

fn trial() -> Result<Vec<Figure>, String> {
    let line = vec![(Duration::ZERO, Conditions { delay: DELAY, ..Conditions::CLEAR })];
    let mut call = Call::new(&Plan { cameras: vec![[0.15e6, 0.5e6, 1.5e6]], sound: false });
    call.join(|path| Viewer::new(path, &line, &line, 0));
    call.run(BEGIN, |_| {})?;
    let before = call.requests.len();
    for n in 0..JOINERS {
        call.run(BEGIN + WITHIN * n as u32 / JOINERS as u32, |_| {})?;
        call.join(|path| Viewer::new(path, &line, &line, n));
    }
    call.run(BEGIN + 4 * WITHIN, |_| {})?;
    let mut waits = Vec::new();
    for viewer in call.viewers.iter().skip(1) {
        let first = viewer.pictures.values().min().ok_or("somebody sees no picture")?;
        // One way of the line's round trip is in it: the other brings the wish, which is the command here.
        waits.push((*first - viewer.joined).saturating_sub(DELAY).as_secs_f64() * 1e3);
    }
    waits.sort_by(f64::total_cmp);
    let median = waits.get(waits.len() / 2).copied().unwrap_or(f64::NAN);
    let worst = waits.last().copied().unwrap_or(f64::NAN);
    let requests = call.requests.get(before..).unwrap_or_default();
    let mut most = 0;
    for (at, ssrc) in requests {
        let same = requests.iter().filter(|(other, of)| of == ssrc && other >= at);
        most = most.max(same.filter(|(other, _)| *other < *at + WITHIN / 2).count());
    }
    let how = format!(
        "from the command until a whole key frame is there, less the line's round trip; the last of {JOINERS} within a \
         second, median {median:.1}"
    );
    let asked = format!("within any half second, for each encoding; {} in all", requests.len());
    Ok(vec![JOINER_PICTURE.measured(worst, how), KEY_FRAME_REQUESTS.measured(most as f64, asked)])
}
