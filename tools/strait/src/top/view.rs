//! What happened between two samples, as rates, the busiest first.

use std::collections::HashMap;

use serde::Serialize;
use strait_proto::v1::{self, subscription_statistics::HeldBack};

use super::sample::Sample;

/// What a relay did in some seconds.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Frame {
    pub version: String,
    pub instance: String,
    pub draining: bool,
    pub degradations: Vec<String>,
    /// Over which the rates are means.
    pub seconds: f64,
    pub workers: Vec<Worker>,
    pub drops: Vec<Drop>,
    /// Where the time goes, over all workers.
    pub latency: Vec<Stage>,
    pub scopes: Vec<Scope>,
    pub peers: Vec<Peer>,
    pub streams: Vec<Stream>,
    /// Scopes that are too many to be looked at, and all in them.
    pub scopes_left_out: usize,
}

/// Of a stage of the way through the relay.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Stage {
    pub stage: String,
    /// Datagrams that were followed.
    pub samples: u64,
    pub mean_us: f64,
    /// Half of them were not longer in it; of the last class as far as it is known.
    pub median_us: f64,
    pub p99_us: f64,
}

/// Packets and bits in a second, both ways as the relay sees them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub struct Rates {
    pub packets_in_per_second: f64,
    pub packets_out_per_second: f64,
    pub bits_in_per_second: f64,
    pub bits_out_per_second: f64,
}

#[derive(Clone, Debug, Default, Serialize)]
pub struct Worker {
    pub worker: u32,
    /// Of one core; absent where the kernel does not tell us.
    pub cpu_percent: Option<f64>,
    pub scopes: u32,
    pub peers: u32,
    pub subscriptions: u32,
    #[serde(flatten)]
    pub rates: Rates,
    pub drops_per_second: f64,
    /// Mean number of datagrams that left by one call.
    pub run_length_mean: Option<f64>,
}

#[derive(Clone, Debug, Default, Serialize)]
pub struct Drop {
    pub reason: String,
    pub per_second: f64,
    /// Since the relay started.
    pub total: u64,
}

#[derive(Clone, Debug, Default, Serialize)]
pub struct Scope {
    pub scope: String,
    pub peers: usize,
    pub publications: usize,
    pub subscriptions: usize,
    #[serde(flatten)]
    pub rates: Rates,
    /// Whose speech dominates.
    pub dominant: Option<String>,
}

#[derive(Clone, Debug, Default, Serialize)]
pub struct Peer {
    pub scope: String,
    pub peer: String,
    pub connected: bool,
    pub remote_address: String,
    pub publications: usize,
    pub subscriptions: usize,
    #[serde(flatten)]
    pub rates: Rates,
    /// What its line carries, as far as that is known.
    pub estimate_bits_per_second: Option<f64>,
    pub round_trip_ms: Option<f64>,
    /// Of what it gets, that which loses most, by its own reports; absent for who gets nothing.
    pub loss_percent: Option<f64>,
    /// Subscriptions that get less than they want, or nothing, for want of bandwidth.
    pub held_back: usize,
}

/// An encoding that comes in, or a subscription that goes out.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Stream {
    pub direction: &'static str,
    pub scope: String,
    pub peer: String,
    /// The publication that comes in, or the subscription.
    pub stream: String,
    /// RID of what comes in, number of the layer that goes out.
    pub layer: String,
    pub ssrc: u32,
    pub packets_per_second: f64,
    pub bits_per_second: f64,
    pub loss_percent: f64,
    pub jitter_ms: f64,
    /// As the subscriber's reports tell; absent for what comes in.
    pub round_trip_ms: Option<f64>,
    /// Somebody speaks in it.
    pub speaking: bool,
}

impl Frame {
    /// What happened from one sample to the next.
    pub fn between(before: &Sample, now: &Sample) -> Self {
        let seconds = now.at.saturating_duration_since(before.at).as_secs_f64().max(1e-3);
        let statistics = &now.statistics;
        let mut frame = Self {
            version: now.info.version.clone(),
            instance: now.info.instance_id.clone(),
            draining: now.info.draining,
            degradations: now.info.degradations.clone(),
            seconds,
            workers: workers(before, now, seconds),
            drops: drops(before, now, seconds),
            latency: latency(before, now),
            scopes_left_out: now.scopes_left_out,
            ..Self::default()
        };
        let known = Known::of(&before.statistics);
        for scope in &statistics.scopes {
            frame.add_scope(&known, scope, seconds);
        }
        frame.scopes.sort_by(|a, b| busier(a.rates, b.rates).then_with(|| a.scope.cmp(&b.scope)));
        frame.peers.sort_by(|a, b| busier(a.rates, b.rates).then_with(|| a.peer.cmp(&b.peer)));
        frame.streams.sort_by(|a, b| {
            b.bits_per_second.total_cmp(&a.bits_per_second).then_with(|| a.stream.cmp(&b.stream))
        });
        frame
    }

    fn add_scope(&mut self, known: &Known<'_>, scope: &v1::ScopeStatistics, seconds: f64) {
        let mut of_scope = Scope {
            scope: scope.scope_id.clone(),
            peers: scope.peers.len(),
            dominant: Some(scope.dominant_publication_id.clone()).filter(|id| !id.is_empty()),
            ..Scope::default()
        };
        for peer in &scope.peers {
            let key = (&*scope.scope_id, &*peer.peer_id);
            let counted = peer_counts(peer);
            // Who came since then has done all of it since then.
            let before = known.peers.get(&key).copied().unwrap_or_default();
            let rates = rates(before, counted, seconds);
            of_scope.publications += peer.publications.len();
            of_scope.subscriptions += peer.subscriptions.len();
            of_scope.rates = of_scope.rates.plus(rates);
            self.peers.push(Peer {
                scope: scope.scope_id.clone(),
                peer: peer.peer_id.clone(),
                connected: peer.connected,
                remote_address: peer.remote_address.clone(),
                publications: peer.publications.len(),
                subscriptions: peer.subscriptions.len(),
                rates,
                estimate_bits_per_second: peer.budget_bps.map(|bps| bps as f64),
                round_trip_ms: peer.round_trip_seconds.map(|seconds| 1000.0 * seconds),
                loss_percent: peer
                    .subscriptions
                    .iter()
                    .map(|subscription| 100.0 * subscription.fraction_lost)
                    .max_by(f64::total_cmp),
                held_back: peer
                    .subscriptions
                    .iter()
                    .filter(|s| matches!(s.held_back(), HeldBack::Lowered | HeldBack::Paused))
                    .count(),
            });
            self.add_streams(known, &scope.scope_id, peer, seconds);
        }
        self.scopes.push(of_scope);
    }

    fn add_streams(
        &mut self,
        known: &Known<'_>,
        scope: &str,
        peer: &v1::PeerStatistics,
        seconds: f64,
    ) {
        let rate = |now: u64, before: u64| now.saturating_sub(before) as f64 / seconds;
        let of_peer = |stream: &str, ssrc| Stream {
            scope: scope.to_owned(),
            peer: peer.peer_id.clone(),
            stream: stream.to_owned(),
            ssrc,
            ..Stream::default()
        };
        for publication in &peer.publications {
            for encoding in publication.encodings.iter().filter(|encoding| encoding.ssrc != 0) {
                let key = (scope, &*publication.publication_id, encoding.ssrc);
                let before = known.streams.get(&key).copied().unwrap_or_default();
                let lost = (encoding.packets_lost - before.lost).max(0) as f64;
                let came = encoding.packets.saturating_sub(before.packets) as f64;
                self.streams.push(Stream {
                    direction: "in",
                    layer: encoding.rid.clone(),
                    packets_per_second: came / seconds,
                    bits_per_second: 8.0 * rate(encoding.bytes, before.bytes),
                    loss_percent: 100.0 * lost / (lost + came).max(1.0),
                    jitter_ms: 1000.0 * encoding.jitter_seconds,
                    speaking: publication.speaking,
                    ..of_peer(&publication.publication_id, encoding.ssrc)
                });
            }
        }
        for subscription in &peer.subscriptions {
            let key = (scope, &*subscription.subscription_id, subscription.ssrc);
            let before = known.streams.get(&key).copied().unwrap_or_default();
            self.streams.push(Stream {
                direction: "out",
                layer: subscription.layer.to_string(),
                packets_per_second: rate(subscription.packets, before.packets),
                bits_per_second: 8.0 * rate(subscription.bytes, before.bytes),
                loss_percent: 100.0 * subscription.fraction_lost,
                jitter_ms: 1000.0 * subscription.jitter_seconds,
                round_trip_ms: Some(1000.0 * subscription.round_trip_seconds),
                ..of_peer(&subscription.subscription_id, subscription.ssrc)
            });
        }
    }
}

impl Rates {
    fn plus(self, other: Self) -> Self {
        Self {
            packets_in_per_second: self.packets_in_per_second + other.packets_in_per_second,
            packets_out_per_second: self.packets_out_per_second + other.packets_out_per_second,
            bits_in_per_second: self.bits_in_per_second + other.bits_in_per_second,
            bits_out_per_second: self.bits_out_per_second + other.bits_out_per_second,
        }
    }
}

/// Packets and bytes received, packets and bytes sent.
type Counts = [u64; 4];

#[derive(Clone, Copy, Default)]
struct Stood {
    packets: u64,
    bytes: u64,
    lost: i64,
}

/// What the sample before had counted, by name.
struct Known<'a> {
    peers: HashMap<(&'a str, &'a str), Counts>,
    streams: HashMap<(&'a str, &'a str, u32), Stood>,
}

impl<'a> Known<'a> {
    fn of(statistics: &'a v1::GetStatisticsResponse) -> Self {
        let (mut peers, mut streams) = (HashMap::new(), HashMap::new());
        for scope in &statistics.scopes {
            let name = &*scope.scope_id;
            for peer in &scope.peers {
                peers.insert((name, &*peer.peer_id), peer_counts(peer));
                for publication in &peer.publications {
                    for each in &publication.encodings {
                        let stood = Stood {
                            packets: each.packets,
                            bytes: each.bytes,
                            lost: each.packets_lost,
                        };
                        streams.insert((name, &*publication.publication_id, each.ssrc), stood);
                    }
                }
                for each in &peer.subscriptions {
                    let stood = Stood { packets: each.packets, bytes: each.bytes, lost: 0 };
                    streams.insert((name, &*each.subscription_id, each.ssrc), stood);
                }
            }
        }
        Self { peers, streams }
    }
}

fn peer_counts(peer: &v1::PeerStatistics) -> Counts {
    [peer.packets_received, peer.bytes_received, peer.packets_sent, peer.bytes_sent]
}

fn rates(before: Counts, now: Counts, seconds: f64) -> Rates {
    let mut each = now.into_iter().zip(before);
    let mut next = || {
        let (now, before) = each.next().unwrap_or_default();
        now.saturating_sub(before) as f64 / seconds
    };
    let (packets_in, bytes_in, packets_out, bytes_out) = (next(), next(), next(), next());
    Rates {
        packets_in_per_second: packets_in,
        packets_out_per_second: packets_out,
        bits_in_per_second: 8.0 * bytes_in,
        bits_out_per_second: 8.0 * bytes_out,
    }
}

fn busier(a: Rates, b: Rates) -> std::cmp::Ordering {
    let bits = |rates: Rates| rates.bits_in_per_second + rates.bits_out_per_second;
    bits(b).total_cmp(&bits(a))
}

fn workers(before: &Sample, now: &Sample, seconds: f64) -> Vec<Worker> {
    let counts = |worker: &v1::WorkerStatistics| {
        [worker.packets_received, worker.bytes_received, worker.packets_sent, worker.bytes_sent]
    };
    let dropped = |worker: &v1::WorkerStatistics| worker.packets_dropped.values().sum::<u64>();
    let each = now.statistics.workers.iter().map(|worker| {
        let earlier = before.statistics.workers.iter().find(|each| each.worker == worker.worker);
        let earlier = earlier.cloned().unwrap_or_default();
        let cpu = now.cpu.get(&worker.worker).zip(before.cpu.get(&worker.worker));
        let runs = worker.runs_sent.saturating_sub(earlier.runs_sent);
        let datagrams = worker.run_datagrams_sent.saturating_sub(earlier.run_datagrams_sent);
        Worker {
            worker: worker.worker,
            cpu_percent: cpu
                .map(|(now, before)| 100.0 * now.saturating_sub(*before).as_secs_f64() / seconds),
            scopes: worker.scopes,
            peers: worker.peers,
            subscriptions: worker.subscriptions,
            rates: rates(counts(&earlier), counts(worker), seconds),
            drops_per_second: dropped(worker).saturating_sub(dropped(&earlier)) as f64 / seconds,
            run_length_mean: (runs > 0).then(|| datagrams as f64 / runs as f64),
        }
    });
    each.collect()
}

fn drops(before: &Sample, now: &Sample, seconds: f64) -> Vec<Drop> {
    let sums = |sample: &Sample| {
        let mut sums: HashMap<String, u64> = HashMap::new();
        for (reason, count) in sample.statistics.workers.iter().flat_map(|w| &w.packets_dropped) {
            *sums.entry(reason.clone()).or_default() += count;
        }
        sums
    };
    let earlier = sums(before);
    let mut drops: Vec<Drop> = sums(now)
        .into_iter()
        .map(|(reason, total)| {
            let lately = total.saturating_sub(earlier.get(&reason).copied().unwrap_or_default());
            Drop { reason, per_second: lately as f64 / seconds, total }
        })
        .collect();
    drops.sort_by(|a, b| {
        let rates = b.per_second.total_cmp(&a.per_second);
        rates.then(b.total.cmp(&a.total)).then_with(|| a.reason.cmp(&b.reason))
    });
    drops
}

/// The stages in which datagrams were followed.
fn latency(before: &Sample, now: &Sample) -> Vec<Stage> {
    let mut stages: Vec<(String, Vec<u64>, f64)> = Vec::new();
    let mut bounds = Vec::new();
    for worker in &now.statistics.workers {
        let Some(latency) = &worker.latency else { continue };
        let earlier = before.statistics.workers.iter().find(|each| each.worker == worker.worker);
        let earlier = earlier.and_then(|worker| worker.latency.clone()).unwrap_or_default();
        bounds.clone_from(&latency.bounds_seconds);
        for stage in &latency.stages {
            let before = earlier.stages.iter().find(|before| before.stage == stage.stage);
            let before = before.cloned().unwrap_or_default();
            let counts = stage.counts.iter().enumerate().map(|(at, count)| {
                count.saturating_sub(before.counts.get(at).copied().unwrap_or_default())
            });
            let sum = (stage.sum_seconds - before.sum_seconds).max(0.0);
            match stages.iter_mut().find(|(name, ..)| *name == stage.stage) {
                Some((_, known, total)) => {
                    known.iter_mut().zip(counts).for_each(|(known, count)| *known += count);
                    *total += sum;
                }
                None => stages.push((stage.stage.clone(), counts.collect(), sum)),
            }
        }
    }
    let stages = stages.into_iter().filter_map(|(stage, counts, sum)| {
        let samples: u64 = counts.iter().sum();
        (samples > 0).then(|| Stage {
            stage,
            samples,
            mean_us: 1e6 * sum / samples as f64,
            median_us: 1e6 * share_below(&counts, &bounds, 0.5),
            p99_us: 1e6 * share_below(&counts, &bounds, 0.99),
        })
    });
    stages.collect()
}

/// What this share does not exceed, evenly spread within its class.
fn share_below(counts: &[u64], bounds: &[f64], share: f64) -> f64 {
    let mut left = share * counts.iter().sum::<u64>() as f64;
    let mut from = 0.0;
    for (count, to) in counts.iter().zip(bounds) {
        let count = *count as f64;
        if left <= count && count > 0.0 {
            return from + (to - from) * left / count;
        }
        left -= count;
        from = *to;
    }
    from
}

/// Frames for tests.
#[cfg(test)]
pub(super) mod testing {
    use super::*;
    use std::time::{Duration, Instant};

    /// One second of a scope with a speaker and a listener.
    pub fn second() -> (Sample, Sample) {
        let of = |times: u64| {
            let peer = |id: &str, received: u64, sent: u64| v1::PeerStatistics {
                peer_id: id.into(),
                connected: true,
                remote_address: "192.0.2.1:5000".into(),
                packets_received: received * times,
                bytes_received: 100 * received * times,
                packets_sent: sent * times,
                bytes_sent: 100 * sent * times,
                ..Default::default()
            };
            let encoding = v1::EncodingStatistics {
                ssrc: 5,
                packets: 45 * times,
                bytes: 4500 * times,
                packets_lost: 5 * times as i64,
                jitter_seconds: 0.002,
                ..Default::default()
            };
            let voice = v1::PublicationStatistics {
                publication_id: "voice".into(),
                encodings: vec![encoding],
                speaking: true,
                ..Default::default()
            };
            let ear = v1::SubscriptionStatistics {
                subscription_id: "ear".into(),
                publication_id: "voice".into(),
                ssrc: 9,
                packets: 45 * times,
                bytes: 4500 * times,
                fraction_lost: 0.25,
                round_trip_seconds: 0.05,
                held_back: HeldBack::Lowered.into(),
                ..Default::default()
            };
            let scope = v1::ScopeStatistics {
                scope_id: "lobby".into(),
                peers: vec![
                    v1::PeerStatistics { publications: vec![voice], ..peer("ann", 50, 2) },
                    v1::PeerStatistics {
                        subscriptions: vec![ear],
                        budget_bps: Some(750_000),
                        round_trip_seconds: Some(0.08),
                        ..peer("bob", 2, 50)
                    },
                ],
                dominant_publication_id: "voice".into(),
            };
            let worker = v1::WorkerStatistics {
                packets_received: 52 * times,
                bytes_received: 5200 * times,
                packets_sent: 52 * times,
                bytes_sent: 5200 * times,
                packets_dropped: [("not_selected".into(), 5 * times), ("no_keys".into(), 7)].into(),
                runs_sent: 13 * times,
                run_datagrams_sent: 52 * times,
                peers: 2,
                latency: Some(v1::Latency {
                    bounds_seconds: vec![10e-6, 20e-6],
                    stages: ["wait", "total"]
                        .map(|stage| v1::StageLatency {
                            stage: stage.into(),
                            sum_seconds: 120e-6 * times as f64,
                            counts: vec![0, 10 * times, 0],
                        })
                        .into(),
                }),
                ..Default::default()
            };
            Sample {
                at: Instant::now() + Duration::from_secs(times),
                info: v1::GetInfoResponse { version: "1.2".into(), ..Default::default() },
                statistics: v1::GetStatisticsResponse {
                    workers: vec![worker],
                    scopes: vec![scope],
                },
                cpu: [(0, Duration::from_millis(100 * times))].into(),
                scopes_left_out: 0,
            }
        };
        let (before, mut now) = (of(3), of(4));
        now.at = before.at + Duration::from_secs(1);
        (before, now)
    }

    /// More than fits on any terminal.
    pub fn large() -> Frame {
        let name = |n: usize| format!("a-name-that-is-rather-long-{n}");
        let each = |n: usize| (n, name(n));
        Frame {
            workers: (0..100).map(|worker| Worker { worker, ..Worker::default() }).collect(),
            latency: vec![Stage::default(); 7],
            drops: (0..40)
                .map(each)
                .map(|(_, reason)| Drop { reason, total: 5, ..Drop::default() })
                .collect(),
            scopes: (0..90)
                .map(each)
                .map(|(_, scope)| Scope { scope, ..Scope::default() })
                .collect(),
            peers: (0..900).map(each).map(|(_, peer)| Peer { peer, ..Peer::default() }).collect(),
            streams: (0..9000)
                .map(each)
                .map(|(_, stream)| Stream { stream, ..Stream::default() })
                .collect(),
            ..Frame::default()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counters_become_rates() {
        let (before, now) = testing::second();
        let frame = Frame::between(&before, &now);
        let worker = &frame.workers[0];
        assert_eq!(worker.rates.packets_in_per_second, 52.0);
        assert_eq!(worker.rates.bits_out_per_second, 41_600.0);
        assert!((worker.cpu_percent.unwrap() - 10.0).abs() < 1e-6);
        assert_eq!((worker.run_length_mean, worker.drops_per_second), (Some(4.0), 5.0));
        let drops: Vec<_> =
            frame.drops.iter().map(|d| (&*d.reason, d.per_second, d.total)).collect();
        assert_eq!(drops, [("not_selected", 5.0, 20), ("no_keys", 0.0, 7)]);
        let stage = &frame.latency[1];
        assert_eq!((&*stage.stage, stage.samples), ("total", 10));
        let close = |value: f64, to: f64| (value - to).abs() < 1e-6;
        assert!(close(stage.mean_us, 12.0) && close(stage.median_us, 15.0), "{stage:?}");
        assert!(close(stage.p99_us, 19.9), "{stage:?}");
        let scope = &frame.scopes[0];
        assert_eq!((scope.peers, scope.publications, scope.subscriptions), (2, 1, 1));
        assert_eq!(scope.rates.packets_out_per_second, 52.0);
        assert_eq!(scope.dominant.as_deref(), Some("voice"));
        let bob = frame.peers.iter().find(|peer| peer.peer == "bob").unwrap();
        let line = (bob.estimate_bits_per_second, bob.round_trip_ms, bob.loss_percent);
        assert_eq!((line, bob.held_back), ((Some(750_000.0), Some(80.0), Some(25.0)), 1));
        let ann = frame.peers.iter().find(|peer| peer.peer == "ann").unwrap();
        assert_eq!((ann.estimate_bits_per_second, ann.loss_percent), (None, None));
        let (voice, ear) = (&frame.streams[1], &frame.streams[0]);
        assert_eq!((voice.direction, voice.loss_percent, voice.speaking), ("in", 10.0, true));
        assert_eq!((ear.direction, ear.loss_percent), ("out", 25.0));
        assert_eq!((ear.bits_per_second, ear.round_trip_ms), (36_000.0, Some(50.0)));
    }

    #[test]
    fn a_relay_that_restarted_or_a_peer_that_came_gives_no_nonsense() {
        let (before, now) = testing::second();
        let back = Frame::between(&now, &Sample { at: now.at, ..before.clone() });
        assert!(back.peers.iter().all(|peer| peer.rates == Rates::default()));
        assert!(back.latency.is_empty(), "nothing was followed");
        let nothing = v1::GetStatisticsResponse::default();
        let fresh = Frame::between(&Sample { statistics: nothing, ..before }, &now);
        assert_eq!(fresh.peers[0].rates.packets_in_per_second, 200.0);
    }
}
