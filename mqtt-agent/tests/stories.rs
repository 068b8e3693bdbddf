//! Checks an agent packet by packet. The test plays the server and the transport.

use std::collections::HashMap;

use bytes::BytesMut;
use mqtt_agent::proto::{
    AckKind, ConnAck, List, Packet, PacketId, PacketType, Properties, Publish, QoS, ReasonCode,
    SubAck, Subscription, TopicFilter, TopicName, UnsubAck, Version,
};
use mqtt_agent::session::{Instant, Offline, Outgoing, Refused};
use mqtt_agent::{
    Accepted, AcknowledgeWhen, Agent, AgentEvent, ConnectionEvent, Error, Flow, NextDial, Options,
    Outcome, QoS0Overflow, ReceivedMessage, RouteId, Unclaimed,
};
use mqtt_testing::packets::{ack, encode, packet_types, publish};

struct Story {
    agent: Agent,
    now: Instant,
    input: BytesMut,
}

/// Returns the options of a client whose session is kept.
fn kept() -> Options {
    let mut options = Options::new("broker", 1883);
    options.client_id = "story".to_owned();
    options.clean_start = false;
    options
}

impl Story {
    fn new(options: Options) -> Self {
        Self {
            agent: Agent::new(options),
            now: Instant::from_millis(1_000),
            input: BytesMut::new(),
        }
    }

    /// Connects, and returns the types of the packets after CONNECT.
    fn connect(&mut self, session_present: bool) -> Vec<PacketType> {
        assert_eq!(self.agent.next_dial(self.now), NextDial::Now);
        self.agent.opened(self.now).expect("it can connect");
        assert_eq!(self.sent(), [PacketType::Connect]);
        let connack = ConnAck {
            session_present,
            ..ConnAck::default()
        };
        self.feed(&encode(&Packet::ConnAck(connack), Version::V311));
        self.sent()
    }

    fn lose(&mut self) {
        self.agent.lost(Error::EndOfStream, self.now, 0);
        self.input.clear();
        self.now = Instant::from_millis(self.now.as_millis() + 60_000);
    }

    fn feed(&mut self, bytes: &[u8]) -> Flow {
        self.input.extend_from_slice(bytes);
        let flow = self.agent.receive(&mut self.input, self.now);
        flow.expect("the server keeps the rules")
    }

    fn message(&mut self, qos: QoS, id: u16, topic: &str, payload: &str) -> Flow {
        self.publish(topic, publish(qos, id, false, payload))
    }

    /// Sends a message as one that may have been sent before.
    fn repeated_message(&mut self, qos: QoS, id: u16, topic: &str, payload: &str) -> Flow {
        self.publish(topic, publish(qos, id, true, payload))
    }

    fn publish(&mut self, topic: &str, message: Publish<'_>) -> Flow {
        let message = Publish {
            topic: TopicName::new(topic).expect("valid"),
            ..message
        };
        self.feed(&encode(&Packet::Publish(message), Version::V311))
    }

    /// Returns the types of all outgoing packets, and takes the packets.
    fn sent(&mut self) -> Vec<PacketType> {
        let bytes = self.agent.outgoing().to_vec();
        self.agent.sent(bytes.len());
        packet_types(&bytes, Version::V311)
    }

    fn subscribe(&mut self, filter: &str) -> RouteId {
        let filter = TopicFilter::new(filter).expect("valid");
        let list = [Subscription::new(filter, QoS::ExactlyOnce)];
        self.agent.subscribe(&list, &Properties::EMPTY, self.now)
    }

    /// Subscribes, and answers as a server that grants it.
    fn granted(&mut self, id: u16, filter: &str) -> RouteId {
        let subscription = self.subscribe(filter);
        assert_eq!(self.sent(), [PacketType::Subscribe]);
        let codes = [ReasonCode::GrantedQoS2];
        let suback = SubAck::new(packet_id(id), List::from(&codes[..]));
        self.feed(&encode(&Packet::SubAck(suback), Version::V311));
        subscription
    }

    fn next(&mut self, from: Option<RouteId>) -> Option<(String, ReceivedMessage)> {
        let received = self.agent.next_message(from)?;
        let payload = String::from_utf8(received.payload.to_vec()).expect("text");
        Some((payload, received))
    }

    fn must_get(&mut self, from: Option<RouteId>, payload: &str) -> ReceivedMessage {
        let (found, received) = self.next(from).expect("a message");
        assert_eq!(found, payload);
        received
    }

    fn taken(&mut self, from: Option<RouteId>, received: &ReceivedMessage) {
        let id = received.id().expect("held");
        self.agent.taken(from, id, self.now);
    }

    fn events(&mut self) -> Vec<AgentEvent> {
        std::iter::from_fn(|| self.agent.next_event()).collect()
    }
}

/// A program that does not wait for the answer of an UNSUBSCRIBE loses no message that waits for it.
#[test]
fn an_unsubscribe_that_is_not_awaited_drops_no_message() {
    let mut story = Story::new(kept());
    story.connect(false);
    story.message(QoS::AtLeastOnce, 1, "a/b", "waits");
    let filters = [TopicFilter::new("a/#").expect("valid")];
    let id = story.agent.unsubscribe_filters(&filters, story.now);
    assert_eq!(story.sent(), [PacketType::Unsubscribe]);
    story.agent.forget(id, story.now);
    let unsuback = UnsubAck::new(packet_id(1), List::default());
    story.feed(&encode(&Packet::UnsubAck(unsuback), Version::V311));
    assert_eq!(story.sent(), []);
    let received = story.must_get(None, "waits");
    story.taken(None, &received);
    assert_eq!(story.sent(), [PacketType::PubAck]);
}

/// The end of one stream does not acknowledge, or give out again, a message that the program got by another stream and
/// acknowledges by hand.
#[test]
fn a_message_in_hand_outlives_another_stream_of_it() {
    for unclaimed in [Unclaimed::Discard, Unclaimed::Hold] {
        let mut options = kept();
        (options.acknowledge, options.unclaimed) = (AcknowledgeWhen::ByHand, unclaimed);
        let mut story = Story::new(options);
        story.connect(false);
        let (first, second) = (story.granted(1, "a/#"), story.granted(2, "a/b"));
        story.message(QoS::AtLeastOnce, 1, "a/b", "x");
        let received = story.must_get(Some(first), "x");
        story.agent.forget(second, story.now);
        assert_eq!(story.sent(), []);
        assert!(story.next(None).is_none());
        let id = received.id().expect("held");
        let done = story.agent.acknowledge(id, ReasonCode::Success, story.now);
        assert_eq!((done, story.sent()), (Ok(()), vec![PacketType::PubAck]));
    }
}

fn packet_id(id: u16) -> PacketId {
    PacketId::new(id).expect("not zero")
}

fn outgoing(qos: QoS) -> Outgoing<'static> {
    Outgoing::new(TopicName::from_static("a/b"), qos, b"out")
}

#[test]
fn a_message_is_acknowledged_when_the_program_is_done_with_it() {
    for (qos, expected) in [
        (QoS::AtLeastOnce, PacketType::PubAck),
        (QoS::ExactlyOnce, PacketType::PubRec),
    ] {
        let mut story = Story::new(kept());
        story.connect(false);
        let from = Some(story.granted(1, "a/b"));
        story.message(qos, 1, "a/b", "first");
        assert_eq!(story.sent(), []);
        let received = story.must_get(from, "first");
        assert_eq!(story.sent(), []);
        story.taken(from, &received);
        assert_eq!(story.sent(), [expected]);
        // The second call changes nothing.
        story.taken(from, &received);
        assert_eq!(story.sent(), []);
        assert_eq!(story.agent.held_bytes(), 0);
    }
}

#[test]
fn a_message_of_two_subscriptions_is_acknowledged_when_both_are_done_with_it() {
    let mut story = Story::new(kept());
    story.connect(false);
    let one = Some(story.granted(1, "a/b"));
    let two = Some(story.granted(2, "a/+"));
    story.message(QoS::AtLeastOnce, 1, "a/b", "both");
    let received = story.must_get(one, "both");
    story.taken(one, &received);
    assert_eq!(story.sent(), []);
    let received = story.must_get(two, "both");
    story.taken(two, &received);
    assert_eq!(story.sent(), [PacketType::PubAck]);
}

#[test]
fn a_message_before_its_subscription_is_held_for_it() {
    let mut story = Story::new(kept());
    story.connect(true);
    story.message(QoS::ExactlyOnce, 1, "a/b", "early");
    story.message(QoS::AtLeastOnce, 2, "x", "another");
    assert_eq!(story.sent(), []);
    let from = Some(story.granted(1, "a/b"));
    let received = story.must_get(from, "early");
    story.taken(from, &received);
    assert_eq!(story.sent(), [PacketType::PubRec]);
    // The next reader of unclaimed messages gets the remaining ones.
    let received = story.must_get(None, "another");
    story.taken(None, &received);
    assert_eq!(story.sent(), [PacketType::PubAck]);
}

#[test]
fn a_message_that_returns_is_not_given_out_again() {
    let mut story = Story::new(kept());
    story.connect(false);
    let from = Some(story.granted(1, "a/b"));
    story.message(QoS::AtLeastOnce, 1, "a/b", "in hand");
    story.message(QoS::AtLeastOnce, 2, "a/b", "waits");
    let received = story.must_get(from, "in hand");
    story.lose();
    // The program takes the message before the server sends it again: the acknowledgement waits until then.
    story.taken(from, &received);
    story.connect(true);
    assert_eq!(story.sent(), []);
    story.repeated_message(QoS::AtLeastOnce, 1, "a/b", "in hand");
    assert_eq!(story.sent(), [PacketType::PubAck]);
    story.repeated_message(QoS::AtLeastOnce, 2, "a/b", "waits");
    let received = story.must_get(from, "waits");
    story.taken(from, &received);
    assert_eq!(story.sent(), [PacketType::PubAck]);
    assert!(story.next(from).is_none());
}

#[test]
fn a_message_acknowledged_by_hand_while_offline_is_acknowledged_when_it_returns() {
    let mut options = kept();
    options.acknowledge = AcknowledgeWhen::ByHand;
    let mut story = Story::new(options);
    story.connect(false);
    let one = Some(story.granted(1, "a/b"));
    let two = Some(story.granted(2, "a/+"));
    story.message(QoS::AtLeastOnce, 1, "a/b", "both");
    let id = story.must_get(one, "both").id().expect("held");
    story.lose();
    story
        .agent
        .acknowledge(id, ReasonCode::Success, story.now)
        .expect("it is held");
    story.connect(true);
    story.repeated_message(QoS::AtLeastOnce, 1, "a/b", "both");
    assert_eq!(story.sent(), [PacketType::PubAck]);
    story.must_get(two, "both");
    assert_eq!(story.agent.held_bytes(), 0);
}

#[test]
fn a_stream_that_is_dropped_leaves_its_messages_to_others() {
    for acknowledge in [AcknowledgeWhen::Taken, AcknowledgeWhen::ByHand] {
        let mut options = kept();
        options.acknowledge = acknowledge;
        let mut story = Story::new(options);
        story.connect(false);
        let id = story.granted(1, "a/b");
        story.message(QoS::AtLeastOnce, 1, "a/b", "kept");
        story.agent.forget(id, story.now);
        let received = story.must_get(None, "kept");
        let id = received.id().expect("held");
        story
            .agent
            .acknowledge(id, ReasonCode::Success, story.now)
            .expect("it is held");
        assert_eq!(story.sent(), [PacketType::PubAck], "{acknowledge:?}");
    }
}

#[test]
fn a_filter_that_another_subscription_has_is_not_given_up() {
    let mut story = Story::new(kept());
    story.connect(false);
    let one = story.granted(1, "a/b");
    let two = story.granted(2, "a/b");
    story.events();
    story.agent.unsubscribe(one, story.now);
    assert_eq!(story.sent(), []);
    assert!(matches!(story.events()[..], [AgentEvent::Unsubscribed(id, _), ..] if id == one));
    story.agent.unsubscribe(two, story.now);
    assert_eq!(story.sent(), [PacketType::Unsubscribe]);
}

#[test]
fn a_subscription_whose_answer_was_lost_is_given_up_at_the_server() {
    let mut story = Story::new(kept());
    story.connect(false);
    let id = story.subscribe("a/b");
    assert_eq!(story.sent(), [PacketType::Subscribe]);
    story.lose();
    story.agent.unsubscribe(id, story.now);
    assert_eq!(story.connect(true), [PacketType::Unsubscribe]);
    let unsuback = UnsubAck::new(packet_id(2), List::default());
    story.feed(&encode(&Packet::UnsubAck(unsuback), Version::V311));
    let events = story.events();
    assert!(
        events
            .iter()
            .any(|event| matches!(event, AgentEvent::Unsubscribed(known, _) if *known == id)),
        "{events:?}"
    );
    // The SUBSCRIBE whose answer is in doubt is not reported as a publish.
    let publishes = |event: &AgentEvent| matches!(event, AgentEvent::Published(..));
    assert!(!events.iter().any(publishes), "{events:?}");
}

#[test]
fn a_session_that_is_lost_is_subscribed_again() {
    let mut story = Story::new(kept());
    story.connect(false);
    story.granted(1, "a/b");
    story.lose();
    assert_eq!(story.connect(true), []);
    story.lose();
    assert_eq!(story.connect(false), [PacketType::Subscribe]);
}

#[test]
fn messages_at_qos_0_give_way_as_the_options_say() {
    let expected = HashMap::from([
        (0, vec!["2", "3"]),
        (1, vec!["1", "2"]),
        (2, vec!["1", "2", "3"]),
    ]);
    let policies = [
        QoS0Overflow::DropOldest,
        QoS0Overflow::DropNewest,
        QoS0Overflow::PauseReading,
    ];
    for (at, policy) in policies.into_iter().enumerate() {
        let mut options = kept();
        options.qos0_queue = 2;
        options.qos0_overflow = policy;
        let mut story = Story::new(options);
        story.connect(false);
        let id = story.granted(1, "a/b");
        for payload in ["1", "2", "3"] {
            story.message(QoS::AtMostOnce, 1, "a/b", payload);
        }
        let pauses = policy == QoS0Overflow::PauseReading;
        assert_eq!(story.agent.is_paused(), pauses);
        let mut got = Vec::new();
        while let Some((payload, _)) = story.next(Some(id)) {
            got.push(payload);
            story.feed(&[]);
        }
        assert_eq!(got, expected[&at], "{policy:?}");
        assert_eq!(story.agent.dropped(Some(id)), u64::from(!pauses));
    }
}

#[test]
fn reading_does_not_pause_for_unclaimed_messages() {
    let mut options = kept();
    options.qos0_queue = 2;
    options.qos0_overflow = QoS0Overflow::PauseReading;
    let mut story = Story::new(options);
    story.connect(true);
    for payload in ["1", "2", "3"] {
        story.message(QoS::AtMostOnce, 1, "a/b", payload);
        assert!(!story.agent.is_paused(), "{payload}");
    }
    assert_eq!(story.agent.dropped(None), 1);
    // An UNSUBSCRIBE for their filter does not make them awaited: its answer would not be read.
    let filters = [TopicFilter::new("a/#").expect("valid")];
    let id = story.agent.unsubscribe_filters(&filters, story.now);
    story.agent.forget(id, story.now);
    for payload in ["4", "5"] {
        story.message(QoS::AtMostOnce, 1, "a/b", payload);
        assert!(!story.agent.is_paused(), "{payload}");
    }
    assert_eq!(story.agent.dropped(None), 3);
}

#[test]
fn reading_pauses_at_the_limit_and_goes_on_when_messages_are_taken() {
    let mut options = kept();
    options.receive_limit = 200;
    let mut story = Story::new(options);
    story.connect(false);
    let from = Some(story.granted(1, "a/b"));
    assert!(matches!(
        story.message(QoS::AtLeastOnce, 1, "a/b", "1"),
        Flow::Read(_)
    ));
    assert_eq!(story.message(QoS::AtLeastOnce, 2, "a/b", "2"), Flow::Paused);
    assert_eq!(story.message(QoS::AtLeastOnce, 3, "a/b", "3"), Flow::Paused);
    for payload in ["1", "2", "3"] {
        let received = story.must_get(from, payload);
        story.taken(from, &received);
        assert!(!story.agent.is_paused());
        story.feed(&[]);
    }
}

#[test]
fn close_sends_what_is_pending_and_ends_by_its_deadline() {
    let mut story = Story::new(kept());
    story.connect(false);
    let published = story.agent.publish(&outgoing(QoS::AtLeastOnce), story.now);
    let Ok(Accepted::Token(token)) = published else {
        panic!("{published:?}")
    };
    let by = Instant::from_millis(story.now.as_millis() + 5_000);
    story.agent.close(by, story.now);
    story.agent.tick(story.now).expect("it waits");
    assert_eq!(story.sent(), [PacketType::Publish]);
    assert_eq!(story.agent.deadline(), Some(by));
    let refused = story.agent.publish(&outgoing(QoS::AtLeastOnce), story.now);
    assert_eq!(refused, Err(Refused::WrongPhase));
    story.feed(&ack(AckKind::PubAck, 1));
    story.agent.tick(story.now).expect("DISCONNECT goes out");
    assert_eq!(story.sent(), [PacketType::Disconnect]);
    assert!(story.agent.is_finished());
    // The new, closer deadline also applies to a transport that does not end.
    story.agent.close(story.now, story.now);
    let late = Instant::from_millis(story.now.as_millis() + 1_000);
    let why = story.agent.tick(late).expect_err("it took too long");
    story.agent.lost(why, late, 0);
    assert_eq!(story.agent.next_dial(late), NextDial::Never);
    let ended = |event: &AgentEvent| matches!(event, AgentEvent::Published(known, Outcome::Acknowledged(_)) if *known == token);
    let events = story.events();
    assert_eq!(events.iter().filter(|event| ended(event)).count(), 1);
    let stopped =
        |event: &AgentEvent| matches!(event, AgentEvent::Connection(ConnectionEvent::Stopped(_)));
    assert_eq!(events.iter().filter(|event| stopped(event)).count(), 1);
}

#[test]
fn close_of_a_connection_that_is_up_does_not_stop_before_its_disconnect() {
    let mut story = Story::new(kept());
    story.connect(false);
    story.agent.close(story.now, story.now);
    assert_ne!(story.agent.next_dial(story.now), NextDial::Never);
    story.agent.tick(story.now).expect("DISCONNECT goes out");
    assert_eq!(story.sent(), [PacketType::Disconnect]);
}

#[test]
fn a_message_that_is_dropped_while_offline_ends_at_once() {
    let mut options = kept();
    options.config.queue = 1;
    options.config.offline = Offline::DropOldest;
    let mut story = Story::new(options);
    let published = story.agent.publish(&outgoing(QoS::AtLeastOnce), story.now);
    let Ok(Accepted::Token(first)) = published else {
        panic!("{published:?}")
    };
    story
        .agent
        .publish(&outgoing(QoS::AtLeastOnce), story.now)
        .expect("the older one gives way");
    assert!(
        matches!(story.events()[..], [AgentEvent::Published(token, Outcome::Dropped)] if token == first)
    );
}
