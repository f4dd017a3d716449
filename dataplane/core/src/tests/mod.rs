//! The whole worker, with peers made by hand.

mod allocate;
mod audio;
mod bandwidth;
mod demand;
mod departure;
mod downlink;
mod fec;
mod feedback;
mod forward;
mod gather;
mod hostile;
mod ice;
mod keyframe_cache;
mod layers;
mod limits;
mod mirror;
mod movement;
mod pacer;
mod quality;
mod red;
mod repair;
mod report;
mod shared;
mod streams;
mod switch;
mod uplink;
