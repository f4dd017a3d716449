//! What an association costs while it waits for a goodbye.

use crate::net::{Net, Speaks, perfect};
use std::time::Duration;
use strait_crypt::dtls::Role;

/// A peer may have 64 KiB of everything; half of it is a lot for what is idle.
const BYTES_MAX: usize = 32 << 10;

/// Resident pages of this process, in bytes.
fn resident() -> usize {
    let statm = std::fs::read_to_string("/proc/self/statm").unwrap_or_default();
    let pages = statm.split_whitespace().nth(1).and_then(|pages| pages.parse::<usize>().ok());
    4096 * pages.unwrap_or(0)
}

#[test]
fn an_established_association_is_small() {
    for speaks in [Speaks::Dtls12, Speaks::Both] {
        let establish = || {
            let mut net = Net::new(Role::Server, speaks);
            net.run(Duration::from_secs(2), &mut perfect);
            net.assert_agreed(Role::Server);
            net.ours.handshake
        };
        // The first ones warm the allocator's pools up.
        let warm: Vec<_> = (0..20).map(|_| establish()).collect();
        let before = resident();
        let kept: Vec<_> = (0..150).map(|_| establish()).collect();
        let each = resident().saturating_sub(before) / kept.len();
        println!("{speaks:?}: {each} bytes for each established association");
        assert!(each < BYTES_MAX, "{speaks:?}: {each} bytes");
        drop(warm);
    }
}
