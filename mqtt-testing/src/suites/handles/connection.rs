//! Tests of the connection: attempts, events, and ends.

use std::error::Error as _;
use std::io::{ErrorKind, Read, Write};
use std::ops::Deref;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use futures_lite::future::zip;
use mqtt_adapter_core::proto::{ConnAck, Properties, Property, QoS, ReasonCode, Version};
use mqtt_adapter_core::{ConnectionEvent, Credentials, CredentialsSource, Error, Handle, Options};
use mqtt_session::ServerEvent;

use super::{accepting, connect, kept, message, options};
use crate::peers::HostedBroker;
use crate::peers::{Mosquitto, free_port};
use crate::peers::{RawServer, Reaction, ScriptedServer};

fn is_refused(error: &Error) -> bool {
    let source = error.source();
    let source = source.and_then(|source| source.downcast_ref::<std::io::Error>());
    source.is_some_and(|error| error.kind() == ErrorKind::ConnectionRefused)
}

/// The attempts count although each connection was accepted: the waits of the client increase.
pub async fn a_broker_that_disconnects_after_connack_is_dialled_less_often<
    H: Deref<Target = Handle>,
>(
    start: impl Fn(Options) -> H,
) {
    let broker = accepting(Reaction::HangUp, Reaction::Usual);
    let mut options = options(broker.port);
    options.back_off.attempts = Some(5);
    let handle = start(options);
    let mut nothing = handle.other_messages();
    assert!(nothing.next().await.is_none());
    assert_eq!(broker.connections(), 5);
}

/// The error is that of the system, or the reason code of CONNACK.
pub async fn a_failed_first_attempt_returns_its_reason<H: Deref<Target = Handle>>(
    start: impl Fn(Options) -> H,
) {
    let error = connect(&start, options(free_port())).await.err().unwrap();
    assert!(is_refused(&error), "{error}");
    let broker = Mosquitto::start("allow_anonymous false");
    let error = connect(&start, options(broker.port)).await.err().unwrap();
    assert_eq!(error.to_string(), "connection refused: not authorized");
}

/// A server that takes CONNECT and does not answer, one that closes the connection instead, and one that speaks another protocol.
pub async fn a_server_that_does_not_answer_connect_is_named<H: Deref<Target = Handle>>(
    start: impl Fn(Options) -> H,
) {
    for (answer, kind, why) in [
        (
            Some(&b""[..]),
            ErrorKind::TimedOut,
            ": the server sent no CONNACK within 50ms",
        ),
        (
            None,
            ErrorKind::UnexpectedEof,
            ": the server closed the connection before CONNACK",
        ),
        (
            Some(b"SSH-2.0-server\r\n"),
            ErrorKind::InvalidData,
            ": the answer to CONNECT is not valid MQTT",
        ),
    ] {
        let server = RawServer::start(move |mut stream, _| {
            let _ = stream.read(&mut [0; 100]);
            if let Some(answer) = answer {
                let _ = stream.write_all(answer);
                // Until the client ends.
                let _ = stream.read_to_end(&mut Vec::new());
            }
        });
        let mut options = options(server.port);
        if answer == Some(b"") {
            options.config.connect_timeout_ms = 50;
        }
        let error = connect(&start, options).await.err().unwrap();
        assert_eq!(error.to_string(), "cannot connect", "{error:?}");
        let source = error.source().unwrap();
        let told = source.to_string();
        // A connection without TLS or WebSocket may have met a port for these.
        let told = told.split(": is this a port for").next().unwrap_or(&told);
        let name = told.strip_suffix(why).expect(told);
        // The client may be connected through a port or a Unix socket of the test.
        assert!(name.starts_with('@') || name.contains([':', '/']), "{told}");
        let source = source.downcast_ref::<std::io::Error>().unwrap();
        assert_eq!(source.kind(), kind);
    }
}

/// The packet limit protects the heap; the error names the setting that raises the limit.
pub async fn an_oversize_packet_s_error_names_the_setting<H: Deref<Target = Handle>>(
    start: impl Fn(Options) -> H,
) {
    let broker = Mosquitto::start("");
    let mut limited = options(broker.port);
    limited.config.packet_limit = 1 << 20;
    let receiver = connect(&start, limited).await.unwrap();
    let _messages = receiver.subscribe("a", QoS::ExactlyOnce).await.unwrap();
    let mut other = options(broker.port);
    other.client_id = "d".into();
    other.config.outgoing_limit = 4 << 20;
    let sender = connect(&start, other).await.unwrap();
    let _ = sender
        .publish_message(&message(QoS::AtMostOnce, &vec![0; 2 << 20]))
        .await
        .unwrap();
    let why = receiver.disconnected().await.to_string();
    assert!(
        why.contains("the limit is 1048576") && why.contains("packet_limit"),
        "{why}"
    );
}

/// MQTT 5: the server has a session that this process did not begin. By default the client resumes it; otherwise it ends the
/// first connection, and the next one starts clean.
pub async fn a_session_only_the_server_knows_goes_on_or_is_ended<H: Deref<Target = Handle>>(
    start: impl Fn(Options) -> H,
) {
    let broker = Mosquitto::start("");
    for assume_session in [true, false] {
        let mut options = options(broker.port);
        options.version = Version::V5;
        options.clean_start = false;
        options.session_expiry = 100;
        options.client_id = format!("assume {assume_session}");
        options.assume_session = assume_session;
        let before = connect(&start, options.clone()).await.unwrap();
        let _ = before.close(Duration::from_secs(60)).await;
        drop(before);
        let handle = start(options);
        handle.connected().await.unwrap();
        let ticket = handle
            .publish("a", QoS::AtLeastOnce, false, b"x")
            .await
            .unwrap();
        assert!(ticket.await.is_success());
        let mut events = handle.events();
        let (mut losses, mut resumed) = (0, None);
        while resumed.is_none() {
            match events.next().await.unwrap() {
                ConnectionEvent::Connected(connected) => resumed = Some(connected.session_present),
                ConnectionEvent::Lost(_) => losses += 1,
                _ => {}
            }
        }
        assert_eq!(
            (losses, resumed),
            (u32::from(!assume_session), Some(assume_session))
        );
    }
}

/// A program that starts before its broker waits for it, while other tasks of its thread run.
pub async fn connected_waits_without_a_time_limit<H: Deref<Target = Handle>>(
    start: impl Fn(Options) -> H,
) {
    let port = free_port();
    let handle = start(options(port));
    let late = async {
        let mut events = handle.events();
        let mut losses = 0;
        while losses < 10 {
            let event = events.next().await.unwrap();
            losses += u32::from(matches!(event, ConnectionEvent::Lost(_)));
        }
        assert!(!handle.is_connected());
        Mosquitto::start_on(port)
    };
    let (connected, _broker) = zip(handle.connected(), late).await;
    connected.unwrap();
    assert!(handle.is_connected());
}

/// The client reconnects quickly after restarts of the broker: after a good connection, the wait is a first one. The twentieth
/// wait in a row would be half an hour.
pub async fn a_short_good_connection_is_followed_by_a_quick_reconnect<H: Deref<Target = Handle>>(
    start: impl Fn(Options) -> H,
) {
    let broker = ScriptedServer::start(|event, _| match event {
        ServerEvent::Message(_) => Reaction::HangUp,
        _ => Reaction::Usual,
    });
    let mut options = options(broker.port);
    options.back_off.longest = Duration::from_secs(3600);
    options.back_off.stable_after = Duration::ZERO;
    let handle = connect(&start, options).await.unwrap();
    let mut events = handle.events();
    let mut good = 0;
    while good < 20 {
        if let ConnectionEvent::Connected(_) = events.next().await.unwrap() {
            good += 1;
            let _ = handle
                .publish_message(&message(QoS::AtMostOnce, b"go away"))
                .await
                .unwrap();
        }
    }
}

/// A server that refuses the first CONNECT with a reason string, and accepts the next one with properties.
fn refuses_first_and_accepts_then() -> ScriptedServer {
    let attempts = AtomicUsize::new(0);
    ScriptedServer::start(move |event, server| {
        if !matches!(event, ServerEvent::Connect(_)) {
            return Reaction::Usual;
        }
        let refused = attempts.fetch_add(1, Ordering::Relaxed) == 0;
        let properties = [
            Property::AssignedClientIdentifier("assigned"),
            Property::ResponseInformation("answers/here"),
            Property::UserProperty("rack", "7"),
        ];
        let busy = [Property::ReasonString("come back later")];
        if refused {
            let connack = ConnAck {
                session_present: false,
                reason: ReasonCode::ServerBusy,
                properties: Properties::from(&busy[..]),
            };
            server.refuse(&connack).unwrap();
            return Reaction::HangUp;
        }
        let connack = ConnAck {
            session_present: false,
            reason: ReasonCode::Success,
            properties: Properties::from(&properties[..]),
        };
        let now = mqtt_session::Instant::from_millis(0);
        server.accept(&connack, now).unwrap();
        Reaction::Nothing
    })
}

/// All events come in order, with the fields of CONNACK.
pub async fn events_have_the_fields_of_connack<H: Deref<Target = Handle>>(
    start: impl Fn(Options) -> H,
) {
    let broker = refuses_first_and_accepts_then();
    let mut options = options(broker.port);
    options.version = Version::V5;
    options.client_id = String::new();
    options.request_response_information = true;
    let handle = start(options);
    handle.connected().await.unwrap();
    let mut events = handle.events();
    let mut next = async || events.next().await.unwrap();
    assert!(matches!(next().await, ConnectionEvent::Connecting));
    let ConnectionEvent::Refused(connack) = next().await else {
        panic!("it is refused first");
    };
    assert_eq!(connack.get().reason, ReasonCode::ServerBusy);
    let reason = connack.get().properties.reason_string();
    assert_eq!(reason, Some("come back later"));
    let ConnectionEvent::Lost(why) = next().await else {
        panic!("a refusal ends the attempt");
    };
    assert_eq!(why.to_string(), "connection refused: server busy");
    // The first wait may be zero.
    let mut after = next().await;
    if matches!(after, ConnectionEvent::WaitingUntil(_)) {
        after = next().await;
    }
    assert!(matches!(after, ConnectionEvent::Connecting));
    let ConnectionEvent::Connected(connected) = next().await else {
        panic!("it is accepted then");
    };
    assert!(!connected.session_present);
    assert_eq!(connected.client_id, "assigned");
    assert_eq!(connected.response_information(), Some("answers/here"));
    let mut pairs = connected.connack.get().properties;
    let pairs: Vec<_> = std::mem::take(&mut pairs).user_properties().collect();
    assert_eq!(pairs, [("rack", "7")]);
    let _ = handle.close(Duration::from_secs(60)).await;
    assert!(matches!(
        next().await,
        ConnectionEvent::Lost(Error::Stopped)
    ));
    assert!(matches!(
        next().await,
        ConnectionEvent::Stopped(Error::Stopped)
    ));
    assert!(handle.events().next().await.is_some());
}

/// Without the option, the client tries again.
pub async fn an_authentication_failure_stops_a_client_that_wants_it<H: Deref<Target = Handle>>(
    start: impl Fn(Options) -> H,
) {
    let broker = HostedBroker::start(Some("secret"));
    for version in super::VERSIONS {
        let mut options = options(broker.port);
        options.version = version;
        let patient = start(options.clone());
        let mut events = patient.events();
        let mut refusals = 0;
        while refusals < 3 {
            let event = events.next().await.unwrap();
            refusals += u32::from(matches!(event, ConnectionEvent::Refused(_)));
        }
        options.stop_on.authentication_failure = true;
        let handle = start(options);
        let why = handle.connected().await.unwrap_err();
        assert!(why.is_authentication_failure(), "{why}");
        let mut events = handle.events();
        let mut last = None;
        while let Some(event) = events.next().await {
            last = Some(event);
        }
        assert!(
            matches!(&last, Some(ConnectionEvent::Stopped(why)) if why.is_authentication_failure()),
            "{last:?}"
        );
        let refused = handle.publish("a", QoS::AtMostOnce, false, b"").await;
        assert!(matches!(refused, Err(Error::Stopped)));
    }
}

/// Two clients have the same client identifier; the one with the option stops.
pub async fn a_take_over_stops_a_client_that_wants_it<H: Deref<Target = Handle>>(
    start: impl Fn(Options) -> H,
) {
    let broker = HostedBroker::start(None);
    let mut options = kept(broker.port, Version::V5, "twin");
    options.stop_on.session_taken_over = true;
    let first = connect(&start, options.clone()).await.unwrap();
    let second = connect(&start, options).await.unwrap();
    let mut nothing = first.other_messages();
    assert!(nothing.next().await.is_none());
    assert!(first.connected().await.unwrap_err().is_session_taken_over());
    assert!(second.is_connected());
}

/// Two tokens are refused, one cannot be fetched, and one is accepted.
pub async fn credentials_are_asked_for_before_each_attempt<H: Deref<Target = Handle>>(
    start: impl Fn(Options) -> H,
) {
    let broker = HostedBroker::start(Some("the fourth"));
    for version in super::VERSIONS {
        let asked = Arc::new(AtomicUsize::new(0));
        let count = Arc::clone(&asked);
        let mut options = options(broker.port);
        options.version = version;
        options.credentials = Some(CredentialsSource::new(move || {
            let n = count.fetch_add(1, Ordering::Relaxed);
            async move {
                let tokens = ["the first", "the second", "", "the fourth"];
                match tokens.get(n) {
                    Some(&"") | None => Err(std::io::Error::other("nobody answers")),
                    Some(token) => Ok(Credentials {
                        user_name: Some("me".into()),
                        password: Some(token.as_bytes().to_vec()),
                        ..Credentials::default()
                    }),
                }
            }
        }));
        let handle = start(options);
        handle.connected().await.unwrap();
        assert_eq!(asked.load(Ordering::Relaxed), 4);
        let mut events = handle.events();
        let mut reasons = Vec::new();
        while reasons.len() < 3 {
            if let ConnectionEvent::Lost(why) = events.next().await.unwrap() {
                reasons.push((
                    why.is_authentication_failure(),
                    why.source().map(ToString::to_string),
                ));
            }
        }
        let nobody = Some("nobody answers".to_owned());
        assert_eq!(reasons, [(true, None), (true, None), (false, nobody)]);
    }
}

/// A program that prints the chain of sources prints each text once.
pub async fn errors_have_their_source_and_print_no_text_twice<H: Deref<Target = Handle>>(
    start: impl Fn(Options) -> H,
) {
    let error = connect(&start, options(free_port())).await.err().unwrap();
    assert!(is_refused(&error), "{error:?}");
    let broker = Mosquitto::start("");
    let mut unable = options(broker.port);
    unable.credentials = Some(CredentialsSource::new(|| async {
        Err::<Credentials, _>(std::io::Error::other("the disk is gone"))
    }));
    let unable = connect(&start, unable).await.err().unwrap();
    let handle = connect(&start, options(broker.port)).await.unwrap();
    let topic = handle.publish("a/#", QoS::AtMostOnce, false, b"").await;
    let filter = handle.subscribe("a/#/b", QoS::AtMostOnce).await;
    let _ = handle.close(Duration::from_secs(60)).await;
    let closed = handle.publish("a", QoS::AtMostOnce, false, b"").await;
    let errors = [
        error,
        unable,
        topic.unwrap_err(),
        filter.unwrap_err(),
        closed.unwrap_err(),
    ];
    for error in errors {
        let mut texts = vec![error.to_string()];
        let mut source = error.source();
        while let Some(error) = source {
            texts.push(error.to_string());
            source = error.source();
        }
        let all = texts.join(": ");
        for text in &texts {
            assert_eq!(all.matches(text.as_str()).count(), 1, "{all}");
        }
    }
}
