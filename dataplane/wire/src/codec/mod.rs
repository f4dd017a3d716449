//! Looks into payloads as far as forwarding needs it: where frames begin and end, which can be decoded alone, and
//! which layer a packet is of. Nothing here decodes a picture.

pub mod av1;
pub mod dependency;
pub mod fec;
pub mod h264;
pub mod h265;
pub mod opus;
pub mod red;
pub mod vp8;
pub mod vp9;

/// What one packet says about its frame, whatever the codec.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Peek {
    /// A decoder can start with this packet: it begins a key frame, or the parameter sets in front of one.
    pub key_frame: bool,
    /// The packet begins a frame (with VP9 and AV1's dependency descriptor: of one spatial layer). With H.264, H.265
    /// and AV1 the payload alone leaves doubt; a change of timestamp does not.
    pub start_of_frame: bool,
    /// The packet ends a frame (of one spatial layer, as above).
    pub end_of_frame: bool,
    /// Temporal layer, 0 the base.
    pub temporal: u8,
    /// Spatial layer, 0 the base.
    pub spatial: u8,
    /// From this frame on a receiver can go up to its temporal layer: nothing it needs was left out below.
    pub switch_up: bool,
    /// No later frame refers to this one, so it can be left out without harm.
    pub discardable: bool,
}

/// Width and height of a picture in pixels.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Size {
    /// Pixels from left to right.
    pub width: u16,
    /// Pixels from top to bottom.
    pub height: u16,
}
