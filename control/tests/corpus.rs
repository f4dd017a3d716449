//! The fuzz corpora of this crate's parsers, run by ordinary tests: none may panic.

use std::path::Path;

#[test]
fn corpora_do_not_break_the_parsers() {
    type Target = fn(&[u8]);
    let targets: [(&str, Target); 8] = [
        ("sdp", strait_control::fuzz::sdp),
        ("jsonrtc", strait_control::fuzz::jsonrtc),
        ("link", strait_control::fuzz::link),
        ("envelope", strait_control::fuzz::envelope),
        ("token", strait_control::fuzz::token),
        ("auth", strait_control::fuzz::auth),
        ("credential", strait_control::fuzz::credential),
        ("sdpfrag", strait_control::fuzz::sdpfrag),
    ];
    for (name, target) in targets {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/fuzz/corpus").join(name);
        let mut seeds = 0;
        for entry in std::fs::read_dir(folder).unwrap() {
            let bytes = std::fs::read(entry.unwrap().path()).unwrap();
            target(&bytes);
            // And each cut short, and each with a byte changed.
            for place in (0..bytes.len()).step_by(1 + bytes.len() / 64) {
                target(&bytes[..place]);
                let mut changed = bytes.clone();
                changed[place] ^= 0x41;
                target(&changed);
            }
            seeds += 1;
        }
        assert!(seeds > 3, "{name}");
    }
}
