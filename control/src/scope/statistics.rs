//! The relay's counters as JSON for clients: the proto's field names in camelCase.

use serde_json::{Value, json};
use strait_proto::v1::{self, subscription_statistics::HeldBack};

/// A peer's counters.
pub fn peer(s: &v1::PeerStatistics) -> Value {
    json!({
        "connected": s.connected,
        "packetsReceived": s.packets_received,
        "bytesReceived": s.bytes_received,
        "packetsSent": s.packets_sent,
        "bytesSent": s.bytes_sent,
        "budgetBps": s.budget_bps,
        "uplinkMaxBps": s.uplink_max_bps,
        "roundTripSeconds": s.round_trip_seconds,
        "publications": s.publications.iter().map(publication).collect::<Vec<_>>(),
        "subscriptions": s.subscriptions.iter().map(subscription).collect::<Vec<_>>(),
    })
}

fn publication(s: &v1::PublicationStatistics) -> Value {
    json!({
        "publicationId": s.publication_id,
        "encodings": s.encodings.iter().map(encoding).collect::<Vec<_>>(),
    })
}

fn encoding(s: &v1::EncodingStatistics) -> Value {
    json!({
        "rid": s.rid,
        "ssrc": s.ssrc,
        "packets": s.packets,
        "bytes": s.bytes,
        "packetsLost": s.packets_lost,
        "jitterSeconds": s.jitter_seconds,
        "keyFrames": s.key_frames,
        "keyFrameRequestsSent": s.key_frame_requests_sent,
    })
}

fn layer_time(s: &v1::LayerTime) -> Value {
    json!({
        "layer": s.layer,
        "spatialLayer": s.spatial_layer,
        "temporalLayer": s.temporal_layer,
        "seconds": s.seconds,
    })
}

fn subscription(s: &v1::SubscriptionStatistics) -> Value {
    json!({
        "subscriptionId": s.subscription_id,
        "publicationId": s.publication_id,
        "ssrc": s.ssrc,
        "layer": s.layer,
        "packets": s.packets,
        "bytes": s.bytes,
        "packetsLost": s.packets_lost,
        "fractionLost": s.fraction_lost,
        "jitterSeconds": s.jitter_seconds,
        "roundTripSeconds": round_trip(s),
        "retransmissions": s.retransmissions,
        "retransmissionsMissed": s.retransmissions_missed,
        "heldBack": held_back(s.held_back()),
        "layerWanted": s.layer_wanted,
        "layerPermitted": s.layer_permitted,
        "layerTimes": s.layer_times.iter().map(layer_time).collect::<Vec<_>>(),
        "keyFrames": s.key_frames,
        "freezes": s.freezes,
        "frozenSeconds": s.frozen_seconds,
    })
}

/// The subscriber's reports tell it; null before one that names a report of the relay's.
pub(super) fn round_trip(s: &v1::SubscriptionStatistics) -> Option<f64> {
    Some(s.round_trip_seconds).filter(|seconds| *seconds > 0.0)
}

/// What the bandwidth takes away, in a word.
pub(super) fn held_back(how: HeldBack) -> &'static str {
    match how {
        HeldBack::Lowered => "lowered",
        HeldBack::Paused => "paused",
        HeldBack::Nothing | HeldBack::Unspecified => "nothing",
    }
}
