//! What an image has to achieve. It publishes 100 numbered messages at each QoS on `fw/number/QOS`, which it has subscribed to
//! itself, so that the broker echoes them; what comes on `fw/in` it publishes on `fw/out`; and of a message on `fw/large` that
//! fits no buffer it publishes the length and the sum of its bytes on `fw/sum`. It is done when `fw/in` says `stop`, each
//! number was acknowledged, and each at QoS 2 came back exactly once, whatever happened to the link.

use mqtt_embedded::proto::{
    Connect, Properties, Property, QoS, ReasonCode, Subscription, TopicFilter, TopicName, Version,
};
use mqtt_embedded::session::{Client, Config, Event, Instant, Outgoing, Refused, Token};

use crate::semihosting::{log, tell};

/// How many numbers are published at each QoS.
const NUMBERS: u16 = 100;
/// How many of them may await their acknowledgement.
const UNDER_WAY: usize = 6;

const PROPERTIES: &[Property<'_>] = &[
    Property::SessionExpiryInterval(3_600),
    Property::ReceiveMaximum(8),
];

/// A session that outlives its connections, with a keep-alive that notices a silent link within two seconds.
pub fn connect() -> Connect<'static> {
    let version = if cfg!(feature = "v5") {
        Version::V5
    } else {
        Version::V311
    };
    let mut connect = Connect::new(version, "fw");
    connect.clean_start = false;
    connect.keep_alive = 1;
    if version.is_v5() {
        connect.properties = PROPERTIES.into();
    }
    connect
}

/// Short time-outs, to match.
pub fn config() -> Config {
    let mut config = Config::default();
    config.ping_timeout_ms = 700;
    config.connect_timeout_ms = 1_500;
    config.packet_limit = 16 << 10;
    config
}

/// What is on its way to be said once there is room.
#[derive(Clone, Copy)]
struct Text {
    bytes: [u8; 24],
    len: usize,
}

impl Text {
    fn new(bytes: &[u8]) -> Self {
        let mut text = Self {
            bytes: [0; 24],
            len: bytes.len().min(24),
        };
        for (place, byte) in text.bytes.iter_mut().zip(bytes) {
            *place = *byte;
        }
        text
    }

    fn get(&self) -> &[u8] {
        self.bytes.get(..self.len).unwrap_or_default()
    }
}

/// A number as three digits.
fn digits(number: u16) -> [u8; 3] {
    let digit = |n: u16| b'0' + u8::try_from(n % 10).unwrap_or(0);
    [digit(number / 100), digit(number / 10), digit(number)]
}

fn number(digits: &[u8]) -> Option<u16> {
    digits.iter().try_fold(0_u16, |n, digit| {
        Some(n * 10 + u16::from(digit.checked_sub(b'0')?))
    })
}

/// How far an image is.
#[derive(Default)]
pub struct Script {
    connections: u16,
    subscribed: bool,
    subscribing: Option<Token>,
    /// Messages published, at all three QoS together.
    published: u16,
    /// Those that await their acknowledgement, and whether they are numbered.
    under_way: [Option<(Token, bool)>; UNDER_WAY],
    acknowledged: u16,
    /// A bit for each number that came back at QoS 2.
    echoed: u128,
    echo: Option<Text>,
    sum: Option<Text>,
    large: (u32, u32),
    stopped: bool,
    failure: Option<&'static str>,
}

impl Script {
    /// Something happened, or nothing: go on.
    pub fn step(&mut self, event: Option<Event<'_>>, client: &mut Client<'_>, now: Instant) {
        if let Some(event) = event {
            self.on(&event, client, now);
        }
        while client.is_connected() && self.subscribed && self.say_more(client, now) {}
    }

    /// How far it is, for the log of a run that fails.
    fn tell(&self) {
        tell("published", u32::from(self.published));
        tell("acknowledged", u32::from(self.acknowledged));
        tell("echoed", self.echoed.count_ones());
        tell("stopped", u32::from(self.stopped));
    }

    fn fail(&mut self, why: &'static str) {
        self.failure = self.failure.or(Some(why));
    }

    fn on(&mut self, event: &Event<'_>, client: &mut Client<'_>, now: Instant) {
        match event {
            Event::Connected { resumed, .. } => {
                log("connected\n");
                self.connections += 1;
                if self.connections > 1 && !resumed {
                    self.fail("the session was not resumed");
                }
                if !self.subscribed {
                    self.subscribe(client, now);
                }
            }
            Event::Refused(_) => self.fail("the server refused the connection"),
            Event::Subscribed { .. } => {
                log("subscribed\n");
                self.subscribed = true;
            }
            Event::Message(message) => self.on_message(
                message.publish.topic.as_bytes(),
                message.publish.qos(),
                message.publish.payload,
            ),
            Event::MessageHead { publish, .. } => {
                if publish.topic.as_bytes() != b"fw/large" {
                    self.fail("only one message is large");
                }
                self.large = (0, 0);
            }
            Event::Payload { bytes, left, .. } => {
                let (len, sum) = &mut self.large;
                *len += u32::try_from(bytes.len()).unwrap_or(0);
                *sum = bytes
                    .iter()
                    .fold(*sum, |sum, b| sum.wrapping_add(u32::from(*b)));
                if *left == 0 {
                    let [a, b, c, d] = (*len).to_be_bytes();
                    let [e, f, g, h] = (*sum).to_be_bytes();
                    self.sum = Some(Text::new(&[a, b, c, d, e, f, g, h]));
                }
            }
            Event::Pong => self.tell(),
            Event::Acknowledged { token, reason, .. } => self.on_acknowledged(*token, *reason),
            Event::Ended { token, .. } => {
                // Only a subscription that a cut left without an answer.
                if self.subscribing != Some(*token) {
                    self.fail("a message was given up");
                } else if client.is_connected() {
                    self.subscribe(client, now);
                }
            }
            _ => {}
        }
    }

    fn subscribe(&mut self, client: &mut Client<'_>, now: Instant) {
        const FILTERS: [TopicFilter<'static>; 3] = [
            TopicFilter::from_static("fw/number/#"),
            TopicFilter::from_static("fw/in"),
            TopicFilter::from_static("fw/large"),
        ];
        let filters = FILTERS.map(|filter| Subscription::new(filter, QoS::ExactlyOnce));
        match client.subscribe(&filters, Properties::EMPTY, now) {
            Ok(token) => self.subscribing = Some(token),
            Err(_) => self.fail("cannot subscribe"),
        }
    }

    fn on_message(&mut self, topic: &[u8], qos: QoS, payload: &[u8]) {
        match topic {
            b"fw/number/2" if qos == QoS::ExactlyOnce => match number(payload) {
                Some(number) if number < NUMBERS => {
                    let bit = 1_u128 << number;
                    if self.echoed & bit != 0 {
                        self.fail("a QoS 2 message came twice");
                    }
                    self.echoed |= bit;
                }
                _ => self.fail("a number that was never sent"),
            },
            b"fw/in" if payload == b"stop" => self.stopped = true,
            b"fw/in" => self.echo = Some(Text::new(payload)),
            _ => {}
        }
    }

    fn on_acknowledged(&mut self, token: Token, reason: ReasonCode) {
        let found = self
            .under_way
            .iter_mut()
            .find_map(|place| place.take_if(|(under_way, _)| *under_way == token));
        match found {
            Some((_, numbered)) => self.acknowledged += u16::from(numbered),
            None => self.fail("an acknowledgement of nothing"),
        }
        if reason.is_error() {
            self.fail("the server refused a message");
        }
    }

    /// Publishes one message more; `false` if there is no room for it, or none to publish.
    fn say_more(&mut self, client: &mut Client<'_>, now: Instant) -> bool {
        let Some(place) = self.under_way.iter_mut().find(|place| place.is_none()) else {
            return false;
        };
        let (round, kind) = (self.published / 3, self.published % 3);
        let number = digits(round);
        let (topic, qos, payload) = match (&self.sum, &self.echo, kind) {
            (Some(sum), ..) => (
                TopicName::from_static("fw/sum"),
                QoS::AtLeastOnce,
                sum.get(),
            ),
            (_, Some(echo), _) => (
                TopicName::from_static("fw/out"),
                QoS::AtLeastOnce,
                echo.get(),
            ),
            _ if round == NUMBERS => return false,
            (.., 0) => (
                TopicName::from_static("fw/number/0"),
                QoS::AtMostOnce,
                &number[..],
            ),
            (.., 1) => (
                TopicName::from_static("fw/number/1"),
                QoS::AtLeastOnce,
                &number[..],
            ),
            _ => (
                TopicName::from_static("fw/number/2"),
                QoS::ExactlyOnce,
                &number[..],
            ),
        };
        let token = match client.publish(&Outgoing::new(topic, qos, payload), now) {
            Ok(token) => token,
            Err(Refused::Full) => return false,
            Err(_) => {
                self.fail("a message was refused");
                return false;
            }
        };
        let said = if self.sum.is_some() {
            self.sum.take()
        } else {
            self.echo.take()
        };
        let numbered = said.is_none();
        *place = token.map(|token| (token, numbered));
        self.published += u16::from(numbered);
        true
    }

    /// Whether there is nothing left to do.
    pub fn is_done(&self) -> bool {
        let all = (1_u128 << NUMBERS) - 1;
        self.failure.is_some()
            || self.stopped
                && self.echo.is_none()
                && self.acknowledged == 2 * NUMBERS
                && self.echoed == all
    }

    /// Whether all of it was achieved. Says what was not.
    pub fn succeeded(&self) -> bool {
        if let Some(failure) = self.failure {
            log(failure);
            log("\n");
        }
        self.is_done() && self.failure.is_none()
    }
}
