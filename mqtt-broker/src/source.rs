//! Holds a message while it is routed.

use mqtt_session::proto::{EncodeError, QoS};
use mqtt_session::{Instant, Outgoing};

use crate::deliver::delivery_steps;
use crate::message::{Message, encode, expiry};

/// A message that is being routed. It borrows from the input, and is copied at most once for all queues.
pub(crate) struct Source<'a> {
    pub(crate) message: &'a Outgoing<'a>,
    kept: Option<Message>,
    /// Whether it was stored before: the time until its expiry goes on.
    waited: bool,
    /// The steps for delivering it to one receiver.
    steps: usize,
}

impl<'a> Source<'a> {
    pub(crate) fn new(message: &'a Outgoing<'a>) -> Self {
        Self {
            message,
            kept: None,
            waited: false,
            steps: delivery_steps(message),
        }
    }

    /// Makes a source of a message that is already stored.
    pub(crate) fn of(kept: &Message, message: &'a Outgoing<'a>) -> Self {
        Self {
            kept: Some(kept.clone()),
            waited: true,
            ..Self::new(message)
        }
    }

    pub(crate) const fn steps(&self) -> usize {
        self.steps
    }

    /// Returns the message in its stored form.
    pub(crate) fn kept(&mut self, now: Instant) -> Option<&Message> {
        if self.kept.is_none() {
            self.kept = Some(Message::new(self.message, now).ok()?);
        }
        self.kept.as_ref()
    }

    /// Returns the message in its stored form, if an earlier call has stored it.
    pub(crate) const fn kept_before(&self) -> Option<&Message> {
        self.kept.as_ref()
    }

    /// Returns whether it has expired since it arrived.
    pub(crate) fn has_expired(&self, now: Instant) -> bool {
        let stored = self.kept.as_ref().filter(|_| self.waited);
        stored.is_some_and(|message| message.has_expired(now))
    }

    /// Returns after how many seconds it expires, if that is another time than at its arrival.
    pub(crate) fn remaining(&self, now: Instant) -> Option<u32> {
        let stored = self.kept.as_ref().filter(|_| self.waited);
        stored.and_then(|message| message.remaining(now))
    }

    /// Writes the packet of its stored form to the front of `packet`, and returns its length.
    pub(crate) fn encode(&self, packet: &mut Vec<u8>) -> Result<usize, EncodeError> {
        encode(self.message, packet)
    }

    pub(crate) const fn qos(&self) -> QoS {
        self.message.qos
    }

    pub(crate) fn expires(&self, now: Instant) -> Option<Instant> {
        expiry(&self.message.properties, now)
    }
}
