mod hostile;
mod peer;

use super::{Channels, Event, Refusal};
use crate::limits::{
    CHANNEL_BUFFERED_BYTES, CHANNEL_MESSAGE_BYTES, CHANNEL_MESSAGE_WEIGHT, CHANNEL_PACKET_BYTES,
    CHANNELS,
};
use peer::Browser;
use sctp_proto::PayloadProtocolIdentifier as Ppi;
use std::time::{Duration, Instant};
use strait_proto::pace::Rates;

/// A browser and the relay's side, with time as a number.
struct Call {
    browser: Browser,
    channels: Channels,
    events: Vec<Event>,
    now: Instant,
    /// Nobody takes what the browser says.
    is_held_up: bool,
    /// Every so manieth packet is lost; 0: none.
    loses: usize,
    packets: usize,
}

impl Call {
    fn new() -> Self {
        let now = Instant::now();
        let mut call = Self {
            browser: Browser::new(),
            channels: Channels::new(CHANNEL_MESSAGE_BYTES, Rates::default(), now),
            events: Vec::new(),
            now,
            is_held_up: false,
            loses: 0,
            packets: 0,
        };
        call.run();
        assert!(call.browser.is_connected);
        call
    }

    fn with_channel() -> Self {
        let mut call = Self::new();
        call.browser.open(0, "strait", "strait-messages/1");
        call.run();
        assert_eq!(call.events, [opened(0, "strait", "strait-messages/1")]);
        assert_eq!(call.browser.acknowledged, [0]);
        call.events.clear();
        call
    }

    fn passes(&mut self) -> bool {
        self.packets += 1;
        self.loses == 0 || !self.packets.is_multiple_of(self.loses)
    }

    /// Until nothing more is said, at most for so long.
    fn run_for(&mut self, time: Duration) {
        let end = self.now + time;
        loop {
            loop {
                let mut is_quiet = true;
                for packet in self.browser.poll_transmits(self.now) {
                    is_quiet = false;
                    if self.passes() {
                        self.channels.handle(self.now, packet);
                    }
                }
                if !self.is_held_up {
                    self.events.extend(std::iter::from_fn(|| self.channels.poll_event()));
                }
                while let Some(packet) = self.channels.poll_transmit() {
                    is_quiet = false;
                    assert!(packet.len() <= CHANNEL_PACKET_BYTES as usize, "{}", packet.len());
                    if self.passes() {
                        self.browser.handle(self.now, packet);
                    }
                }
                if is_quiet {
                    break;
                }
            }
            let due = [self.browser.next_timeout(), self.channels.next_timeout()];
            match due.into_iter().flatten().min() {
                Some(at) if at <= end => self.now = self.now.max(at),
                _ => return self.now = end,
            }
            self.browser.handle_timeout(self.now);
            self.channels.handle_timeout(self.now);
        }
    }

    fn run(&mut self) {
        self.run_for(Duration::from_secs(2));
    }

    fn messages(&mut self) -> Vec<(bool, Vec<u8>)> {
        let said = self.events.drain(..).filter_map(|event| match event {
            Event::Message { is_text, payload, .. } => Some((is_text, payload)),
            _ => None,
        });
        said.collect()
    }
}

fn opened(channel: u16, label: &str, protocol: &str) -> Event {
    Event::Opened { channel, label: label.into(), protocol: protocol.into() }
}

#[test]
fn text_and_bytes_go_both_ways_whole_and_in_order() {
    let mut call = Call::with_channel();
    let said: Vec<(bool, Vec<u8>)> = vec![
        (true, b"one".to_vec()),
        (false, vec![0, 0xff]),
        (false, (0..CHANNEL_MESSAGE_BYTES).map(|n| n as u8).collect()),
        (true, "ä".repeat(5000).into_bytes()),
    ];
    for (is_text, payload) in &said {
        call.browser.say(0, *is_text, payload);
        call.channels.send(0, *is_text, payload).unwrap();
        call.run();
    }
    // Messages without bytes are messages.
    call.browser.write(0, &[0], Ppi::StringEmpty);
    call.channels.send(0, false, b"").unwrap();
    call.run();
    let heard: Vec<_> = std::mem::take(&mut call.browser.heard);
    let heard: Vec<_> = heard.into_iter().map(|(_, is_text, payload)| (is_text, payload)).collect();
    let with = |last| said.iter().cloned().chain([last]).collect::<Vec<_>>();
    assert_eq!(heard, with((false, Vec::new())));
    assert_eq!(call.messages(), with((true, Vec::new())));
}

#[test]
fn what_is_lost_on_the_way_is_sent_again() {
    let mut call = Call::with_channel();
    call.loses = 7;
    for n in 0..200_u8 {
        call.browser.say(0, false, &[n; 3000]);
        call.channels.send(0, false, &[n; 3000]).unwrap();
    }
    call.run_for(Duration::from_secs(600));
    let want: Vec<_> = (0..200_u8).map(|n| (false, vec![n; 3000])).collect();
    assert_eq!(call.messages(), want);
    let heard: Vec<_> = call.browser.heard.iter().map(|(_, _, payload)| payload[0]).collect();
    assert_eq!(heard, (0..200).collect::<Vec<_>>());
}

#[test]
fn who_is_not_heard_waits_and_loses_nothing() {
    let mut call = Call::with_channel();
    call.is_held_up = true;
    for n in 0..100_u8 {
        call.browser.say(0, false, &[n; 10_000]);
    }
    call.run_for(Duration::from_secs(60));
    let waiting = call.browser.association.stream(0).unwrap().buffered_amount().unwrap();
    assert!(waiting > 600_000, "the window is closed: {waiting}");
    call.is_held_up = false;
    call.run_for(Duration::from_secs(120));
    let heard: Vec<_> = call.messages().iter().map(|(_, payload)| payload[0]).collect();
    assert_eq!(heard, (0..100).collect::<Vec<_>>());
}

#[test]
fn who_does_not_read_is_cut_off_and_costs_no_more() {
    let mut call = Call::with_channel();
    call.browser.is_deaf = true;
    let message = vec![7; 60_000];
    let mut sent = 0;
    let refusal = loop {
        match call.channels.send(0, false, &message) {
            Ok(()) => sent += message.len(),
            Err(refusal) => break refusal,
        }
        call.run();
        assert!(sent < 8 * CHANNEL_BUFFERED_BYTES, "no end");
    };
    assert_eq!(refusal, Refusal::TooSlow);
    call.run();
    let detail = "too much waits for the peer".to_owned();
    assert_eq!(call.events, [Event::Closed { channel: 0, detail }]);
    assert_eq!(call.channels.send(0, false, b"more"), Err(Refusal::NoChannel));
    // It may not begin anew either.
    call.browser.open(2, "again", "");
    call.run_for(Duration::from_secs(30));
    assert_eq!(call.events.len(), 1, "{:?}", call.events);
}

#[test]
fn who_speaks_too_fast_is_heard_later_and_loses_nothing() {
    let mut call = Call::new();
    call.channels = Channels::new(CHANNEL_MESSAGE_BYTES, Rates::new(100, 0), call.now);
    call.browser = Browser::new();
    call.run();
    call.browser.open(0, "strait", "");
    let said = 1000_u16;
    (0..said).for_each(|n| call.browser.say(0, false, &n.to_be_bytes()));
    call.run_for(Duration::from_secs(3));
    let first = call.messages().len();
    assert!((400..=600).contains(&first), "a burst, and those of three seconds: {first}");
    call.run_for(Duration::from_secs(7));
    let rest = call.messages();
    assert_eq!(first + rest.len(), usize::from(said));
    assert_eq!(rest.last().unwrap().1, (said - 1).to_be_bytes());
}

#[test]
fn who_answers_much_does_not_speak_too_fast() {
    let mut call = Call::new();
    call.channels = Channels::new(CHANNEL_MESSAGE_BYTES, Rates::new(10, 0), call.now);
    call.browser = Browser::new();
    call.run();
    call.browser.open(0, "strait", "");
    call.run();
    for _ in 0..10 {
        (0..100).for_each(|_| call.channels.send(0, false, &[7; 100]).unwrap());
        call.run_for(Duration::from_millis(100));
        let heard = std::mem::take(&mut call.browser.heard).len();
        (0..heard).for_each(|_| call.browser.say(0, false, &[3; 7]));
    }
    call.run_for(Duration::from_secs(1));
    assert!(call.messages().len() > 950);
    // And no more than it was sent.
    (0..100).for_each(|_| call.browser.say(0, false, &[3; 7]));
    call.run_for(Duration::from_secs(1));
    assert!(call.messages().len() < 90);
}

#[test]
fn small_messages_weigh_what_they_cost() {
    let mut call = Call::with_channel();
    let mut sent = 0;
    while call.channels.send(0, false, b"x").is_ok() {
        sent += 1;
        assert!(sent <= CHANNEL_BUFFERED_BYTES / CHANNEL_MESSAGE_WEIGHT, "no end");
    }
    assert!(sent > 4000, "{sent}");
    // Those that arrived weigh nothing.
    let mut call = Call::with_channel();
    for n in 0..10_000_u32 {
        call.channels.send(0, false, &n.to_be_bytes()).unwrap();
        if n % 1000 == 0 {
            call.run();
        }
    }
    call.run();
    assert_eq!(call.browser.heard.len(), 10_000);
}

#[test]
fn channels_are_closed_from_both_sides_and_opened_again() {
    let mut call = Call::with_channel();
    call.browser.say(0, true, b"last words");
    call.browser.close(0);
    call.run();
    let closed = |detail: &str| Event::Closed { channel: 0, detail: detail.into() };
    let last = Event::Message { channel: 0, is_text: true, payload: b"last words".to_vec() };
    assert_eq!(std::mem::take(&mut call.events), [last, closed("the peer closed it")]);
    assert_eq!(call.channels.send(0, true, b"?"), Err(Refusal::NoChannel));

    call.run_for(Duration::from_secs(10));
    call.browser.open(0, "again", "");
    call.run();
    assert_eq!(std::mem::take(&mut call.events), [opened(0, "again", "")]);
    call.channels.close(0, "enough");
    call.run();
    assert_eq!(call.events, [closed("enough")]);
    assert_eq!(call.browser.closed, [0, 0]);
}

#[test]
fn there_are_so_many_channels_and_no_more() {
    let mut call = Call::new();
    for n in 0..CHANNELS as u16 + 3 {
        call.browser.open(2 * n, &format!("channel {n}"), "");
        call.run();
    }
    assert_eq!(call.events.len(), CHANNELS);
    assert_eq!(call.browser.closed, [32, 34, 36]);
    // One that goes makes room.
    call.browser.close(0);
    call.run();
    call.browser.open(40, "late", "");
    call.run();
    assert_eq!(call.events.last(), Some(&opened(40, "late", "")));
    call.channels.tell();
    assert_eq!(std::iter::from_fn(|| call.channels.poll_event()).count(), CHANNELS);
}

#[test]
fn what_breaks_rules_ends_its_channel_alone() {
    let mut call = Call::with_channel();
    call.browser.say(2, true, b"without a word before");
    call.browser.write(4, &[3, 9, 9], Ppi::Dcep);
    call.browser.write(6, &[2], Ppi::Dcep);
    call.browser.open(8, "text", "");
    call.browser.write(8, &[0xff, 0xfe], Ppi::String);
    call.run();
    let detail = "the peer sent text that is no UTF-8".to_owned();
    assert_eq!(
        std::mem::take(&mut call.events),
        [opened(8, "text", ""), Event::Closed { channel: 8, detail }]
    );
    let mut closed = std::mem::take(&mut call.browser.closed);
    closed.sort_unstable();
    assert_eq!(closed, [2, 4, 6, 8]);
    call.channels.send(0, true, b"unhurt").unwrap();
    call.run();
    assert_eq!(call.browser.heard, [(0, true, b"unhurt".to_vec())]);
}

#[test]
fn a_message_that_the_peer_does_not_take_is_not_sent() {
    let mut call = Call::with_channel();
    let message = vec![0; CHANNEL_MESSAGE_BYTES + 1];
    assert_eq!(call.channels.send(0, false, &message), Err(Refusal::TooLarge));
    assert_eq!(call.channels.send(0, false, b"small"), Err(Refusal::NoChannel), "it is closed");
}

#[test]
fn noise_and_floods_of_beginnings_cost_nothing() {
    let mut call = Call::with_channel();
    for n in 0..2000_u32 {
        let noise: Vec<u8> = (0..n % 100).map(|at| (n * 31 + at * 17) as u8).collect();
        call.channels.handle(call.now, noise);
        let first = Browser::new().poll_transmits(call.now).remove(0);
        call.channels.handle(call.now, first);
    }
    let answers = std::iter::from_fn(|| call.channels.poll_transmit()).count();
    assert_eq!(answers, 0, "no second association");
    call.channels.send(0, true, b"unhurt").unwrap();
    call.run();
    assert_eq!(call.browser.heard, [(0, true, b"unhurt".to_vec())]);
}
