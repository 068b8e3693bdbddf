//! Tests of received messages: delivery, acknowledgement, queues and drops.

use std::io::{Read, Write};
use std::ops::Deref;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use mqtt_adapter_core::proto::{QoS, ReasonCode, SubAck, TopicFilter, Version};
use mqtt_adapter_core::{
    AcknowledgeWhen, ConnectionEvent, Handle, Options, QoS0Overflow, ReceivedMessage, Unclaimed,
};
use mqtt_session::ServerEvent;

use super::{connect, kept, message, number, options, publish_numbers};
use crate::peers::FloodServer;
use crate::peers::Mosquitto;
use crate::peers::{CONNACK_5, RawServer};
use crate::peers::{Reaction, ScriptedServer};

/// The program takes no messages: the server keeps those beyond its window, and none is acknowledged.
pub async fn a_slow_subscriber_loses_nothing<H: Deref<Target = Handle>>(
    start: impl Fn(Options) -> H,
) {
    let broker = Mosquitto::start("");
    let mut slow = options(broker.port);
    slow.qos0_queue = 4;
    let slow = connect(&start, slow).await.unwrap();
    let mut messages = slow.subscribe("a", QoS::ExactlyOnce).await.unwrap();
    let mut other = options(broker.port);
    other.client_id = "d".into();
    let fast = connect(&start, other).await.unwrap();
    for n in 0..3_000_u32 {
        let _ = fast
            .publish_message(&message(QoS::AtLeastOnce, n.to_string().as_bytes()))
            .await
            .unwrap();
    }
    assert!(fast.close(Duration::from_secs(60)).await.is_empty());
    for n in 0..3_000_u32 {
        assert_eq!(messages.next().await.unwrap().payload, n.to_string());
    }
}

/// Messages that were not acknowledged by hand come again.
pub async fn a_message_is_acknowledged_by_hand_or_comes_again<H: Deref<Target = Handle>>(
    start: impl Fn(Options) -> H,
) {
    let broker = Mosquitto::start("");
    for version in [Version::V311, Version::V5] {
        let mut options = options(broker.port);
        options.version = version;
        options.client_id = format!("by hand {version}");
        options.clean_start = false;
        options.session_expiry = 100;
        options.acknowledge = AcknowledgeWhen::ByHand;
        let first = connect(&start, options.clone()).await.unwrap();
        let mut messages = first.subscribe("a", QoS::ExactlyOnce).await.unwrap();
        for payload in [b"1", b"2"] {
            let _ = first
                .publish_message(&message(QoS::AtLeastOnce, payload))
                .await
                .unwrap();
        }
        let one = messages.next().await.unwrap();
        first.acknowledge(&one, ReasonCode::Success).unwrap();
        let two = messages.next().await.unwrap();
        assert_eq!(&two.payload[..], b"2");
        // The second message is not acknowledged.
        let _ = first.close(Duration::from_secs(60)).await;
        let second = start(options);
        let mut again = second.other_messages();
        let message = again.next().await.unwrap();
        assert_eq!((&message.payload[..], message.dup), (&b"2"[..], true));
        second.acknowledge(&message, ReasonCode::Success).unwrap();
        let _ = second.close(Duration::from_secs(60)).await;
    }
}

/// 3.1.1 [MQTT-3.1.2-23]: the client sends PINGREQ in time even while the server sends more than the client takes.
pub async fn a_client_pings_while_messages_come_without_end<H: Deref<Target = Handle>>(
    start: impl Fn(Options) -> H,
) {
    let flood = FloodServer::start();
    let mut options = options(flood.port);
    options.keep_alive = 1;
    options.back_off.attempts = Some(1);
    let handle = start(options);
    let mut news = handle.other_messages();
    while news.next().await.is_some() && !flood.is_over() {}
    assert!(flood.was_pinged());
}
/// A server that answers a SUBSCRIBE with the messages `0` to `count`, and counts their acknowledgements.
fn sender(qos: QoS, count: u32) -> (ScriptedServer, Arc<AtomicUsize>) {
    let acknowledged = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&acknowledged);
    let server = ScriptedServer::start(move |event, server| match event {
        ServerEvent::Subscribe(subscribe) => {
            let codes = [ReasonCode::GrantedQoS2];
            let suback = SubAck::new(subscribe.packet_id, &codes);
            server.subscribed(&suback).unwrap();
            for n in 0..count {
                let payload = n.to_string();
                server.publish(&message(qos, payload.as_bytes())).unwrap();
            }
            Reaction::Nothing
        }
        ServerEvent::Acknowledged { .. } => {
            counted.fetch_add(1, Ordering::Relaxed);
            Reaction::Nothing
        }
        _ => Reaction::Usual,
    });
    (server, acknowledged)
}

/// Waits until the server has read all bytes that were written before.
async fn fence(handle: &Handle) {
    let ticket = handle.publish("fence", QoS::ExactlyOnce, false, b"").await;
    assert!(ticket.unwrap().await.is_success());
}

/// By default a message is acknowledged when the program asks for the next one.
pub async fn a_message_is_acknowledged_when_the_next_one_is_asked_for<H: Deref<Target = Handle>>(
    start: impl Fn(Options) -> H,
) {
    for qos in [QoS::AtLeastOnce, QoS::ExactlyOnce] {
        let (server, acknowledged) = sender(qos, 5);
        let options = kept(server.port, Version::V311, "c");
        let handle = connect(&start, options).await.unwrap();
        let mut messages = handle.subscribe("a", qos).await.unwrap();
        for n in 0..5 {
            assert_eq!(number(&messages.next().await.unwrap().payload), n);
            fence(&handle).await;
            let n = usize::try_from(n).unwrap();
            assert_eq!(acknowledged.load(Ordering::Relaxed), n);
        }
        // The last message stays in hand when the stream is dropped.
        drop(messages);
        fence(&handle).await;
        assert_eq!(acknowledged.load(Ordering::Relaxed), 4);
        let mut again = handle.other_messages();
        let last = again.next().await.unwrap();
        assert_eq!((number(&last.payload), last.dup), (4, true));
        handle.acknowledge(&last, ReasonCode::Success).unwrap();
        fence(&handle).await;
        assert_eq!(acknowledged.load(Ordering::Relaxed), 5);
        let _ = handle.close(Duration::from_secs(60)).await;
    }
}

/// With the option, all messages are acknowledged before the first one is taken.
pub async fn a_message_is_acknowledged_on_arrival<H: Deref<Target = Handle>>(
    start: impl Fn(Options) -> H,
) {
    let (server, acknowledged) = sender(QoS::AtLeastOnce, 5);
    let mut options = options(server.port);
    options.acknowledge = AcknowledgeWhen::Arrived;
    let handle = connect(&start, options).await.unwrap();
    let mut messages = handle.subscribe("a", QoS::AtLeastOnce).await.unwrap();
    fence(&handle).await;
    assert_eq!(acknowledged.load(Ordering::Relaxed), 5);
    for n in 0..5 {
        let message = messages.next().await.unwrap();
        assert_eq!((number(&message.payload), message.id()), (n, None));
    }
}

/// A stream that is not read has many more messages than its queue holds: other answers of the server still arrive.
pub async fn a_stream_that_is_not_read_blocks_no_other_answer<H: Deref<Target = Handle>>(
    start: impl Fn(Options) -> H,
) {
    let broker = Mosquitto::start("");
    let mut flooder = options(broker.port);
    flooder.client_id = "flooder".into();
    let flooder = connect(&start, flooder).await.unwrap();
    for version in super::VERSIONS {
        let mut options = options(broker.port);
        options.version = version;
        options.qos0_queue = 16;
        let handle = connect(&start, options).await.unwrap();
        let unread = handle.subscribe("flood", QoS::ExactlyOnce).await.unwrap();
        for qos in [QoS::AtMostOnce, QoS::AtLeastOnce, QoS::ExactlyOnce] {
            publish_numbers(&flooder, "flood", qos, 0..2_000).await;
        }
        fence(&handle).await;
        let other = handle.subscribe("other", QoS::ExactlyOnce).await.unwrap();
        other.unsubscribe().await.unwrap();
        let filters = [TopicFilter::new("from/before").unwrap()];
        handle.unsubscribe(&filters).await.unwrap();
        assert_eq!(unread.dropped(), 2_000 - 16);
        assert!(handle.close(Duration::from_secs(60)).await.is_empty());
    }
}

/// The server sends the messages of a kept session before it answers SUBSCRIBE: more than any queue or window of the client
/// holds.
pub async fn a_backlog_beyond_the_queue_comes_before_the_answer<H: Deref<Target = Handle>>(
    start: impl Fn(Options) -> H,
) {
    const COUNT: u16 = 3_000;
    for by_hand in [false, true] {
        let server = ScriptedServer::start(|event, server| {
            let ServerEvent::Subscribe(subscribe) = event else {
                return Reaction::Usual;
            };
            for n in 0..100_u32 {
                let payload = n.to_string();
                let message = message(QoS::AtLeastOnce, payload.as_bytes());
                server.publish(&message).unwrap();
            }
            for n in 0..COUNT {
                let payload = n.to_string();
                let message = message(QoS::AtMostOnce, payload.as_bytes());
                server.publish(&message).unwrap();
            }
            let codes = [ReasonCode::GrantedQoS2];
            let suback = SubAck::new(subscribe.packet_id, &codes);
            server.subscribed(&suback).unwrap();
            Reaction::Nothing
        });
        let mut options = options(server.port);
        options.qos0_queue = 8;
        if by_hand {
            options.acknowledge = AcknowledgeWhen::ByHand;
        }
        let handle = connect(&start, options).await.unwrap();
        let mut messages = handle.subscribe("a", QoS::AtLeastOnce).await.unwrap();
        for n in 0..100 {
            let message = messages.next().await.unwrap();
            assert_eq!(
                (message.qos, number(&message.payload)),
                (QoS::AtLeastOnce, n)
            );
            if by_hand {
                handle.acknowledge(&message, ReasonCode::Success).unwrap();
            }
        }
        let message = messages.next().await.unwrap();
        assert_eq!(number(&message.payload), u32::from(COUNT) - 8);
        assert_eq!(messages.dropped(), u64::from(COUNT) - 8);
    }
}

/// The program connects, then subscribes: messages of a kept session wait for the subscription, or for the stream of the
/// others.
pub async fn unclaimed_messages_are_held_or_discarded<H: Deref<Target = Handle>>(
    start: impl Fn(Options) -> H,
) {
    let (server, acknowledged) = (Mosquitto::start(""), ["held", "by hand", "discarded"]);
    for (version, how) in super::VERSIONS
        .into_iter()
        .flat_map(|version| acknowledged.map(|how| (version, how)))
    {
        let mut options = kept(server.port, version, &format!("{how} {version}"));
        let first = connect(&start, options.clone()).await.unwrap();
        let all = [super::filter("left"), super::filter("right")];
        let _ = first.subscribe_all(&all, Default::default()).await.unwrap();
        let _ = first.close(Duration::from_secs(60)).await;
        drop(first);
        let mut other = super::options(server.port);
        other.client_id = "other".into();
        let other = connect(&start, other).await.unwrap();
        publish_numbers(&other, "left", QoS::ExactlyOnce, 0..5).await;
        publish_numbers(&other, "right", QoS::AtLeastOnce, 0..5).await;
        match how {
            "by hand" => options.acknowledge = AcknowledgeWhen::ByHand,
            "discarded" => options.unclaimed = Unclaimed::Discard,
            _ => {}
        }
        let handle = connect(&start, options).await.unwrap();
        let mut events = handle.events();
        while !matches!(events.next().await.unwrap(), ConnectionEvent::Unclaimed) {}
        // The server sends all ten messages before it reads this.
        fence(&handle).await;
        let mut right = handle.subscribe("right", QoS::AtLeastOnce).await.unwrap();
        let mut rest = handle.other_messages();
        if how == "discarded" {
            publish_numbers(&other, "right", QoS::AtLeastOnce, 7..8).await;
            assert_eq!(number(&right.next().await.unwrap().payload), 7);
            continue;
        }
        let done =
            |message: &ReceivedMessage| handle.acknowledge(message, ReasonCode::Success).unwrap();
        for n in 0..5 {
            let (a, b) = (right.next().await.unwrap(), rest.next().await.unwrap());
            assert_eq!((a.topic().as_str(), number(&a.payload)), ("right", n));
            assert_eq!((b.topic().as_str(), number(&b.payload)), ("left", n));
            done(&a);
            done(&b);
        }
        publish_numbers(&other, "right", QoS::AtLeastOnce, 5..6).await;
        assert_eq!(number(&right.next().await.unwrap().payload), 5);
        let _ = handle.close(Duration::from_secs(60)).await;
    }
}

/// Mosquitto 2.0.11 does this when it sends messages again. All are delivered on one connection, and one event reports it.
pub async fn a_server_beyond_the_receive_maximum_is_reported_once_and_served<
    H: Deref<Target = Handle>,
>(
    start: impl Fn(Options) -> H,
) {
    let server = RawServer::start(|mut stream, _| {
        let _ = stream.read(&mut [0; 1024]);
        let _ = stream.write_all(&CONNACK_5);
        for n in 1..=60_u8 {
            // A PUBLISH at QoS 1 to `a`, with packet identifier n, no properties, and payload n.
            let _ = stream.write_all(&[0x32, 7, 0, 1, b'a', 0, n, 0, n]);
        }
        // Until the client ends the connection.
        let _ = std::io::copy(&mut stream, &mut std::io::sink());
    });
    let mut options = options(server.port);
    options.version = Version::V5;
    options.receive_maximum = 20;
    let handle = start(options);
    let mut messages = handle.other_messages();
    for n in 1..=60_u8 {
        assert_eq!(messages.next().await.unwrap().payload[..], [n]);
    }
    assert_eq!(server.connections(), 1);
    let _ = handle.close(Duration::from_secs(60)).await;
    let (mut events, mut told) = (handle.events(), 0);
    while let Some(event) = events.next().await {
        told += u32::from(matches!(event, ConnectionEvent::ReceiveMaximumExceeded));
    }
    assert_eq!(told, 1);
}

/// The oldest or the newest messages are dropped and counted, or none is dropped and reading pauses.
pub async fn messages_at_qos_0_are_dropped_as_the_policy_says<H: Deref<Target = Handle>>(
    start: impl Fn(Options) -> H,
) {
    let cases = [
        (QoS0Overflow::DropOldest, 90, 90..100),
        (QoS0Overflow::DropNewest, 90, 0..10),
        (QoS0Overflow::PauseReading, 0, 0..100),
    ];
    for (policy, dropped, expected) in cases {
        let (server, _) = sender(QoS::AtMostOnce, 100);
        let mut options = options(server.port);
        options.qos0_queue = 10;
        options.qos0_overflow = policy;
        let handle = connect(&start, options).await.unwrap();
        let mut messages = handle.subscribe("a", QoS::AtMostOnce).await.unwrap();
        if policy != QoS0Overflow::PauseReading {
            fence(&handle).await;
        }
        for n in expected {
            assert_eq!(number(&messages.next().await.unwrap().payload), n);
        }
        assert_eq!(messages.dropped(), dropped);
        // Reading continues normally.
        fence(&handle).await;
    }
}
