//! What a process that is started again makes of notes that are not as it would like them.

use std::io::Write;
use std::time::{Duration, Instant};

use serde_json::Value;
use strait_control::auth::{Claims, Signer, mint};
use strait_control::events::Moment;
use strait_control::limits;
use strait_link::encode;
use strait_link::v1::{
    AllowSenders, Auth, Authenticated, ClientMessage, Kind, Leave, SetMuted, Subscribe,
    Unsubscribe, auth::Credential, client_message::Body as Request, server_message::Body,
};
use tonic::Status;

use crate::fake_relay::FakeRelay;
use crate::link::publish;
use crate::native::{Native, auth};
use crate::recall::{Process, again, noted, relay, voice};

type Key = (String, String);

fn series(process: &Process, series: &str) -> u64 {
    let url = format!("http://{}/metrics", process.server.http[0]);
    let text = process.runtime.block_on(async { reqwest::get(url).await?.text().await }).unwrap();
    let line = text.lines().find_map(|line| line.strip_prefix(series)?.strip_prefix(' '));
    line.unwrap_or_else(|| panic!("{series} in {text}")).parse().unwrap()
}

fn unrecalled(process: &Process, reason: &str) -> u64 {
    series(process, &format!("control_links_unrecalled_total{{reason=\"{reason}\"}}"))
}

/// Changes what a note says.
fn rewrite(relay: &FakeRelay, key: &Key, change: impl FnOnce(&mut Value)) {
    let mut state = relay.state.lock().unwrap();
    let note = state.notes.get_mut(key).unwrap();
    let mut said: Value = serde_json::from_slice(note).unwrap();
    change(&mut said[1]);
    *note = serde_json::to_vec(&said).unwrap();
}

fn note_of(relay: &FakeRelay, key: &Key) -> Value {
    serde_json::from_slice(&relay.state.lock().unwrap().notes[key]).unwrap()
}

/// Another scope of the same name, with the same peers and notes.
fn double(relay: &FakeRelay, scope: &str, other: &str) {
    let mut state = relay.state.lock().unwrap();
    let contents = state.scopes[scope].clone();
    state.scopes.insert(other.into(), contents);
    let notes: Vec<_> =
        state.notes.clone().into_iter().filter(|((of, _), _)| of == scope).collect();
    state.notes.extend(notes.into_iter().map(|((_, peer), note)| ((other.into(), peer), note)));
}

/// The note of the only native client of a scope.
fn of_peer(relay: &FakeRelay, scope: &str) -> Key {
    let state = relay.state.lock().unwrap();
    let mut notes = state.notes.keys().filter(|(of, peer)| of == scope && !peer.is_empty());
    let found = notes.next().unwrap().clone();
    assert_eq!(notes.next(), None);
    found
}

#[test]
fn of_two_scopes_of_one_name_the_later_one_goes_on() {
    // What the older one's note says, from the newer one's; and how the relay calls it.
    let fence_before = |memo: &mut Value| {
        memo["fence"] = (memo["fence"].as_u64().unwrap() - 1).into();
        // The clock was set back meanwhile.
        memo["created"] = (memo["created"].as_i64().unwrap() + 3_600_000).into();
    };
    let same_fence =
        |memo: &mut Value| memo["created"] = (memo["created"].as_i64().unwrap() - 1).into();
    let never_held = |memo: &mut Value| memo["fence"] = Value::Null;
    for make_older in [fence_before as fn(&mut Value), same_fence, never_held] {
        for other in ["dev/lobby#00000000", "dev/lobby#ffffffff"] {
            let folder = tempfile::tempdir().unwrap();
            let (relay, _running) = relay(&folder);
            let first = Process::start(folder.path());
            let (mut ann, at_ann) = first.join(auth("lobby", "Ann"));
            noted(&mut ann);
            let (newer, _) = relay.scope();
            let _first = first.kill();
            double(&relay, &newer, other);
            rewrite(&relay, &(other.into(), String::new()), make_older);
            rewrite(&relay, &of_peer(&relay, other), |memo| memo["session"] = "l-old".into());
            let fence = note_of(&relay, &(newer.clone(), String::new()))[1]["fence"].clone();

            let second = Process::start(folder.path());
            let (mut ann, again) = second.join(again(&at_ann, "Ann"));
            assert!(again.resumed, "{other}");
            assert_eq!(again.node_ice, at_ann.node_ice);
            noted(&mut ann);
            second.wait("the older one is given back", |_| {
                relay.state.lock().unwrap().scopes.len() == 1
            });
            assert_eq!(relay.scope().0, newer);
            assert_eq!(second.server.app.scopes.counts(), (1, 1));
            let kept = note_of(&relay, &(newer, String::new()));
            assert_eq!(kept[1]["fence"], fence, "held as it was, {other}");
            assert_eq!(unrecalled(&second, "older"), 1);
            ann.ask(Request::Leave(Leave::default())).unwrap();
            second.wait("its end reaches the relay", |_| relay.is_empty());
            let _second = second.kill();
        }
    }
}

#[test]
fn what_was_told_counts_where_the_relay_does_not_tell_all() {
    let folder = tempfile::tempdir().unwrap();
    let (relay, _running) = relay(&folder);
    let first = Process::start(folder.path());
    let (mut ann, at_ann) = first.join(auth("a lobby", "Ann"));
    let (mut bob, at_bob) = first.join(auth("b lobby", "Bob"));
    [&mut ann, &mut bob].into_iter().for_each(noted);
    let _first = first.kill();
    // That of the process, of Ann's scope, and hers.
    relay.state.lock().unwrap().notes_told_max = Some(3);
    let begun = Instant::now();
    let second = Process::start(folder.path());
    assert!(begun.elapsed() < 3 * limits::RECALL_TIME, "{:?}", begun.elapsed());
    let back = |session: &Authenticated, scope: &str| {
        let auth = Auth { session_id: session.session_id.clone(), ..auth(scope, "back") };
        second.join(auth).1.resumed
    };
    assert!(back(&at_ann, "a lobby"));
    assert!(!back(&at_bob, "b lobby"));
    assert_eq!(unrecalled(&second, "untold"), 1);
    let _second = second.kill();
}

#[test]
fn a_note_that_nobody_can_read_costs_its_own_session_alone() {
    let folder = tempfile::tempdir().unwrap();
    let (relay, _running) = relay(&folder);
    let first = Process::start(folder.path());
    let (mut ann, at_ann) = first.join(auth("lobby", "Ann"));
    let (mut bob, at_bob) = first.join(auth("lobby", "Bob"));
    // Of a scope whose note is lost.
    let (mut eve, at_eve) = first.join(auth("cellar", "Eve"));
    [&mut ann, &mut bob, &mut eve].into_iter().for_each(noted);
    let _first = first.kill();
    {
        let mut state = relay.state.lock().unwrap();
        for ((scope, peer), note) in &mut state.notes {
            if peer.starts_with(&at_bob.peer_id) {
                note.truncate(30);
            }
            if scope.starts_with("dev/cellar") && peer.is_empty() {
                note.clear();
            }
        }
    }
    let second = Process::start(folder.path());
    assert!(second.join(again(&at_ann, "Ann")).1.resumed);
    assert!(!second.join(again(&at_bob, "Bob")).1.resumed);
    let auth = Auth { session_id: at_eve.session_id, ..auth("cellar", "Eve") };
    assert!(!second.join(auth).1.resumed);
    assert_eq!(unrecalled(&second, "unreadable"), 2);
    let _second = second.kill();
}

#[test]
fn usage_is_not_counted_twice_by_a_second_kill() {
    let folder = tempfile::tempdir().unwrap();
    let (relay, _running) = relay(&folder);
    let first = Process::start(folder.path());
    let (mut ann, at_ann) = first.join(auth("lobby", "Ann"));
    noted(&mut ann);
    let note = note_of(&relay, &(relay.scope().0, String::new()));
    let session = note[1]["session"].as_str().unwrap().to_owned();
    let stays = |process: &Process| {
        let analytics = process.server.app.store.analytics();
        process.runtime.block_on(analytics.stays(&session, 10)).unwrap()
    };
    let _first = first.kill();
    // She does not come back to the second, which is killed when it has said whose stay begins.
    let second = Process::start(folder.path());
    second.wait("her second stay is known", |second| stays(second).len() == 2);
    let her_note = of_peer(&relay, &relay.scope().0);
    second.wait("and noted", |second| {
        let noted = note_of(&relay, &her_note)[1]["native"]["stay"]["stay"].clone();
        stays(second).last().is_some_and(|stay| noted == stay.stay.as_str())
    });
    let _second = second.kill();
    let third = Process::start(folder.path());
    let (mut ann, again) = third.join(again(&at_ann, "Ann"));
    assert!(again.resumed);
    ann.ask(Request::Leave(Leave::default())).unwrap();
    third.wait("all is told", |third| stays(third).iter().filter(|stay| stay.left).count() == 3);
    let stays = stays(&third);
    assert_eq!(stays.len(), 3, "{stays:?}");
    for pair in stays.windows(2) {
        assert!(pair[0].until <= pair[1].joined_at, "one after the other: {stays:?}");
    }
    let _third = third.kill();
}

/// What signs for an application.
fn credentials(process: &Process) -> impl Fn(Claims) -> Option<Credential> + use<> {
    let key = strait_control::auth::Secret::random().unwrap();
    let applications = process.server.app.store.applications();
    process.runtime.block_on(async {
        let material = strait_control::auth::Material::Secret(key.clone());
        applications.add("acme", 0).await.unwrap();
        let named = strait_control::auth::Key::new("first", material, 0);
        applications.add_key("acme", &named).await.unwrap();
    });
    move |claims| {
        Some(Credential::Token(mint(&claims, Some("first"), &Signer::Hs256(&key)).unwrap()))
    }
}

/// Ann and Bob in a scope of an application whose keys change.
fn with_changing_keys(
    first: &Process,
) -> impl Fn(&Process, &str, &str) -> (Native, Authenticated) + use<> {
    let credential = credentials(first);
    let applications = first.server.app.store.applications();
    first.runtime.block_on(applications.set_changes_keys("acme", true)).unwrap();
    move |process, name, session| {
        let credential = credential(Claims::new("acme", name, "lobby", 4_000_000_000));
        let session_id = session.to_owned();
        process.join(Auth { credential, session_id, ..auth("lobby", name) })
    }
}

#[test]
fn a_key_that_nobody_noted_locks_nobody_out() {
    let folder = tempfile::tempdir().unwrap();
    let (relay, _running) = relay(&folder);
    let first = Process::start(folder.path());
    let join = with_changing_keys(&first);
    let (mut ann, at_ann) = join(&first, "Ann", "");
    noted(&mut ann);
    let _first = first.kill();
    // The relay had got another one, of which the note was lost.
    {
        let mut state = relay.state.lock().unwrap();
        let scope = state.scopes.values_mut().next().unwrap();
        let mut other = scope.session_key.clone().unwrap();
        other.key[0] ^= 1;
        scope.key_before = scope.session_key.replace(other);
    }
    let second = Process::start(folder.path());
    let (_ann, again) = join(&second, "Ann", &at_ann.session_id);
    assert!(again.resumed);
    let (_bob, at_bob) = join(&second, "Bob", "");
    let held = relay.scope().1.session_key.unwrap().key;
    let told = [again.key, at_bob.key].map(|key| key.unwrap().key);
    assert_eq!(told, [held.clone(), held.clone()], "both have what the relay has");
    let [before, unnoted] = {
        let (_, scope) = relay.scope();
        [at_ann.key.unwrap().key, scope.key_before.unwrap().key]
    };
    assert!(![&before, &unnoted].contains(&&held), "one that nobody had: no nonce comes again");
    let _second = second.kill();
}

#[test]
fn a_key_that_was_noted_reaches_the_relay_though_the_process_was_killed_before() {
    let folder = tempfile::tempdir().unwrap();
    let (relay, _running) = relay(&folder);
    let first = Process::start(folder.path());
    let join = with_changing_keys(&first);
    let (mut ann, at_ann) = join(&first, "Ann", "");
    let (mut bob, _) = join(&first, "Bob", "");
    let (scope, _) = relay.scope();
    // Noted before the relay has it, so that the other way round never is.
    bob.ask(Request::Leave(Leave::default())).unwrap();
    let second_key = ann.key().key;
    let secret = |relay: &FakeRelay| {
        note_of(relay, &(scope.clone(), String::new()))[1]["key"]["secret"].clone()
    };
    let noted_key: Vec<u8> = serde_json::from_value(secret(&relay)).unwrap();
    assert!(noted_key.starts_with(&second_key));
    noted(&mut ann);
    let _first = first.kill();
    rewrite(&relay, &(scope.clone(), String::new()), |memo| {
        let first = memo["key"]["secret"][0].as_u64().unwrap();
        memo["key"]["secret"][0] = (first ^ 1).into();
    });
    let third_key: Vec<u8> = serde_json::from_value(secret(&relay)).unwrap();
    let second = Process::start(folder.path());
    let (_ann, again) = join(&second, "Ann", &at_ann.session_id);
    assert!(again.resumed);
    let told = again.key.unwrap().key;
    assert!(third_key.starts_with(&told) && told != second_key);
    assert_eq!(relay.scope().1.session_key.unwrap().key, told);
    let _second = second.kill();
}

#[test]
fn a_key_that_cannot_be_noted_is_told_to_nobody() {
    let folder = tempfile::tempdir().unwrap();
    let (relay, _running) = relay(&folder);
    let process = Process::start(folder.path());
    let join = with_changing_keys(&process);
    let (mut ann, at_ann) = join(&process, "Ann", "");
    let (mut bob, _) = join(&process, "Bob", "");
    let (mut eve, _) = join(&process, "Eve", "");
    let (scope, _) = relay.scope();
    let note = || relay.state.lock().unwrap().notes[&(scope.clone(), String::new())].clone();
    let noted_first = note();
    relay.state.lock().unwrap().refuse_notes = Some(Status::internal("it lost its thread"));
    bob.ask(Request::Leave(Leave::default())).unwrap();
    process.wait("it is tried again", |_| relay.state.lock().unwrap().notes_refused >= 2);
    assert_eq!(relay.scope().1.key_changes, [], "the next process would know the first one");
    assert_eq!(note(), noted_first);
    relay.state.lock().unwrap().refuse_notes = None;
    let second = ann.key().key;
    assert_ne!(second, at_ann.key.unwrap().key);
    assert_ne!(note(), noted_first);
    // Where there is no room, none of before is kept: nobody goes on with that.
    relay.state.lock().unwrap().refuse_notes = Some(Status::resource_exhausted("full"));
    eve.ask(Request::Leave(Leave::default())).unwrap();
    let third = ann.key().key;
    assert_ne!(third, second);
    assert_eq!(relay.scope().1.session_key.unwrap().key, third);
    assert!(note().is_empty());
    let _killed = process.kill();
}

#[test]
fn who_comes_back_is_noted_before_it_is_told() {
    let folder = tempfile::tempdir().unwrap();
    let (relay, _running) = relay(&folder);
    let first = Process::start(folder.path());
    let credential = credentials(&first);
    let grants = |admin| Auth {
        credential: credential(Claims {
            admin,
            ..Claims::new("acme", "Ann", "lobby", 4_000_000_000)
        }),
        ..auth("lobby", "Ann")
    };
    let (mut ann, at_ann) = first.join(grants(false));
    noted(&mut ann);
    let key = of_peer(&relay, &relay.scope().0);
    ann.cut();
    relay.state.lock().unwrap().hangs_at_notes = true;
    let mut ann = first.open();
    let again = Auth { session_id: at_ann.session_id.clone(), ..grants(true) };
    ann.request(Request::Auth(again));
    first.wait("she is being noted", |_| relay.state.lock().unwrap().notes_hung > 0);
    assert!(ann.is_silent(Duration::from_millis(300)), "told before it is kept");
    relay.state.lock().unwrap().hangs_at_notes = false;
    let Ok(Body::Authenticated(answer)) = ann.answer() else { panic!() };
    assert!(answer.resumed);
    assert_eq!(note_of(&relay, &key)[1]["native"]["identity"]["admin"], true);
    let _first = first.kill();
}

#[test]
fn what_happened_is_told_though_an_end_in_order_runs_out_of_time() {
    let folder = tempfile::tempdir().unwrap();
    let (relay, _running) = relay(&folder);
    let Process { runtime, server, .. } = {
        let process = Process::start(folder.path());
        let (mut ann, _) = process.join(auth("lobby", "Ann"));
        let publication_id = voice(&mut ann).publication_id;
        relay.state.lock().unwrap().hangs_at_notes = true;
        // In one piece, so that they are carried out one after the other, whatever else there is.
        let mut bytes = Vec::new();
        for muted in [true, false, true] {
            let set = SetMuted { publication_id: publication_id.clone(), muted };
            encode(&ClientMessage { request: 0, body: Some(Request::SetMuted(set)) }, &mut bytes);
        }
        ann.tls.write_all(&bytes).unwrap();
        process.wait("she is being noted", |_| relay.state.lock().unwrap().notes_hung > 0);
        process
    };
    let note = note_of(&relay, &(relay.scope().0, String::new()));
    let session = note[1]["session"].as_str().unwrap();
    let app = server.app.clone();
    let began = app.notary.now();
    runtime.block_on(server.pause());
    assert_eq!(app.links.left(), 0, "she is noted again and again, which takes as long each time");
    let stays = runtime.block_on(app.store.analytics().stays(session, 10)).unwrap();
    assert!(stays[0].until >= began + 5_000, "{stays:?}, from {began}");
    runtime.shutdown_background();
}

#[test]
fn what_is_noted_already_is_not_noted_again() {
    let folder = tempfile::tempdir().unwrap();
    let (relay, _running) = relay(&folder);
    let process = Process::start(folder.path());
    let (mut ann, _) = process.join(auth("lobby", "Ann"));
    noted(&mut ann);
    let taken = || relay.state.lock().unwrap().notes_taken;
    let before = taken();
    for number in 0..100 {
        let none = Unsubscribe { subscription_id: format!("none-{number}") };
        assert!(ann.ask(Request::Unsubscribe(none)).is_err());
    }
    // As it is told every ten seconds how long she is there.
    let now = Moment::now();
    let later = Moment { even: now.even + Duration::from_secs(10), ..now };
    process.server.app.notary.tell_presence(later);
    noted(&mut ann);
    assert_eq!(taken(), before);
    let voice = voice(&mut ann);
    let before = taken();
    for muted in [true, false, true] {
        let publication_id = voice.publication_id.clone();
        ann.ask(Request::SetMuted(SetMuted { publication_id, muted })).unwrap();
    }
    noted(&mut ann);
    assert_eq!(taken(), before + 3, "what is another is noted");
    process.server.app.notary.tell_presence(Moment::now());
    let _paused = process.pause();
    assert_eq!(taken(), before + 4, "nor at an end in order, but for the process that it was one");
}

#[test]
fn lists_that_are_too_long_are_noted_with_those_who_are_there() {
    let folder = tempfile::tempdir().unwrap();
    let (relay, _running) = relay(&folder);
    let first = Process::start(folder.path());
    let (mut ann, at_ann) = first.join(auth("lobby", "Ann"));
    let (mut bob, at_bob) = first.join(auth("lobby", "Bob"));
    let (mut eve, at_eve) = first.join(auth("lobby", "Eve"));
    let (of_bob, of_eve) = (voice(&mut bob).publication_id, voice(&mut eve).publication_id);
    // Names that take six bytes each where they are noted; none of them is anybody's.
    let strangers = (0..999).map(|number| format!("{number:03}{}", "\u{1}".repeat(125)));
    let peers: Vec<_> = strangers.chain([at_bob.peer_id.clone()]).collect();
    for kind in [Kind::Audio, Kind::Video] {
        let (peer_ids, kind) = (peers.clone(), kind.into());
        let allow = AllowSenders { kind, peer_ids, ..AllowSenders::default() };
        ann.ask(Request::AllowSenders(allow)).unwrap();
    }
    assert_eq!(series(&first, "control_link_notes_cut_total"), 2);
    let longest = relay.state.lock().unwrap().notes.values().map(Vec::len).max().unwrap();
    assert!((1000..limits::MEMO_BYTES).contains(&longest), "{longest}");
    let _first = first.kill();
    let second = Process::start(folder.path());
    let (mut ann, ann_again) = second.join(again(&at_ann, "Ann"));
    assert!(ann_again.resumed);
    for (session, name) in [(&at_bob, "Bob"), (&at_eve, "Eve")] {
        assert!(second.join(again(session, name)).1.resumed);
    }
    let mut hears = |publication_id: &String| {
        let publication_id = publication_id.clone();
        ann.ask(Request::Subscribe(Subscribe { publication_id, ..Subscribe::default() })).is_ok()
    };
    assert!(hears(&of_bob), "he is in the list, and was in the scope");
    assert!(!hears(&of_eve), "a list that is cut is still a list");
    let _second = second.kill();
}

#[test]
fn a_node_of_a_thousand_sessions_is_back_within_seconds() {
    back(200, 5);
}

#[test]
#[ignore = "a measurement: wants a quiet machine"]
fn a_node_of_10_000_sessions_is_back_within_seconds() {
    back(2_000, 5);
}

/// Prints how long it takes.
fn back(scopes: usize, peers: usize) {
    let folder = tempfile::tempdir().unwrap();
    let (relay, _running) = relay(&folder);
    let first = Process::start(folder.path());
    let (mut ann, at_ann) = first.join(auth("lobby", "Ann"));
    ann.ask(Request::Publish(publish(Kind::Audio, "opus"))).unwrap();
    let _first = first.kill();
    many(&relay, scopes, peers);
    let before = relay.state.lock().unwrap().notes_taken;
    let start = Instant::now();
    let second = Process::start_with(folder.path(), |config| {
        (config.limits.links, config.limits.sessions_per_address) = (usize::MAX, usize::MAX);
        config.link.reconnect_seconds = 60;
    });
    let started = start.elapsed();
    assert_eq!(second.server.app.scopes.counts(), (scopes + 1, scopes * peers + 1));
    let (_ann, ann_again) = second.join(again(&at_ann, "Ann"));
    assert!(ann_again.resumed);
    let resumed = start.elapsed();
    let all = u32::try_from(scopes + 1 + scopes * peers + 1).unwrap();
    second.wait("all are noted again", |_| relay.state.lock().unwrap().notes_taken >= before + all);
    let (noted, sessions) = (start.elapsed(), scopes * peers + 1);
    println!("{sessions} sessions: started in {started:?}, one back in {resumed:?}, all {noted:?}");
    // As long as clients try at least.
    assert!(resumed < 2 * limits::RECALL_TIME, "{resumed:?}");
    let _second = second.kill();
}

/// As many scopes more as the only one, each with as many clients more as its only one.
fn many(relay: &FakeRelay, scopes: usize, peers: usize) {
    let (one, contents) = relay.scope();
    let of_peer = of_peer(relay, &one);
    let of_scope = note_of(relay, &(one, String::new()));
    let note = note_of(relay, &of_peer);
    let mut state = relay.state.lock().unwrap();
    for scope in 0..scopes {
        let relay_id = format!("dev/room-{scope}#00000000");
        let mut memo = of_scope.clone();
        memo[1]["scope"] = format!("room-{scope}").into();
        memo[1]["session"] = format!("scope-{scope}").into();
        state.notes.insert((relay_id.clone(), String::new()), serde_json::to_vec(&memo).unwrap());
        let mut contents = contents.clone();
        let request = contents.peers.pop_first().unwrap().1;
        for peer in 0..peers {
            let (peer_id, mut memo) = (format!("p-{scope}-{peer}"), note.clone());
            let native = &mut memo[1]["native"];
            native["peer"] = peer_id.clone().into();
            native["stay"]["peer"] = peer_id.clone().into();
            let relay_peer = format!("{peer_id}.{}", scope * peers + peer + 10);
            native["relay_peer"] = relay_peer.clone().into();
            native["publications"][0][0]["publication"] = format!("pub-{scope}-{peer}").into();
            memo[1]["session"] = format!("l-{scope}-{peer}").into();
            let key = (relay_id.clone(), relay_peer.clone());
            state.notes.insert(key, serde_json::to_vec(&memo).unwrap());
            contents.peers.insert(relay_peer, request.clone());
        }
        state.scopes.insert(relay_id, contents);
    }
}
