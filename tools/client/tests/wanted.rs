//! What goes directly, and what of that the application gets, in virtual time.

use crate::virtual_net::{World, ms};
use strait_client::v1::{self, client_message::Body, transport_report::State};

/// Two between whom media goes directly.
fn two() -> World {
    let mut world = World::new(3);
    world.join();
    world.join();
    world.run(ms(3000));
    world.node.offer_direct();
    world.run(ms(3000));
    assert_eq!(world.members[0].transport(), State::P2p);
    world
}

fn heard(world: &mut World) -> usize {
    let before = world.members[1].heard.len();
    world.run(ms(1000));
    world.members[1].heard.len() - before
}

#[test]
fn only_what_the_other_one_takes_goes_directly() {
    let mut world = two();
    let voice = world.node.peers[0].publications[0].publication_id.clone();
    world.node.tell_wanted(0, &[]);
    world.run(ms(100));
    let directly = world.members[1].direct.len();
    let by_the_node = world.node.peers[0].media_packets;
    world.run(ms(1000));
    assert_eq!(world.members[1].direct.len(), directly);
    assert!(world.node.peers[0].media_packets >= by_the_node + 49);
    assert_eq!(world.members[0].transport(), State::P2p, "the other one's goes on so");
    world.node.tell_wanted(0, &[&voice]);
    world.run(ms(100));
    let by_the_node = world.node.peers[0].media_packets;
    world.run(ms(1000));
    assert!(world.members[1].direct.len() >= directly + 50);
    assert!(world.node.peers[0].media_packets <= by_the_node + 1);
    assert_eq!(world.members[1].lost_since(ms(1000)), 0, "nothing is lost on either change");
    // An offer of a node that does not say is one of all.
    world.node.tell_wanted(0, &[]);
    world.node.end_direct();
    world.run(ms(1000));
    let directly = world.members[1].direct.len();
    world.node.offer_direct();
    world.run(ms(2000));
    assert!(world.members[1].direct.len() >= directly + 50);
}

#[test]
fn what_is_paused_or_not_allowed_any_more_is_not_heard_though_it_comes() {
    let mut world = two();
    let subscription_id = world.node.peers[1].subscriptions[0].clone();
    let subscription_id = format!("sub-{subscription_id}");
    assert!(heard(&mut world) >= 49);
    for (paused, expected) in [(true, 0..=0), (false, 49..=51)] {
        let preferences = Some(v1::Preferences { paused, ..v1::Preferences::default() });
        let subscription_id = subscription_id.clone();
        let prefer = v1::SetPreferences { subscription_id, preferences };
        world.members[1].client.request(Body::SetPreferences(prefer)).unwrap();
        let heard = heard(&mut world);
        assert!(expected.contains(&heard), "{heard}");
    }
    world.node.end_subscription(1, &subscription_id);
    world.run(ms(100));
    assert_eq!(heard(&mut world), 0);
}

#[test]
fn who_comes_when_the_numbers_of_the_other_wrapped_hears_it_all_the_same() {
    for wraps in [1, 20] {
        let mut world = World::new(4);
        world.join();
        world.run(ms(1000));
        for _ in 0..wraps {
            (0..65_536).for_each(|_| world.say(0));
            world.run(ms(50));
        }
        world.join();
        world.run(ms(2000));
        // As sent, by the node.
        assert!(heard(&mut world) >= 49, "{wraps}");
        world.members[1].heard.clear();
        world.node.offer_direct();
        world.run(ms(3000));
        assert_eq!(world.members[1].transport(), State::P2p);
        assert!(heard(&mut world) >= 49 && world.members[1].client.statistics().direct_packets > 0);
    }
}

#[test]
fn who_heard_nothing_for_half_a_turn_of_the_numbers_hears_again() {
    let mut world = two();
    world.loss = 1.0;
    (0..40_000).for_each(|_| world.say(0));
    world.run(ms(2300));
    world.loss = 0.0;
    world.run(ms(1000));
    assert!(heard(&mut world) >= 49);
}
