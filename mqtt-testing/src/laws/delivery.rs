//! The law of delivery: for any schedule of publishes, cuts, and resumed or lost sessions, QoS 2 arrives exactly once and in
//! order, QoS 1 at least once and in order, QoS 0 at most once, nothing stalls, all windows become empty, and every token ends
//! once.

use std::collections::HashMap;

use mqtt_proto::{Property, QoS, Version};
use mqtt_session::{Config, Ended, Offline, Refused, SessionLost, Token};

use crate::choices::Choices;
use crate::machines::Pair;
use crate::machines::{Opening, OwnedEvent, Role};

/// How many bytes are added to a payload. Some messages are large for a small buffer; few at QoS 1 and 2 are large for any
/// buffer.
const fn padding(choice: u8) -> usize {
    match choice {
        0..=127 => 0,
        128..=169 => 130,
        170..=211 => 300,
        212..=253 => 600,
        254..=255 => 17_000,
    }
}

/// The lengths of writes and reads are multiplied by one of these.
const PIECES: &[usize] = &[1, 1, 10, 300];

/// The end of a message.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Fate {
    Open,
    Acknowledged,
    InDoubt,
}

#[derive(Debug, Default)]
struct Ledger {
    /// Accepted messages in their order: payload, QoS, token.
    accepted: Vec<(String, QoS, Option<Token>)>,
    fates: HashMap<Token, Fate>,
    /// Messages before this one were lost with a side that lost its session.
    forgotten: usize,
}

impl Ledger {
    fn accept(&mut self, payload: String, qos: QoS, token: Option<Token>) {
        self.accepted.push((payload, qos, token));
        if let Some(token) = token {
            assert_eq!(self.fates.insert(token, Fate::Open), None, "a token twice");
        }
    }

    fn note(&mut self, events: &[OwnedEvent]) {
        for event in events {
            let (token, fate) = match event {
                OwnedEvent::Acknowledged { token, .. } => (token, Fate::Acknowledged),
                OwnedEvent::Ended {
                    token,
                    how: Ended::Sent,
                } => (token, Fate::Acknowledged),
                OwnedEvent::Ended { token, .. } => (token, Fate::InDoubt),
                _ => continue,
            };
            let before = self.fates.insert(*token, fate);
            assert_eq!(
                before,
                Some(Fate::Open),
                "{token:?} ends twice, or was never accepted"
            );
        }
    }
}

/// One schedule: the pair, and the accepted and received messages of each side.
struct Run<'a> {
    pair: Pair,
    choices: Choices<'a>,
    up: Ledger,
    down: Ledger,
    heard_up: Vec<(String, QoS)>,
    heard_down: Vec<(String, QoS)>,
    /// How many messages were published.
    count: u32,
    /// How many sessions were lost.
    losses: u32,
    /// Whether the client cannot know that the server lost the session, so that the arrival of messages cannot be checked.
    ambiguous: bool,
}

/// Runs one schedule.
///
/// # Panics
/// The law is broken.
pub fn delivers(choices: &[u8], version: Version) {
    let mut choices = Choices::new(choices);
    let config = config(&mut choices);
    let mut opening = Opening::persistent(version);
    if version == Version::V5 {
        let receive_maximum = Property::ReceiveMaximum(1 + u16::from(choices.byte() % 5));
        let properties = [receive_maximum, Property::TopicAliasMaximum(2)];
        opening.connect.extend(properties);
        opening.connack.extend(properties);
    }
    let mut run = Run {
        pair: Pair::connected(opening, config),
        choices,
        up: Ledger::default(),
        down: Ledger::default(),
        heard_up: Vec::new(),
        heard_down: Vec::new(),
        count: 0,
        losses: 0,
        ambiguous: false,
    };
    while !run.choices.is_empty() {
        run.operate();
        run.listen();
    }
    run.drain();
    run.judge(config.session_lost);
}

fn config(choices: &mut Choices<'_>) -> Config {
    let mut config = Config::default();
    config.window = 1 + u16::try_from(choices.below(6)).expect("small");
    config.window_qos2 = 1 + u16::try_from(choices.below(4)).expect("small");
    config.session_lost = choices.pick(&[SessionLost::HandBack, SessionLost::SendAgain]);
    config.offline = choices.pick(&[Offline::Keep, Offline::Reject]);
    config.queue = 8;
    config.auto_alias = 3;
    // With a small buffer, even short messages are large ones.
    config.outgoing_limit = choices.pick(&[200, 256 << 10]);
    config.kept_limit = choices.pick(&[500, 16 << 20]);
    config
}

impl Run<'_> {
    fn operate(&mut self) {
        let role = self.choices.pick(&[Role::Client, Role::Server]);
        match self.choices.below(16) {
            0..=5 => self.publish(role),
            6..=8 => {
                let n = self.length();
                self.pair.write(role, n);
            }
            9..=11 => {
                let n = self.length();
                self.pair.read(role, n);
            }
            12 => self.pair.run(),
            13 => self.pair.cut(),
            14 => self.pair.connect(),
            _ => match self.choices.below(8) {
                0 => self.server_forgets(),
                1 => {
                    self.pair.opening.clean_start = true;
                    self.pair.connect();
                    self.pair.run();
                    self.pair.opening.clean_start = false;
                    self.losses += 1;
                }
                _ => {
                    self.pair.cut();
                    self.pair.connect();
                }
            },
        }
    }

    /// Returns how many bytes one write or read takes.
    fn length(&mut self) -> usize {
        1 + self.choices.below(60) * self.choices.pick(PIECES)
    }

    fn publish(&mut self, role: Role) {
        let choices = &mut self.choices;
        let qos = choices.pick(&[QoS::AtMostOnce, QoS::AtLeastOnce, QoS::ExactlyOnce]);
        let mut payload = format!("{:06}", self.count);
        payload.extend(std::iter::repeat_n('.', padding(choices.byte())));
        self.count += 1;
        let topic = choices.pick(&["a", "b/c", "d"]);
        let (endpoint, ledger) = match role {
            Role::Client => (&mut self.pair.client, &mut self.up),
            Role::Server => (&mut self.pair.server, &mut self.down),
        };
        match endpoint.publish(qos, topic, payload.as_bytes(), self.pair.now) {
            Ok(token) => ledger.accept(payload, qos, token),
            Err(Refused::Full | Refused::Offline | Refused::WrongPhase) => {}
            Err(other) => panic!("{other}"),
        }
    }

    /// Ends the session of the server, with its undelivered messages. Ends of the connection are reported before.
    fn server_forgets(&mut self) {
        self.pair.cut();
        self.listen();
        self.pair.server_restarts();
        self.losses += 1;
        // If the CONNACK without a session does not arrive, the client cannot know of the loss: the next CONNACK reports a
        // session, which is another one than the client's.
        if self.choices.flag() {
            self.pair.connect();
            self.pair.run();
        } else {
            self.ambiguous = true;
        }
        let down = &mut self.down;
        down.forgotten = down.accepted.len();
        down.fates.clear();
        let forget = |(_, _, token): &mut (String, QoS, Option<Token>)| *token = None;
        down.accepted.iter_mut().for_each(forget);
    }

    /// Takes the events of both sides.
    fn listen(&mut self) {
        let pair = &mut self.pair;
        assert_eq!(pair.broken(), None);
        self.up.note(&pair.client_log);
        self.down.note(&pair.server_log);
        for (log, heard) in [
            (&mut pair.server_log, &mut self.heard_up),
            (&mut pair.client_log, &mut self.heard_down),
        ] {
            for event in log.drain(..) {
                if let OwnedEvent::Message { payload, qos, .. } = event {
                    heard.push((payload, qos));
                }
            }
        }
    }

    /// Runs without cuts until all messages have arrived.
    fn drain(&mut self) {
        if !self.pair.client.is_connected() || !self.pair.server.is_connected() {
            self.pair.connect();
        }
        self.pair.run();
        self.listen();
        let pending = (self.pair.client.pending(), self.pair.server.pending());
        assert_eq!(pending, (0, 0), "something stalls");
    }

    fn judge(&mut self, session_lost: SessionLost) {
        let send_again = session_lost == SessionLost::SendAgain && self.losses > 0;
        if !self.ambiguous {
            check(&self.up, &self.heard_up, send_again);
            check(&self.down, &self.heard_down, send_again);
        }
        for fate in self.up.fates.values().chain(self.down.fates.values()) {
            assert_ne!(*fate, Fate::Open, "an accepted command never ended");
        }
        let now = self.pair.now;
        for (role, endpoint) in [
            (Role::Client, &mut self.pair.client),
            (Role::Server, &mut self.pair.server),
        ] {
            let sent = endpoint.publish(QoS::ExactlyOnce, "a", b"one more", now);
            let refused = sent.err();
            assert_eq!(refused, None, "the window of the {role:?} did not drain");
        }
    }
}

fn check(ledger: &Ledger, heard: &[(String, QoS)], send_again: bool) {
    let times = |payload: &String| heard.iter().filter(|(other, _)| other == payload).count();
    for (index, (payload, qos, token)) in ledger.accepted.iter().enumerate() {
        let fate = token.and_then(|token| ledger.fates.get(&token).copied());
        let n = times(payload);
        let forgotten = index < ledger.forgotten;
        match qos {
            QoS::AtMostOnce => assert!(n <= 1, "QoS 0 message {payload} came {n} times"),
            QoS::AtLeastOnce => match fate {
                Some(Fate::Acknowledged) => {
                    assert!(n >= 1, "acknowledged QoS 1 message {payload} never came")
                }
                Some(Fate::Open) => panic!("QoS 1 message {payload} never ended"),
                Some(Fate::InDoubt) => {}
                None => assert!(forgotten),
            },
            QoS::ExactlyOnce => match fate {
                Some(Fate::Acknowledged) if send_again => {
                    assert!(n >= 1, "QoS 2 message {payload} never came")
                }
                Some(Fate::Acknowledged) => {
                    assert_eq!(n, 1, "QoS 2 message {payload} came {n} times")
                }
                Some(Fate::InDoubt) => assert!(
                    n <= 1 || send_again,
                    "QoS 2 message {payload} in doubt came {n} times"
                ),
                Some(Fate::Open) => panic!("QoS 2 message {payload} never ended"),
                None => assert!(forgotten && (n <= 1 || send_again)),
            },
        }
    }
    // Each quality of service is in order, by first arrival.
    for qos in [QoS::AtMostOnce, QoS::AtLeastOnce, QoS::ExactlyOnce] {
        let mut first: Vec<&String> = Vec::new();
        for (payload, _) in heard.iter().filter(|(_, other)| *other == qos) {
            if !first.contains(&payload) {
                first.push(payload);
            }
        }
        assert!(first.is_sorted(), "{qos:?} out of order: {first:?}");
    }
}
