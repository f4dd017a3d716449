//! Whether the threads of the process do their work; and says once what the sockets only count.

use crate::framed;
use crate::handshake::Handshakes;
use crate::limits::{HEARTBEAT, MAILBOX_FULL_RETRY, STALLED};
use crate::mailbox::{Mailbox, MailboxError, Pulse};
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};
use strait_io::Drop;
use tokio::sync::mpsc;
use tokio::task::JoinSet;

/// How the workers are watched.
#[derive(Clone, Copy, Debug)]
pub struct Timing {
    /// A worker that does not answer for this long is stalled.
    pub stalled: Duration,
    /// How often the workers are asked.
    pub heartbeat: Duration,
}

impl Default for Timing {
    fn default() -> Self {
        Self { stalled: STALLED, heartbeat: HEARTBEAT }
    }
}

/// What the kernel refuses that an operator can mend; of the other reasons a peer is the cause.
const SAID: &[Drop] = &[
    Drop::SendBufferFull,
    Drop::SendNoBuffers,
    Drop::SendForbidden,
    Drop::SendTooBig,
    Drop::SendFailed,
    Drop::ReceiveOverflow,
];
const _: () = assert!(SAID.len() < u32::BITS as usize);
/// The bit for runs that the kernel does not cut, behind those of [`SAID`].
const RUNS: usize = SAID.len();

/// What is known of the threads.
#[derive(Debug)]
pub(crate) struct Health {
    timing: Timing,
    /// Per worker.
    stalled: Vec<AtomicBool>,
    /// The DTLS thread does not turn, nor that of framed media, nor that which meets those who come for
    /// it.
    handshakes_stalled: AtomicBool,
    framed_stalled: AtomicBool,
    hello_stalled: AtomicBool,
    /// The first thread or task that ended without being told to.
    ended: OnceLock<&'static str>,
    /// What was said already, a bit for each.
    said: AtomicU32,
}

impl Health {
    pub(crate) fn new(workers: usize, timing: Timing) -> Self {
        let stalled = (0..workers).map(|_| AtomicBool::new(false)).collect();
        let (ended, said) = (OnceLock::new(), AtomicU32::new(0));
        let (handshakes_stalled, framed_stalled, hello_stalled) = Default::default();
        Self { timing, stalled, handshakes_stalled, framed_stalled, hello_stalled, ended, said }
    }

    /// Whether all do their work, as far as is known.
    pub(crate) fn is_well(&self) -> bool {
        self.problems().next().is_none()
    }

    /// What is wrong, one sentence each.
    pub(crate) fn problems(&self) -> impl Iterator<Item = String> {
        let ended = self.ended.get().map(|what| format!("{what} ended unexpectedly"));
        let stalled = self.stalled().map(|worker| format!("worker {worker} is stalled"));
        let handshakes = self.handshakes_stalled.load(Ordering::Relaxed);
        let handshakes =
            handshakes.then(|| "the DTLS thread is stalled: nobody new connects".to_owned());
        let framed = self.framed_stalled.load(Ordering::Relaxed);
        let framed = framed.then(|| "the TLS thread is stalled: no framed media".to_owned());
        let hello = self.hello_stalled.load(Ordering::Relaxed);
        let hello = hello.then(|| {
            "the thread of TLS handshakes is stalled: nobody new by framed media".to_owned()
        });
        ended.into_iter().chain(stalled).chain(handshakes).chain(framed).chain(hello)
    }

    /// As if a worker did not answer.
    #[cfg(test)]
    pub(crate) fn stall(&self, worker: usize) {
        self.stalled[worker].store(true, Ordering::Relaxed);
    }

    /// The workers that do not answer.
    pub(crate) fn stalled(&self) -> impl Iterator<Item = usize> {
        let stalled = self.stalled.iter().enumerate();
        stalled.filter(|(_, flag)| flag.load(Ordering::Relaxed)).map(|(worker, _)| worker)
    }

    /// Asks `each` of the workers at once, so that one that stalls keeps no other waiting. In their order; `None` from
    /// those that do not answer in time.
    pub(crate) async fn ask<T, F>(
        &self,
        workers: &[Mailbox],
        each: impl Fn(Mailbox) -> F,
    ) -> Vec<Option<T>>
    where
        T: Send + 'static,
        F: Future<Output = Result<T, MailboxError>> + Send + 'static,
    {
        let mut asked = JoinSet::new();
        for (at, mailbox) in workers.iter().enumerate() {
            let answer = tokio::time::timeout(self.timing.stalled, each(mailbox.clone()));
            asked.spawn(async move { (at, answer.await) });
        }
        let mut answers: Vec<_> = workers.iter().map(|_| None).collect();
        while let Some(answered) = asked.join_next().await {
            if let Ok((at, Ok(Ok(answer)))) = answered
                && let Some(place) = answers.get_mut(at)
            {
                *place = Some(answer);
            }
        }
        answers
    }

    /// Looks after the workers once.
    async fn look(&self, workers: &[Mailbox]) {
        let pulses = self.ask(workers, pulse).await;
        for ((worker, pulse), flag) in pulses.into_iter().enumerate().zip(&self.stalled) {
            let stalled = pulse.is_none();
            if flag.swap(stalled, Ordering::Relaxed) != stalled {
                match stalled {
                    true => {
                        tracing::error!(
                            worker,
                            "stalled: no answer within {:?}",
                            self.timing.stalled
                        )
                    }
                    false => tracing::warn!(worker, "turns again"),
                }
            }
            if let Some(pulse) = pulse {
                self.tell(&pulse);
            }
        }
    }

    /// Looks after the DTLS thread, whose loop made so many turns until now.
    fn look_after_handshakes(&self, turns: u64, now: Instant, last: &mut (u64, Instant)) {
        look_after("DTLS", &self.handshakes_stalled, (turns, now), last);
    }

    /// The same for that of framed media.
    fn look_after_framed(&self, turns: u64, now: Instant, last: &mut (u64, Instant)) {
        look_after("TLS", &self.framed_stalled, (turns, now), last);
    }

    /// The same for that of its handshakes.
    fn look_after_hello(&self, turns: u64, now: Instant, last: &mut (u64, Instant)) {
        look_after("tls-hello", &self.hello_stalled, (turns, now), last);
    }

    /// Says what is counted for the first time in this process.
    fn tell(&self, pulse: &Pulse) {
        for (bit, &reason) in SAID.iter().enumerate() {
            if pulse.sockets.drops(reason) > 0 && self.is_new(bit) {
                let words: Vec<_> = reason.description().split_whitespace().collect();
                tracing::warn!(
                    "packets are dropped: {}: {} Said once; relay_packets_dropped_total goes on counting",
                    reason.name(),
                    words.join(" "),
                );
            }
        }
        if pulse.sockets.runs_refused > 0 && self.is_new(RUNS) {
            tracing::warn!(
                "the kernel does not cut a run of packets, which then leave one by one: an interface without checksum \
                 offload, IPsec on the way to a peer, or an MTU below the packets' size. \
                 Said once; relay_runs_refused_total goes on counting"
            );
        }
    }

    fn is_new(&self, bit: usize) -> bool {
        let bit = 1 << bit;
        self.said.fetch_or(bit, Ordering::Relaxed) & bit == 0
    }
}

/// Notes whether a thread made turns since the last one that was seen.
fn look_after(
    name: &str,
    flag: &AtomicBool,
    (turns, now): (u64, Instant),
    last: &mut (u64, Instant),
) {
    if turns != last.0 {
        *last = (turns, now);
    }
    let stalled = now.saturating_duration_since(last.1) >= STALLED;
    if flag.swap(stalled, Ordering::Relaxed) != stalled {
        match stalled {
            true => tracing::error!("the {name} thread is stalled: no turn within {STALLED:?}"),
            false => tracing::warn!("the {name} thread turns again"),
        }
    }
}

/// A worker that is busy may have no room for a question now, and turns all the same.
async fn pulse(mailbox: Mailbox) -> Result<Pulse, MailboxError> {
    loop {
        match mailbox.ping().await {
            Err(MailboxError::Full(_)) => tokio::time::sleep(MAILBOX_FULL_RETRY).await,
            answer => return answer,
        }
    }
}

/// Looks after all threads for as long as the process lives.
pub(crate) async fn watch_over(
    workers: Vec<Mailbox>,
    handshakes: Handshakes,
    framed: Option<Arc<framed::Shared>>,
    health: Arc<Health>,
) {
    let mut last = (handshakes.turns(), Instant::now());
    let (mut last_framed, mut last_hello) = ((0, Instant::now()), (0, Instant::now()));
    loop {
        health.look(&workers).await;
        health.look_after_handshakes(handshakes.turns(), Instant::now(), &mut last);
        if let Some(framed) = &framed {
            let turns = framed.turns.load(Ordering::Relaxed);
            health.look_after_framed(turns, Instant::now(), &mut last_framed);
            let turns = framed.hello_turns.load(Ordering::Relaxed);
            health.look_after_hello(turns, Instant::now(), &mut last_hello);
        }
        tokio::time::sleep(health.timing.heartbeat).await;
    }
}

/// Held by a thread or a task, it tells of their end, also of one by panic.
#[derive(Debug)]
pub(crate) struct Last {
    what: &'static str,
    health: Arc<Health>,
    died: mpsc::Sender<&'static str>,
}

impl Last {
    pub(crate) fn new(
        what: &'static str,
        health: &Arc<Health>,
        died: &mpsc::Sender<&'static str>,
    ) -> Self {
        Self { what, health: health.clone(), died: died.clone() }
    }
}

impl std::ops::Drop for Last {
    fn drop(&mut self) {
        let _ = self.health.ended.set(self.what);
        // Full: somebody told already.
        let _ = self.died.try_send(self.what);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mailbox::{Inbox, Request, mailbox};
    use strait_io::{Bound, Options, bind};

    fn workers(count: usize) -> (Vec<Mailbox>, Vec<Inbox>, Bound) {
        let bound = bind(&Options {
            udp: vec![[127, 0, 0, 1].into()],
            workers: count,
            ..Options::default()
        })
        .unwrap();
        let ends = bound.ports.iter().enumerate().map(|(at, port)| mailbox(at, port.waker()));
        let (mailboxes, inboxes) = ends.unzip();
        (mailboxes, inboxes, bound)
    }

    /// Does what a worker does with questions, until the others are dropped.
    fn turn(inbox: &Inbox) {
        while let Some(request) = inbox.take() {
            if let Request::Ping(reply) = request {
                let _ = reply.send(Pulse::default());
            }
        }
    }

    const SHORT: Timing =
        Timing { stalled: Duration::from_millis(50), heartbeat: Duration::from_millis(1) };

    #[tokio::test]
    async fn who_does_not_answer_is_stalled_until_it_answers() {
        let (mailboxes, inboxes, _bound) = workers(3);
        let health = Health::new(3, SHORT);
        let mut looking = std::pin::pin!(health.look(&mailboxes));
        // One turns, two do not.
        let turning = async {
            loop {
                turn(&inboxes[1]);
                tokio::task::yield_now().await;
            }
        };
        tokio::select! { () = &mut looking => {}, () = turning => {} }
        assert_eq!(health.stalled().collect::<Vec<_>>(), [0, 2]);
        assert!(!health.is_well());
        let problems: Vec<_> = health.problems().collect();
        assert_eq!(problems, ["worker 0 is stalled", "worker 2 is stalled"]);

        let turning = async {
            loop {
                inboxes.iter().for_each(turn);
                tokio::task::yield_now().await;
            }
        };
        tokio::select! { () = health.look(&mailboxes) => {}, () = turning => {} }
        assert!(health.is_well());
    }

    #[tokio::test]
    async fn a_full_mailbox_is_no_stall_if_it_empties() {
        let (mailboxes, inboxes, _bound) = workers(1);
        while mailboxes[0].send(Request::Steer(path(), None)).is_ok() {}
        let health = Health::new(1, Timing { stalled: Duration::from_secs(5), ..SHORT });
        let turning = async {
            // It is asked, and has no room.
            tokio::time::sleep(MAILBOX_FULL_RETRY / 2).await;
            loop {
                turn(&inboxes[0]);
                tokio::task::yield_now().await;
            }
        };
        tokio::select! { () = health.look(&mailboxes) => {}, () = turning => {} }
        assert!(health.is_well());
    }

    fn path() -> strait_core::port::Path {
        strait_core::port::Path::udp([127, 0, 0, 1].into(), "127.0.0.1:9".parse().unwrap())
    }

    #[test]
    fn an_end_is_told_and_lasts() {
        let health = Arc::new(Health::new(1, SHORT));
        let (died, mut told) = mpsc::channel(1);
        let last = Last::new("worker 0", &health, &died);
        let other = Last::new("dtls", &health, &died);
        assert!(health.is_well());
        std::mem::drop(last);
        std::mem::drop(other);
        assert!(!health.is_well());
        assert_eq!(told.try_recv(), Ok("worker 0"));
        assert_eq!(health.problems().collect::<Vec<_>>(), ["worker 0 ended unexpectedly"]);
    }

    #[test]
    fn a_handshake_thread_that_hangs_is_noticed() {
        let health = Health::new(1, SHORT);
        let start = Instant::now();
        let mut last = (7, start);
        let mut at = |turns, milliseconds| {
            let now = start + Duration::from_millis(milliseconds);
            health.look_after_handshakes(turns, now, &mut last);
            health.is_well()
        };
        assert!(at(7, 1000) && at(8, 2000) && at(8, 3000));
        assert!(!at(8, 4000), "two seconds without a turn");
        assert!(!at(8, 5000) && at(9, 6000) && at(9, 7999));
    }

    #[test]
    fn a_thread_of_framed_media_that_hangs_is_noticed() {
        let health = Health::new(1, SHORT);
        let start = Instant::now();
        let mut last = (7, start);
        health.look_after_framed(7, start + Duration::from_millis(1999), &mut last);
        assert!(health.is_well());
        health.look_after_framed(7, start + STALLED, &mut last);
        let problems: Vec<_> = health.problems().collect();
        assert_eq!(problems, ["the TLS thread is stalled: no framed media"]);
        health.look_after_framed(8, start + STALLED, &mut last);
        assert!(health.is_well());
    }

    #[test]
    fn a_thread_of_tls_handshakes_that_hangs_is_noticed() {
        let health = Health::new(1, SHORT);
        let start = Instant::now();
        let mut last = (7, start);
        health.look_after_hello(8, start + Duration::from_secs(9), &mut last);
        assert!(health.is_well());
        health.look_after_hello(8, start + Duration::from_secs(9) + STALLED, &mut last);
        let problems: Vec<_> = health.problems().collect();
        assert_eq!(
            problems,
            ["the thread of TLS handshakes is stalled: nobody new by framed media"]
        );
        health.look_after_hello(9, start + Duration::from_secs(20), &mut last);
        assert!(health.is_well());
    }

    #[test]
    fn each_thing_is_said_once() {
        let health = Health::new(1, SHORT);
        let mut pulse = Pulse::default();
        health.tell(&pulse);
        assert_eq!(health.said.load(Ordering::Relaxed), 0);
        pulse.sockets.runs_refused = 3;
        health.tell(&pulse);
        assert_eq!(health.said.load(Ordering::Relaxed), 1 << RUNS);
        assert!(!health.is_new(RUNS) && health.is_new(0) && !health.is_new(0));
    }
}
