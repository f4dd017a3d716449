//! Messages in bulk through a real node, both ways at once: all of them come, once and in order, and no link breaks, however
//! slowly an application takes them.

use crate::real::Node;
use std::sync::mpsc::{Receiver, sync_channel};
use std::time::{Duration, Instant};
use strait_client::{Client, Config, Descriptor, Error, Event};

/// Each way: three times what the node keeps for a client that did not confirm it.
const MESSAGES: u32 = 800;
const BYTES: usize = 16 << 10;
/// What the node reads of each client; twice that at once. So both are held for some seconds.
const KIBIBYTES_PER_SECOND: u32 = 2048;
const PATIENCE: Duration = Duration::from_secs(90);

enum Told {
    Joined,
    Message(u32),
    Wrong(String),
}

struct Member {
    client: Client,
    told: Receiver<Told>,
    is_joined: bool,
    sent: u32,
    came: u32,
}

impl Member {
    /// `takes`: how long its application takes for a message.
    fn connect(descriptor: &Descriptor, takes: Duration) -> Self {
        // Room for all that can be told.
        let (to, told) = sync_channel(2 * MESSAGES as usize);
        let on_event = move |event| {
            let told = match event {
                Event::Joined { .. } => Told::Joined,
                Event::Message { payload, .. } => {
                    std::thread::sleep(takes);
                    Told::Message(u32::from_be_bytes(payload[..4].try_into().unwrap()))
                }
                Event::LinkLost { .. } | Event::Ended(_) | Event::Undelivered { .. } => {
                    Told::Wrong(format!("{event:?}"))
                }
                _ => return,
            };
            drop(to.send(told));
        };
        let client = Client::connect(descriptor.clone(), on_event).unwrap();
        Self { client, told, is_joined: false, sent: 0, came: 0 }
    }

    fn turn(&mut self) {
        for told in self.told.try_iter() {
            match told {
                Told::Joined => self.is_joined = true,
                Told::Message(number) => {
                    assert_eq!(number, self.came, "once, and in order");
                    self.came += 1;
                }
                Told::Wrong(event) => panic!("{event}, {} came, {} sent", self.came, self.sent),
            }
        }
    }

    /// As many as the client takes.
    fn send(&mut self) {
        while self.sent < MESSAGES {
            let mut payload = vec![7; BYTES];
            payload[..4].copy_from_slice(&self.sent.to_be_bytes());
            match self.client.send_message("", payload, false) {
                Ok(_) => self.sent += 1,
                Err(Error::TooMany(_)) => return,
                Err(error) => panic!("{error}"),
            }
        }
    }
}

/// Two who say all that they have to say, at once.
fn both_ways(descriptor: &Descriptor, takes: [Duration; 2]) {
    let mut both = takes.map(|takes| Member::connect(descriptor, takes));
    let end = Instant::now() + PATIENCE;
    while both.iter().any(|member| member.came < MESSAGES) {
        let came = both.each_ref().map(|member| member.came);
        assert!(Instant::now() < end, "{came:?} of {MESSAGES} came");
        both.iter_mut().for_each(Member::turn);
        // Who speaks before the other one is there speaks to nobody.
        if both.iter().all(|member| member.is_joined) {
            both.iter_mut().for_each(Member::send);
        }
        std::thread::sleep(Duration::from_millis(1));
    }
    both.iter_mut().for_each(Member::turn);
}

fn node() -> Node {
    Node::start_with(|control| {
        control.link.kibibytes_per_second = KIBIBYTES_PER_SECOND;
        control.link.messages_per_second = 0;
    })
}

pub fn over_quic(node: &Node) -> Descriptor {
    // The port of HTTPS leads nowhere: what comes up comes up over QUIC.
    let nowhere = Config { port: 1, ..node.descriptor.config.clone() };
    Descriptor { quic: Some(node.quic), config: nowhere, ..node.descriptor.clone() }
}

const AT_ONCE: Duration = Duration::ZERO;
/// Slower than the node reads.
const SLOWLY: Duration = Duration::from_millis(15);

#[test]
fn in_bulk_both_ways_over_tls() {
    both_ways(&node().descriptor, [AT_ONCE; 2]);
}

#[test]
fn in_bulk_both_ways_over_quic() {
    let node = node();
    both_ways(&over_quic(&node), [AT_ONCE; 2]);
}

#[test]
fn in_bulk_to_who_takes_it_slowly() {
    both_ways(&node().descriptor, [AT_ONCE, SLOWLY]);
}

#[test]
fn in_bulk_to_who_takes_it_slowly_over_quic() {
    let node = node();
    both_ways(&over_quic(&node), [SLOWLY, AT_ONCE]);
}
