//! The same store on SQLite, MariaDB and PostgreSQL, and the same statistics in Cassandra.

use std::collections::BTreeMap;

use serde_json::json;
use sqlx::Connection as _;
use sqlx::mysql::MySqlConnection;
use sqlx::postgres::PgConnection;
use sqlx::sqlite::SqliteConnection;
use strait_control::auth::{Application, Key, Material, PrivateKey, Secret};
use strait_control::events::event::{Event, Stay, Stream, What};
use strait_control::fault::Class;
use strait_control::store::{
    Applications, By, Cql, CqlAddress, Entry, Span, Step, Store, WantedEntries, WantedSessions,
    floor, month_of,
};

use crate::cassandra::Keyspace;
use crate::databases::Database;
use crate::redis::skip;

const MINUTE: i64 = 60_000;
const HOUR: i64 = 60 * MINUTE;
const DAY: i64 = 86_400_000;
/// A time near the end of a day and of a month: 2026-01-31 23:50 UTC.
const BEGAN: i64 = 1_769_903_400_000;
const EACH_MINUTE: Step = Step { from: BEGAN, length_ms: MINUTE };

#[tokio::test(flavor = "multi_thread")]
async fn sqlite_holds_what_it_is_given() {
    let folder = tempfile::tempdir().unwrap();
    holds(&format!("sqlite:{}/control.db", folder.path().display())).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn mariadb_holds_what_it_is_given() {
    let Some(database) = Database::mariadb("mariadb_holds_what_it_is_given") else { return };
    holds(&database.url).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn postgresql_holds_what_it_is_given() {
    let Some(database) = Database::postgres("postgresql_holds_what_it_is_given") else { return };
    holds(&database.url).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn cassandra_holds_what_it_is_given() {
    let Ok(address) = std::env::var("STRAIT_TEST_CQL") else {
        let reason = "STRAIT_TEST_CQL=HOST:PORT names no Cassandra or ScyllaDB";
        return skip("cassandra_holds_what_it_is_given", reason);
    };
    let keyspace = Keyspace::new(&address).await;
    holds_statistics(&keyspace).await;
    keyspace.drop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn mariadb_that_comes_later_is_found() {
    let Some(database) = Database::mariadb("mariadb_that_comes_later_is_found") else { return };
    is_found_later(&database.url, "socket=").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn postgresql_that_comes_later_is_found() {
    let Some(database) = Database::postgres("postgresql_that_comes_later_is_found") else { return };
    is_found_later(&database.url, "host=").await;
}

/// A server that is to be had by another path, which is not there yet.
async fn is_found_later(url: &str, parameter: &str) {
    let folder = tempfile::tempdir().unwrap();
    let (before, socket) = url.split_once(parameter).unwrap();
    let later = folder.path().join("later");
    let url = format!("{before}{parameter}{}", later.display());
    assert_eq!(Store::open(&url).await.err().unwrap().class, Class::Unavailable);
    let store = Store::find(&url).await.unwrap();
    assert!(!store.is_reachable().await);
    let (applications, records) = (store.applications(), store.records());
    assert_eq!(applications.add("acme", 0).await.unwrap_err().class, Class::Unavailable);
    assert_eq!(applications.list().await.unwrap_err().class, Class::Unavailable);
    let analytics = store.analytics();
    std::os::unix::fs::symlink(socket, &later).unwrap();
    let since = std::time::Instant::now();
    while !store.is_reachable().await {
        assert!(since.elapsed().as_secs() < 30, "not found");
        tokio::time::sleep(std::time::Duration::from_millis(50)).await;
    }
    // What was made before has it as well, with its tables.
    applications.add("acme", 0).await.unwrap();
    assert_eq!(applications.list().await.unwrap().len(), 1);
    assert!(
        records.forget(0).await.is_ok() && analytics.session("nobody", 0).await.unwrap().is_none()
    );
}

/// Events wait, and who asks is told so.
#[tokio::test(flavor = "multi_thread")]
async fn cassandra_that_is_away_is_told_of() {
    // Bound, and nobody listens: no other test gets it.
    let port = tokio::net::TcpSocket::new_v4().unwrap();
    port.bind("127.0.0.1:0".parse().unwrap()).unwrap();
    let url = format!("cql://{}/strait", port.local_addr().unwrap());
    let cql = Cql::new(CqlAddress::parse(&url).unwrap(), 1);
    let store = Store::open_in_memory().await.unwrap().with_statistics(cql);
    let event = event(0, What::SessionCreated);
    let fault = store.records().write(&[event]).await.unwrap_err();
    assert_eq!(fault.class, Class::Internal, "{fault}");
    let wanted = WantedSessions { count: 1, ..WantedSessions::default() };
    let fault = store.analytics().sessions(&wanted, BEGAN).await.unwrap_err();
    assert_eq!(fault.class, Class::Unavailable, "{fault}");
    assert!(fault.reason.contains("statistics.url"), "{fault}");
}

/// All that concerns statistics.
async fn holds_statistics(keyspace: &Keyspace) {
    let store = async |keep_seconds| {
        let address = CqlAddress::parse(&keyspace.url).unwrap();
        let store = Store::open_in_memory().await.unwrap();
        store.with_statistics(Cql::keeping(address, keep_seconds))
    };
    usage(&store(100_000).await).await;
    // What is over is added up, and what comes later is added to it; tables are there already.
    let later = store(100_000).await;
    later.records().add_up(BEGAN + DAY).await.unwrap();
    usage(&later).await;
    checks(&later).await;
    steps(&later).await;
    let brief = store(5).await;
    expires(&brief, keyspace).await;
    let say = format!("INSERT INTO {}.steps (part, step) VALUES ('all', 99)", keyspace.name);
    keyspace.session.query_unpaged(say, ()).await.unwrap();
    let fault = store(1).await.records().add_up(0).await.unwrap_err();
    assert!(fault.reason.contains("step 99, of a later release"), "{fault}");
}

/// What is old goes by itself; sums by hour and day stay.
async fn expires(store: &Store, keyspace: &Keyspace) {
    let application = "brief";
    let mut event = event(50, What::SessionCreated);
    event.application = application.into();
    event.session = "brief-1".into();
    let here = Event {
        what: What::Present { stays: vec![stay(50, BEGAN + 5 * MINUTE, false)] },
        ..event.clone()
    };
    let wanted = WantedSessions {
        application: Some(application.into()),
        count: 9,
        ..WantedSessions::default()
    };
    let span = Span { application: Some(application.into()), from: BEGAN - DAY, to: BEGAN + DAY };
    let end = std::time::Instant::now() + std::time::Duration::from_secs(60);
    let (month, hour) = (month_of(BEGAN), floor(BEGAN, 60 * MINUTE));
    let kept = format!(
        "SELECT usage FROM {}.totals WHERE application = '{application}' AND month_ms = {month}
         AND hour_ms = {hour}",
        keyspace.name
    );
    // A slow machine may be too late to add up what is there for seconds alone.
    loop {
        store.records().write(&[event.clone(), here.clone()]).await.unwrap();
        store.records().add_up(BEGAN + DAY).await.unwrap();
        let rows = keyspace.session.query_unpaged(kept.clone(), ()).await.unwrap();
        let rows = rows.into_rows_result().unwrap();
        let (sums,) = rows.first_row::<(Option<String>,)>().unwrap();
        if sums.is_some_and(|sums| sums.starts_with("[250000,1,1,")) {
            break;
        }
        assert!(std::time::Instant::now() < end, "it is never added up");
    }
    loop {
        let sessions = store.analytics().sessions(&wanted, BEGAN).await.unwrap();
        let minutes = store.sums().usage(&span, By::Unit("minute"), false).await.unwrap();
        let stays = store.analytics().stays("brief-1", 9).await.unwrap();
        if sessions.is_empty() && minutes.is_empty() && stays.is_empty() {
            break;
        }
        assert!(std::time::Instant::now() < end, "{sessions:?} {minutes:?} {stays:?}");
        tokio::time::sleep(std::time::Duration::from_millis(100)).await;
    }
    let months = store.sums().usage(&span, By::Month, false).await.unwrap();
    assert_eq!((months.len(), months[0].participant_seconds), (1, 250.0), "{months:?}");
}

async fn holds(url: &str) {
    let store = Store::open(url).await.unwrap();
    keys(&store).await;
    whole_or_not_at_all(&store, url).await;
    drop(store);
    // Tables that are there already.
    let store = Store::open(url).await.unwrap();
    assert!(store.is_reachable().await);
    let offset = store.clock_offset().await.unwrap();
    assert_eq!(offset.is_none(), url.starts_with("sqlite"));
    // On one machine.
    assert!(offset.unwrap_or_default().abs() < 1.0, "{offset:?}");
    assert_eq!(store.applications().list().await.unwrap(), ["Acme", "acme", "acme "]);
    usage(&store).await;
    over(&store).await;
    checks(&store).await;
    diagnostics(&store).await;
    forgets(&store).await;
    steps(&store).await;
    summed(&store).await;
}

async fn keys(store: &Store) {
    let applications = store.applications();
    for name in ["acme", "Acme", "acme "] {
        applications.add(name, 1).await.unwrap();
    }
    assert_eq!(applications.add("acme", 1).await.unwrap_err().class, Class::Conflict);
    let secret = Key::new("first", Material::Secret(Secret::random().unwrap()), 1);
    let pair = PrivateKey::random().unwrap().public().unwrap();
    let pair = Key::new("pair", Material::Es256(pair), 2);
    for key in [&pair, &secret] {
        applications.add_key("acme", key).await.unwrap();
    }
    assert_eq!(applications.add_key("acme", &pair).await.unwrap_err().class, Class::Conflict);
    assert_eq!(applications.add_key("none", &pair).await.unwrap_err().class, Class::NotFound);
    applications.set_changes_keys("acme", true).await.unwrap();
    // Setting what is set is no error.
    applications.set_changes_keys("acme", true).await.unwrap();
    applications.enable_key("acme", "pair", false).await.unwrap();
    let acme = applications.find("acme").await.unwrap().unwrap();
    assert_eq!(acme.keys, [secret, Key { is_enabled: false, ..pair }]);
    assert!(acme.changes_keys && !acme.concatenated);
    assert_eq!(applications.find("Acme").await.unwrap().unwrap().keys, [], "case counts");
    assert_eq!(applications.all().await.unwrap().len(), 3);
    pages(&applications).await;
    applications.remove_key("acme", "pair").await.unwrap();
    let gone = applications.remove_key("acme", "pair").await.unwrap_err();
    assert_eq!(gone.class, Class::NotFound);
}

/// Applications and their keys are read in pages.
async fn pages(applications: &Applications) {
    let all = applications.all().await.unwrap();
    let mut read = Vec::new();
    loop {
        let after = read.last().map_or("", |last: &Application| last.id.as_str());
        let page = applications.page(after, 2).await.unwrap();
        assert!(page.len() <= 2);
        if page.is_empty() {
            break;
        }
        read.extend(page);
    }
    assert_eq!(read, all);
    assert_eq!(all.iter().map(|each| each.keys.len()).sum::<usize>(), 2);
}

/// An application whose first key the store does not take is none.
async fn whole_or_not_at_all(store: &Store, url: &str) {
    let key = Key::new("first", Material::Secret(Secret::random().unwrap()), 1);
    let applications = store.applications();
    alter(url, "ALTER TABLE application_keys RENAME TO aside").await;
    assert!(applications.add_with("whole", &key).await.is_err());
    alter(url, "ALTER TABLE aside RENAME TO application_keys").await;
    assert_eq!(applications.find("whole").await.unwrap(), None);
    applications.add_with("whole", &key).await.unwrap();
    assert_eq!(applications.find("whole").await.unwrap().unwrap().keys, std::slice::from_ref(&key));
    assert_eq!(applications.add_with("whole", &key).await.unwrap_err().class, Class::Conflict);
    assert_eq!(applications.add_with("", &key).await.unwrap_err().class, Class::Malformed);
    applications.remove("whole").await.unwrap();
}

/// Changes a table behind the store's back.
async fn alter(url: &str, statement: &'static str) {
    match url.split(':').next().unwrap() {
        "mysql" => {
            let mut connection = MySqlConnection::connect(url).await.unwrap();
            sqlx::query(statement).execute(&mut connection).await.unwrap();
        }
        "postgres" => {
            let mut connection = PgConnection::connect(url).await.unwrap();
            sqlx::query(statement).execute(&mut connection).await.unwrap();
        }
        _ => {
            let mut connection = SqliteConnection::connect(url).await.unwrap();
            sqlx::query(statement).execute(&mut connection).await.unwrap();
        }
    }
}

/// A stay as it is told at `until`.
fn stay(number: i64, until: i64, left: bool) -> Stay {
    Stay {
        stay: format!("n.{number}"),
        peer: format!("p-{number}"),
        name: "Zoë 🎈".into(),
        user: format!("user-{number}"),
        client: "native".into(),
        joined: BEGAN + number * 1_000,
        until,
        left: left.then(|| "left".into()),
        bytes_in: u64::try_from(until - BEGAN).unwrap(),
        bytes_out: 0,
    }
}

fn event(session: i64, what: What) -> Event {
    Event {
        id: String::new(),
        at: BEGAN + 30 * MINUTE,
        node: "here".into(),
        application: format!("app-{}", session % 2),
        scope: "lobby".into(),
        session: format!("scope-{session}"),
        created: BEGAN,
        what,
    }
}

/// Twelve stays in four sessions, told again and again, out of order, by two at a time: the sums are
/// those of the stays.
async fn usage(store: &Store) {
    let ends = |number: i64| BEGAN + number * 1_000 + 1_234 + number * 97_000;
    let mut all = Vec::new();
    for number in 0..12 {
        let session = number % 4;
        all.push(event(session, What::SessionCreated));
        all.push(event(
            session,
            What::Joined { stay: stay(number, BEGAN + number * 1_000, false) },
        ));
        let mut at = BEGAN + number * 1_000;
        while at < ends(number) {
            all.push(event(session, What::Present { stays: vec![stay(number, at, false)] }));
            at += 10_000;
        }
        // One's end is never told: what was told of it last counts.
        if number == 5 {
            let last = vec![stay(number, ends(number), false)];
            all.push(event(session, What::Present { stays: last }));
        } else {
            all.push(event(session, What::Left { stay: stay(number, ends(number), true) }));
        }
        let stream = Stream {
            stay: format!("n.{number}"),
            seconds: 60.0,
            packets: 100,
            loss: Some(if number == 0 { 0.5 } else { 0.0 }),
            round_trip: (number == 1).then_some(0.1),
            ..Stream::default()
        };
        all.push(event(session, What::Quality { minute: BEGAN, streams: vec![stream] }));
    }
    all.extend((0..4).map(|session| event(session, What::SessionDisposed { hold: None })));
    // Another order, by a prime above the count.
    let shuffled: Vec<Event> =
        (0..all.len()).map(|n| all[(n * 10_007 + 3) % all.len()].clone()).collect();
    let write = async |events: Vec<Event>| {
        for events in events.chunks(25) {
            // A server may break a deadlock between two who write the same: as agents do, again.
            for attempt in 0.. {
                match store.records().write(events).await {
                    Ok(()) => break,
                    Err(fault) => assert!(attempt < 50, "{fault}"),
                }
            }
        }
    };
    let backwards: Vec<Event> = shuffled.iter().rev().cloned().collect();
    tokio::join!(write(shuffled.clone()), write(backwards), write(all));
    write(shuffled).await;

    let truth = |is_meant: &dyn Fn(i64) -> bool| {
        let meant = (0..12).filter(|number| is_meant(*number));
        meant.map(|number| ends(number) - (BEGAN + number * 1_000)).sum::<i64>()
    };
    let now = BEGAN + DAY;
    let analytics = store.analytics();
    let wanted = WantedSessions { count: 10, ..WantedSessions::default() };
    let sessions = analytics.sessions(&wanted, now).await.unwrap();
    assert_eq!(sessions.len(), 4);
    for session in &sessions {
        let number: i64 = session.session.trim_start_matches("scope-").parse().unwrap();
        let seconds = truth(&|stay| stay % 4 == number) as f64 / 1_000.0;
        assert_eq!((session.stays, session.participant_seconds), (3, seconds), "{session:?}");
        assert_eq!(session.ended_at, Some(BEGAN + 30 * MINUTE));
        let stays = analytics.stays(&session.session, 10).await.unwrap();
        let sum: f64 = stays.iter().map(|stay| stay.participant_seconds).sum();
        assert_eq!((sum * 1_000.0).round(), (seconds * 1_000.0).round());
        assert_eq!(stays[0].name, "Zoë 🎈");
        let streams = analytics.timeline(&session.session, EACH_MINUTE, 10).await.unwrap();
        assert_eq!(streams.len(), 3);
    }
    let of = |session: &str| sessions.iter().find(|each| each.session == session).unwrap();
    assert_eq!(of("scope-0").problems, ["loss_out"]);
    assert_eq!(
        of("scope-0").score,
        Some((30.0 + 200.0) / 3.0).map(|s: f64| (s * 1e4).round() / 1e4)
    );
    let lossy = WantedSessions { problems: Some(2), ..wanted.clone() };
    assert_eq!(analytics.sessions(&lossy, now).await.unwrap().len(), 1);
    let user = WantedSessions { user: Some("user-7".into()), ..wanted.clone() };
    assert_eq!(analytics.sessions(&user, now).await.unwrap()[0].session, "scope-3");
    let after = Some((BEGAN, "scope-2".to_owned()));
    let rest = WantedSessions { after, ..wanted.clone() };
    assert_eq!(analytics.sessions(&rest, now).await.unwrap().len(), 2);
    let live = WantedSessions { live: Some(true), ..wanted };
    assert_eq!(analytics.sessions(&live, now).await.unwrap(), []);

    // By every unit the same sum; the second day begins ten minutes later.
    let sums = store.sums();
    let span = Span { application: None, from: BEGAN - 40 * DAY, to: now };
    for by in [By::Unit("minute"), By::Unit("hour"), By::Unit("day"), By::Month] {
        let rows = sums.usage(&span, by, false).await.unwrap();
        let seconds: f64 = rows.iter().map(|row| row.participant_seconds).sum();
        assert!((seconds - truth(&|_| true) as f64 / 1_000.0).abs() < 1e-6, "{by:?}: {rows:?}");
        assert_eq!(rows.iter().map(|row| row.stays).sum::<i64>(), 12);
        assert_eq!(rows.iter().map(|row| row.sessions).sum::<i64>(), 4);
        let bytes: i64 = (0..12).map(|number| ends(number) - BEGAN).sum();
        assert_eq!(rows.iter().map(|row| row.bytes_in).sum::<i64>(), bytes);
    }
    let midnight = BEGAN + 10 * MINUTE;
    let before: i64 =
        (0..12).map(|number| (ends(number).min(midnight) - (BEGAN + number * 1_000)).max(0)).sum();
    let months = sums.usage(&span, By::Month, false).await.unwrap();
    assert_eq!(months.len(), 2);
    assert_eq!(months[0].participant_seconds, before as f64 / 1_000.0);
    let each = sums.usage(&span, By::Unit("day"), true).await.unwrap();
    let of_one: f64 = each
        .iter()
        .filter(|row| row.application.as_deref() == Some("app-1"))
        .map(|row| row.participant_seconds)
        .sum();
    assert_eq!((of_one * 1_000.0).round(), truth(&|stay| stay % 2 == 1) as f64);
    let quality = sums.quality(&span, "hour").await.unwrap();
    let problems = BTreeMap::from([("loss_out", 1)]);
    assert_eq!((quality.len(), quality[0].measured), (1, 12));
    assert_eq!(quality[0].problems["loss_out"], problems["loss_out"]);
    assert_eq!(
        (quality[0].loss_fraction, quality[0].round_trip_seconds),
        (Some(0.0417), Some(0.1))
    );
    let (measured, troubles) = sums.problems(&span).await.unwrap();
    assert_eq!((measured, troubles[0].sessions.as_slice()), (12, &["scope-0".to_owned()][..]));
}

/// Two who were there for 100 s, of which one is told of as if they were there still: before the end
/// is told, and after it.
async fn over(store: &Store) {
    let told = |number: i64, seconds: i64, is_over: bool| {
        let stay = Stay { joined: BEGAN, ..stay(number, BEGAN + seconds * 1_000, is_over) };
        let what = match is_over {
            true => What::Left { stay },
            false => What::Present { stays: vec![stay] },
        };
        Event { application: "over".into(), ..event(number, what) }
    };
    let orders = [
        (70, [(30, false), (300, false), (100, true)]),
        (71, [(30, false), (100, true), (300, false)]),
    ];
    for (number, tellings) in orders {
        for (seconds, is_over) in tellings {
            store.records().write(&[told(number, seconds, is_over)]).await.unwrap();
        }
        let stays = store.analytics().stays(&format!("scope-{number}"), 9).await.unwrap();
        assert_eq!((stays.len(), stays[0].participant_seconds), (1, 100.0), "{stays:?}");
    }
    let span = Span { application: Some("over".into()), from: BEGAN - HOUR, to: BEGAN + HOUR };
    let minutes = store.sums().usage(&span, By::Unit("minute"), false).await.unwrap();
    let seconds: Vec<f64> = minutes.iter().map(|row| row.participant_seconds).collect();
    let seconds: Vec<f64> = seconds.into_iter().filter(|seconds| *seconds != 0.0).collect();
    assert_eq!(seconds, [120.0, 80.0], "as if nothing else had been told");
}

/// Ten minutes of one node, of which one failed by a probe and two were told by nobody.
async fn checks(store: &Store) {
    let checked = |minute: i64, is_well: bool| {
        let what =
            What::Checked { minute: BEGAN + minute * MINUTE, is_well, reason: "relay".into() };
        let mut event = event(0, what);
        (event.application, event.session) = Default::default();
        event
    };
    let events: Vec<Event> = [0, 1, 2, 3, 6, 7, 8, 9].map(|minute| checked(minute, true)).into();
    store.records().write(&events).await.unwrap();
    store.records().write(&events).await.unwrap();
    let checks = store.checks();
    for failed in [Some("no media"), None] {
        checks.probed("probe", BEGAN + 2 * MINUTE + 7, failed).await.unwrap();
    }
    let told = checks.availability(BEGAN - DAY, BEGAN + 10 * MINUTE).await.unwrap();
    assert_eq!((told.minutes, told.minutes_down), (10, 3), "{told:?}");
    assert_eq!((told.availability, told.spent_seconds), (Some(0.7), 180.0));
    assert_eq!(told.incidents.len(), 2);
    assert_eq!(told.incidents[1].reason, "no media");
    assert_eq!((told.nodes[0].minutes, told.nodes[0].minutes_down), (10, 2));
}

/// Three days, of which the first is summed up once the third is over; what comes late still counts.
async fn summed(store: &Store) {
    let begin = BEGAN - BEGAN % DAY - 400 * DAY;
    let checked = |minute: i64, is_well: bool| {
        let what =
            What::Checked { minute: begin + minute * MINUTE, is_well, reason: "relay".into() };
        let mut event = event(0, what);
        (event.application, event.session) = Default::default();
        event
    };
    let all: Vec<Event> = (0..4_320)
        .filter(|minute| ![100, 101, 102, 1_500].contains(minute))
        .map(|minute| checked(minute, !(700..709).contains(&minute)))
        .collect();
    for events in all.chunks(500) {
        store.records().write(events).await.unwrap();
    }
    let checks = store.checks();
    let end = begin + 3 * DAY;
    let told = async || checks.availability(begin - DAY / 2, end).await.unwrap();
    let before = told().await;
    assert_eq!((before.minutes, before.minutes_down), (4_320, 3 + 9 + 1), "{before:?}");
    assert_eq!((before.incidents.len(), before.days.len()), (3, 3));
    assert_eq!((before.nodes[0].minutes, before.nodes[0].minutes_down), (4_320, 13));
    checks.sum_days(end).await.unwrap();
    assert_eq!(told().await, before, "the sums say the same");
    store.records().write(&[checked(101, true)]).await.unwrap();
    let late = told().await;
    assert_eq!((late.minutes_down, late.incidents.len()), (12, 4), "{late:?}");
    checks.sum_days(end).await.unwrap();
    assert_eq!(told().await, late);
    // The sums outlive the minutes.
    let records = store.records();
    assert!(!records.forget(begin + 2 * DAY).await.unwrap());
    assert_eq!(told().await, late);
    // Also where one of these comes later still.
    records.write(&[checked(1_500, true)]).await.unwrap();
    assert_eq!(told().await, late);
}

/// A stream of an hour with one bad minute is told in points of twelve minutes.
async fn steps(store: &Store) {
    let stream = |minute: i64| Stream {
        stay: "n.99".into(),
        stream: "camera".into(),
        seconds: 60.0,
        packets: 100,
        bytes: if minute == 31 { 0 } else { 750_000 },
        loss: Some(if minute == 31 { 0.5 } else { 0.0 }),
        round_trip: (minute >= 24).then_some(0.1),
        ..Stream::default()
    };
    let began = BEGAN - DAY;
    let mut all = vec![event(99, What::Left { stay: stay(99, BEGAN + HOUR, true) })];
    all.extend((0..60).map(|minute| {
        event(99, What::Quality { minute: began + minute * MINUTE, streams: vec![stream(minute)] })
    }));
    store.records().write(&all).await.unwrap();
    let analytics = store.analytics();
    let step = Step::new(began + 17_000, began + HOUR - MINUTE, Some(5));
    assert_eq!(step, Step { from: began, length_ms: 12 * MINUTE });
    let streams = analytics.timeline("scope-99", step, 100).await.unwrap();
    let points = &streams[0].points;
    let at: Vec<i64> = points.iter().map(|point| (point.at - began) / MINUTE).collect();
    assert_eq!(at, [0, 12, 24, 36, 48]);
    let bad = &points[2];
    assert_eq!((bad.seconds, bad.packets, bad.bytes), (720.0, 1_200, 11 * 750_000));
    assert_eq!(bad.problems, ["loss_in"]);
    assert!((bad.loss_fraction.unwrap() - 0.5 / 12.0).abs() < 1e-9, "{bad:?}");
    let worst = bad.worst.as_ref().unwrap();
    assert_eq!((worst.loss_fraction, worst.score), (Some(0.5), 30.0));
    assert_eq!((worst.bits_per_second, worst.jitter_seconds), (Some(0.0), None));
    assert_eq!(points[1].problems, [""; 0]);
    assert_eq!(points[1].worst.as_ref().unwrap().bits_per_second, Some(100_000.0));
    assert_eq!(points[1].round_trip_seconds, None);
    assert!((points[3].round_trip_seconds.unwrap() - 0.1).abs() < 1e-9, "{:?}", points[3]);
    let all = analytics.timeline("scope-99", Step::new(began, BEGAN, None), 100).await.unwrap();
    assert_eq!((all[0].points.len(), &all[0].points[31].worst), (60, &None));
    assert_eq!(analytics.timeline("scope-99", step, 3).await.unwrap()[0].points.len(), 3);
}

async fn diagnostics(store: &Store) {
    let diagnostics = store.diagnostics();
    for number in 0..3 {
        let entry = Entry {
            id: format!("d-{number}"),
            kind: "logs".into(),
            application: "acme".into(),
            scope: Some("lobby".into()),
            session: None,
            peer: None,
            user: "ann".into(),
            address: "2001:db8::1".into(),
            at: BEGAN + number,
            bytes: 9,
        };
        let body = json!({ "text": "ü\u{0}".repeat(30_000), "number": number }).to_string();
        diagnostics.add(&entry, &body).await.unwrap();
    }
    let wanted =
        WantedEntries { count: 2, scope: Some("lobby".into()), ..WantedEntries::default() };
    let list = diagnostics.list(&wanted).await.unwrap();
    assert_eq!(list.iter().map(|entry| entry.id.as_str()).collect::<Vec<_>>(), ["d-2", "d-1"]);
    let (entry, body) = diagnostics.find("d-1").await.unwrap().unwrap();
    assert_eq!((entry.session, &body["number"]), (None, &json!(1)));
    assert_eq!(diagnostics.find("d-9").await.unwrap(), None);
}

async fn forgets(store: &Store) {
    assert!(!store.records().forget(BEGAN + 2 * DAY).await.unwrap());
    let wanted = WantedSessions { count: 9, ..WantedSessions::default() };
    assert_eq!(store.analytics().sessions(&wanted, BEGAN).await.unwrap(), []);
    assert_eq!(store.analytics().stays("scope-0", 9).await.unwrap(), []);
    let span = Span { application: None, from: BEGAN - 40 * DAY, to: BEGAN + DAY };
    assert_eq!(store.sums().usage(&span, By::Unit("hour"), false).await.unwrap(), []);
    assert_eq!(store.sums().usage(&span, By::Month, false).await.unwrap().len(), 2, "days stay");
}
