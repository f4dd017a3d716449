//! A line between real sockets that is as bad as asked for: what stands between clients and a server for a test.
//!
//! Kernels without netem can delay nothing, so it is done here, in user space: datagrams to [`Shaper::address`] go through
//! a [`Pipe`] up to the server, and what the server answers through another one down to the client. Each client has a
//! socket of its own towards the server, which tells clients apart by it.

use std::collections::BTreeMap;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::mpsc::{Receiver, SyncSender, TryRecvError, sync_channel};
use std::thread::JoinHandle;
use std::time::Duration;

use strait_core::time::Instant;
use strait_io::Clock;
use strait_io::batch::{Incoming, Poller, RECEIVE_MESSAGES, Socket};
use strait_lab::link::Conditions;
use strait_lab::pipe::Pipe;
use strait_lab::rng::Rng;
use strait_lab::setting::Order;
use strait_lab::truth::{Counts, Truth};

use crate::limits::{SHAPER_CLIENTS, SHAPER_IDLE, SHAPER_ORDERS};

/// What a line does, and from when on.
#[derive(Clone, Debug, Default)]
pub struct Impairment {
    /// What is set at the beginning or after a time, in this order.
    pub orders: Vec<Order>,
    /// What chance is drawn from.
    pub seed: u64,
    /// All clients share one line, as people in one house do; otherwise each has a line like it.
    pub shared: bool,
}

/// What one line did.
#[derive(Clone, Debug)]
pub struct Told {
    /// Whose line; nobody's in particular if it is shared.
    pub client: Option<SocketAddr>,
    /// The way from the client.
    pub up: (Counts, Truth),
    /// The way to the client.
    pub down: (Counts, Truth),
}

/// A shaper at work; it ends when it is dropped.
#[derive(Debug)]
pub struct Shaper {
    address: SocketAddr,
    requests: SyncSender<Request>,
    thread: Option<JoinHandle<()>>,
}

#[derive(Debug)]
enum Request {
    Order(Order),
    Tell(SyncSender<Vec<Told>>),
    Stop,
}

/// The longest sleep: requests have no socket to wake the loop with.
const NAP: Duration = Duration::from_millis(5);
/// The listening socket among the poller's tokens.
const FRONT: u64 = 0;

impl Shaper {
    /// Listens at `listen`, port 0 for one of the system's choice, and passes on to `server`.
    ///
    /// # Errors
    /// What the system says.
    pub fn start(
        listen: SocketAddr,
        server: SocketAddr,
        impairment: &Impairment,
    ) -> io::Result<Self> {
        let front = Socket::bind(listen)?;
        let address = front.local_addr()?;
        let poller = Poller::new()?;
        poller.add(&front, FRONT)?;
        let (requests, asked) = sync_channel(SHAPER_ORDERS);
        let mut orders = impairment.orders.clone();
        orders.sort_by_key(|order| order.after);
        let mut work = Work {
            begin: Clock.instant(),
            front,
            server,
            poller,
            asked,
            orders,
            conditions: [Conditions::CLEAR; 2],
            rng: Rng::new(impairment.seed),
            shared: impairment.shared,
            lines: BTreeMap::new(),
            clients: BTreeMap::new(),
            known: BTreeMap::new(),
            lives: FRONT,
        };
        work.obey(Duration::ZERO);
        let thread = std::thread::Builder::new().name("shaper".into()).spawn(move || work.run())?;
        Ok(Self { address, requests, thread: Some(thread) })
    }

    /// Where clients send to.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Changes the lines, of clients to come as well; its time counts from now.
    pub fn order(&self, order: Order) {
        // The thread ends with us, and empties its queue every few milliseconds.
        let _ = self.requests.send(Request::Order(order));
    }

    /// What the lines of the clients that are there did so far.
    #[must_use]
    pub fn tell(&self) -> Vec<Told> {
        let (reply, told) = sync_channel(1);
        let _ = self.requests.send(Request::Tell(reply));
        told.recv().unwrap_or_default()
    }
}

impl Drop for Shaper {
    fn drop(&mut self) {
        let _ = self.requests.send(Request::Stop);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

const UP: usize = 0;
const DOWN: usize = 1;

/// A datagram on its way, and whose it is.
#[derive(Clone, Debug)]
struct Datagram {
    client: u64,
    bytes: Box<[u8]>,
}

type Line = [Pipe<Datagram>; 2];

struct Client {
    address: SocketAddr,
    /// Towards the server.
    back: Socket,
    active_at: Duration,
}

struct Work {
    begin: Instant,
    front: Socket,
    server: SocketAddr,
    poller: Poller,
    asked: Receiver<Request>,
    /// Those to come, in order of time.
    orders: Vec<Order>,
    /// What a new line begins with.
    conditions: [Conditions; 2],
    rng: Rng,
    shared: bool,
    /// By client; the only one is nobody's if it is shared.
    lines: BTreeMap<u64, Line>,
    clients: BTreeMap<u64, Client>,
    known: BTreeMap<SocketAddr, u64>,
    lives: u64,
}

impl Work {
    fn run(&mut self) {
        // Without, what is due may leave 50 µs late.
        let _ = strait_io::affinity::exact_timers();
        let (mut incoming, mut ready) = (Incoming::new(), Vec::new());
        loop {
            loop {
                match self.asked.try_recv() {
                    Ok(Request::Order(mut order)) => {
                        order.after += self.now();
                        self.orders.push(order);
                        self.orders.sort_by_key(|order| order.after);
                    }
                    Ok(Request::Tell(reply)) => drop(reply.send(self.told())),
                    Ok(Request::Stop) | Err(TryRecvError::Disconnected) => return,
                    Err(TryRecvError::Empty) => break,
                }
            }
            let now = self.now();
            self.obey(now);
            self.deliver(now);
            let due = self.lines.values().flatten().filter_map(Pipe::due).min();
            let nap = due.map_or(NAP, |due| due.saturating_sub(self.now()).min(NAP));
            self.poller.wait(nap, &mut ready);
            for token in &ready {
                self.receive(*token, &mut incoming);
            }
        }
    }

    fn now(&self) -> Duration {
        Clock.instant().since(self.begin)
    }

    /// Carries out the orders whose time has come.
    fn obey(&mut self, now: Duration) {
        while self.orders.first().is_some_and(|order| order.after <= now) {
            let order = self.orders.remove(0);
            for (at, wanted) in [(UP, order.up), (DOWN, order.down)] {
                if !wanted {
                    continue;
                }
                self.conditions[at] = order.apply(self.conditions[at]);
                for line in self.lines.values_mut() {
                    line[at].change(now, self.conditions[at]);
                }
            }
        }
    }

    /// Sends what is due. What a socket does not take is lost in the kernel, as it would be on any host.
    fn deliver(&mut self, now: Duration) {
        for line in self.lines.values_mut() {
            while let Some((_, datagram)) = line[UP].pop(now) {
                let client = self.clients.get(&datagram.client);
                let _ = client.map(|client| client.back.send_one(&datagram.bytes));
            }
            while let Some((_, datagram)) = line[DOWN].pop(now) {
                let client = self.clients.get(&datagram.client);
                let _ = client.map(|c| self.front.send_to(&datagram.bytes, c.address));
            }
        }
    }

    fn receive(&mut self, token: u64, incoming: &mut Incoming) {
        let now = Clock.instant();
        let count = match self.clients.get(&token) {
            Some(client) => client.back.receive(now, incoming),
            None => self.front.receive(now, incoming),
        };
        debug_assert!(count <= RECEIVE_MESSAGES);
        for at in 0..count {
            let Some((arrival, datagrams)) = incoming.message(at) else { continue };
            // What the kernel took in before a client was made came before its line was.
            let entered = arrival.at.since(self.begin);
            let way = match token {
                FRONT => arrival.from.and_then(|from| Some((self.client(from, entered)?, UP))),
                client => Some((client, DOWN)),
            };
            let Some((client, direction)) = way else { continue };
            if let Some(client) = self.clients.get_mut(&client) {
                client.active_at = entered;
            }
            let line = if self.shared { FRONT } else { client };
            let Some(line) = self.lines.get_mut(&line) else { continue };
            for bytes in datagrams {
                let datagram = Datagram { client, bytes: (&*bytes).into() };
                line[direction].push(entered, bytes.len(), datagram);
            }
        }
    }

    /// The client at an address, a new one if need be; nobody if there are too many.
    fn client(&mut self, address: SocketAddr, now: Duration) -> Option<u64> {
        if let Some(client) = self.known.get(&address) {
            return Some(*client);
        }
        if self.clients.len() >= SHAPER_CLIENTS {
            let (idle, client) = self.clients.iter().min_by_key(|(_, client)| client.active_at)?;
            if now.saturating_sub(client.active_at) < SHAPER_IDLE {
                return None;
            }
            let (idle, address) = (*idle, client.address);
            self.known.remove(&address);
            self.clients.remove(&idle);
            self.lines.remove(&idle);
        }
        let any: IpAddr = match self.server {
            SocketAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
            SocketAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
        };
        let back = Socket::bind(SocketAddr::new(any, 0)).ok()?;
        back.connect(self.server).ok()?;
        let life = self.lives + 1;
        self.poller.add(&back, life).ok()?;
        self.lives = life;
        self.clients.insert(life, Client { address, back, active_at: now });
        self.known.insert(address, life);
        let line = if self.shared { FRONT } else { life };
        let (conditions, rng) = (self.conditions, &self.rng);
        self.lines.entry(line).or_insert_with(|| {
            [UP, DOWN].map(|at| Pipe::new(conditions[at], rng.fork(2 * line + at as u64)))
        });
        Some(life)
    }

    fn told(&self) -> Vec<Told> {
        let tell = |pipe: &Pipe<Datagram>| (pipe.counts(), pipe.truth().clone());
        let told = self.lines.iter().map(|(client, line)| Told {
            client: self.clients.get(client).map(|client| client.address),
            up: tell(&line[UP]),
            down: tell(&line[DOWN]),
        });
        told.collect()
    }
}

impl Told {
    /// As a JSON object.
    #[must_use]
    pub fn to_json(&self) -> String {
        let client = self.client.map_or_else(String::new, |client| client.to_string());
        let (up, down) = (self.up.1.to_json(), self.down.1.to_json());
        format!("{{\"client\":\"{client}\",\"up\":{up},\"down\":{down}}}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::UdpSocket;

    /// A server that sends back what it gets, until it gets nothing for a while.
    fn echo() -> (SocketAddr, JoinHandle<usize>) {
        let server = UdpSocket::bind("127.0.0.1:0").unwrap();
        server.set_read_timeout(Some(Duration::from_secs(1))).unwrap();
        let address = server.local_addr().unwrap();
        let work = move || {
            let mut seen = std::collections::BTreeSet::new();
            let mut bytes = [0; 2000];
            while let Ok((length, from)) = server.recv_from(&mut bytes) {
                seen.insert(from);
                server.send_to(&bytes[..length], from).unwrap();
            }
            seen.len()
        };
        (address, std::thread::spawn(work))
    }

    fn client(to: SocketAddr) -> UdpSocket {
        let client = UdpSocket::bind("127.0.0.1:0").unwrap();
        client.connect(to).unwrap();
        client.set_read_timeout(Some(Duration::from_millis(700))).unwrap();
        client
    }

    fn send(client: &UdpSocket, count: usize) {
        for _ in 0..count {
            client.send(&[7; 100]).unwrap();
        }
    }

    fn impairment(orders: &[&str]) -> Impairment {
        let orders = orders.iter().map(|order| order.parse().unwrap()).collect();
        Impairment { orders, seed: 1, shared: false }
    }

    #[test]
    fn clients_are_told_apart_and_delayed_both_ways() {
        let (server, served) = echo();
        let orders = impairment(&["up delay=20ms", "down delay=30ms"]);
        let shaper = Shaper::start("127.0.0.1:0".parse().unwrap(), server, &orders).unwrap();
        let clients = [client(shaper.address()), client(shaper.address())];
        let mut bytes = [0; 100];
        let begin = std::time::Instant::now();
        for (n, client) in (0..).zip(&clients) {
            client.send(&[n; 50]).unwrap();
        }
        for (n, client) in (0..).zip(&clients) {
            let length = client.recv(&mut bytes).unwrap();
            assert_eq!(bytes[..length], [n; 50]);
        }
        let trip = begin.elapsed();
        assert!(
            (Duration::from_millis(50)..Duration::from_millis(500)).contains(&trip),
            "{trip:?}"
        );
        let told = shaper.tell();
        assert_eq!(told.len(), 2);
        let of_first = told.iter().find(|t| t.client == clients[0].local_addr().ok()).unwrap();
        assert_eq!((of_first.up.0.sent, of_first.down.0.sent), (1, 1));
        drop(shaper);
        assert_eq!(served.join().unwrap(), 2, "a socket for each client");
    }

    #[test]
    fn rates_and_losses_are_kept_and_change_while_it_runs() {
        let (server, served) = echo();
        let orders = impairment(&["up rate=1.024M queue=1s", "up loss=0.5"]);
        let shaper = Shaper::start("127.0.0.1:0".parse().unwrap(), server, &orders).unwrap();
        let client = client(shaper.address());
        // 128 bytes on the wire take 1 ms.
        send(&client, 100);
        let mut bytes = [0; 200];
        let got = std::iter::from_fn(|| client.recv(&mut bytes).ok()).count() as u64;
        let told = shaper.tell().remove(0);
        assert_eq!(got, told.up.0.sent - told.up.0.lost);
        assert!((20..80).contains(&told.up.0.lost), "{:?}", told.up.0);
        let longest = told.up.1.queue_delay(1.0);
        let expected = Duration::from_millis(got - 1);
        assert!(longest <= expected && longest > expected / 2, "{longest:?} {got}");
        assert!(told.to_json().contains(r#""up":{"sent":100,"#));

        shaper.order("both clear".parse().unwrap());
        std::thread::sleep(4 * NAP);
        send(&client, 50);
        assert_eq!(std::iter::from_fn(|| client.recv(&mut bytes).ok()).count(), 50);
        drop(shaper);
        served.join().unwrap();
    }
}
