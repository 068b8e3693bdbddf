//! Long runs of programs with Mosquitto and the broker of this workspace, in both versions.

use std::ops::Deref;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use futures_lite::future::zip;
use mqtt_adapter_core::proto::{QoS, Version};
use mqtt_adapter_core::{ConnectionEvent, Credentials, CredentialsSource, Error, Handle, Options};
use tokio::sync::oneshot;

use super::{children, connect, kept, number, options, publish_numbers};
use crate::peers::HostedBroker;
use crate::peers::Mosquitto;

/// Writes the tests of this suite into the calling module, beside [`crate::handles!`]: a function that starts a client, one
/// that runs a future to its end, and the number of messages of a flood.
#[macro_export]
macro_rules! services {
    ($start:expr, $run:expr, $flood:expr) => {
        #[test]
        fn a_bridge_under_a_flood_forwards_every_message() {
            $run($crate::suites::handles::services::a_bridge($start, $flood));
        }

        #[test]
        fn a_program_that_is_killed_loses_nothing() {
            $run($crate::suites::handles::services::a_killed_program(
                $start,
                module_path!(),
            ));
        }

        #[test]
        fn a_resumed_session_delivers_waiting_messages_once() {
            $run($crate::suites::handles::services::a_resumption(
                $start,
                $flood / 2,
            ));
        }

        #[test]
        fn a_late_subscription_gets_earlier_messages() {
            $run($crate::suites::handles::services::a_late_subscription(
                $start,
            ));
        }

        #[test]
        fn a_service_outlives_three_restarts_of_its_broker() {
            $run($crate::suites::handles::services::restarts($start));
        }

        #[test]
        fn a_wrong_password_that_becomes_right_connects() {
            $run($crate::suites::handles::services::a_password($start));
        }
    };
}

/// A broker under test.
#[derive(Debug)]
pub enum Broker {
    /// Mosquitto, in a process.
    Mosquitto(Mosquitto),
    /// The broker of this workspace, in a thread.
    Own(HostedBroker),
}

impl Broker {
    /// Returns its port on 127.0.0.1.
    #[must_use]
    pub const fn port(&self) -> u16 {
        match self {
            Self::Mosquitto(broker) => broker.port,
            Self::Own(broker) => broker.port,
        }
    }
}

/// Starts each broker in turn.
pub fn brokers() -> impl Iterator<Item = Broker> {
    let mosquitto = std::iter::once_with(|| Broker::Mosquitto(Mosquitto::start("")));
    mosquitto.chain(std::iter::once_with(|| {
        Broker::Own(HostedBroker::start(None))
    }))
}

/// Returns each broker with each version.
fn cases() -> impl Iterator<Item = (Broker, Version)> {
    super::VERSIONS
        .into_iter()
        .flat_map(|version| brokers().map(move |broker| (broker, version)))
}

/// Returns each of these cases with QoS 1 and with QoS 2.
fn cases_of_qos() -> impl Iterator<Item = (Broker, Version, QoS)> {
    let qos = [QoS::AtLeastOnce, QoS::ExactlyOnce].into_iter();
    qos.flat_map(|qos| cases().map(move |(broker, version)| (broker, version, qos)))
}

fn named(port: u16, version: Version, client_id: &str) -> Options {
    let mut options = options(port);
    options.version = version;
    options.client_id = client_id.into();
    options
}

/// A bridge publishes the messages that it receives, and awaits the outcome of each before it takes the next one.
pub async fn a_bridge<H: Deref<Target = Handle>>(start: impl Fn(Options) -> H, count: u32) {
    for (broker, version) in cases() {
        let client = |id| connect(&start, named(broker.port(), version, id));
        let flooder = client("flooder").await.unwrap();
        let bridge = client("bridge").await.unwrap();
        let sink = client("sink").await.unwrap();
        let mut out = sink.subscribe("out", QoS::AtLeastOnce).await.unwrap();
        let mut incoming = bridge.subscribe("in", QoS::AtLeastOnce).await.unwrap();
        let flood = publish_numbers(&flooder, "in", QoS::AtLeastOnce, 0..count);
        let pass_on = async {
            while let Some(message) = incoming.next().await {
                let ticket = bridge.publish("out", message.qos, false, &message.payload);
                assert!(ticket.await.unwrap().await.is_success());
                if number(&message.payload) == count - 1 {
                    return;
                }
            }
        };
        let hear = async {
            for n in 0..count {
                assert_eq!(number(&out.next().await.unwrap().payload), n);
            }
        };
        zip(flood, zip(pass_on, hear)).await;
        // The last message is in hand.
        drop(incoming);
        assert!(bridge.close(Duration::from_secs(60)).await.is_empty());
    }
}

/// Makes a session with a subscription and this many messages at the broker. Returns the client that published them.
async fn messages_wait<H: Deref<Target = Handle>>(
    start: &impl Fn(Options) -> H,
    options: &Options,
    qos: QoS,
    count: u32,
) -> H {
    let first = connect(start, options.clone()).await.unwrap();
    let _ = first.subscribe("work", qos).await.unwrap();
    let _ = first.close(Duration::from_secs(60)).await;
    drop(first);
    let other = named(options.port, options.version, "other");
    let other = connect(start, other).await.unwrap();
    publish_numbers(&other, "work", qos, 0..count).await;
    other
}

/// After the kill, the next process gets the message in hand again, and no other message twice. All waiting messages come once.
///
/// # Panics
/// It does not.
pub async fn a_killed_program<H: Deref<Target = Handle>>(
    start: impl Fn(Options) -> H,
    module: &str,
) {
    const COUNT: u32 = 3_000;
    const TAKEN: u32 = 300;
    for (broker, version, qos) in cases_of_qos() {
        let options = kept(broker.port(), version, "worker");
        let other = messages_wait(&start, &options, qos, COUNT).await;
        let mut heard = children::take_and_be_killed(module, &options, qos, TAKEN);
        assert_eq!(heard.len(), usize::try_from(TAKEN).unwrap());
        let second = start(options);
        let mut messages = second.subscribe("work", qos).await.unwrap();
        publish_numbers(&other, "work", qos, COUNT..COUNT + 1).await;
        while heard.last() != Some(&COUNT) {
            heard.push(number(&messages.next().await.unwrap().payload));
        }
        let repeated = heard.iter().filter(|n| **n == TAKEN - 1).count();
        assert!(heard.is_sorted(), "out of order: {heard:?}");
        assert!(repeated <= 2, "{repeated} times");
        heard.dedup();
        let all: Vec<_> = (0..=COUNT).collect();
        assert_eq!(heard, all, "{version}, {qos:?}");
        let _ = second.close(Duration::from_secs(60)).await;
    }
}

/// More messages wait than any queue of the client holds, and some come before the answer to SUBSCRIBE.
pub async fn a_resumption<H: Deref<Target = Handle>>(start: impl Fn(Options) -> H, count: u32) {
    for (broker, version, qos) in cases_of_qos() {
        let options = kept(broker.port(), version, "service");
        let other = messages_wait(&start, &options, qos, count).await;
        let second = connect(&start, options).await.unwrap();
        let mut messages = second.subscribe("work", qos).await.unwrap();
        publish_numbers(&other, "work", qos, count..count + 1).await;
        for n in 0..=count {
            let heard = number(&messages.next().await.unwrap().payload);
            assert_eq!(heard, n, "{version}, {qos:?}");
        }
        let _ = second.close(Duration::from_secs(60)).await;
    }
}

/// The program publishes on its connection before it subscribes.
pub async fn a_late_subscription<H: Deref<Target = Handle>>(start: impl Fn(Options) -> H) {
    const COUNT: u32 = 1_500;
    for (broker, version, qos) in cases_of_qos() {
        let options = kept(broker.port(), version, "late");
        let _other = messages_wait(&start, &options, qos, COUNT).await;
        let handle = connect(&start, options).await.unwrap();
        let mut events = handle.events();
        while !matches!(events.next().await, Some(ConnectionEvent::Unclaimed)) {}
        publish_numbers(&handle, "elsewhere", qos, 0..100).await;
        let mut messages = handle.subscribe("work", qos).await.unwrap();
        for n in 0..COUNT {
            let heard = number(&messages.next().await.unwrap().payload);
            assert_eq!(heard, n, "{version}, {qos:?}");
        }
        let _ = handle.close(Duration::from_secs(60)).await;
    }
}

/// The service receives its own messages. The broker stores its sessions on disk, and restarts while messages are in flight.
pub async fn restarts<H: Deref<Target = Handle>>(start: impl Fn(Options) -> H) {
    const COUNT: u32 = 2_000;
    for version in super::VERSIONS {
        for qos in [QoS::AtLeastOnce, QoS::ExactlyOnce] {
            let broker = Mosquitto::start("persistence true\npersistence_location DIRECTORY/");
            let service = start(kept(broker.port, version, "service"));
            let mut messages = service.subscribe("work", qos).await.unwrap();
            let publish = publish_numbers(&service, "work", qos, 0..COUNT);
            let hear = async {
                let (mut heard, mut broker) = (vec![0_u32; 2_000], Some(broker));
                let (mut left, mut restarting) = (COUNT, None);
                while left > 0 {
                    let n = number(&messages.next().await.unwrap().payload);
                    let times = &mut heard[usize::try_from(n).unwrap()];
                    *times += 1;
                    left -= u32::from(*times == 1);
                    if *times == 1 && left % 500 == 0 && left > 0 {
                        let broker = match restarting.take() {
                            Some(done) => receive(done).await,
                            None => broker.take().unwrap(),
                        };
                        restarting = Some(restart(broker));
                    }
                }
                receive(restarting.unwrap()).await
            };
            let ((), broker) = zip(publish, hear).await;
            publish_numbers(&service, "elsewhere", qos, 0..1).await;
            let _ = service.close(Duration::from_secs(60)).await;
            drop(broker);
        }
    }
}

/// Restarts the broker in a separate thread while the service runs.
fn restart(mut broker: Mosquitto) -> oneshot::Receiver<Mosquitto> {
    let (done, restarted) = oneshot::channel();
    std::thread::spawn(move || {
        broker.restart();
        let _ = done.send(broker);
    });
    restarted
}

async fn receive(restarted: oneshot::Receiver<Mosquitto>) -> Mosquitto {
    restarted.await.expect("it starts again")
}

/// The first two passwords are wrong and the third one is correct; then the service runs normally.
pub async fn a_password<H: Deref<Target = Handle>>(start: impl Fn(Options) -> H) {
    let mosquitto = Broker::Mosquitto(Mosquitto::start_with_password("me", "right"));
    for broker in [mosquitto, Broker::Own(HostedBroker::start(Some("right")))] {
        for version in super::VERSIONS {
            let attempts = Arc::new(AtomicUsize::new(0));
            let mut options = named(broker.port(), version, "service");
            options.credentials = Some(CredentialsSource::new(move || {
                let n = attempts.fetch_add(1, Ordering::Relaxed);
                let password = if n < 2 { "wrong" } else { "right" };
                std::future::ready(Ok::<_, Error>(Credentials {
                    user_name: Some("me".into()),
                    password: Some(password.into()),
                    ..Credentials::default()
                }))
            }));
            let service = start(options);
            // The message is published before there is a connection.
            let early = service.publish("a", QoS::AtLeastOnce, false, b"x").await;
            let mut messages = service.subscribe("b", QoS::AtLeastOnce).await.unwrap();
            assert!(early.unwrap().await.is_success());
            publish_numbers(&service, "b", QoS::AtLeastOnce, 0..1).await;
            assert_eq!(number(&messages.next().await.unwrap().payload), 0);
            let (mut events, mut refusals) = (service.events(), 0);
            loop {
                match events.next().await.unwrap() {
                    ConnectionEvent::Refused(_) => refusals += 1,
                    ConnectionEvent::Connected(_) => break,
                    _ => {}
                }
            }
            assert_eq!(refusals, 2);
            let _ = service.close(Duration::from_secs(60)).await;
        }
    }
}
