//! How large the pictures of a stream are, where its key frames say so plainly.

use crate::command::CodecKind;
use strait_wire::codec::{vp8, vp9};

/// The height in pixels that the first packet of a key frame tells; `None` for codecs where it is hidden deeper.
pub(crate) fn height(kind: CodecKind, payload: &[u8]) -> Option<u16> {
    let size = match kind {
        CodecKind::Vp8 => vp8::key_frame_size(&vp8::Descriptor::parse(payload)?, payload),
        CodecKind::Vp9 => vp9::Descriptor::parse(payload)?.structure?.largest(),
        _ => None,
    };
    size.map(|size| size.height).filter(|height| *height > 0)
}

/// The lowest of these encodings whose pictures are as high as they are shown, or the highest. What is not known of one is
/// taken for half of the next, as browsers make them.
pub(crate) fn enough(heights: impl Iterator<Item = Option<u16>> + Clone, shown: u16) -> u8 {
    let known = (0_u32..).zip(heights.clone()).find_map(|(at, height)| Some((at, height?)));
    let Some((base, known)) = known else { return u8::MAX };
    let guess = |at: u32| match at.checked_sub(base) {
        Some(up) => u32::from(known).checked_shl(up).unwrap_or(u32::MAX),
        None => u32::from(known) >> (base - at).min(16),
    };
    let mut heights = (0_u32..).zip(heights).map(|(at, h)| h.map_or_else(|| guess(at), u32::from));
    // A pixel in sixteen is not missed.
    let needed = (u32::from(shown) * 15).div_ceil(16);
    heights.position(|height| height >= needed).map_or(u8::MAX, |at| at as u8)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_layer_as_high_as_the_tile_is_enough() {
        let heights = [Some(180), Some(360), Some(720)];
        let of = |shown| enough(heights.into_iter(), shown);
        assert_eq!((of(90), of(180), of(192), of(193), of(360)), (0, 0, 0, 1, 1));
        assert_eq!((of(700), of(1080)), (2, u8::MAX));
        let of = |heights: [Option<u16>; 3], shown| enough(heights.into_iter(), shown);
        assert_eq!(of([Some(180), None, None], 350), 1, "guessed");
        assert_eq!(of([None, None, Some(720)], 200), 1);
        assert_eq!(of([None; 3], 90), u8::MAX, "nothing is known");
        assert_eq!(of([Some(u16::MAX); 3], u16::MAX), 0);
    }
}
