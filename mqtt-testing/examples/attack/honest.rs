//! Measures how clients that mean well fare while others attack.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use mqtt_proto::{AckKind, Connect, Delivery, Property, QoS};
use mqtt_testing::packets::ack;

use crate::broker::{Broker, PASSWORD, USERS};
use crate::client::{Client, connect, numbered, publish, returning, subscribe, subscribe_at};

/// What is measured during an attack.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Watch {
    /// How long a message takes that one client publishes about each millisecond, and another one receives.
    Pair,
    /// The same, and how many of [`ABSENT`] messages at QoS 1 a client gets that is not connected meanwhile.
    Absent,
    /// How long clients take to connect, one after another.
    Newcomers,
    /// The same for users who have logged in before.
    LogIns,
    /// How long 1,000 clients of these users take that connect at once.
    Crowd,
    /// The same for users whose passwords the broker has not compared before.
    NewCrowd,
}

/// The times of messages or of clients that connect.
pub(crate) struct Measured {
    /// In ascending order.
    times: Vec<Duration>,
    /// How many messages did not arrive, or how many clients did not get in.
    pub(crate) failed: usize,
    /// How many messages for an absent client were lost.
    pub(crate) lost: usize,
}

const TOPIC: &str = "honest/pair";
const ABSENT_TOPIC: &str = "honest/absent";
/// How many messages an absent client is to get.
pub(crate) const ABSENT: u16 = 20;
const CROWD: usize = 1_000;

/// A message that takes longer counts as this long.
const MOST: Duration = Duration::from_secs(10);
/// How long a client tries to connect.
const TRIES_FOR: Duration = Duration::from_secs(5);

impl Measured {
    fn of(mut times: Vec<Duration>, failed: usize) -> Self {
        if times.is_empty() {
            times.push(MOST);
        }
        times.sort_unstable();
        Self {
            times,
            failed,
            lost: 0,
        }
    }

    pub(crate) const fn count(&self) -> usize {
        self.times.len()
    }

    /// Returns the time below which `percent` of 100 messages stay, in microseconds.
    pub(crate) fn micros(&self, percent: usize) -> u64 {
        let last = self.times.len() - 1;
        let at = (self.times.len() * percent / 100).min(last);
        u64::try_from(self.times[at].min(MOST).as_micros()).expect("short")
    }
}

impl Watch {
    /// Lets the clients connect that were here before the attack.
    pub(crate) fn prepare(self, broker: &Broker) {
        match self {
            Self::Pair | Self::Newcomers | Self::NewCrowd => {}
            Self::Absent => subscribe_absent(broker.address),
            Self::LogIns | Self::Crowd => {
                for n in 0..USERS {
                    enter(broker.address, &log_in(&user(n)));
                }
            }
        }
    }

    /// Measures for a time, and at least once.
    pub(crate) fn measure(self, broker: &Broker, time: Duration) -> Measured {
        let address = broker.address;
        match self {
            Self::Pair => pair(broker, time),
            Self::Absent => absent(broker, time),
            Self::Newcomers => newcomers(time, |_| enter(address, &connect(""))),
            Self::LogIns => newcomers(time, |n| enter(address, &log_in(&user(n)))),
            Self::Crowd | Self::NewCrowd => crowd(address),
        }
    }
}

fn user(number: usize) -> String {
    format!("user-{}", number % USERS)
}

fn log_in(user: &str) -> Connect<'_> {
    Connect {
        user_name: Some(user),
        password: Some(PASSWORD.as_bytes()),
        ..connect("")
    }
}

fn pair(broker: &Broker, time: Duration) -> Measured {
    let mut times = Vec::new();
    let mut failed = 0;
    let began = Instant::now();
    let open = || accepted(broker.address, &broker.honest(&user(0)));
    let Some((mut from, mut to)) = open().and_then(|from| Some((from, open()?))) else {
        return Measured::of(times, 1);
    };
    to.say(&subscribe([TOPIC].into_iter(), None));
    to.read_packet();
    while times.is_empty() || began.elapsed() < time {
        let number = u64::try_from(times.len()).expect("few");
        let bytes = publish(TOPIC, &number.to_be_bytes());
        let sent = Instant::now();
        let received = from.say(&bytes) && receives(&mut to, number);
        times.push(sent.elapsed());
        if !received {
            failed += 1;
            break;
        }
        std::thread::sleep(Duration::from_millis(1));
    }
    Measured::of(times, failed)
}

/// Reads until the message with this number comes. Returns `false` if the connection ends before.
fn receives(to: &mut Client, number: u64) -> bool {
    while let Some((_, body)) = to.read_packet() {
        if body.ends_with(&number.to_be_bytes()) {
            return true;
        }
    }
    false
}

fn reach_absent(address: SocketAddr) -> Option<Client> {
    let stays = [Property::SessionExpiryInterval(60)];
    Client::open(address, &returning("honest-absent", &stays))
}

fn subscribe_absent(address: SocketAddr) {
    if let Some(mut client) = reach_absent(address) {
        let filter = [ABSENT_TOPIC].into_iter();
        client.say(&subscribe_at(QoS::AtLeastOnce, filter, &[]));
        client.read_packet();
    }
}

/// Takes and acknowledges the messages for the absent client. Returns how many came.
fn take_absent(mut client: Client) -> u16 {
    let _ = client.0.set_read_timeout(Some(Duration::from_secs(1)));
    for got in 0..ABSENT {
        let Some((_, body)) = client.read_packet() else {
            return got;
        };
        // The identifier is behind the topic and its length.
        let id = body.get(ABSENT_TOPIC.len() + 2..ABSENT_TOPIC.len() + 4);
        let id = id.and_then(|id| Some(u16::from_be_bytes(id.try_into().ok()?)));
        client.say(&ack(AckKind::PubAck, id.unwrap_or(1)));
    }
    ABSENT
}

/// Measures a pair while messages for an absent client are published.
fn absent(broker: &Broker, time: Duration) -> Measured {
    let mut measured = std::thread::scope(|scope| {
        scope.spawn(|| publish_slowly(broker.address, time));
        pair(broker, time)
    });
    let got = reach_absent(broker.address).map_or(0, take_absent);
    measured.lost = usize::from(ABSENT - got);
    measured
}

fn publish_slowly(address: SocketAddr, time: Duration) {
    let packet = numbered(1, Delivery::AtLeastOnce, ABSENT_TOPIC, b"x");
    let mut publisher = Client::open(address, &connect(""));
    for _ in 0..ABSENT {
        if let Some(publisher) = &mut publisher {
            publisher.say(&packet);
            publisher.read_packet();
        }
        std::thread::sleep(time / u32::from(ABSENT + 1));
    }
}

/// Connects until the broker accepts the client: a busy one may refuse a client, which tries again.
fn accepted(address: SocketAddr, connect: &Connect<'_>) -> Option<Client> {
    let began = Instant::now();
    while began.elapsed() < TRIES_FOR {
        let patience = TRIES_FOR
            .saturating_sub(began.elapsed())
            .max(Duration::from_millis(1));
        let client = Client::open_within(address, connect, patience);
        if client.is_some() {
            return client;
        }
        std::thread::sleep(Duration::from_millis(10));
    }
    None
}

/// Returns how long it took until the broker accepted the client.
fn enter(address: SocketAddr, connect: &Connect<'_>) -> Option<Duration> {
    let began = Instant::now();
    accepted(address, connect).map(|_| began.elapsed())
}

fn newcomers(time: Duration, enter: impl Fn(usize) -> Option<Duration>) -> Measured {
    let mut times = Vec::new();
    let mut failed = 0;
    let began = Instant::now();
    while times.is_empty() || began.elapsed() < time {
        let entered = enter(times.len());
        failed += usize::from(entered.is_none());
        times.push(entered.unwrap_or(MOST));
        std::thread::sleep(Duration::from_millis(5));
    }
    Measured::of(times, failed)
}

/// Connects many users at once. A refused one tries again.
fn crowd(address: SocketAddr) -> Measured {
    let began = Instant::now();
    let mut times = Vec::new();
    let mut outside: Vec<_> = (0..CROWD).collect();
    let mut inside = Vec::new();
    while !outside.is_empty() && began.elapsed() < TRIES_FOR {
        let begin = |n: &usize| {
            let user = user(*n);
            (*n, Client::begin(address, &log_in(&user), TRIES_FOR))
        };
        let asked: Vec<_> = outside.iter().map(begin).collect();
        outside.clear();
        for (n, client) in asked {
            if let Some(mut client) = client
                && client.is_accepted()
            {
                times.push(began.elapsed());
                inside.push(client);
            } else {
                outside.push(n);
            }
        }
        std::thread::sleep(Duration::from_millis(10));
    }
    times.extend(outside.iter().map(|_| MOST));
    Measured::of(times, outside.len())
}
