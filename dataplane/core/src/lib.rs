//! The packet's path through the relay, sans-IO: no clock, no socket, no randomness, no lock.
#![forbid(unsafe_code)]

mod allocate;
pub mod arrival;
mod audio;
mod bandwidth;
mod budget;
mod cache;
pub mod command;
mod demand;
mod departure;
mod display;
pub mod drop;
mod echo;
pub mod egress;
mod execute;
mod fan_out;
mod fec;
mod feedback;
mod gather;
mod hash;
mod ice;
mod inner;
mod keyframe;
mod keyframe_cache;
mod keys;
mod ladder;
mod lane;
mod layer;
pub mod limits;
mod measure;
mod mirror;
pub mod movement;
mod pacer;
mod packet;
pub mod parcel;
mod path;
mod peek;
mod peer;
pub mod port;
mod publication;
pub mod quality;
mod red;
mod repair;
mod report;
mod request;
mod resend;
mod rewrite;
mod route;
mod rtcp;
mod select;
mod sequence;
mod size;
mod slab;
mod speaker;
mod spend;
pub mod statistics;
mod subscription;
mod template;
pub mod time;
mod timer;
mod uplink;
pub mod worker;

#[cfg(test)]
mod testing;
#[cfg(test)]
mod tests;
