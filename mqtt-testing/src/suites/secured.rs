//! Tests the handles of every runtime with brokers that have TLS and WebSocket built in, also over connections that are cut at
//! any byte, within handshakes, records and frames.

use std::error::Error as _;
use std::future::Future;
use std::net::TcpListener;
use std::ops::Deref;
use std::time::Duration;

use mqtt_adapter_core::proto::{QoS, Version};
use mqtt_adapter_core::transport::tls::Roots;
use mqtt_adapter_core::{DialOptions, Handle, Options, Outcome};
use tokio::sync::oneshot;

use crate::peers::SecuredBroker;
use crate::suites::interop::{Load, Wires, options, pass};

/// Writes the tests of this suite into the calling module: a function that starts a client with options and the settings of its
/// transport, and one that runs a future to its end.
#[macro_export]
macro_rules! secured {
    ($start:expr, $run:expr) => {
        use $crate::suites::secured::{Scheme, exchange, survives, times_out};

        #[test]
        fn a_handshake_without_an_answer_times_out() {
            $run(times_out($start));
        }

        #[test]
        fn each_scheme_and_qos_through_the_own_broker() {
            $run(exchange($start, $crate::peers::SecuredBroker::own()));
        }

        #[test]
        fn each_scheme_and_qos_through_mosquitto() {
            $run(exchange($start, $crate::peers::SecuredBroker::mosquitto()));
        }

        #[test]
        fn tls_that_is_cut_at_any_byte_loses_nothing() {
            $run(survives($start, Scheme::Mqtts, 5_000));
        }

        #[test]
        fn websocket_that_is_cut_at_any_byte_loses_nothing() {
            $run(survives($start, Scheme::Ws, 5_000));
        }

        #[test]
        fn websocket_over_tls_that_is_cut_at_any_byte_loses_nothing() {
            $run(survives($start, Scheme::Wss, 5_000));
        }
    };
}

pub use mqtt_adapter_core::Scheme;

/// The time limit for any wait.
const PATIENCE: Duration = Duration::from_secs(240);

/// After how many bytes the connections of the publisher and the subscriber are cut. A handshake of TLS takes about 2,000; those of the
/// publisher are also cut within it.
const LIVES: ((u32, u32), (u32, u32)) = ((500, 24_000), (3_000, 24_000));

/// A server that accepts the connection and sends nothing.
///
/// # Panics
/// The error does not name the server and the time limit.
pub async fn times_out<H>(start: impl Fn(Options, DialOptions) -> H)
where
    H: Deref<Target = Handle>,
{
    let silent = TcpListener::bind("127.0.0.1:0").expect("a port");
    let port = silent.local_addr().expect("it is bound").port();
    for scheme in [Scheme::Mqtts, Scheme::Ws, Scheme::Wss] {
        let mut options = Options::new("localhost", port);
        options.scheme = scheme;
        options.dial_timeout = Duration::from_millis(50);
        let mut dial = DialOptions::default();
        dial.tls.roots = Roots::InsecureAcceptAny;
        let error = start(options, dial).first_attempt().await.unwrap_err();
        let why = error.source().expect("the error of the server").to_string();
        let place = format!("localhost:{port}");
        assert!(
            why.starts_with(&place) && why.ends_with(" took too long"),
            "{why}"
        );
    }
}

/// Passes a message at each quality of service, by each scheme and in both versions.
///
/// # Panics
/// One does not arrive as it was sent.
pub async fn exchange<H>(start: impl Fn(Options, DialOptions) -> H, broker: SecuredBroker)
where
    H: Deref<Target = Handle>,
{
    for scheme in [Scheme::Mqtts, Scheme::Ws, Scheme::Wss] {
        for version in [Version::V311, Version::V5] {
            let mut settings = options(broker.port(scheme), version, "one");
            // The last message is not acknowledged when the handle is closed: with a kept session it would come again.
            settings.clean_start = true;
            settings.session_expiry = 0;
            let (options, dial) = broker.settings(settings, scheme);
            let handle = start(options, dial);
            handle.first_attempt().await.expect("it connects");
            let mut messages = handle.subscribe("a/b", QoS::ExactlyOnce).await.unwrap();
            for qos in [QoS::AtMostOnce, QoS::AtLeastOnce, QoS::ExactlyOnce] {
                // The payload takes several records and frames.
                let payload = vec![qos.get(); 100_000];
                let ticket = handle.publish("a/b", qos, false, &payload).await.unwrap();
                let message = messages.next().await.unwrap();
                assert_eq!(message.qos, qos, "{scheme:?} {version}");
                assert!(message.payload == payload, "{scheme:?} {version} {qos:?}");
                let outcome = ticket.await;
                assert!(
                    matches!(outcome, Outcome::Acknowledged(_) | Outcome::Sent),
                    "{outcome:?}"
                );
            }
            let unsent = handle.close(Duration::from_secs(10)).await;
            assert!(unsent.is_empty(), "{scheme:?} {version}");
        }
    }
}

/// Sends `count` messages at QoS 2 of MQTT 5 through the broker of this workspace, while the connections of both clients are
/// cut at any byte; of 3.1.1 and at QoS 1 a tenth of them, or as many as the environment's `MQTT_CUT_MESSAGES` says.
///
/// # Panics
/// A message is lost or, at QoS 2, doubled or out of order.
pub async fn survives<H>(start: impl Fn(Options, DialOptions) -> H, scheme: Scheme, count: u32)
where
    H: Deref<Target = Handle>,
{
    let broker = SecuredBroker::own();
    let others = std::env::var("MQTT_CUT_MESSAGES").map_or(count / 10, |text| {
        text.parse().expect("MQTT_CUT_MESSAGES is a number")
    });
    for (version, qos, count) in [
        (Version::V5, QoS::ExactlyOnce, count),
        (Version::V311, QoS::ExactlyOnce, others),
        (Version::V311, QoS::AtLeastOnce, others),
        (Version::V5, QoS::AtLeastOnce, others),
    ] {
        let seed = u32::from(qos.get()) + u32::from(version.level()) * 11;
        let wires = Wires::between(broker.port(scheme), LIVES.0, LIVES.1, seed);
        let start = |options| {
            let (mut options, dial) = broker.settings(options, scheme);
            // Each round has separate sessions.
            options.client_id = format!("{} {version} {}", options.client_id, qos.get());
            start(options, dial)
        };
        let load = Load {
            version,
            qos,
            count,
        };
        pass(start, &wires, load, elapsed(PATIENCE)).await;
    }
}

/// Waits for `span` under any runtime.
fn elapsed(span: Duration) -> impl Future<Output = ()> {
    let (sender, receiver) = oneshot::channel();
    std::thread::spawn(move || {
        std::thread::sleep(span);
        let _ = sender.send(());
    });
    async {
        let _ = receiver.await;
    }
}
