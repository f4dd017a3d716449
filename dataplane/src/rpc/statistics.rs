//! Counters, by the caller's names.

use super::{State, of_mailbox, validate};
use crate::registry::Contents;
use crate::report::Report;
use crate::trace::{LATENCY_CLASSES, Latency, Stage};
use std::collections::HashMap;
use std::hash::Hash;
use std::sync::Arc;
use std::time::Duration;
use strait_core::arrival::loss::LossStatistics;
use strait_core::statistics as core;
use strait_proto::v1;
use tonic::Status;

pub(super) async fn get(
    state: Arc<State>,
    request: v1::GetStatisticsRequest,
) -> Result<v1::GetStatisticsResponse, Status> {
    let mut answer = v1::GetStatisticsResponse::default();
    for (index, worker) in (0..).zip(&state.workers) {
        let report = worker.report(Vec::new()).await.map_err(of_mailbox)?;
        answer.workers.push(of_worker(index, &report));
    }
    for name in &request.scope_ids {
        validate::id("scope_ids", name)?;
        let scope = state.scope(name)?;
        // Nobody moves it meanwhile.
        let contents = scope.state.lock().await;
        let names = Names::new(&contents);
        let (mut peers, mut dominant) = (Vec::new(), None);
        for worker in [scope.worker()].iter().chain(&contents.spread) {
            let report = state.numbered(*worker)?.report(vec![scope.id]).await;
            let scopes = report.map_err(of_mailbox)?.scopes;
            for scope in scopes {
                dominant = dominant.or(scope.dominant);
                peers.extend(scope.peers);
            }
        }
        let dominant = dominant.and_then(|id| names.publications.get(&id));
        answer.scopes.push(v1::ScopeStatistics {
            scope_id: name.clone(),
            peers: peers.into_iter().filter_map(|peer| names.peer(peer)).collect(),
            dominant_publication_id: dominant.copied().unwrap_or_default().to_owned(),
        });
    }
    Ok(answer)
}

fn of_worker(worker: u32, report: &Report) -> v1::WorkerStatistics {
    let drops = report.drops.iter().filter(|(_, count)| *count > 0);
    v1::WorkerStatistics {
        worker,
        scopes: report.worker.scopes,
        peers: report.worker.peers,
        subscriptions: report.worker.subscriptions,
        packets_received: report.worker.received.packets,
        bytes_received: report.worker.received.bytes,
        packets_sent: report.worker.sent.packets,
        bytes_sent: report.worker.sent.bytes,
        packets_dropped: drops.map(|(reason, count)| ((*reason).to_owned(), *count)).collect(),
        packets_handed_over: report.handed_over,
        runs_sent: report.sockets.runs.iter().sum(),
        run_datagrams_sent: report.sockets.run_datagrams,
        latency: report.latency.as_ref().map(of_latency),
    }
}

fn of_latency(latency: &Latency) -> v1::Latency {
    let stages = Stage::ALL.iter().zip(latency).map(|(stage, times)| v1::StageLatency {
        stage: stage.name().to_owned(),
        sum_seconds: times.sum.as_secs_f64(),
        counts: times.counts.to_vec(),
    });
    v1::Latency {
        bounds_seconds: LATENCY_CLASSES.iter().map(Duration::as_secs_f64).collect(),
        stages: stages.collect(),
    }
}

/// The names of numbers in one scope. What has none (any more) is left out.
pub(super) struct Names<'a> {
    peers: HashMap<strait_core::command::PeerId, &'a str>,
    publications: HashMap<strait_core::command::PublicationId, &'a str>,
    subscriptions: HashMap<strait_core::command::SubscriptionId, &'a str>,
}

impl<'a> Names<'a> {
    fn new(contents: &'a Contents) -> Self {
        fn index<'a, K: Hash + Eq, V>(
            named: impl Iterator<Item = (&'a String, V)>,
            id: impl Fn(V) -> K,
        ) -> HashMap<K, &'a str> {
            named.map(|(name, value)| (id(value), name.as_str())).collect()
        }
        Self {
            peers: index(contents.peers.iter(), |peer| peer.id),
            publications: index(contents.publications.iter(), |publication| publication.id),
            subscriptions: index(contents.subscriptions.iter(), |subscription| subscription.id),
        }
    }

    /// The names that one peer's subscriptions need.
    pub(super) fn of_subscriber(contents: &'a Contents, peer: &str) -> Self {
        let publications = contents.publications.iter();
        let subscriptions = contents.subscriptions.iter().filter(|(_, entry)| entry.peer == peer);
        Self {
            peers: HashMap::new(),
            publications: publications.map(|(name, entry)| (entry.id, name.as_str())).collect(),
            subscriptions: subscriptions.map(|(name, entry)| (entry.id, name.as_str())).collect(),
        }
    }

    fn peer(&self, peer: core::PeerStatistics) -> Option<v1::PeerStatistics> {
        let publications = peer.publications.into_iter();
        let subscriptions = peer.subscriptions.into_iter();
        Some(v1::PeerStatistics {
            peer_id: (*self.peers.get(&peer.peer)?).to_owned(),
            connected: peer.connected,
            remote_address: peer.path.map_or_else(String::new, |path| path.remote.to_string()),
            packets_received: peer.received.packets,
            bytes_received: peer.received.bytes,
            packets_sent: peer.sent.packets,
            bytes_sent: peer.sent.bytes,
            budget_bps: peer.budget_bps,
            uplink_max_bps: peer.uplink_max_bps,
            round_trip_seconds: peer.round_trip.map(|time| time.as_secs_f64()),
            estimation: Some(of_estimation(peer.estimation)),
            ecn: Some(v1::EcnCounts { ect0: peer.ecn.ect0, ect1: peer.ecn.ect1, ce: peer.ecn.ce }),
            pacer: peer.pacer.map(of_pacer),
            publications: publications.filter_map(|entry| self.publication(entry)).collect(),
            subscriptions: subscriptions.filter_map(|entry| self.subscription(entry)).collect(),
        })
    }

    fn publication(&self, entry: core::PublicationStatistics) -> Option<v1::PublicationStatistics> {
        Some(v1::PublicationStatistics {
            publication_id: (*self.publications.get(&entry.publication)?).to_owned(),
            encodings: entry.encodings.into_iter().map(of_encoding).collect(),
            speaking: entry.speaking,
            packets_held_back: entry.held_back,
        })
    }

    pub(super) fn subscription(
        &self,
        entry: core::SubscriptionStatistics,
    ) -> Option<v1::SubscriptionStatistics> {
        let publication = entry.publication.and_then(|id| self.publications.get(&id));
        Some(v1::SubscriptionStatistics {
            subscription_id: (*self.subscriptions.get(&entry.subscription)?).to_owned(),
            publication_id: publication.copied().unwrap_or_default().to_owned(),
            ssrc: entry.ssrc,
            layer: entry.layer.unwrap_or(0).into(),
            packets: entry.sent.packets,
            bytes: entry.sent.bytes,
            packets_lost: entry.packets_lost,
            fraction_lost: entry.fraction_lost,
            jitter_seconds: entry.jitter.as_secs_f64(),
            round_trip_seconds: entry.round_trip.map_or(0.0, |time| time.as_secs_f64()),
            retransmissions: entry.retransmissions,
            retransmissions_missed: entry.retransmissions_missed,
            spatial_layer: entry.inner.map(|(spatial, _)| spatial.into()),
            temporal_layer: entry.inner.map(|(_, temporal)| temporal.into()),
            held_back: held_back(entry.held_back).into(),
            layer_wanted: entry.layer_wanted.map(u32::from),
            layer_permitted: entry.layer_permitted.map(u32::from),
            layer_times: entry.layer_times.iter().map(layer_time).collect(),
            key_frames: entry.key_frames,
            freezes: entry.freezes,
            frozen_seconds: entry.frozen.as_secs_f64(),
        })
    }
}

fn layer_time(entry: &core::LayerTime) -> v1::LayerTime {
    v1::LayerTime {
        layer: entry.layer.map(u32::from),
        spatial_layer: entry.inner.map(|(spatial, _)| spatial.into()),
        temporal_layer: entry.inner.map(|(_, temporal)| temporal.into()),
        seconds: entry.time.as_secs_f64(),
    }
}

fn of_estimation(entry: core::EstimationStatistics) -> v1::EstimationStatistics {
    v1::EstimationStatistics {
        packets_told: entry.told,
        packets_ignored: entry.ignored,
        probes: entry.probes,
        probes_succeeded: entry.probes_succeeded,
        padding_packets: entry.padding.packets,
        padding_bytes: entry.padding.bytes,
        packets_marked: entry.marked,
    }
}

fn of_pacer(entry: core::PacerStatistics) -> v1::PacerStatistics {
    v1::PacerStatistics {
        rate_bps: entry.rate_bps,
        packets_waiting: entry.waiting.packets,
        bytes_waiting: entry.waiting.bytes,
        wait_seconds: entry.wait.as_secs_f64(),
        packets_paced: entry.total.packets,
        delay_seconds: entry.total.delay.as_secs_f64(),
        packets_dropped: entry.total.dropped,
    }
}

fn held_back(how: core::HeldBack) -> v1::subscription_statistics::HeldBack {
    use v1::subscription_statistics::HeldBack as Told;
    match how {
        core::HeldBack::Nothing => Told::Nothing,
        core::HeldBack::Lowered => Told::Lowered,
        core::HeldBack::Paused => Told::Paused,
    }
}

fn of_encoding(entry: core::EncodingStatistics) -> v1::EncodingStatistics {
    v1::EncodingStatistics {
        rid: entry.rid,
        ssrc: entry.ssrc,
        packets: entry.received.packets,
        bytes: entry.received.bytes,
        packets_lost: entry.packets_lost,
        jitter_seconds: entry.jitter.as_secs_f64(),
        key_frames: entry.key_frames,
        key_frame_requests_sent: entry.key_frame_requests,
        key_frames_shown: entry.key_frames_shown,
        loss: Some(of_loss(&entry.loss)),
        queue_delay_seconds: entry.queue_delay.map(|delay| delay.as_secs_f64()),
        queue_delay_p95_seconds: entry.queue_delay_p95.map(|delay| delay.as_secs_f64()),
        clock_drift_ppm: entry.clock_drift_ppm,
        fec_packets: entry.fec.packets,
        fec_recovered: entry.fec.recovered,
    }
}

pub(super) fn of_loss(loss: &LossStatistics) -> v1::Loss {
    v1::Loss {
        expected: loss.expected,
        lost: loss.lost,
        repaired: loss.repaired,
        late: loss.late,
        duplicates: loss.duplicates,
        bursts: loss.bursts.to_vec(),
    }
}
