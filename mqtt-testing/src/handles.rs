//! What a handle promises where things go wrong, under any async runtime: reconnection, limits, policies, the end.

#![allow(
    clippy::let_underscore_future,
    reason = "tickets that nobody waits for"
)]
#![allow(clippy::missing_panics_doc, reason = "each panics when it is not so")]

use std::ops::Deref;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use crate::flood::Flood;
use crate::mosquitto::{Mosquitto, free_port};
use crate::scripted::{Scripted, Then};
use adapter_core::proto::{
    QoS, ReasonCode, Subscription as Filter, TopicFilter, TopicName, Version,
};
use adapter_core::{Acknowledge, Connected, Error, Offline, Options, Outcome, Outgoing};
use futures_lite::future::yield_now;
use mqtt_session::{Refused, ServerEvent};

/// All of it, as tests of the module it stands in: how a client is started, and how a future is run to its end.
#[macro_export]
macro_rules! handles {
    ($start:expr, $run:expr) => {
        $crate::handles! { $start, $run;
            a_broker_that_kicks_right_after_connack_causes_no_storm
            a_first_connection_that_fails_is_told_and_the_reason_kept
            an_oversize_packet_s_error_names_the_setting
            publishing_faster_than_the_broker_takes_waits
            messages_published_offline_follow_the_policy
            a_graceful_close_flushes_says_goodbye_and_returns_what_remained
            a_lost_session_is_subscribed_again
            a_session_only_the_server_knows_is_started_clean
            a_slow_subscriber_loses_nothing
            a_message_is_acknowledged_by_hand_or_comes_again
            subscriptions_are_granted_refused_and_given_up
            a_client_pings_while_messages_come_without_end
        }
    };
    ($start:expr, $run:expr; $($name:ident)*) => {
        $(#[test]
        fn $name() {
            $run($crate::handles::$name($start));
        })*
    };
}

/// A client that is connected, or why the first attempt failed.
async fn connect<H: Deref<Target = Connected>>(
    start: &impl Fn(Options) -> H,
    options: Options,
) -> Result<H, Error> {
    let handle = start(options);
    handle.connected().await?;
    Ok(handle)
}

fn options(port: u16) -> Options {
    let mut options = Options::new("127.0.0.1", port);
    options.client_id = "c".into();
    options.back_off.first = Duration::from_millis(2);
    options.back_off.longest = Duration::from_millis(10);
    options
}

fn message(qos: QoS, payload: &[u8]) -> Outgoing<'_> {
    Outgoing::new(TopicName::from_static("a"), qos, payload)
}

fn filter(text: &str) -> Filter<'_> {
    Filter::new(TopicFilter::new(text).unwrap(), QoS::ExactlyOnce)
}

/// The attempts count although each connection was accepted: such a broker is asked ever less often.
pub async fn a_broker_that_kicks_right_after_connack_causes_no_storm<
    H: Deref<Target = Connected>,
>(
    start: impl Fn(Options) -> H,
) {
    let broker = Scripted::start(|event, server| {
        if matches!(event, ServerEvent::Connect(_)) {
            server
                .accept(&Default::default(), mqtt_session::Instant::from_millis(0))
                .unwrap();
            return Then::HangUp;
        }
        Then::Usual
    });
    let mut options = options(broker.port);
    options.back_off.attempts = Some(5);
    let handle = start(options);
    let mut nothing = handle.other_messages();
    assert!(nothing.next().await.is_none());
    assert_eq!(broker.connections(), 5);
}

/// What its name says.
pub async fn a_first_connection_that_fails_is_told_and_the_reason_kept<
    H: Deref<Target = Connected>,
>(
    start: impl Fn(Options) -> H,
) {
    let error = connect(&start, options(free_port())).await.err().unwrap();
    assert!(
        matches!(error, Error::Io(std::io::ErrorKind::ConnectionRefused, _)),
        "{error}"
    );
    let broker = Mosquitto::start("allow_anonymous false");
    let error = connect(&start, options(broker.port)).await.err().unwrap();
    assert_eq!(error.to_string(), "connection refused: not authorized");
}

/// The packet limit of 1 MiB guards the heap; the error says how to raise it.
pub async fn an_oversize_packet_s_error_names_the_setting<H: Deref<Target = Connected>>(
    start: impl Fn(Options) -> H,
) {
    let broker = Mosquitto::start("");
    let receiver = connect(&start, options(broker.port)).await.unwrap();
    let (_, _messages) = receiver.subscribe(&filter("a")).await.unwrap();
    let mut other = options(broker.port);
    other.client_id = "d".into();
    other.config.outgoing_limit = 4 << 20;
    let sender = connect(&start, other).await.unwrap();
    let _ = sender
        .publish(&message(QoS::AtMostOnce, &vec![0; 2 << 20]))
        .await
        .unwrap();
    let why = receiver.disconnected().await.to_string();
    assert!(
        why.contains("the limit is 1048576") && why.contains("packet_limit"),
        "{why}"
    );
}

/// The server takes nothing more: whoever publishes waits, and no more is held than the limits say.
pub async fn publishing_faster_than_the_broker_takes_waits<H: Deref<Target = Connected>>(
    start: impl Fn(Options) -> H,
) {
    let broker = Scripted::start(|event, server| {
        if matches!(event, ServerEvent::Connect(_)) {
            server
                .accept(&Default::default(), mqtt_session::Instant::from_millis(0))
                .unwrap();
            return Then::Nothing;
        }
        // With the first message it stops reading.
        Then::Freeze
    });
    let handle = connect(&start, options(broker.port)).await.unwrap();
    let payload = vec![0; 16 << 10];
    // QoS 1: the window.
    let mut accepted = 0;
    while handle.try_publish(&message(QoS::AtLeastOnce, b"x")).is_ok() {
        accepted += 1;
        yield_now().await;
    }
    assert_eq!(accepted, 128);
    // QoS 0: the outgoing buffer and what the operating system takes. It must be full at some time.
    let (mut bytes, mut refusals) = (0, 0);
    while refusals < 1_000 {
        match handle.try_publish(&message(QoS::AtMostOnce, &payload)) {
            Ok(_) => (bytes, refusals) = (bytes + payload.len(), 0),
            Err(Error::Refused(Refused::Full)) => refusals += 1,
            Err(error) => panic!("{error}"),
        }
        assert!(bytes < 64 << 20, "memory grows without bound");
        yield_now().await;
    }
}

/// What its name says.
pub async fn messages_published_offline_follow_the_policy<H: Deref<Target = Connected>>(
    start: impl Fn(Options) -> H,
) {
    let port = free_port();
    let start = |offline| {
        let mut options = options(port);
        options.config.offline = offline;
        options.config.queue = 2;
        options.config.window = 1;
        start(options)
    };
    let reject = start(Offline::Reject);
    assert_eq!(
        reject
            .try_publish(&message(QoS::AtLeastOnce, b"x"))
            .unwrap_err(),
        Error::Refused(Refused::Offline)
    );
    let keep = start(Offline::Keep);
    let _kept = [b"1", b"2"].map(|payload| {
        keep.try_publish(&message(QoS::AtLeastOnce, payload))
            .unwrap()
    });
    assert_eq!(
        keep.try_publish(&message(QoS::AtLeastOnce, b"3"))
            .unwrap_err(),
        Error::Refused(Refused::Full)
    );
    let remained = keep.close(Duration::ZERO).await;
    let payloads: Vec<_> = remained.iter().map(|unsent| &unsent.payload[..]).collect();
    assert_eq!(payloads, [b"1", b"2"]);
    let drop_oldest = start(Offline::DropOldest);
    let mut tickets: Vec<_> = [b"1", b"2", b"3"]
        .map(|payload| {
            drop_oldest
                .try_publish(&message(QoS::AtLeastOnce, payload))
                .unwrap()
        })
        .into();
    assert_eq!(tickets.remove(0).await, Outcome::Dropped);
    let remained = drop_oldest.close(Duration::ZERO).await;
    let payloads: Vec<_> = remained.iter().map(|unsent| &unsent.payload[..]).collect();
    assert_eq!(payloads, [b"2", b"3"]);
    assert_eq!(tickets.remove(0).await, Outcome::Closed);
    assert_eq!(
        drop_oldest
            .try_publish(&message(QoS::AtMostOnce, b"4"))
            .unwrap_err(),
        Error::HandleClosed
    );
}

/// What its name says.
pub async fn a_graceful_close_flushes_says_goodbye_and_returns_what_remained<
    H: Deref<Target = Connected>,
>(
    start: impl Fn(Options) -> H,
) {
    let goodbyes = Arc::new(AtomicUsize::new(0));
    let heard = Arc::new(Mutex::new(Vec::new()));
    let (count, log) = (Arc::clone(&goodbyes), Arc::clone(&heard));
    let broker = Scripted::start(move |event, _| {
        match event {
            ServerEvent::Disconnected(_) => {
                count.fetch_add(1, Ordering::Relaxed);
            }
            ServerEvent::Message(incoming) => {
                log.lock().unwrap().push(incoming.publish.payload.to_vec())
            }
            _ => {}
        }
        Then::Usual
    });
    let handle = connect(&start, options(broker.port)).await.unwrap();
    for n in 0..200_u8 {
        let _ = handle
            .publish(&message(QoS::ExactlyOnce, &[n]))
            .await
            .unwrap();
    }
    assert!(handle.close(Duration::from_secs(60)).await.is_empty());
    assert_eq!(heard.lock().unwrap().len(), 200);
    while goodbyes.load(Ordering::Relaxed) == 0 {
        yield_now().await;
    }
    let frozen = Scripted::start(|event, _| {
        if matches!(event, ServerEvent::Message(_)) {
            Then::Freeze
        } else {
            Then::Usual
        }
    });
    let handle = connect(&start, options(frozen.port)).await.unwrap();
    for n in 0..3_u8 {
        let _ = handle
            .publish(&Outgoing {
                retain: true,
                ..message(QoS::AtLeastOnce, &[n])
            })
            .await
            .unwrap();
    }
    let remained = handle.close(Duration::from_millis(50)).await;
    assert_eq!(remained.len(), 3);
    assert_eq!(
        (
            remained[2].topic.as_str(),
            &remained[2].payload[..],
            remained[2].retain
        ),
        ("a", &[2][..], true)
    );
}

/// The server forgets everything with each connection: what was subscribed is subscribed again.
pub async fn a_lost_session_is_subscribed_again<H: Deref<Target = Connected>>(
    start: impl Fn(Options) -> H,
) {
    let subscribes = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&subscribes);
    let broker = Scripted::start(move |event, server| {
        if let ServerEvent::Subscribe(subscribe) = event {
            let codes = [ReasonCode::GrantedQoS2];
            server
                .subscribed(&adapter_core::proto::SubAck::new(
                    subscribe.packet_id,
                    &codes,
                ))
                .unwrap();
            if count.fetch_add(1, Ordering::Relaxed) < 3 {
                return Then::HangUp;
            }
            server
                .publish(&message(QoS::AtMostOnce, b"at last"))
                .unwrap();
            return Then::Nothing;
        }
        Then::Usual
    });
    for version in [Version::V311, Version::V5] {
        subscribes.store(0, Ordering::Relaxed);
        let mut options = options(broker.port);
        options.version = version;
        let handle = connect(&start, options).await.unwrap();
        let (_, mut messages) = handle.subscribe(&filter("a")).await.unwrap();
        assert_eq!(&messages.next().await.unwrap().payload[..], b"at last");
        assert_eq!(subscribes.load(Ordering::Relaxed), 4);
    }
}

/// MQTT 5: the server has a session of which nothing is known here. The first connection must end; the next starts clean.
pub async fn a_session_only_the_server_knows_is_started_clean<H: Deref<Target = Connected>>(
    start: impl Fn(Options) -> H,
) {
    let broker = Mosquitto::start("");
    let mut options = options(broker.port);
    options.version = Version::V5;
    options.clean_start = false;
    options.session_expiry = 100;
    drop(
        connect(&start, options.clone())
            .await
            .unwrap()
            .close(Duration::from_secs(60))
            .await,
    );
    let handle = start(options);
    while handle.connected().await.is_err() {
        yield_now().await;
    }
    let ticket = handle
        .publish(&message(QoS::AtLeastOnce, b"x"))
        .await
        .unwrap();
    assert!(matches!(ticket.await, Outcome::Acknowledged(_)));
}

/// Nobody takes the messages: reading pauses, and goes on where it was.
pub async fn a_slow_subscriber_loses_nothing<H: Deref<Target = Connected>>(
    start: impl Fn(Options) -> H,
) {
    let broker = Mosquitto::start("");
    let mut slow = options(broker.port);
    slow.subscription_queue = 4;
    let slow = connect(&start, slow).await.unwrap();
    let (_, mut messages) = slow.subscribe(&filter("a")).await.unwrap();
    let mut other = options(broker.port);
    other.client_id = "d".into();
    let fast = connect(&start, other).await.unwrap();
    for n in 0..3_000_u32 {
        let _ = fast
            .publish(&message(QoS::AtLeastOnce, n.to_string().as_bytes()))
            .await
            .unwrap();
    }
    assert!(fast.close(Duration::from_secs(60)).await.is_empty());
    for n in 0..3_000_u32 {
        assert_eq!(messages.next().await.unwrap().payload, n.to_string());
    }
}

/// What was not acknowledged by hand comes again.
pub async fn a_message_is_acknowledged_by_hand_or_comes_again<H: Deref<Target = Connected>>(
    start: impl Fn(Options) -> H,
) {
    let broker = Mosquitto::start("");
    for version in [Version::V311, Version::V5] {
        let mut options = options(broker.port);
        options.version = version;
        options.client_id = format!("by hand {version}");
        options.clean_start = false;
        options.assume_session = true;
        options.session_expiry = 100;
        options.config.acknowledge = Acknowledge::ByHand;
        let first = connect(&start, options.clone()).await.unwrap();
        let (_, mut messages) = first.subscribe(&filter("a")).await.unwrap();
        for payload in [b"1", b"2"] {
            let _ = first
                .publish(&message(QoS::AtLeastOnce, payload))
                .await
                .unwrap();
        }
        let one = messages.next().await.unwrap();
        first.acknowledge(&one, ReasonCode::Success).unwrap();
        let two = messages.next().await.unwrap();
        assert_eq!(&two.payload[..], b"2");
        // The second one is not acknowledged.
        let _ = first.close(Duration::from_secs(60)).await;
        let second = start(options);
        let mut again = second.other_messages();
        let message = again.next().await.unwrap();
        assert_eq!((&message.payload[..], message.dup), (&b"2"[..], true));
        second.acknowledge(&message, ReasonCode::Success).unwrap();
        let _ = second.close(Duration::from_secs(60)).await;
    }
}

/// What its name says.
pub async fn subscriptions_are_granted_refused_and_given_up<H: Deref<Target = Connected>>(
    start: impl Fn(Options) -> H,
) {
    let broker = Mosquitto::start("");
    let handle = connect(&start, options(broker.port)).await.unwrap();
    let filters = [filter("a/#"), filter("b")];
    let (codes, mut messages) = handle
        .subscribe_all(&filters, Default::default())
        .await
        .unwrap();
    assert_eq!(codes, [ReasonCode::GrantedQoS2; 2]);
    for topic in ["a/x", "b", "c"] {
        let topic = TopicName::from_static(topic);
        let _ = handle
            .publish(&Outgoing::new(topic, QoS::AtLeastOnce, b""))
            .await
            .unwrap()
            .await;
    }
    for topic in ["a/x", "b"] {
        assert_eq!(messages.next().await.unwrap().topic().as_str(), topic);
    }
    messages.unsubscribe().await.unwrap();
    assert!(messages.next().await.is_none());
}

/// 3.1.1 [MQTT-3.1.2-23]: while the server sends more than is taken, the client still pings in time.
pub async fn a_client_pings_while_messages_come_without_end<H: Deref<Target = Connected>>(
    start: impl Fn(Options) -> H,
) {
    let flood = Flood::start();
    let mut options = options(flood.port);
    options.keep_alive = 1;
    options.back_off.attempts = Some(1);
    let handle = start(options);
    let mut news = handle.other_messages();
    while news.next().await.is_some() && !flood.is_over() {}
    assert!(flood.was_pinged());
}
