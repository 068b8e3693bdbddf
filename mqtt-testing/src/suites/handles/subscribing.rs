//! Tests of subscriptions: granted, refused, made again, given up.

use std::ops::Deref;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use mqtt_adapter_core::proto::{QoS, ReasonCode, SubAck, TopicName, Version};
use mqtt_adapter_core::{Error, Handle, Options, Outgoing};
use mqtt_session::ServerEvent;

use super::{connect, filter, message, options};
use crate::peers::Mosquitto;
use crate::peers::{Reaction, ScriptedServer};

/// The server loses its session with each connection, and the client subscribes again.
pub async fn a_lost_session_is_subscribed_again<H: Deref<Target = Handle>>(
    start: impl Fn(Options) -> H,
) {
    let subscribes = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&subscribes);
    let broker = ScriptedServer::start(move |event, server| {
        if let ServerEvent::Subscribe(subscribe) = event {
            let codes = [ReasonCode::GrantedQoS2];
            server
                .subscribed(&SubAck::new(subscribe.packet_id, &codes))
                .unwrap();
            if count.fetch_add(1, Ordering::Relaxed) < 3 {
                return Reaction::HangUp;
            }
            server
                .publish(&message(QoS::AtMostOnce, b"at last"))
                .unwrap();
            return Reaction::Nothing;
        }
        Reaction::Usual
    });
    for version in [Version::V311, Version::V5] {
        subscribes.store(0, Ordering::Relaxed);
        let mut options = options(broker.port);
        options.version = version;
        let handle = connect(&start, options).await.unwrap();
        let mut messages = handle.subscribe("a", QoS::ExactlyOnce).await.unwrap();
        assert_eq!(&messages.next().await.unwrap().payload[..], b"at last");
        assert_eq!(subscribes.load(Ordering::Relaxed), 4);
    }
}

/// The stream has the reason codes of the server, and ends after UNSUBACK.
pub async fn subscriptions_are_granted_refused_and_given_up<H: Deref<Target = Handle>>(
    start: impl Fn(Options) -> H,
) {
    let broker = Mosquitto::start("");
    let handle = connect(&start, options(broker.port)).await.unwrap();
    let filters = [filter("a/#"), filter("b")];
    let mut messages = handle
        .subscribe_all(&filters, Default::default())
        .await
        .unwrap();
    assert_eq!(messages.granted(), [ReasonCode::GrantedQoS2; 2]);
    for topic in ["a/x", "b", "c"] {
        let topic = TopicName::from_static(topic);
        let _ = handle
            .publish_message(&Outgoing::new(topic, QoS::AtLeastOnce, b""))
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

/// The future returns the error. If only some filters are refused, the stream has their reason codes.
pub async fn a_refused_subscription_is_an_error<H: Deref<Target = Handle>>(
    start: impl Fn(Options) -> H,
) {
    for version in super::VERSIONS {
        let refusal = match version {
            Version::V5 => ReasonCode::NotAuthorized,
            _ => ReasonCode::UnspecifiedError,
        };
        let server = ScriptedServer::start(move |event, server| {
            let ServerEvent::Subscribe(subscribe) = event else {
                return Reaction::Usual;
            };
            let codes: Vec<_> = subscribe
                .filters
                .iter()
                .map(|filter| match filter.filter.as_str() {
                    "secret" => refusal,
                    _ => ReasonCode::GrantedQoS1,
                })
                .collect();
            let suback = SubAck::new(subscribe.packet_id, &codes[..]);
            server.subscribed(&suback).unwrap();
            Reaction::Nothing
        });
        let mut options = options(server.port);
        options.version = version;
        let handle = connect(&start, options).await.unwrap();
        match handle.subscribe("secret", QoS::AtLeastOnce).await {
            Err(Error::SubscriptionRefused(codes)) => assert_eq!(codes, [refusal]),
            other => panic!("{other:?}"),
        }
        let both = [filter("secret"), filter("open")];
        let messages = handle.subscribe_all(&both, Default::default()).await;
        let granted = [refusal, ReasonCode::GrantedQoS1];
        assert_eq!(messages.unwrap().granted(), granted);
    }
}

/// The subscriptions of the options are made with the first connection, and again after the server lost the session. Their
/// messages go to the stream of the others.
pub async fn subscriptions_of_the_options_are_made_with_each_new_session<
    H: Deref<Target = Handle>,
>(
    start: impl Fn(Options) -> H,
) {
    let mut broker = Mosquitto::start("");
    for version in super::VERSIONS {
        let mut options = options(broker.port);
        options.version = version;
        options.subscribe("news", QoS::AtLeastOnce).unwrap();
        options.subscribe("news/#", QoS::AtLeastOnce).unwrap();
        let handle = start(options);
        let mut messages = handle.other_messages();
        for n in 0..3 {
            if n > 0 {
                broker.restart();
            }
            let mut other = super::options(broker.port);
            other.client_id = "other".into();
            let other = connect(&start, other).await.unwrap();
            // The message is retained, so that it arrives in any order of the connections.
            let ticket = other
                .publish("news", QoS::AtLeastOnce, true, &n.to_string())
                .await;
            assert!(ticket.unwrap().await.is_success());
            // Mosquitto may send one copy for each of the filters.
            while super::number(&messages.next().await.unwrap().payload) != n {}
        }
    }
}
