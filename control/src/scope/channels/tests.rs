use super::*;

fn at(relay_peer: &str, channel: u32) -> Address {
    Address { relay_peer: relay_peer.into(), channel }
}

fn channels() -> Channels {
    let mut channels = Channels::default();
    ["p-1", "p-2", "p-3"].iter().for_each(|peer| channels.admit(peer, Ok(()), true));
    channels
}

fn message(text: &str) -> Arc<Notice> {
    Arc::new(Notice::Message(Message {
        from: "p-2".into(),
        payload: text.into(),
        is_text: true,
        ..Message::default()
    }))
}

fn frame(number: u32) -> Vec<u8> {
    Envelope::Message { number, is_text: true, is_direct: false, peer: "", payload: b"x" }.write()
}

#[test]
fn messages_go_by_the_channel_once_it_was_asked_for() {
    let mut channels = channels();
    assert!(!channels.turn_on("p-1"), "it has none");
    assert!(channels.opened("p-1", at("p-1.1", 0), "strait", envelope::PROTOCOL));
    assert!(!channels.opened("p-1", at("p-1.1", 2), "strait", envelope::PROTOCOL), "a second one");
    assert_eq!(channels.route("p-1", &message("a")), Route::Socket, "nobody asked");
    assert!(channels.turn_on("p-1"));
    let Route::Channel(to, frame) = channels.route("p-1", &message("b")) else { panic!() };
    assert_eq!(to, at("p-1.1", 0));
    assert_eq!(frame, [&[1, 0, 0, 0, 1, 0, 3][..], b"p-2b"].concat());
    assert_eq!(channels.route("p-9", &message("c")), Route::Socket);
}

#[test]
fn what_was_not_answered_goes_by_the_socket_when_the_channel_ends() {
    let mut channels = channels();
    channels.opened("p-1", at("p-1.1", 0), "strait", envelope::PROTOCOL);
    channels.turn_on("p-1");
    for text in ["1", "2", "3", "4"] {
        channels.route("p-1", &message(text));
    }
    let answer = Envelope::Answer { number: 2, code: 0 }.write();
    assert_eq!(channels.hear("p-1", &answer), Heard::Answered);
    assert!(channels.take_unanswered("p-1").is_empty(), "it is in use");
    assert!(!channels.closed("p-1", &at("p-1.9", 0)), "of another transport");
    assert!(channels.closed("p-1", &at("p-1.1", 0)));
    assert_eq!(channels.route("p-1", &message("5")), Route::Socket);
    let left = channels.take_unanswered("p-1");
    assert_eq!(left, [(3, message("3")), (4, message("4"))]);
    assert!(channels.take_unanswered("p-1").is_empty(), "once");

    // Another channel counts on.
    channels.opened("p-1", at("p-1.2", 0), "strait", envelope::PROTOCOL);
    channels.turn_on("p-1");
    let Route::Channel(_, frame) = channels.route("p-1", &message("6")) else { panic!() };
    assert_eq!(frame[..5], [1, 0, 0, 0, 5]);
    assert_eq!(channels.all_lost(), ["p-1"]);
    assert!(!channels.is_on("p-1") && !channels.lost("p-1"));
}

#[test]
fn a_message_is_taken_once_whichever_way_it_comes() {
    let mut channels = channels();
    channels.opened("p-1", at("p-1.1", 0), "strait", envelope::PROTOCOL);
    assert!(matches!(channels.hear("p-1", &frame(1)), Heard::New { number: 1, .. }));
    assert_eq!(channels.hear("p-1", &frame(1)), Heard::Again { number: 1 });
    assert!(!channels.take("p-1", 1) && channels.take("p-1", 2));
    assert_eq!(channels.hear("p-1", &frame(2)), Heard::Again { number: 2 });
    assert_eq!(channels.hear("p-1", &frame(4)), Heard::Wrong, "a gap");
    assert_eq!(channels.hear("p-1", b"nonsense"), Heard::Wrong);
    assert!(matches!(channels.hear("p-1", &frame(3)), Heard::New { number: 3, .. }));
    channels.forget("p-1");
    assert_eq!(channels.hear("p-1", &frame(4)), Heard::Wrong);
}

#[test]
fn who_does_not_answer_is_cut_off() {
    let mut channels = channels();
    channels.opened("p-1", at("p-1.1", 0), "strait", envelope::PROTOCOL);
    channels.turn_on("p-1");
    let large = message(&"x".repeat(60_000));
    let routed = (0..).map(|_| channels.route("p-1", &large));
    let sent = routed.take_while(|route| *route != Route::TooSlow).count();
    assert_eq!(sent, UNCONFIRMED_BYTES / 60_000);
}

#[test]
fn plain_channels_know_each_other_by_their_labels() {
    let mut channels = channels();
    channels.opened("p-1", at("p-1.1", 4), "pose", "");
    channels.opened("p-2", at("p-2.1", 6), "pose", "");
    channels.opened("p-3", at("p-3.1", 8), "other", "");
    assert_eq!(channels.plain("p-1", &at("p-1.1", 4)), Some("pose"));
    assert_eq!(channels.plain("p-1", &at("p-1.0", 4)), None);
    assert_eq!(channels.others("p-1", "pose"), [at("p-2.1", 6)]);
    channels.closed("p-2", &at("p-2.1", 6));
    assert_eq!(channels.others("p-1", "pose"), []);
    // A new transport has none of the old one's.
    channels.opened("p-1", at("p-1.2", 0), "other", "");
    assert_eq!(channels.plain("p-1", &at("p-1.2", 4)), None);
}
