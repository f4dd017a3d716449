//! The whole worker, with peers made by hand.

mod bandwidth;
mod forward;
mod gather;
mod ice;
mod limits;
mod mirror;
mod movement;
mod repair;
mod report;
mod shared;
mod switch;
