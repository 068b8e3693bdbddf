//! Tests of the clients of every async runtime with Mosquitto and a proxy that cuts connections at random bytes.

use std::collections::HashMap;
use std::future::{Future, pending};
use std::ops::Deref;
use std::time::Duration;

use futures_lite::future::{or, zip};
use mqtt_adapter_core::driver::{Timer, timeout};
use mqtt_adapter_core::proto::TopicName;
pub use mqtt_adapter_core::proto::{QoS, Version};
use mqtt_adapter_core::{Handle, Messages, Options, Outcome, Outgoing, SessionLost};
use tokio::sync::Semaphore;

use crate::peers::Mosquitto;
use crate::wires::Proxy;

/// Writes the tests of this suite into the calling module: the clock of the adapter, a function that starts a client, and one
/// that runs a future to its end.
#[macro_export]
macro_rules! interop {
    ($clock:ty, $start:expr, $run:expr) => {
        use $crate::suites::interop::{QoS, Version, notices_a_frozen_broker, survives};

        fn five_thousand(version: Version, qos: QoS) {
            $run(survives::<$clock, _>($start, version, qos, 5_000));
        }

        #[test]
        fn qos_2_messages_through_cuts_arrive_exactly_once_3_1_1() {
            five_thousand(Version::V311, QoS::ExactlyOnce);
        }

        #[test]
        fn qos_2_messages_through_cuts_arrive_exactly_once_5() {
            five_thousand(Version::V5, QoS::ExactlyOnce);
        }

        #[test]
        fn qos_1_messages_through_cuts_arrive_at_least_once_3_1_1() {
            five_thousand(Version::V311, QoS::AtLeastOnce);
        }

        #[test]
        fn qos_1_messages_through_cuts_arrive_at_least_once_5() {
            five_thousand(Version::V5, QoS::AtLeastOnce);
        }

        #[test]
        fn a_frozen_broker_is_noticed() {
            $run(notices_a_frozen_broker::<$clock, _>($start));
        }
    };
}

/// The time limit for any wait.
const PATIENCE: Duration = Duration::from_secs(120);

/// Returns the options of both clients.
#[must_use]
pub fn options(port: u16, version: Version, client_id: &str) -> Options {
    let mut options = Options::new("127.0.0.1", port);
    options.version = version;
    options.client_id = client_id.to_owned();
    options.clean_start = false;
    options.session_expiry = u32::MAX;
    options.back_off.first = Duration::from_millis(4);
    options.back_off.longest = Duration::from_millis(20);
    options.config.session_lost = SessionLost::HandBack;
    options
}

/// The connections of a publisher and a subscriber, which are cut at random bytes.
#[derive(Debug)]
pub struct Wires {
    /// The publisher's.
    pub near: Proxy,
    /// The subscriber's.
    pub far: Proxy,
    /// The largest numbers of bytes after which they are cut.
    longest: (u32, u32),
}

/// After how many bytes a connection is cut.
const LIVES: (u32, u32) = (12_000, 16_000);

impl Wires {
    /// Starts two proxies between the clients and Mosquitto.
    ///
    /// # Panics
    /// As for [`Proxy::start`].
    #[must_use]
    pub fn start(broker: &Mosquitto, seed: u32) -> Self {
        // Mosquitto 2.0.11 publishes a message again after its PUBREC, against 3.1.1 [MQTT-4.3.3-1] and 5 [MQTT-4.3.3-6], if a
        // resumed connection is cut before its PUBREL is written. The subscriber's connections live long enough for these
        // PUBRELs.
        Self::between(broker.port, (500, LIVES.0), (4_000, LIVES.1), seed)
    }

    /// Starts two proxies between the clients and a port. The connections of the publisher and of the subscriber are cut after `near`
    /// and `far` bytes, each at least the first and less than the second number.
    ///
    /// # Panics
    /// As for [`Proxy::start`].
    #[must_use]
    pub fn between(port: u16, near: (u32, u32), far: (u32, u32), seed: u32) -> Self {
        Self {
            near: Proxy::start(port, near.0, near.1, seed),
            far: Proxy::start(port, far.0, far.1, seed + 1),
            longest: (near.1, far.1),
        }
    }

    /// Checks that the connections were cut as often as the bytes of `count` messages, with acknowledgements of at least 17
    /// bytes, require.
    ///
    /// # Panics
    /// They were not.
    pub fn were_cut(&self, count: u32) {
        let (near, far) = (self.near.cuts(), self.far.cuts());
        let sure = count * 17 / self.longest.0 + count * 17 / self.longest.1;
        assert!(near + far >= sure, "{near} and {far} cuts");
    }

    /// Stops cutting connections.
    pub fn stop_cutting(&self) {
        self.near.stop_cutting();
        self.far.stop_cutting();
    }
}

/// Sends `count` numbered messages through Mosquitto while the connections of both clients are cut at random bytes.
///
/// # Panics
/// A message is lost or, at QoS 2, doubled or out of order, or nothing arrives for two minutes.
pub async fn survives<T, H>(start: impl Fn(Options) -> H, version: Version, qos: QoS, count: u32)
where
    T: Timer,
    H: Deref<Target = Handle>,
{
    let broker = Mosquitto::start("");
    let seed = u32::from(qos.get()) + u32::from(version.level()) * 7;
    let wires = Wires::start(&broker, seed);
    let limit = async {
        let _ = timeout::<T, _>(PATIENCE, pending::<()>()).await;
    };
    let load = Load {
        version,
        qos,
        count,
    };
    pass(start, &wires, load, limit).await;
}

/// The messages of [`pass`]: their version and quality of service, and how many they are.
#[derive(Clone, Copy, Debug)]
pub struct Load {
    /// The version of both clients.
    pub version: Version,
    /// The quality of service.
    pub qos: QoS,
    /// The number of messages.
    pub count: u32,
}

/// Sends numbered messages through a server behind these wires, within a time limit.
///
/// # Panics
/// As for [`survives`].
pub async fn pass<H>(
    start: impl Fn(Options) -> H,
    wires: &Wires,
    load: Load,
    limit: impl Future<Output = ()>,
) where
    H: Deref<Target = Handle>,
{
    let Load {
        version,
        qos,
        count,
    } = load;
    let subscriber = start(options(wires.far.port, version, "subscriber"));
    let mut numbers = subscriber.subscribe("numbers", qos).await.unwrap();
    let publisher = start(options(wires.near.port, version, "publisher"));
    // Mosquitto sends all messages of a resumed session in one burst, and reads no acknowledgement before the end. If they do not
    // pass between two cuts, it sends them for ever.
    let ahead = Semaphore::new(200);
    let publish = async {
        let mut tickets = Vec::new();
        for n in 0..count {
            ahead.acquire().await.unwrap().forget();
            let payload = n.to_string();
            let message = Outgoing::new(TopicName::from_static("numbers"), qos, payload.as_bytes());
            tickets.push(publisher.publish_message(&message).await.unwrap());
        }
        for ticket in tickets {
            let outcome = ticket.await;
            assert!(matches!(outcome, Outcome::Acknowledged(_)), "{outcome:?}");
        }
    };
    let receive = hear(&mut numbers, count, &ahead);
    let both = async { Some(zip(publish, receive).await) };
    let both = or(both, async {
        limit.await;
        None
    })
    .await;
    let (publisher_now, subscriber_now) = (&*publisher, &*subscriber);
    let ((), (heard, order)) =
        both.unwrap_or_else(|| panic!("it stalls: {publisher_now:?}, {subscriber_now:?}"));
    wires.were_cut(count);
    if qos == QoS::ExactlyOnce {
        // No other message may come: a message after the last number would be a repetition.
        wires.stop_cutting();
        let last = publish_last(&publisher, &mut numbers).await;
        assert_eq!(last, LAST, "a message came twice");
        assert!(
            heard.values().all(|times| *times == 1),
            "doubled: {heard:?}"
        );
        assert!(order.is_sorted(), "out of order");
    }
    assert!(publisher.close(Duration::from_secs(10)).await.is_empty());
    let _ = subscriber.close(Duration::from_secs(10)).await;
}

/// Takes messages until all numbers below `count` have come. Returns how often each came, and all numbers in their order. Each
/// new number permits another publish.
async fn hear(
    numbers: &mut Messages,
    count: u32,
    ahead: &Semaphore,
) -> (HashMap<u32, u32>, Vec<u32>) {
    let mut heard = HashMap::<u32, u32>::new();
    let mut order = Vec::new();
    while heard.len() < usize::try_from(count).unwrap() {
        let message = numbers.next().await.expect("the client goes on");
        let text = std::str::from_utf8(&message.payload).unwrap();
        let n = text
            .parse()
            .unwrap_or_else(|_| panic!("{message:?} is not one of ours"));
        let times = heard.entry(n).or_default();
        *times += 1;
        if *times == 1 {
            ahead.add_permits(1);
        }
        order.push(n);
    }
    (heard, order)
}

/// The payload after the numbers.
const LAST: &[u8] = b"4294967295";

/// Publishes one more message, and returns the payload of the next one that arrives.
async fn publish_last(publisher: &Handle, numbers: &mut Messages) -> Vec<u8> {
    let topic = TopicName::from_static("numbers");
    let end = Outgoing::new(topic, QoS::ExactlyOnce, LAST);
    let outcome = publisher.publish_message(&end).await.unwrap().await;
    assert!(matches!(outcome, Outcome::Acknowledged(_)), "{outcome}");
    numbers.next().await.unwrap().payload.to_vec()
}

/// A broker that stops answering is noticed within keep-alive plus the ping time-out.
///
/// # Panics
/// It is not.
pub async fn notices_a_frozen_broker<T, H>(start: impl Fn(Options) -> H)
where
    T: Timer,
    H: Deref<Target = Handle>,
{
    let broker = Mosquitto::start("");
    let mut options = options(broker.port, Version::V5, "watcher");
    options.keep_alive = 1;
    options.config.ping_timeout_ms = 500;
    options.back_off.first = Duration::from_secs(60);
    options.back_off.longest = Duration::from_secs(60);
    let handle = start(options);
    handle.connected().await.expect("the broker is there");
    broker.freeze(true);
    let noticed = timeout::<T, _>(PATIENCE, handle.disconnected()).await;
    broker.freeze(false);
    let why = noticed.expect("noticed at all").to_string();
    assert_eq!(why, "no PINGRESP within the ping time-out");
}
