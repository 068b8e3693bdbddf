//! The law of delivery: whatever the schedule of publishes, cuts, resumes and session losses, QoS 2 arrives exactly once
//! and in order, QoS 1 at least once, QoS 0 at most once, nothing stalls, all windows drain, every token ends once.

use std::collections::HashMap;

use mqtt_proto::{Property, QoS, Version};
use mqtt_session::{Config, Ended, Offline, Refused, SessionLost, Token};

use crate::choices::Choices;
use crate::machines::Pair;
use crate::machines::{Opening, OwnedEvent, Role};

/// How much is added to a payload: some are large where the buffer is small, few are everywhere but at QoS 0.
const fn padding(choice: u8) -> usize {
    match choice {
        0..=127 => 0,
        128..=169 => 130,
        170..=211 => 300,
        212..=253 => 600,
        254..=255 => 17_000,
    }
}

/// What the lengths of writes and reads are multiplied by.
const PIECES: &[usize] = &[1, 1, 10, 300];

/// What became of a message.
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
    /// Messages before this one went down with a side that lost everything.
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

/// Runs one schedule.
///
/// # Panics
/// When the law is broken.
pub fn delivers(choices: &[u8], version: Version) {
    let mut choices = Choices::new(choices);
    let mut config = Config::default();
    config.window = 1 + u16::try_from(choices.below(6)).expect("small");
    config.window_qos2 = 1 + u16::try_from(choices.below(4)).expect("small");
    config.session_lost = choices.pick(&[SessionLost::HandBack, SessionLost::SendAgain]);
    config.offline = choices.pick(&[Offline::Keep, Offline::Reject]);
    config.queue = 8;
    config.auto_alias = 3;
    // Where the buffer is small, messages are large that are not long to write.
    config.outgoing_limit = choices.pick(&[200, 256 << 10]);
    config.kept_limit = choices.pick(&[500, 16 << 20]);
    let mut opening = Opening::persistent(version);
    if version == Version::V5 {
        let receive_maximum = Property::ReceiveMaximum(1 + u16::from(choices.byte() % 5));
        opening
            .connect
            .extend([receive_maximum, Property::TopicAliasMaximum(2)]);
        opening
            .connack
            .extend([receive_maximum, Property::TopicAliasMaximum(2)]);
    }
    let mut pair = Pair::connected(opening, config);
    let (mut up, mut down) = (Ledger::default(), Ledger::default());
    let mut losses = 0;
    let mut ambiguous = false;
    let mut heard: [Vec<(String, QoS)>; 2] = Default::default();
    let mut count = 0_u32;
    while !choices.is_empty() {
        let role = choices.pick(&[Role::Client, Role::Server]);
        match choices.below(16) {
            0..=5 => {
                let qos = choices.pick(&[QoS::AtMostOnce, QoS::AtLeastOnce, QoS::ExactlyOnce]);
                let mut payload = format!("{count:06}");
                payload.extend(std::iter::repeat_n('.', padding(choices.byte())));
                count += 1;
                let topic = choices.pick(&["a", "b/c", "d"]);
                let (endpoint, ledger) = match role {
                    Role::Client => (&mut pair.client, &mut up),
                    Role::Server => (&mut pair.server, &mut down),
                };
                match endpoint.publish(qos, topic, payload.as_bytes(), pair.now) {
                    Ok(token) => ledger.accept(payload, qos, token),
                    Err(Refused::Full | Refused::Offline | Refused::WrongPhase) => {}
                    Err(other) => panic!("{other}"),
                }
            }
            6..=8 => pair.write(role, 1 + choices.below(60) * choices.pick(PIECES)),
            9..=11 => pair.read(role, 1 + choices.below(60) * choices.pick(PIECES)),
            12 => pair.run(),
            13 => pair.cut(),
            14 => pair.connect(),
            _ => match choices.below(8) {
                0 => {
                    // The server forgets the session, and with it what it had not delivered. What ends with the connection
                    // is told before.
                    pair.cut();
                    listen(&mut pair, &mut up, &mut down, &mut heard);
                    pair.server_restarts();
                    losses += 1;
                    // If its CONNACK without session present does not arrive, no client can know of the loss: the next
                    // one says session present, of a session that is not the one the client means.
                    if choices.flag() {
                        pair.connect();
                        pair.run();
                    } else {
                        ambiguous = true;
                    }
                    down.forgotten = down.accepted.len();
                    down.fates.clear();
                    down.accepted
                        .iter_mut()
                        .for_each(|(_, _, token)| *token = None);
                }
                1 => {
                    pair.opening.clean_start = true;
                    pair.connect();
                    pair.run();
                    pair.opening.clean_start = false;
                    losses += 1;
                }
                _ => {
                    pair.cut();
                    pair.connect();
                }
            },
        }
        listen(&mut pair, &mut up, &mut down, &mut heard);
    }
    // The end of all trouble: from here on everything must drain.
    if !pair.client.is_connected() || !pair.server.is_connected() {
        pair.connect();
    }
    pair.run();
    listen(&mut pair, &mut up, &mut down, &mut heard);
    assert_eq!(
        (pair.client.pending(), pair.server.pending()),
        (0, 0),
        "something stalls"
    );
    let [heard_up, heard_down] = &heard;
    let send_again = config.session_lost == SessionLost::SendAgain && losses > 0;
    if !ambiguous {
        check(&up, heard_up, send_again);
        check(&down, heard_down, send_again);
    }
    for fate in up.fates.values().chain(down.fates.values()) {
        assert_ne!(*fate, Fate::Open, "an accepted command never ended");
    }
    for role in [Role::Client, Role::Server] {
        let endpoint = if role == Role::Client {
            &mut pair.client
        } else {
            &mut pair.server
        };
        let refused = endpoint
            .publish(QoS::ExactlyOnce, "a", b"one more", pair.now)
            .err();
        assert_eq!(refused, None, "the window of the {role:?} did not drain");
    }
}

fn listen(
    pair: &mut Pair,
    up: &mut Ledger,
    down: &mut Ledger,
    heard: &mut [Vec<(String, QoS)>; 2],
) {
    assert_eq!(pair.broken(), None);
    up.note(&pair.client_log);
    down.note(&pair.server_log);
    let [heard_up, heard_down] = heard;
    for (log, heard) in [
        (&mut pair.server_log, heard_up),
        (&mut pair.client_log, heard_down),
    ] {
        for event in log.drain(..) {
            if let OwnedEvent::Message { payload, qos, .. } = event {
                heard.push((payload, qos));
            }
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
    // Each quality of service in its order, by first arrival.
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
