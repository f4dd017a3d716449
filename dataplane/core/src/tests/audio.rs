//! Who speaks, who dominates, and the loudest of many.

use crate::command::{
    Command, CommandError, Event, Kind, PeerId, PublicationId, ScopeId, SubscriptionId, WorkerId,
};
use crate::drop::DropReason;
use crate::limits::AUDIO_STREAMS_MAX;
use crate::testing::{
    Bench, Client, IDS, OPUS, SCOPE, codecs, encoding, ms, packet, path, publish, read,
};
use strait_wire::ext::AudioLevel;

/// Levels in dB below overload.
const LOUD: u8 = 25;
const SOFT: u8 = 45;
const QUIET: u8 = 80;

/// People with microphones, publications 1 to N, and the last peer, who listens to them all.
struct Room {
    bench: Bench,
    people: Vec<Client>,
    listener: Client,
    packets: u16,
    /// What each tick's packets became for the listener: publication and sequence number.
    heard: Vec<(u32, u16)>,
}

impl Room {
    fn new(people: u32) -> Self {
        let mut bench = Bench::new();
        let people: Vec<Client> = (1..=people)
            .map(|id| {
                let client = Client::connected(&mut bench, id);
                client.publish(&mut bench, id, Kind::Audio, &[encoding(10 * id)]);
                client
            })
            .collect();
        let listener = Client::connected(&mut bench, 50);
        for id in 1..=people.len() as u32 {
            listener.subscribe(&mut bench, id, Kind::Audio, Some(id));
        }
        bench.sent();
        bench.events();
        Self { bench, people, listener, packets: 0, heard: Vec::new() }
    }

    fn limited(people: u32, streams_max: usize) -> Self {
        let mut room = Self::new(people);
        room.bench.command(Command::LimitAudio { scope: SCOPE, streams_max });
        room
    }

    /// A packet of each with a level; who has none sends nothing. 20 ms later.
    fn tick(&mut self, levels: &[Option<u8>]) {
        self.packets += 1;
        if self.packets.is_multiple_of(500) {
            // Consent.
            let all = self.people.iter_mut().chain([&mut self.listener]);
            all.for_each(|client| client.check(&mut self.bench));
        }
        for (id, (person, level)) in (1_u32..).zip(self.people.iter_mut().zip(levels)) {
            if let Some(level) = level {
                person.send(&mut self.bench, &sound(10 * id, self.packets, *level));
            }
        }
        let sent = self.bench.sent();
        let (media, _) = self.listener.open(&sent);
        let heard = media.iter().map(|bytes| read(bytes));
        self.heard.extend(heard.map(|packet| (packet.ssrc() - 1000, packet.seq())));
        self.bench.run(ms(20));
    }

    /// So long with the same levels; what was told, and after how long.
    fn go(&mut self, for_ms: u64, levels: &[Option<u8>]) -> Vec<(u64, Event)> {
        self.heard.clear();
        let mut told = Vec::new();
        for at in (0..for_ms).step_by(20) {
            self.tick(levels);
            told.extend(self.bench.events().into_iter().map(|event| (at + 20, event)));
        }
        told.retain(|(_, event)| !matches!(event, Event::PublicationStarted { .. }));
        told
    }

    /// Whose packets the listener got, each once.
    fn heard(&self) -> Vec<u32> {
        let mut heard: Vec<u32> = self.heard.iter().map(|(id, _)| *id).collect();
        heard.sort_unstable();
        heard.dedup();
        heard
    }
}

fn sound(ssrc: u32, seq: u16, below_overload_db: u8) -> Vec<u8> {
    let level = AudioLevel { voice: true, below_overload_db }.bytes();
    let extensions: [(u8, &[u8]); 2] =
        [(IDS.audio_level, &level), (IDS.mid, &[b'0' + (ssrc / 10) as u8])];
    packet((ssrc, OPUS, seq, u32::from(seq) * 960), &extensions, &[7; 60])
}

fn started(id: u32) -> Event {
    Event::SpeechStarted { publication: PublicationId(id) }
}

fn ended(id: u32) -> Event {
    Event::SpeechEnded { publication: PublicationId(id) }
}

fn dominant(id: u32) -> Event {
    Event::DominantSpeaker { publication: PublicationId(id) }
}

/// The events without their times.
fn events(told: Vec<(u64, Event)>) -> Vec<Event> {
    told.into_iter().map(|(_, event)| event).collect()
}

#[test]
fn speech_is_told_when_it_begins_and_ends() {
    let mut room = Room::new(2);
    assert_eq!(events(room.go(1000, &[Some(QUIET), Some(QUIET)])), []);
    let told = room.go(2000, &[Some(LOUD), Some(QUIET)]);
    assert_eq!(told.first().map(|(_, event)| event), Some(&started(1)));
    assert!(told[0].0 <= 200, "{told:?}");
    assert_eq!(events(told)[1..], [dominant(1)]);
    let peer = room.bench.worker.scope_statistics(room.bench.now.at, SCOPE).unwrap();
    assert_eq!(peer.dominant, Some(PublicationId(1)));
    assert!(peer.peers[0].publications[0].speaking && !peer.peers[1].publications[0].speaking);
    // Nobody subscribes, and it is told all the same.
    for id in [1, 2] {
        let subscription = SubscriptionId(id);
        room.bench.command(Command::Unsubscribe { subscription });
    }
    let told = room.go(2000, &[Some(QUIET), Some(LOUD)]);
    let at = |event: Event| told.iter().find(|(_, told)| *told == event).map(|(at, _)| *at);
    assert!(at(ended(1)).is_some_and(|at| (560..=680).contains(&at)), "{told:?}");
    assert!(at(started(2)).is_some_and(|at| at <= 200), "{told:?}");
    assert!(at(dominant(2)).is_some_and(|at| at <= 1200), "{told:?}");
}

#[test]
fn speech_ends_with_the_packets_and_with_a_mute() {
    let mut room = Room::new(1);
    let publication = PublicationId(1);
    room.go(1000, &[Some(LOUD)]);
    let told = room.go(2000, &[None]);
    assert_eq!(told.len(), 1, "{told:?}");
    assert!(told[0].1 == ended(1) && (600..=900).contains(&told[0].0), "{told:?}");
    assert_eq!(events(room.go(1000, &[Some(LOUD)]))[..], [started(1)], "dominant all the time");
    room.bench.command(Command::SetMuted { publication, muted: true });
    assert_eq!(room.bench.events(), [ended(1)]);
    assert_eq!(events(room.go(1000, &[Some(LOUD)])), [], "what is muted is not heard");
    room.bench.command(Command::SetMuted { publication, muted: false });
    assert_eq!(events(room.go(1000, &[Some(LOUD)])), [started(1), dominant(1)]);
    room.bench.command(Command::Unpublish { publication });
    assert_eq!(room.bench.events(), [], "its end says it");
}

#[test]
fn silence_and_a_word_keep_the_dominant_speaker() {
    let mut room = Room::new(2);
    room.go(3000, &[Some(LOUD), Some(QUIET)]);
    // "Mm-hm", while the other one speaks, and in a pause.
    let mut told = room.go(300, &[Some(LOUD), Some(LOUD)]);
    told.extend(room.go(3000, &[Some(LOUD), Some(QUIET)]));
    told.extend(room.go(10_000, &[Some(QUIET), Some(QUIET)]));
    told.extend(room.go(300, &[Some(QUIET), Some(LOUD)]));
    told.extend(room.go(3000, &[Some(QUIET), Some(QUIET)]));
    assert!(!told.iter().any(|(_, e)| matches!(e, Event::DominantSpeaker { .. })), "{told:?}");
    // A sentence after the silence.
    let told = room.go(1500, &[Some(QUIET), Some(LOUD)]);
    let at = told.iter().find(|(_, event)| *event == dominant(2));
    assert!(at.is_some_and(|(at, _)| (400..=800).contains(at)), "{told:?}");
}

/// Speech as it goes: words of 100 to 600 ms with gaps of 40 to 240 ms between them.
struct Talk {
    random: u64,
    talks: bool,
    left: u64,
}

impl Talk {
    fn next(&mut self) -> u8 {
        if self.left == 0 {
            self.random = self.random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            self.talks = !self.talks;
            let slots = self.random >> 33;
            self.left = if self.talks { 5 + slots % 26 } else { 2 + slots % 11 };
        }
        self.left -= 1;
        if self.talks { LOUD } else { QUIET }
    }
}

#[test]
fn two_who_talk_over_each_other_do_not_take_turns() {
    let mut room = Room::new(2);
    let (mut changes, mut between) = (0, u64::MAX);
    let mut talks = [3, 8].map(|random| Talk { random, talks: false, left: 0 });
    let mut last = None;
    for at in (0..120_000_u64).step_by(20) {
        let levels = [Some(talks[0].next()), Some(talks[1].next())];
        room.tick(&levels);
        let told = room.bench.events();
        if told.iter().any(|event| matches!(event, Event::DominantSpeaker { .. })) {
            changes += 1;
            between = last.map_or(between, |last| between.min(at - last));
            last = Some(at);
        }
    }
    assert!((1..=12).contains(&changes), "{changes} changes in two minutes");
    assert!(between >= 1000, "{between} ms between two of them");
}

#[test]
fn a_conversation_is_followed() {
    let mut room = Room::new(3);
    let mut talk = Talk { random: 5, talks: false, left: 0 };
    for turn in 0..12 {
        let mut followed = None;
        for at in (0..4000_u64).step_by(20) {
            let mut levels = [Some(QUIET); 3];
            levels[turn % 3] = Some(talk.next());
            room.tick(&levels);
            for event in room.bench.events() {
                if let Event::DominantSpeaker { publication } = event {
                    assert_eq!(publication.0 as usize, turn % 3 + 1, "turn {turn}");
                    assert_eq!(followed.replace(at), None, "once");
                }
            }
        }
        assert!(followed.is_some_and(|at| at <= 2000), "turn {turn}: {followed:?}");
    }
}

#[test]
fn a_stream_without_levels_never_dominates() {
    let mut room = Room::limited(2, 1);
    for seq in 1..200 {
        let bytes = packet((10, OPUS, seq, 0), &[(IDS.mid, b"1")], &[7; 60]);
        room.people[0].send(&mut room.bench, &bytes);
        room.bench.run(ms(20));
    }
    assert_eq!(room.bench.events().len(), 1, "it started, and that is all");
    assert_eq!(room.listener.media(&mut room.bench).len(), 199, "there is room");
    // It yields to whoever speaks.
    room.packets = 200;
    room.go(1000, &[None, Some(LOUD)]);
    assert_eq!(room.heard(), [2]);
}

#[test]
fn the_loudest_are_forwarded_and_their_numbers_go_on() {
    let mut room = Room::limited(4, 2);
    room.go(2000, &[Some(QUIET), Some(QUIET), Some(LOUD), Some(LOUD)]);
    assert_eq!(room.heard(), [1, 2, 3, 4], "the first two had room until others spoke");
    room.go(1000, &[Some(QUIET), Some(QUIET), Some(LOUD), Some(LOUD)]);
    assert_eq!(room.heard(), [3, 4]);
    assert_eq!(room.heard.len(), 100);
    // A third who speaks as loud does not get in, nor does a noise.
    room.go(3000, &[Some(QUIET), Some(LOUD), Some(LOUD), Some(LOUD)]);
    assert_eq!(room.heard(), [3, 4]);
    // Who pauses between two sentences keeps the place, if nobody else speaks.
    room.go(5000, &[Some(QUIET), Some(QUIET), Some(QUIET), Some(LOUD)]);
    assert_eq!(room.heard(), [3, 4]);
    // Who begins to speak has it with the first packet.
    room.go(20, &[Some(LOUD), Some(QUIET), Some(QUIET), Some(LOUD)]);
    assert_eq!(room.heard(), [1, 4]);
    room.go(1000, &[Some(LOUD), Some(QUIET), Some(QUIET), Some(LOUD)]);
    assert_eq!(room.heard(), [1, 4]);
    let statistics = room.bench.worker.scope_statistics(room.bench.now.at, SCOPE).unwrap();
    let held_back: Vec<u64> =
        statistics.peers.iter().flat_map(|p| &p.publications).map(|p| p.held_back).collect();
    assert!(held_back[0] > 100 && held_back[3] < 10, "{held_back:?}");
}

#[test]
fn a_pause_for_others_leaves_no_gap() {
    let mut room = Room::limited(2, 1);
    let mut numbers = Vec::new();
    for turn in 0..20 {
        let (one, other) = if turn % 2 == 0 { (LOUD, QUIET) } else { (QUIET, LOUD) };
        room.go(1500, &[Some(one), Some(other)]);
        numbers.extend(room.heard.iter().filter(|(id, _)| *id == 1).map(|(_, seq)| *seq));
    }
    assert!(numbers.len() > 500, "{}", numbers.len());
    assert!(numbers.windows(2).all(|pair| pair[1] == pair[0].wrapping_add(1)), "{numbers:?}");
    assert_eq!(numbers[0], 100);
}

#[test]
fn who_is_among_the_loudest_hears_as_many_as_the_others() {
    let mut room = Room::limited(3, 1);
    // The first two hear each other and the third.
    for (subscription, peer, to) in [(11, 0, 2), (12, 0, 3), (13, 1, 1), (14, 1, 3)] {
        room.people[peer].subscribe(&mut room.bench, subscription, Kind::Audio, Some(to));
    }
    let heard_by = |room: &mut Room, levels: [u8; 3]| {
        let mut heard = [vec![], vec![], vec![]];
        for _ in 0..100 {
            room.packets += 1;
            for (id, level) in (1_u32..).zip(levels) {
                let bytes = sound(10 * id, room.packets, level);
                room.people[id as usize - 1].send(&mut room.bench, &bytes);
            }
            let sent = room.bench.sent();
            let (one, two) = (room.people[0].open(&sent).0, room.people[1].open(&sent).0);
            for (heard, media) in heard.iter_mut().zip([one, two, room.listener.open(&sent).0]) {
                heard.extend(media.iter().map(|bytes| (read(bytes).ssrc(), read(bytes).seq())));
            }
            room.bench.run(ms(20));
        }
        heard
    };
    heard_by(&mut room, [LOUD, SOFT, QUIET]);
    let [loudest, second, listener] = heard_by(&mut room, [LOUD, SOFT, QUIET]);
    let of = |heard: &[(u32, u16)]| {
        let mut ssrcs: Vec<u32> = heard.iter().map(|(ssrc, _)| *ssrc).collect();
        ssrcs.dedup();
        ssrcs
    };
    assert_eq!(of(&loudest), [1011], "the next one: not its own");
    assert_eq!((of(&second), of(&listener)), (vec![1013], vec![1001]), "the loudest");
    assert!(loudest.windows(2).all(|pair| pair[1].1 == pair[0].1.wrapping_add(1)));
}

#[test]
fn there_is_room_again_when_somebody_leaves_or_is_muted() {
    let mut room = Room::limited(2, 1);
    room.go(2000, &[Some(LOUD), Some(SOFT)]);
    room.go(1000, &[Some(LOUD), Some(SOFT)]);
    assert_eq!(room.heard(), [1]);
    let publication = PublicationId(1);
    room.bench.command(Command::SetMuted { publication, muted: true });
    room.go(20, &[Some(LOUD), Some(SOFT)]);
    assert_eq!(room.heard(), [2], "with the first packet");
    room.bench.command(Command::SetMuted { publication, muted: false });
    room.go(1000, &[Some(SOFT), Some(SOFT)]);
    assert_eq!(room.heard(), [2]);
    room.bench.command(Command::RemovePeer { peer: room.people[1].id });
    room.go(20, &[Some(SOFT), None]);
    assert_eq!(room.heard(), [1]);
}

#[test]
fn the_limit_can_be_changed() {
    let mut room = Room::limited(3, 1);
    room.go(1000, &[Some(SOFT), Some(SOFT), Some(SOFT)]);
    room.bench.drops(DropReason::NotLoudest, |bench| {
        room.people[2].send(bench, &sound(30, 900, SOFT));
    });
    room.packets = 900;
    room.bench.command(Command::LimitAudio { scope: SCOPE, streams_max: 0 });
    room.go(20, &[Some(QUIET), Some(QUIET), Some(QUIET)]);
    assert_eq!(room.heard(), [1, 2, 3]);
    let Bench { worker, now, egress } = &mut room.bench;
    let mut limit = |scope, streams_max| {
        worker.on_command(*now, Command::LimitAudio { scope, streams_max }, egress)
    };
    let too_many = limit(SCOPE, AUDIO_STREAMS_MAX + 1).unwrap_err();
    assert!(matches!(too_many, CommandError::Limit { limit: AUDIO_STREAMS_MAX, .. }));
    assert_eq!(limit(ScopeId(9), 1), Err(CommandError::NotFound("scope")));
}

#[test]
fn another_worker_decides_by_the_same_levels() {
    let mut room = Room::new(2);
    let mut away = Bench::new();
    away.now = room.bench.now;
    for (id, person) in (1..).zip(&room.people) {
        let publication = PublicationId(id);
        away.command(Command::Mirror {
            scope: SCOPE,
            publication,
            origin: WorkerId(0),
            publisher: person.id,
            kind: Kind::Audio,
            codecs: codecs(Kind::Audio, 0),
            extensions: IDS,
            encodings: vec![encoding(10 * id)],
            muted: false,
            as_sent: false,
        });
        room.bench.command(Command::StartMirroring { publication, to: WorkerId(1) });
    }
    away.command(Command::LimitAudio { scope: SCOPE, streams_max: 1 });
    let mut listener = Client::connected(&mut away, 60);
    listener.subscribe(&mut away, 61, Kind::Audio, Some(1));
    listener.subscribe(&mut away, 62, Kind::Audio, Some(2));
    let mut heard = Vec::new();
    let mut told = Vec::new();
    for tick in 0..200 {
        let (one, other) = if tick < 100 { (LOUD, QUIET) } else { (QUIET, LOUD) };
        room.tick(&[Some(one), Some(other)]);
        told.extend(room.bench.events());
        while let Some((_, mut parcel)) = room.bench.worker.poll_mirrored() {
            let Bench { worker, now, egress } = &mut away;
            worker.on_mirrored(*now, WorkerId(0), &mut parcel, egress, |_| {});
            room.bench.worker.reuse(parcel);
        }
        heard.extend(listener.media(&mut away).iter().map(|bytes| read(bytes).ssrc()));
        away.run(ms(20));
    }
    heard.dedup();
    assert_eq!(heard, [1061, 1062]);
    assert_eq!(away.events(), [Event::PeerConnected { peer: listener.id, path: listener.path }]);
    assert!(told.contains(&dominant(1)) && told.contains(&dominant(2)), "{told:?}");
    let seen = |bench: &Bench| bench.worker.scope_statistics(bench.now.at, SCOPE).unwrap().dominant;
    assert_eq!((seen(&room.bench), seen(&away)), (Some(PublicationId(2)), Some(PublicationId(2))));
}

#[test]
fn a_scope_that_moves_takes_its_speakers_along() {
    let mut room = Room::limited(3, 1);
    room.go(3000, &[Some(QUIET), Some(QUIET), Some(LOUD)]);
    let mut there = Bench::new();
    there.now = room.bench.now;
    there.command(Command::DisposeScope { scope: SCOPE });
    there.command(Command::CreateScope { scope: ScopeId(9) });
    let peer = PeerId(900);
    there.command(Command::AddFixedPeer { scope: ScopeId(9), peer, path: path(30_000) });
    there.command(Command::SetPlain { peer });
    there.command(publish(peer, 900, Kind::Audio, &[encoding(5)]));
    there.sent();
    there.events();
    let moved = room.bench.worker.take_scope(room.bench.now, SCOPE, &mut room.bench.egress);
    there.worker.adopt_scope(there.now, moved.unwrap(), &mut there.egress);
    room.bench = there;
    let told = events(room.go(1000, &[Some(QUIET), Some(QUIET), Some(LOUD)]));
    assert_eq!((told, room.heard()), (vec![], vec![3]), "nothing new");
    let statistics = room.bench.worker.scope_statistics(room.bench.now.at, SCOPE).unwrap();
    assert_eq!(statistics.dominant, Some(PublicationId(3)));
    let told = events(room.go(3000, &[Some(LOUD), Some(QUIET), Some(QUIET)]));
    assert!(told.contains(&dominant(1)) && told.contains(&ended(3)), "{told:?}");
    room.go(1000, &[Some(LOUD), Some(QUIET), Some(QUIET)]);
    assert_eq!(room.heard(), [1]);
}
