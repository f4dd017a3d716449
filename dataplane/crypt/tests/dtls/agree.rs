//! Who agrees, on what, over which network; and who must not.

use crate::net::{Net, ROLES, Random, SPEAKS, Speaks, perfect};
use std::time::Duration;
use strait_crypt::dtls::{Certificate, Fingerprint, Role};
use strait_crypt::srtp::Profile;

const SECOND: Duration = Duration::from_secs(1);

#[test]
fn both_roles_and_versions() {
    for role in ROLES {
        for speaks in SPEAKS {
            let mut net = Net::new(role, speaks);
            net.run(2 * SECOND, &mut perfect);
            net.assert_agreed(role);
            // Without a cookie exchange the last of four flights is there after 60 ms; nothing was sent twice.
            let profile = net.ours.keys.as_ref().unwrap().profile;
            println!("we are {role:?}, the peer speaks {speaks:?}: {profile:?}");
            assert!(matches!(profile, Profile::AeadAes128Gcm | Profile::AeadAes256Gcm));
            assert_eq!(net.ours.handshake.ignored(), 0);
        }
    }
}

#[test]
fn a_client_may_offer_one_profile() {
    for speaks in SPEAKS {
        let theirs = dimpl::certificate::generate_self_signed_certificate().unwrap();
        let fingerprint = Fingerprint::new("sha-256", &theirs.fingerprint()).unwrap();
        let ours = Certificate::generate().unwrap().offering(Profile::AeadAes128Gcm).unwrap();
        let mut net = Net::with_certificate(Role::Client, speaks, &theirs, fingerprint, &ours);
        net.run(2 * SECOND, &mut perfect);
        net.assert_agreed(Role::Client);
        assert_eq!(net.ours.keys.as_ref().unwrap().profile, Profile::AeadAes128Gcm, "{speaks:?}");
    }
}

#[test]
fn loss_duplication_and_reordering() {
    for role in ROLES {
        for speaks in SPEAKS {
            for seed in 1..=25 {
                let mut random = Random(seed);
                let mut net = Net::new(role, speaks);
                // Three bad seconds: a quarter lost, a sixth doubled, up to 300 ms late, in any order.
                net.run(30 * SECOND, &mut |at| {
                    if at > 3 * SECOND {
                        return perfect(at);
                    }
                    let copies = match random.below(12) {
                        0..=2 => 0,
                        3 | 4 => 2,
                        _ => 1,
                    };
                    (0..copies).map(|_| Duration::from_millis(10 + random.below(290))).collect()
                });
                if net.ours.keys.is_none() || !net.peer.connected {
                    panic!("{role:?} {speaks:?} seed {seed}: {:?}", net.ours.failed);
                }
                net.assert_agreed(role);
            }
        }
    }
}

#[test]
fn the_fingerprint_decides() {
    for role in ROLES {
        for speaks in SPEAKS {
            let theirs = dimpl::certificate::generate_self_signed_certificate().unwrap();
            let mut wrong = theirs.fingerprint();
            wrong[31] ^= 1;
            let wrong = Fingerprint::new("sha-256", &wrong).unwrap();
            let mut net = Net::with(role, speaks, &theirs, wrong);
            net.run(5 * SECOND, &mut perfect);
            assert!(net.ours.keys.is_none(), "{role:?} {speaks:?}");
            let why = net.ours.failed.as_deref().expect("a failure");
            assert!(why.contains("fingerprint"), "{why}");
        }
    }
}

#[test]
fn silence_fails_in_time() {
    let mut net = Net::new(Role::Client, Speaks::Both);
    net.run(20 * SECOND, &mut |_| Vec::new());
    assert!(net.ours.failed.is_none(), "not yet");
    net.run(40 * SECOND, &mut |_| Vec::new());
    assert!(net.ours.failed.is_some());
    assert!(net.log.iter().filter(|(to_us, _)| !to_us).count() <= 8, "a handful of tries");
}

#[test]
fn goodbyes_are_heard() {
    for role in ROLES {
        for speaks in SPEAKS {
            let mut net = Net::new(role, speaks);
            net.run(2 * SECOND, &mut perfect);
            net.assert_agreed(role);
            assert!(!net.ours.closed);
            net.peer.dtls.close().unwrap();
            net.run(4 * SECOND, &mut perfect);
            assert!(net.ours.closed, "{role:?} {speaks:?}");
        }
    }
}

#[test]
fn goodbyes_are_said() {
    for role in ROLES {
        let mut net = Net::new(role, Speaks::Both);
        net.run(2 * SECOND, &mut perfect);
        let before = net.log.len();
        net.ours.handshake.close();
        net.run(4 * SECOND, &mut perfect);
        assert!(net.log[before..].iter().any(|(to_us, _)| !to_us), "an alert");
    }
}

#[test]
fn a_released_handshake_is_quiet() {
    let mut net = Net::new(Role::Server, Speaks::Both);
    net.ours.handshake.release();
    net.run(2 * SECOND, &mut perfect);
    net.assert_agreed(Role::Server);
    net.ours.handshake.release();
    net.peer.dtls.close().unwrap();
    net.run(4 * SECOND, &mut perfect);
    assert!(!net.ours.closed && net.ours.failed.is_none());
}
