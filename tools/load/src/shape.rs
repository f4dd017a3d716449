//! How large frames are and when they come: the traffic of one encoding, without sockets or time.

use std::time::Duration;

use crate::limits::{PAYLOAD_MAX, PAYLOAD_MIN, VIDEO_PAYLOAD};
use crate::plan::Shape;
use crate::random::Random;
use crate::signalling::MediaKind;

/// Spread of the logarithm of a frame's size: what cameras show, roughly.
const SPREAD: f64 = 0.25;
/// A key frame is so many times larger than the mean frame.
const KEY_FACTOR: std::ops::Range<f64> = 6.0..8.0;
/// Frames over which the encoder's rate control pays back what a key frame cost.
const PAYBACK_FRAMES: f64 = 12.0;
/// How far rate control may go with one frame.
const CORRECTION: std::ops::RangeInclusive<f64> = 0.3..=1.7;

/// What one layer of a simulcast stream is.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Layer {
    /// RID; empty without simulcast.
    pub rid: &'static str,
    pub width: u16,
    pub height: u16,
    pub traffic: Traffic,
}

/// The traffic of one encoding.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Traffic {
    pub kind: MediaKind,
    /// Frames per second.
    pub fps: f64,
    /// RTP clock.
    pub clock_hz: u32,
    /// Time between key frames; `None` for audio.
    pub key_interval: Option<Duration>,
    pub size: Size,
}

impl Traffic {
    /// Bits of RTP payload per second.
    pub(crate) fn bits_per_second(&self) -> f64 {
        let bytes = match self.size {
            Size::Encoder { mean } => mean,
            Size::Uniform { min, max } => (min + max) as f64 / 2.0,
            Size::Fixed { packets, bytes } => bytes as f64 * f64::from(packets),
        };
        bytes * 8.0 * self.fps
    }
}

/// Sizes of frames, in bytes of RTP payload.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Size {
    /// As an encoder with rate control makes them.
    Encoder { mean: f64 },
    /// Anything between these.
    Uniform { min: usize, max: usize },
    /// So many packets of so many bytes.
    Fixed { packets: u16, bytes: usize },
}

/// The layers of a publisher, lowest first.
pub(crate) fn layers(shape: Shape, rate_scale: f64) -> Vec<Layer> {
    let video = |bitrate_bps: u32, fps: u32, key_interval| Traffic {
        kind: MediaKind::Video,
        fps: f64::from(fps) * rate_scale,
        clock_hz: 90_000,
        key_interval: Some(key_interval),
        size: Size::Encoder { mean: f64::from(bitrate_bps) / 8.0 / f64::from(fps) },
    };
    let alone = |traffic| vec![Layer { rid: "", width: 1280, height: 720, traffic }];
    match shape {
        Shape::Video { bitrate_bps, fps, key_interval } => {
            alone(video(bitrate_bps, fps, key_interval))
        }
        Shape::Simulcast { key_interval } => {
            [("q", 150_000, 320, 180), ("h", 500_000, 640, 360), ("f", 2_500_000, 1280, 720)]
                .map(|(rid, bitrate, width, height)| Layer {
                    rid,
                    width,
                    height,
                    traffic: video(bitrate, 30, key_interval),
                })
                .into()
        }
        Shape::Opus => alone(Traffic {
            kind: MediaKind::Audio,
            fps: 50.0 * rate_scale,
            clock_hz: 48_000,
            key_interval: None,
            size: Size::Uniform { min: 80, max: 120 },
        }),
        Shape::Constant { packets_per_second, bytes, burst } => alone(Traffic {
            kind: MediaKind::Video,
            fps: f64::from(packets_per_second) * rate_scale / f64::from(burst),
            clock_hz: 90_000,
            key_interval: Some(crate::plan::KEY_INTERVAL),
            size: Size::Fixed { packets: u16::try_from(burst).unwrap_or(u16::MAX), bytes },
        }),
    }
}

/// One frame, cut into packets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Frame {
    /// Bytes of payload of all its packets.
    pub bytes: usize,
    /// Its packets.
    pub packets: u16,
}

impl Frame {
    /// Bytes of payload of packet `index`: all the same, or one more for the first ones.
    pub(crate) fn packet_bytes(self, index: u16) -> usize {
        let packets = usize::from(self.packets).max(1);
        self.bytes / packets + usize::from(usize::from(index) < self.bytes % packets)
    }

    fn cut(bytes: usize) -> Self {
        let packets = bytes.div_ceil(VIDEO_PAYLOAD).clamp(1, 0x7fff);
        let bytes = bytes.clamp(packets * PAYLOAD_MIN, packets * PAYLOAD_MAX);
        Self { bytes, packets: packets as u16 }
    }
}

/// Draws the sizes of one encoding's frames.
#[derive(Clone, Debug)]
pub(crate) struct Model {
    size: Size,
    random: Random,
    /// Bytes beyond the rate so far.
    debt: f64,
}

impl Model {
    pub(crate) fn new(size: Size, random: Random) -> Self {
        Self { size, random, debt: 0.0 }
    }

    /// The next frame.
    pub(crate) fn frame(&mut self, key: bool) -> Frame {
        match self.size {
            Size::Fixed { packets, bytes } => {
                Frame { bytes: bytes * usize::from(packets), packets }
            }
            Size::Uniform { min, max } => {
                let spread = (max - min + 1) as f64;
                Frame { bytes: min + (self.random.unit() * spread) as usize, packets: 1 }
            }
            Size::Encoder { mean } => {
                let factor = if key {
                    KEY_FACTOR.start + self.random.unit() * (KEY_FACTOR.end - KEY_FACTOR.start)
                } else {
                    let correction = 1.0 - self.debt / (PAYBACK_FRAMES * mean);
                    // The mean of a log-normal is exp(deviation² / 2).
                    let drawn = (self.random.normal() * SPREAD - SPREAD * SPREAD / 2.0).exp();
                    drawn * correction.clamp(*CORRECTION.start(), *CORRECTION.end())
                };
                let frame = Frame::cut((mean * factor) as usize);
                self.debt += frame.bytes as f64 - mean;
                frame
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn model(shape: &str, layer: usize) -> (Model, Traffic) {
        let layer = layers(shape.parse().unwrap(), 1.0)[layer];
        (Model::new(layer.traffic.size, Random::new(3, 1)), layer.traffic)
    }

    #[test]
    fn rates_are_kept_within_two_percent() {
        for (shape, layer, bps) in [
            ("video-720p", 0, 2_500_000.0),
            ("simulcast", 0, 150_000.0),
            ("simulcast", 1, 500_000.0),
            ("simulcast", 2, 2_500_000.0),
            ("opus", 0, 50.0 * 100.0 * 8.0),
            ("constant:300x1200", 0, 300.0 * 1200.0 * 8.0),
            ("constant-burst:8:320x1000", 0, 320.0 * 1000.0 * 8.0),
        ] {
            let (mut model, traffic) = model(shape, layer);
            let seconds = 20.0;
            let frames = (traffic.fps * seconds).round() as usize;
            let bytes: usize = (0..frames).map(|n| model.frame(n % 300 == 0).bytes).sum();
            let rate = bytes as f64 * 8.0 / seconds;
            assert!((rate / bps - 1.0).abs() < 0.02, "{shape} {layer}: {rate} of {bps}");
        }
    }

    #[test]
    fn packets_of_a_frame_are_equal_but_for_one_byte() {
        let (mut model, _) = model("video-720p", 0);
        let mut deltas = Vec::new();
        for n in 0..1000 {
            let frame = model.frame(n == 0);
            let sizes: Vec<usize> = (0..frame.packets).map(|i| frame.packet_bytes(i)).collect();
            let (min, max) = (sizes.iter().min().unwrap(), sizes.iter().max().unwrap());
            assert!(max - min <= 1 && *max <= VIDEO_PAYLOAD && *min >= PAYLOAD_MIN, "{sizes:?}");
            assert_eq!(sizes.iter().sum::<usize>(), frame.bytes);
            match n {
                0 => {
                    let mean = 2_500_000.0 / 8.0 / 30.0;
                    assert!((6.0..8.0).contains(&(frame.bytes as f64 / mean)), "{frame:?}");
                }
                _ => deltas.push(frame.bytes),
            }
        }
        deltas.sort_unstable();
        assert!(deltas[900] as f64 / deltas[100] as f64 > 1.5, "sizes vary");
    }

    #[test]
    fn a_scaled_rate_brings_packets_closer() {
        assert_eq!(layers(Shape::Opus, 4.0)[0].traffic.fps, 200.0);
        let constant = layers("constant-burst:8:320x1000".parse().unwrap(), 0.5)[0].traffic;
        assert_eq!(constant.fps, 20.0);
        assert_eq!(constant.size, Size::Fixed { packets: 8, bytes: 1000 });
    }
}
