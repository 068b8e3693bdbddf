//! Publishes messages: their acceptance, their outcome, and the positions of QoS 0 messages.

use alloc::collections::VecDeque;
use alloc::string::String;
use alloc::vec::Vec;
use core::fmt;

use mqtt_proto::num::to_u64;
use mqtt_proto::{QoS, ReasonCode};
use mqtt_session::{Ended, Instant, Outgoing, Refused, Token};

use crate::agent::Agent;
use crate::event::AgentEvent;

/// How a published message ended.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub enum Outcome {
    /// The server acknowledged the message or refused it with a code of 0x80 and above (5).
    Acknowledged(ReasonCode),
    /// QoS 0: the transport took the last byte. The server does not answer.
    Sent,
    /// QoS 0: the connection ended before the transport took the last byte.
    Lost,
    /// The server lost the session before it acknowledged the message, which may or may not have arrived.
    InDoubt,
    /// A newer message replaced the message while there was no connection ([`mqtt_session::Offline::DropOldest`]).
    Dropped,
    /// The message exceeds the maximum packet size of the server.
    TooLarge,
    /// The message waited for a connection, and the server does not support its QoS or retained messages, as its CONNACK says
    /// (5). It was not sent on this connection.
    NotSupported,
    /// The client was closed before the message ended.
    Closed,
}

impl Outcome {
    /// Returns whether the message was acknowledged without an error or, at QoS 0, sent.
    #[must_use]
    pub const fn is_success(self) -> bool {
        match self {
            Self::Acknowledged(reason) => !reason.is_error(),
            Self::Sent => true,
            _ => false,
        }
    }
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Acknowledged(reason) if reason.is_error() => write!(f, "refused: {reason}"),
            Self::Acknowledged(reason) => write!(f, "acknowledged: {reason}"),
            Self::Sent => f.write_str("sent"),
            Self::Lost => f.write_str("the connection ended before it was sent"),
            Self::InDoubt => f.write_str("the server lost the session"),
            Self::Dropped => f.write_str("a newer message replaced it"),
            Self::TooLarge => f.write_str("it is larger than the server accepts"),
            Self::NotSupported => {
                f.write_str("the server does not support its QoS or retained messages")
            }
            Self::Closed => f.write_str("the client was closed before it ended"),
        }
    }
}

impl From<Ended> for Outcome {
    fn from(how: Ended) -> Self {
        match how {
            Ended::Dropped => Self::Dropped,
            Ended::TooLarge => Self::TooLarge,
            Ended::NotSupported => Self::NotSupported,
            Ended::Sent => Self::Sent,
            Ended::Lost => Self::Lost,
            // `Ended::InDoubt`, and an end that this version does not know.
            _ => Self::InDoubt,
        }
    }
}

/// Names an accepted message.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Accepted {
    /// A message with a token: [`AgentEvent::Published`] reports its end.
    Token(Token),
    /// A message at QoS 0 by its position in the stream of bytes: [`Agent::outcome`] returns its end.
    Position(Position),
}

/// The position of the last byte of a message among all bytes that the agent gave to its transports.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Position(u64);

/// A message that was accepted and not acknowledged when the client stopped.
#[derive(Clone, Debug, PartialEq)]
pub struct Unsent {
    /// The topic of the message.
    pub topic: String,
    /// The payload of the message.
    pub payload: Vec<u8>,
    /// The quality of service of the message.
    pub qos: QoS,
    /// Whether it was to be retained.
    pub retain: bool,
}

/// Counts the bytes that the transports took.
#[derive(Debug, Default)]
pub(crate) struct Progress {
    /// The position up to which each byte was taken or lost.
    taken: u64,
    /// The latest ranges of bytes that were lost with their connections.
    lost: VecDeque<(u64, u64)>,
    /// Lost ranges before this position are not stored.
    forgotten: u64,
}

/// How many lost ranges are stored. After more lost connections with outgoing bytes, the outcome of an older message is in doubt.
const LOST: usize = 64;

impl Progress {
    pub(crate) fn sent(&mut self, n: usize) {
        self.taken = self.taken.saturating_add(to_u64(n));
    }

    pub(crate) fn lost(&mut self, unsent: usize) {
        if unsent == 0 {
            return;
        }
        let end = self.taken.saturating_add(to_u64(unsent));
        self.lost.push_back((self.taken, end));
        self.taken = end;
        if self.lost.len() > LOST
            && let Some((_, end)) = self.lost.pop_front()
        {
            self.forgotten = end;
        }
    }

    fn end(&self, unsent: usize) -> Position {
        Position(self.taken.saturating_add(to_u64(unsent)))
    }

    fn outcome(&self, Position(at): Position) -> Option<Outcome> {
        if at > self.taken {
            return None;
        }
        let is_lost = |(start, end): &(u64, u64)| *start < at && at <= *end;
        Some(if at <= self.forgotten {
            Outcome::InDoubt
        } else if self.lost.iter().any(is_lost) {
            Outcome::Lost
        } else {
            Outcome::Sent
        })
    }
}

impl Agent {
    /// Publishes a message, or keeps it for the next connection as [`mqtt_session::Config::offline`] says.
    ///
    /// # Errors
    /// [`Refused::Full`] while there is no room, also at QoS 1 and 2 in a full store, and the other errors of
    /// [`mqtt_session::Client::publish`]. The message was not accepted then.
    pub fn publish(&mut self, message: &Outgoing<'_>, now: Instant) -> Result<Accepted, Refused> {
        if self.is_closing() || self.is_stopped() {
            return Err(Refused::WrongPhase);
        }
        if message.qos != QoS::AtMostOnce && self.store_is_full() {
            return Err(Refused::Full);
        }
        let token = self.client.publish(message, now);
        // The session may have dropped an older message for this one.
        self.report_ended(now);
        Ok(match token? {
            Some(token) => Accepted::Token(token),
            None => Accepted::Position(self.progress.end(self.client.unsent())),
        })
    }

    /// Returns how a QoS 0 message ended; `None` until the transport has taken all its bytes.
    #[must_use]
    pub fn outcome(&self, at: Position) -> Option<Outcome> {
        let outcome = self.progress.outcome(at);
        if outcome.is_none() && self.is_stopped() {
            return Some(Outcome::Closed);
        }
        outcome
    }

    /// Returns how many messages and requests were accepted and have not ended.
    #[must_use]
    pub fn pending(&self) -> usize {
        self.client
            .pending()
            .saturating_add(self.waiting_qos0.len())
    }

    /// Returns the messages that were accepted and are not acknowledged, in their order.
    #[must_use]
    pub fn unsent(&self) -> Vec<Unsent> {
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        self.client
            .unacknowledged_all()
            .map(|(_, publish)| Unsent {
                topic: text(publish.topic.as_bytes()),
                payload: publish.payload.to_vec(),
                qos: publish.qos(),
                retain: publish.retain,
            })
            .collect()
    }

    /// Handles the end of a token. A message at QoS 0 that waited for a connection is outgoing now, and ends when the
    /// transport has taken it.
    pub(crate) fn ended(&mut self, token: Token, how: Ended) {
        if how == Ended::Sent {
            let end = self.progress.end(self.client.unsent());
            self.waiting_qos0.push_back((end, token));
            self.report_sent();
        } else {
            self.end(token, how.into());
        }
    }

    /// Queues the ends of QoS 0 messages that are sent or lost.
    pub(crate) fn report_sent(&mut self) {
        while let Some(&(at, token)) = self.waiting_qos0.front() {
            let Some(outcome) = self.progress.outcome(at) else {
                return;
            };
            self.waiting_qos0.pop_front();
            self.end(token, outcome);
        }
    }

    pub(crate) fn end(&mut self, token: Token, outcome: Outcome) {
        // A SUBSCRIBE that the end of the connection interrupted is sent again.
        if self.take_request_token(token) {
            return;
        }
        self.end_request(token, outcome);
        self.events.push_back(AgentEvent::Published(token, outcome));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_is_sent_with_its_last_byte_and_lost_with_its_connection() {
        let mut progress = Progress::default();
        let first = progress.end(10);
        let second = progress.end(25);
        progress.sent(9);
        assert_eq!(progress.outcome(first), None);
        progress.sent(1);
        assert_eq!(progress.outcome(first), Some(Outcome::Sent));
        assert_eq!(progress.outcome(second), None);
        progress.sent(3);
        progress.lost(12);
        assert_eq!(progress.outcome(first), Some(Outcome::Sent));
        assert_eq!(progress.outcome(second), Some(Outcome::Lost));
        let third = progress.end(5);
        progress.sent(5);
        assert_eq!(progress.outcome(third), Some(Outcome::Sent));
    }

    #[test]
    fn a_position_that_is_too_old_is_in_doubt() {
        let mut progress = Progress::default();
        let first = progress.end(1);
        for _ in 0..LOST {
            progress.lost(2);
        }
        assert_eq!(progress.outcome(first), Some(Outcome::Lost));
        progress.lost(2);
        assert_eq!(progress.outcome(first), Some(Outcome::InDoubt));
    }
}
