//! What the path wants to know of a payload.

use crate::command::CodecKind;
use strait_wire::codec::{Peek as Frame, av1, dependency, h264, h265, vp8, vp9};

/// One look into a payload.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Peek {
    /// Decoding can begin with this packet: a key frame begins, or key frames are not known of this codec.
    pub(crate) enters: bool,
    /// A key frame, or what stands before one, begins here.
    pub(crate) key_frame: bool,
    /// Picture id of VP8 and VP9.
    pub(crate) picture: Option<u16>,
    /// TL0PICIDX of VP8 and VP9.
    pub(crate) tl0: Option<u8>,
}

impl Peek {
    fn of(frame: Option<Frame>) -> Self {
        let key_frame = frame.is_some_and(|frame| frame.key_frame);
        Self { enters: key_frame, key_frame, ..Self::default() }
    }
}

/// Looks into a payload. What cannot be read is no key frame: decoding never begins with it.
pub(crate) fn peek(
    kind: CodecKind,
    payload: &[u8],
    marker: bool,
    dependency_descriptor: Option<&[u8]>,
) -> Peek {
    match kind {
        CodecKind::Vp8 => {
            let descriptor = vp8::Descriptor::parse(payload);
            Peek {
                picture: descriptor.and_then(|d| d.picture_id).map(|id| id.value()),
                tl0: descriptor.and_then(|d| d.tl0_pic_idx),
                ..Peek::of(vp8::peek(payload, marker))
            }
        }
        CodecKind::Vp9 => {
            let descriptor = vp9::Descriptor::parse(payload);
            let key_frame = descriptor.is_some_and(|d| d.starts_key_frame());
            Peek {
                enters: key_frame,
                key_frame,
                picture: descriptor.and_then(|d| d.picture_id).map(|id| id.value()),
                tl0: descriptor.and_then(|d| d.tl0_pic_idx),
            }
        }
        CodecKind::H264 => Peek::of(h264::peek(payload, marker)),
        CodecKind::H265 => Peek::of(h265::peek(payload, marker)),
        CodecKind::Av1 => match dependency_descriptor.and_then(dependency::Descriptor::parse) {
            Some(descriptor) => {
                let key_frame = descriptor.starts_key_frame();
                Peek { enters: key_frame, key_frame, ..Peek::default() }
            }
            None => Peek::of(av1::peek(payload, marker)),
        },
        CodecKind::Opus | CodecKind::Other => Peek { enters: true, ..Peek::default() },
    }
}
