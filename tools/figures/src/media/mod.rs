//! The figures of media quality: what the relay says of its lines, held against the lab that makes them bad.
//!
//! Another row is a function in [`ROWS`], with its promise in [`crate::figure::MEDIA`].

mod call;
mod decoder;
mod delay;
mod downlink;
mod joiner;
mod loss;
mod narrow;
mod uplink;
mod viewer;

use crate::figure::{
    CAPACITY_REACHED, DAMAGED_PICTURES, DROP_SETTLED, Figure, JOINER_PICTURE, KEY_FRAME_REQUESTS,
    LOSS_ERROR, MEDIA, NARROW_CLIMBS, NARROW_FALLS, NARROW_FREEZE, Promise, QUEUE_DELAY_ERROR,
    SQUEEZED_SOUND_LOSS, STANDING_QUEUE, STUCK_LOW, SWITCH_FREEZE,
};

/// What measures a row or several.
type Row = (fn() -> Vec<Figure>, &'static [Promise]);
const ROWS: &[Row] = &[
    (loss::measure, &[LOSS_ERROR]),
    (delay::measure, &[QUEUE_DELAY_ERROR]),
    (downlink::capacity, &[CAPACITY_REACHED, STANDING_QUEUE]),
    (|| vec![downlink::drop_settled()], &[DROP_SETTLED]),
    (|| vec![downlink::stuck_low()], &[STUCK_LOW]),
    (|| vec![downlink::squeezed_sound()], &[SQUEEZED_SOUND_LOSS]),
    (joiner::measure, &[JOINER_PICTURE, KEY_FRAME_REQUESTS]),
    (narrow::measure, &[NARROW_FALLS, NARROW_CLIMBS, NARROW_FREEZE]),
    (decoder::measure, &[DAMAGED_PICTURES, SWITCH_FREEZE]),
];

/// Measures those whose names contain `only`. Says on stderr what it does.
pub fn measure(only: &str) -> Vec<Figure> {
    let wanted = |promise: &&Promise| promise.name.contains(only);
    let rows = ROWS.iter().filter(|(_, promises)| promises.iter().any(|each| wanted(&each)));
    let figures: Vec<Figure> = rows.flat_map(|(row, _)| row()).collect();
    // Every promise once, in the order of docs/specification.md.
    let find = |name: &str| figures.iter().find(|figure| figure.name == name).cloned();
    let wanted = MEDIA.iter().filter(wanted);
    wanted
        .map(|promise| find(promise.name).unwrap_or_else(|| promise.missed("nothing measures it")))
        .collect()
}
