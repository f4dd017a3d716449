//! The figures that docs/specification.md promises.

/// Name and bound of every figure.
const FIGURES: &[(&str, &str)] = &[
    ("idle_peer_memory", "<= 64 KiB"),
    ("video_subscription_memory", "<= 256 KiB"),
    ("joins_per_core_second", ">= 100"),
    ("join_to_first_picture", "<= 1 s"),
];

/// Prints each figure as not measured yet.
pub fn list() {
    for (name, bound) in FIGURES {
        println!("{name}  bound {bound}  not measured yet");
    }
}
