//! Fills a store with made-up sessions, for tests of what shows them: `seed STORE_URL COUNT`.
//!
//! They are of the last 30 days, of the applications `app-0` to `app-4`; the newest last, and one of
//! those lasts for hours with twelve peers. A tenth of the names would be elements, were they taken for HTML.
use std::error::Error;
use std::time::{Duration, SystemTime};

use strait_control::events::event::{Event, Stay, Stream, What};
use strait_control::store::Store;

const MINUTE_MS: i64 = 60_000;
const DAY_MS: i64 = 86_400_000;
/// How many of the sessions last; for the store they do for ten minutes from now on.
const LIVE: i64 = 60;
const HOSTILE: &str = r#"<img src=x onerror="globalThis.hacked=1">"#;
/// Events of one transaction.
const AT_ONCE: usize = 2_000;

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn Error>> {
    let mut arguments = std::env::args().skip(1);
    let (Some(url), Some(count)) = (arguments.next(), arguments.next()) else {
        return Err("seed STORE_URL COUNT".into());
    };
    let count: i64 = count.parse()?;
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
    let now = i64::try_from(since.unwrap_or(Duration::ZERO).as_millis())?;
    let records = Store::open(&url).await?.records();
    let mut events = checks(now);
    for number in 0..count {
        session(&mut events, number, count, now);
        if events.len() >= AT_ONCE || number + 1 == count {
            records.write(&events).await?;
            events.clear();
        }
    }
    Ok(())
}

/// Whether the node was well in each minute of two days: once it was not, for nine of them.
fn checks(now: i64) -> Vec<Event> {
    let first = (now - 2 * DAY_MS) / MINUTE_MS;
    let check = |number: i64| {
        let is_well = !(700..709).contains(&number);
        let reason = if is_well { "" } else { "the relay does not answer" };
        let minute = (first + number) * MINUTE_MS;
        let what = What::Checked { minute, is_well, reason: reason.into() };
        Event {
            id: format!("seed.check.{number}"),
            at: minute,
            node: "node-0".into(),
            application: String::new(),
            scope: String::new(),
            session: String::new(),
            created: 0,
            what,
        }
    };
    (0..2 * 1_440).map(check).collect()
}

fn session(events: &mut Vec<Event>, number: i64, count: i64, now: i64) {
    let is_live = number + LIVE >= count;
    let is_long = number + 1 == count;
    let began = match is_long {
        true => now - 6 * 60 * MINUTE_MS,
        false => now - 20 * MINUTE_MS - (count - number) * (29 * DAY_MS / count),
    };
    let peers = if is_long { 12 } else { 2 + number % 3 };
    let until = if is_live { now + 10 * MINUTE_MS } else { began + (2 + number % 9) * MINUTE_MS };
    let name = |text: String, of: i64| if of % 10 == 0 { format!("{HOSTILE}{of}") } else { text };
    let mut add = |part: i64, what| {
        events.push(Event {
            id: format!("seed.{number}.{part}"),
            at: began,
            node: format!("node-{}", number % 3),
            application: format!("app-{}", number % 5),
            scope: name(format!("room-{}", number % 400), number % 400),
            session: format!("seed-{number:06}"),
            created: began,
            what,
        });
    };
    add(0, What::SessionCreated);
    for peer in 0..peers {
        let stay = Stay {
            stay: format!("seed.{number}.{peer}"),
            peer: format!("peer-{peer}"),
            name: name(format!("Peer {peer}"), peer),
            user: format!("user-{}", number % 1_000),
            client: if peer % 2 == 0 { "conference" } else { "native" }.into(),
            joined: began + peer * MINUTE_MS / 2,
            until: until - if is_live { 0 } else { peer * 10_000 },
            left: (!is_live).then(|| "left".into()),
            bytes_in: 5_000_000,
            bytes_out: 20_000_000,
        };
        add(1 + peer, if is_live { What::Joined { stay } } else { What::Left { stay } });
    }
    let minutes = if is_long { 360 } else { 2 };
    for minute in 0..minutes {
        let streams = (0..peers)
            .flat_map(|peer| ["camera", ""].map(|name| stream(number, peer, minute, name)))
            .collect();
        let minute_ms = (began / MINUTE_MS + minute) * MINUTE_MS;
        add(100 + minute, What::Quality { minute: minute_ms, streams });
    }
    if !is_live {
        add(99, What::SessionDisposed { hold: None });
    }
}

fn stream(number: i64, peer: i64, minute: i64, name: &str) -> Stream {
    let turn = (minute + peer) as f64 / 9.0;
    let bad = if number % 7 == 0 { 0.05 } else { 0.001 };
    Stream {
        stay: format!("seed.{number}.{peer}"),
        stream: name.into(),
        seconds: 60.0,
        packets: 6_000,
        bytes: (7_000_000.0 + 500_000.0 * turn.sin()) as u64,
        loss: Some(bad * (1.0 + 0.5 * turn.cos())),
        round_trip: Some(0.04 + 0.01 * turn.sin()),
        jitter: Some(0.004),
        queue_delay: Some(0.02 + 0.01 * turn.cos()),
        frozen: if number % 11 == 0 { 2.0 } else { 0.0 },
        ..Stream::default()
    }
}
