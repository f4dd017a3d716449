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

use crate::figure::{Figure, MEDIA};

/// What measures a row or several.
const ROWS: &[fn() -> Vec<Figure>] = &[
    loss::measure,
    delay::measure,
    downlink::measure,
    joiner::measure,
    narrow::measure,
    decoder::measure,
];

/// Measures all of them. Says on stderr what it does.
pub fn measure() -> Vec<Figure> {
    let figures: Vec<Figure> = ROWS.iter().flat_map(|row| row()).collect();
    // Every promise once, in the order of docs/specification.md.
    let find = |name: &str| figures.iter().find(|figure| figure.name == name).cloned();
    MEDIA
        .iter()
        .map(|promise| find(promise.name).unwrap_or_else(|| promise.missed("nothing measures it")))
        .collect()
}
