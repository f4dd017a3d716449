//! What arrives of one encoding: how it fared on its way from the publisher to us. The way from us to subscribers is
//! [`crate::bandwidth`]'s, which has files of the same names.

pub(crate) mod delay;
pub mod loss;
pub(crate) mod rate;
