//! Links over QUIC, which end with UDP, in virtual time.

use crate::virtual_net::{World, ms};
use strait_client::core::client::Event;
use strait_link::v1::transport_report::State;

fn two(mut world: World) -> World {
    world.quic = true;
    world.join();
    world.join();
    world.run(ms(5000));
    world
}

#[test]
fn a_link_over_quic_is_left_with_udp_and_media_goes_by_tcp_within_five_seconds() {
    for seed in 0..10 {
        let mut world = two(World::with_framed_media(seed));
        world.run(ms(seed * 37));
        world.udp_blocked = true;
        let cut = world.now;
        world.run(ms(8000));
        for member in &world.members {
            assert_eq!(member.transport(), State::TcpRelay, "seed {seed}");
            let after = member.heard.iter().find(|(at, _)| *at > cut + ms(100)).unwrap().0;
            assert!(after < cut + ms(4000), "seed {seed}: {:?}", after - cut);
            let mut joined = member.events.iter().filter_map(|(at, event)| match event {
                Event::Joined { resumed, .. } => Some((*at, *resumed)),
                _ => None,
            });
            let (back, resumed) = joined.next_back().unwrap();
            assert!(resumed && back < cut + ms(5000), "seed {seed}: {:?}", back - cut);
        }
        world.udp_blocked = false;
        world.run(ms(10_000));
        assert_eq!(world.members[0].transport(), State::UdpRelay, "seed {seed}");
    }
}

/// Of two ways over UDP one is enough to know that it is not UDP.
#[test]
fn a_link_over_quic_carries_media_where_other_ports_are_silent_and_stays() {
    let mut world = two(World::with_framed_media(1));
    world.ports_blocked = vec![8443];
    world.run(ms(8000));
    for member in &world.members {
        assert_eq!(member.transport(), State::Link);
        assert!(member.heard.last().unwrap().0 > world.now - ms(100));
        assert!(!member.events.iter().any(|(_, event)| matches!(event, Event::LinkLost { .. })));
    }
}
