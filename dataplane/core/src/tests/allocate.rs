//! Subscribers whose links are too narrow for all that they want.

use crate::command::{
    Command, Encoding, Extensions, Kind, PeerId, Preferences, PublicationId, SubscriptionId,
};
use crate::limits::{BUDGET_BPS_MIN, PACER_TRICKLE};
use crate::statistics::{HeldBack, SubscriptionStatistics};
use crate::testing::{Bench, Client, IDS, OPUS, SCOPE, VP8, encoding, ms, packet, read, subscribe};
use std::collections::{BTreeMap, BTreeSet};
use strait_wire::ext::AudioLevel;
use strait_wire::rtcp;

/// Bytes of the frames of each layer, and the height of their pictures. One frame every [`FRAME_MS`]: 100, 400 and
/// 1,200 kbit/s.
const LAYERS: [(usize, u16); 3] = [(500, 180), (2000, 360), (6000, 720)];
const FRAME_MS: u64 = 40;
const SOUND: u32 = 90;

/// A VP8 payload with the size of its picture, and its layer as the last byte.
fn frame(picture: u16, key_frame: bool, layer: u8, bytes: usize) -> Vec<u8> {
    let [high, low] = (picture | 0x8000).to_be_bytes();
    let [h0, h1] = LAYERS[usize::from(layer)].1.to_le_bytes();
    let mut payload = vec![0x90, 0xE0, high, low, picture as u8, 0x20, u8::from(!key_frame), 0, 0];
    payload.extend([0x9d, 0x01, 0x2a, h0, h1, h0, h1]);
    payload.resize(bytes, layer);
    payload
}

/// A publisher with a camera in three layers for each of its video publications, and a microphone; and subscribers whose
/// estimates follow what they get, as those of browsers do.
pub(super) struct Call {
    pub(super) bench: Bench,
    pub(super) publisher: Client,
    viewers: Vec<Viewer>,
    /// By the SSRC of the layer.
    seqs: BTreeMap<u32, u16>,
    key_frames: BTreeSet<u32>,
    pub(super) stopped: BTreeSet<u32>,
    cameras: u32,
    /// Publishes the last camera, and talks.
    speaker: Option<Client>,
    frames: u64,
}

struct Viewer {
    client: Client,
    link_bps: u64,
    /// Of this second.
    bytes: u64,
    /// Layers of each subscription's SSRC since the last look.
    layers: BTreeMap<u32, BTreeSet<u8>>,
    sounds: usize,
    seqs: BTreeMap<u32, u16>,
}

/// The SSRC of a layer of publication `camera`.
pub(super) fn ssrc(camera: u32, layer: u8) -> u32 {
    1000 * camera + 10 * u32::from(layer)
}

impl Call {
    pub(super) fn new(cameras: u32, viewers: u32) -> Self {
        let mut bench = Bench::new();
        let publisher = Client::connected(&mut bench, 1);
        publisher.publish(&mut bench, SOUND, Kind::Audio, &[encoding(5)]);
        for camera in 1..=cameras {
            let layer = |n: u8| Encoding { rid: n.to_string(), ssrc: ssrc(camera, n), rtx_ssrc: 0 };
            publisher.publish(&mut bench, camera, Kind::Video, &[layer(0), layer(1), layer(2)]);
        }
        let viewers = (0..viewers).map(|n| {
            let client = Client::connected(&mut bench, 10 + n);
            let sound = Self::subscription(n, SOUND);
            bench.command(narrow(client.id, sound, Kind::Audio, SOUND));
            for camera in 1..=cameras {
                let subscription = Self::subscription(n, camera);
                bench.command(narrow(client.id, subscription, Kind::Video, camera));
            }
            Viewer {
                client,
                link_bps: u64::MAX / 1000,
                bytes: 0,
                layers: BTreeMap::new(),
                sounds: 0,
                seqs: BTreeMap::new(),
            }
        });
        let viewers = viewers.collect();
        bench.sent();
        let (seqs, key_frames, stopped) = Default::default();
        let (speaker, frames) = (None, 0);
        Self { bench, publisher, viewers, seqs, key_frames, stopped, cameras, speaker, frames }
    }

    /// One more camera, of somebody who talks while the other is silent.
    fn with_speaker(cameras: u32, viewers: u32) -> Self {
        let mut call = Self::new(cameras, viewers);
        let camera = cameras + 1;
        let speaker = Client::connected(&mut call.bench, 2);
        speaker.publish(&mut call.bench, SOUND + 1, Kind::Audio, &[encoding(6)]);
        let layer = |n: u8| Encoding { rid: n.to_string(), ssrc: ssrc(camera, n), rtx_ssrc: 0 };
        let layers = [layer(0), layer(1), layer(2)];
        speaker.publish(&mut call.bench, camera, Kind::Video, &layers);
        for (n, viewer) in (0..).zip(&call.viewers) {
            let subscription = Self::subscription(n, camera);
            call.bench.command(narrow(viewer.client.id, subscription, Kind::Video, camera));
        }
        Self { cameras: camera, speaker: Some(speaker), ..call }
    }

    /// A tenth of a second of words, a twentieth between them.
    fn talk(&mut self, timestamp: u32) {
        let Some(speaker) = &mut self.speaker else { return };
        let below_overload_db = if self.frames % 6 < 4 { 25 } else { 80 };
        let level = AudioLevel { voice: true, below_overload_db }.bytes();
        for part in 0..2 {
            let seq = 2 * self.frames as u16 + part;
            let extensions = [(IDS.audio_level, &level[..])];
            let sound = packet((6, OPUS, seq, timestamp), &extensions, &[7; 80]);
            speaker.send(&mut self.bench, &sound);
        }
    }

    fn subscription(viewer: u32, publication: u32) -> u32 {
        100 * (viewer + 1) + publication
    }

    pub(super) fn prefer(&mut self, viewer: u32, camera: u32, preferences: Preferences) {
        let subscription = SubscriptionId(Self::subscription(viewer, camera));
        self.bench.command(Command::SetPreferences { subscription, preferences });
    }

    pub(super) fn link(&mut self, viewer: usize, bps: u64) {
        self.viewers[viewer].link_bps = bps;
    }

    /// Lets frames flow for so long.
    pub(super) fn flow(&mut self, for_ms: u64) {
        self.viewers.iter_mut().for_each(|viewer| {
            viewer.layers.clear();
            viewer.sounds = 0;
        });
        for _ in 0..for_ms / FRAME_MS {
            self.frames += 1;
            let timestamp = (self.frames * FRAME_MS * 90) as u32;
            let seq = self.frames as u16;
            for part in 0..2 {
                let sound = packet((5, OPUS, 2 * seq + part, timestamp), &[], &[7; 80]);
                self.publisher.send(&mut self.bench, &sound);
            }
            self.talk(timestamp);
            for (camera, layer) in (1..=self.cameras).flat_map(|c| (0..3).map(move |l| (c, l))) {
                self.send_frame(camera, layer, timestamp);
            }
            self.bench.run(ms(FRAME_MS));
            self.receive();
            if self.frames.is_multiple_of(1000 / FRAME_MS) {
                self.estimate();
            }
        }
    }

    fn send_frame(&mut self, camera: u32, layer: u8, timestamp: u32) {
        let ssrc = ssrc(camera, layer);
        if self.stopped.contains(&ssrc) {
            return;
        }
        let mut key_frame = self.key_frames.remove(&ssrc);
        let (bytes, _) = LAYERS[usize::from(layer)];
        for _ in 0..bytes.div_ceil(1000) {
            let seq = self.seqs.entry(ssrc).or_default();
            *seq += 1;
            // Each packet is a frame to the decoder, so that each is whole.
            let payload = frame(*seq, key_frame, layer, bytes.min(1000));
            let video = packet((ssrc, VP8, *seq, timestamp), &[], &payload);
            key_frame = false;
            let speaker = self.speaker.as_mut().filter(|_| camera == self.cameras);
            speaker.unwrap_or(&mut self.publisher).send(&mut self.bench, &video);
        }
    }

    fn receive(&mut self) {
        let sent = self.bench.sent();
        let publishers = self.speaker.iter_mut().chain([&mut self.publisher]);
        for report in publishers.flat_map(|publisher| publisher.open(&sent).1) {
            for packet in rtcp::packets(&report) {
                if let Ok(rtcp::Packet::Pli(pli)) = packet {
                    self.key_frames.insert(pli.media_ssrc);
                }
            }
        }
        for viewer in &mut self.viewers {
            for bytes in viewer.client.open(&sent).0 {
                let packet = read(&bytes);
                viewer.bytes += bytes.len() as u64;
                let next =
                    viewer.seqs.insert(packet.ssrc(), packet.seq()).map(|s| s.wrapping_add(1));
                assert!(next.is_none_or(|next| next == packet.seq()), "numbers continue");
                if packet.pt() == OPUS + 10 {
                    viewer.sounds += 1;
                } else {
                    let layer = *packet.payload().last().unwrap();
                    viewer.layers.entry(packet.ssrc()).or_default().insert(layer);
                }
            }
        }
    }

    /// Estimates as receivers make them: what comes through when it is too much, and else half as much again as comes.
    fn estimate(&mut self) {
        for viewer in &mut self.viewers {
            let received = std::mem::take(&mut viewer.bytes) * 8;
            let link = viewer.link_bps;
            let estimate = if received > link { link } else { received * 3 / 2 };
            let ours = viewer.seqs.keys().copied().take(2).collect::<Vec<_>>();
            viewer.client.send_rtcp(&mut self.bench, |rtcp| {
                rtcp.receiver_report(1, &[]).unwrap();
                rtcp.remb(1, estimate, &ours).unwrap();
            });
        }
    }

    /// The layers of a camera that a viewer got since the last look.
    pub(super) fn layers(&self, viewer: u32, camera: u32) -> Vec<u8> {
        let ssrc = 1000 + Self::subscription(viewer, camera);
        let layers = self.viewers[viewer as usize].layers.get(&ssrc);
        layers.into_iter().flatten().copied().collect()
    }

    fn statistics(&self, viewer: u32, camera: u32) -> SubscriptionStatistics {
        let peer = self.bench.worker.peer_statistics(PeerId(10 + viewer)).unwrap();
        let id = SubscriptionId(Self::subscription(viewer, camera));
        peer.subscriptions.into_iter().find(|s| s.subscription == id).unwrap()
    }

    fn budget(&self, viewer: u32) -> Option<u64> {
        self.bench.worker.peer_statistics(PeerId(10 + viewer)).unwrap().budget_bps
    }
}

/// A subscription of a leg without transport-wide feedback.
fn narrow(peer: PeerId, id: u32, kind: Kind, publication: u32) -> Command {
    let mut command = subscribe(peer, id, kind, Some(publication));
    if let Command::Subscribe { extensions, codecs, .. } = &mut command {
        *extensions = Extensions { transport_cc: 0, ..IDS };
        codecs.iter_mut().for_each(|codec| (codec.transport_cc, codec.remb) = (false, true));
    }
    command
}

#[test]
fn a_narrow_link_gets_the_low_layer_and_the_others_keep_the_high_one() {
    let mut call = Call::new(1, 3);
    call.flow(4000);
    call.flow(1000);
    assert_eq!(call.layers(0, 1), [2]);
    assert_eq!(call.budget(0), None, "an estimate that follows what is sent says nothing");
    call.link(0, 300_000);
    call.flow(3000);
    call.flow(1000);
    assert_eq!(
        (call.layers(0, 1), call.layers(1, 1), call.layers(2, 1)),
        (vec![0], vec![2], vec![2])
    );
    let told = call.statistics(0, 1);
    assert_eq!(told.held_back, HeldBack::Lowered);
    assert_eq!((told.layer, told.layer_permitted, told.layer_wanted), (Some(0), Some(0), Some(2)));
    assert_eq!(call.viewers[0].sounds, 50, "all of them");
    assert_eq!(call.bench.worker.statistics().subscriptions_lowered, 1);
    call.link(0, 10_000_000);
    call.flow(16_000);
    call.flow(1000);
    assert_eq!(call.layers(0, 1), [2], "and back");
    assert_eq!(call.statistics(0, 1).held_back, HeldBack::Nothing);
}

#[test]
fn sound_goes_on_when_no_picture_fits() {
    let mut call = Call::new(1, 2);
    call.flow(4000);
    call.link(0, 0);
    call.flow(2000);
    call.flow(2000);
    assert_eq!(call.layers(0, 1), [0], "the least of one picture goes on, too");
    assert_eq!((call.viewers[0].sounds, call.viewers[1].sounds), (100, 100));
    assert_eq!(call.budget(0), Some(BUDGET_BPS_MIN));
    assert_eq!(call.statistics(0, 1).held_back, HeldBack::Lowered);
    assert_eq!(call.bench.worker.statistics().subscriptions_paused, 0);
    assert_eq!(call.layers(1, 1), [2]);
    call.link(0, 10_000_000);
    call.flow(16_000);
    call.flow(1000);
    assert!(!call.layers(0, 1).is_empty());
    assert!(call.budget(0).is_none_or(|bps| bps > BUDGET_BPS_MIN), "it comes back by itself");
}

#[test]
fn what_is_pinned_keeps_its_best_layer() {
    let mut call = Call::new(3, 1);
    call.prefer(0, 2, Preferences { pinned: true, ..Preferences::default() });
    call.flow(4000);
    call.link(0, 1_700_000);
    call.flow(4000);
    call.flow(1000);
    assert_eq!(
        (call.layers(0, 1), call.layers(0, 2), call.layers(0, 3)),
        (vec![0], vec![2], vec![0])
    );
    call.prefer(0, 2, Preferences::default());
    call.prefer(0, 3, Preferences { priority: 1, ..Preferences::default() });
    call.flow(4000);
    call.flow(1000);
    assert_eq!((call.layers(0, 2), call.layers(0, 3)), (vec![0], vec![2]), "another one now");
}

#[test]
fn who_speaks_keeps_the_best_layer_of_what_is_not_pinned() {
    let mut call = Call::with_speaker(2, 1);
    call.flow(4000);
    call.link(0, 1_700_000);
    call.flow(4000);
    call.flow(1000);
    let layers = |call: &Call| [1, 2, 3].map(|camera| call.layers(0, camera));
    assert_eq!(layers(&call), [vec![0], vec![0], vec![2]]);
    call.prefer(0, 1, Preferences { priority: 1, ..Preferences::default() });
    call.flow(4000);
    call.flow(1000);
    assert_eq!(layers(&call), [vec![2], vec![0], vec![0]], "the viewer's own wish goes before");
}

#[test]
fn no_layer_is_sent_that_is_larger_than_it_is_shown() {
    let mut call = Call::new(1, 1);
    call.flow(1000);
    for (height, layer) in [(180, 0), (300, 1), (1080, 2), (90, 0)] {
        call.prefer(0, 1, Preferences { height: Some(height), ..Preferences::default() });
        call.flow(1000);
        call.flow(1000);
        assert_eq!(call.layers(0, 1), [layer], "at {height}");
    }
}

#[test]
fn a_layer_far_above_the_budget_stops_before_the_lower_one_begins() {
    let mut call = Call::new(1, 1);
    call.flow(4000);
    call.stopped.insert(ssrc(1, 0));
    call.stopped.insert(ssrc(1, 1));
    call.flow(4000);
    assert_eq!(call.layers(0, 1), [2]);
    call.link(0, 300_000);
    call.flow(1000);
    call.flow(1000);
    assert_eq!(call.layers(0, 1), [0; 0]);
    call.stopped.clear();
    call.flow(1000);
    call.flow(1000);
    assert_eq!(call.layers(0, 1), [0]);
}

#[test]
fn estimates_of_what_is_not_ours_count_for_nothing() {
    let mut call = Call::new(1, 2);
    call.flow(4000);
    let theirs = 1000 + Call::subscription(1, 1);
    let bench = &mut call.bench;
    let viewer = &mut call.viewers[0].client;
    viewer.send_rtcp(bench, |rtcp| {
        rtcp.receiver_report(1, &[]).unwrap();
        rtcp.remb(1, 1000, &[theirs, 7]).unwrap();
    });
    assert_eq!(call.budget(0), None);
    for bps in [u64::MAX, 0, 1, u64::MAX, 0] {
        let bench = &mut call.bench;
        let viewer = &mut call.viewers[0].client;
        viewer.send_rtcp(bench, |rtcp| {
            rtcp.receiver_report(1, &[]).unwrap();
            rtcp.remb(1, bps, &[]).unwrap();
        });
        assert!(call.budget(0).is_none_or(|budget| budget >= BUDGET_BPS_MIN));
    }
    assert_eq!(call.budget(0), Some(BUDGET_BPS_MIN));
    call.flow(1000);
    assert_eq!(call.viewers[0].sounds, 50);
}

#[test]
fn loss_alone_brings_it_down_as_well() {
    let mut call = Call::new(1, 1);
    call.flow(4000);
    let mut lost = 0;
    for second in 1..6_u32 {
        let ours = 1000 + Call::subscription(0, 1);
        lost += 45;
        let (highest_seq, cumulative_lost) = (second * 150, lost);
        let block =
            rtcp::ReportBlock { ssrc: ours, highest_seq, cumulative_lost, ..Default::default() };
        let bench = &mut call.bench;
        call.viewers[0].client.send_rtcp(bench, |rtcp| rtcp.receiver_report(1, &[block]).unwrap());
        call.flow(1000);
    }
    assert!(call.budget(0).is_some_and(|budget| budget < 1_000_000), "{:?}", call.budget(0));
    assert!(call.layers(0, 1).iter().all(|layer| *layer < 2));
}

#[test]
fn what_comes_under_a_budget_gets_its_share_at_once() {
    let mut call = Call::new(2, 1);
    let late = SubscriptionId(Call::subscription(0, 2));
    let bind = |publication| Command::Bind { subscription: late, publication };
    call.bench.command(bind(None));
    call.flow(4000);
    call.link(0, 900_000);
    call.flow(4000);
    call.bench.command(bind(Some(PublicationId(2))));
    call.flow(200);
    assert!(matches!(call.layers(0, 2)[..], [0 | 1]), "{:?}", call.layers(0, 2));
    assert_eq!(call.statistics(0, 2).held_back, HeldBack::Lowered);
}

#[test]
fn the_next_one_is_shown_at_once_when_the_first_one_ends() {
    let pinned = Preferences { pinned: true, ..Preferences::default() };
    let unpin = |call: &mut Call| call.prefer(0, 1, Preferences::default());
    let mute = |call: &mut Call| {
        let publication = PublicationId(1);
        call.bench.command(Command::SetMuted { publication, muted: true });
    };
    let unsubscribe = |call: &mut Call| {
        let subscription = SubscriptionId(Call::subscription(0, 1));
        call.bench.command(Command::Unsubscribe { subscription });
    };
    let unpublish = |call: &mut Call| {
        call.bench.command(Command::Unpublish { publication: PublicationId(1) });
    };
    let ends: [fn(&mut Call); 4] = [unpin, mute, unsubscribe, unpublish];
    for (n, end) in ends.into_iter().enumerate() {
        let mut call = Call::new(2, 1);
        call.prefer(0, 1, pinned);
        call.flow(4000);
        call.link(0, 0);
        call.flow(3000);
        call.flow(1000);
        assert_eq!((call.layers(0, 1), call.layers(0, 2)), (vec![0], vec![]), "{n}");
        end(&mut call);
        if n == 0 {
            call.prefer(0, 2, pinned);
        }
        // The key frame that is asked for comes with the next frame. Beside sound that is more than the line carries
        // pictures trickle.
        call.flow(3 * FRAME_MS);
        call.flow(PACER_TRICKLE.as_millis() as u64 + FRAME_MS);
        assert_eq!(call.layers(0, 2), [0], "{n}");
    }
}

#[test]
fn how_long_which_layer_went_out_is_told_and_no_pause_is_a_freeze() {
    let mut call = Call::new(1, 1);
    call.flow(4000);
    call.link(0, 300_000);
    call.flow(8000);
    call.prefer(0, 1, Preferences { paused: true, ..Preferences::default() });
    call.flow(3000);
    call.prefer(0, 1, Preferences::default());
    call.flow(1000);
    let now = call.bench.now.at;
    let scope = call.bench.worker.scope_statistics(now, SCOPE).unwrap();
    let viewer = scope.peers.into_iter().find(|peer| peer.peer == PeerId(10)).unwrap();
    let camera = viewer.subscriptions.into_iter().find(|s| !s.layer_times.is_empty()).unwrap();
    let seconds = |layer: Option<u8>| {
        let times = camera.layer_times.iter().filter(|entry| entry.layer == layer);
        times.map(|entry| entry.time.as_secs_f64()).sum::<f64>()
    };
    let sum: f64 = camera.layer_times.iter().map(|entry| entry.time.as_secs_f64()).sum();
    assert!((16.0..16.2).contains(&sum), "all the time: {sum}");
    assert!((3.0..3.7).contains(&seconds(None)), "{:?}", camera.layer_times);
    let shown = [seconds(Some(0)), seconds(Some(2))];
    assert!(shown.iter().all(|seconds| *seconds > 3.5), "{:?}", camera.layer_times);
    assert_eq!((camera.freezes, camera.frozen), (0, ms(0)));
    assert!((3..7).contains(&camera.key_frames), "{}", camera.key_frames);
}

#[test]
fn a_picture_that_stands_still_is_a_freeze() {
    let mut call = Call::new(1, 1);
    call.flow(2000);
    for layer in 0..3 {
        call.stopped.insert(ssrc(1, layer));
    }
    call.flow(800);
    call.stopped.clear();
    call.flow(1000);
    let camera = call.statistics(0, 1);
    assert_eq!((camera.freezes, camera.frozen), (1, ms(840)), "{camera:?}");
}
