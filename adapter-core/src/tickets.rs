//! Stores the ends of messages for which the program has tickets.

use std::collections::HashMap;
use std::hash::{BuildHasherDefault, Hasher};
use std::task::{Poll, Waker};

use mqtt_agent::Outcome;
use mqtt_session::Token;

/// The end of a ticket, or the waker of the future that waits for it.
#[derive(Debug)]
enum TicketState {
    Pending(Option<Waker>),
    Ended(Outcome),
}

/// A hasher for tokens. The client itself assigns ascending tokens, so a peer cannot cause collisions. A multiplication spreads
/// the tokens.
#[derive(Clone, Copy, Debug, Default)]
struct TokenHasher(u64);

impl Hasher for TokenHasher {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        bytes.iter().for_each(|byte| self.write_u64((*byte).into()));
    }

    fn write_u16(&mut self, n: u16) {
        self.write_u64(n.into());
    }

    fn write_u32(&mut self, n: u32) {
        self.write_u64(n.into());
    }

    fn write_u64(&mut self, n: u64) {
        self.0 = (self.0.rotate_left(5) ^ n).wrapping_mul(0x517C_C1B7_2722_0A95);
    }
}

/// The tickets by token.
#[derive(Debug, Default)]
pub(crate) struct Tickets {
    states: HashMap<Token, TicketState, BuildHasherDefault<TokenHasher>>,
    closed: bool,
    /// How many messages without a ticket were not delivered.
    pub(crate) undelivered: u64,
}

impl Tickets {
    pub(crate) fn issue(&mut self, token: Token) {
        self.states.insert(token, TicketState::Pending(None));
    }

    /// Ends a ticket, and returns who waits for it. Counts a message without a ticket, because nothing else reports that it was not
    /// delivered.
    pub(crate) fn end(&mut self, token: Token, outcome: Outcome) -> Option<Waker> {
        let Some(wait) = self.states.get_mut(&token) else {
            // A message that a newer one replaces is dropped as the options say, and a store keeps what a closed client has.
            if !outcome.is_success() && !matches!(outcome, Outcome::Dropped | Outcome::Closed) {
                self.undelivered = self.undelivered.saturating_add(1);
            }
            return None;
        };
        match std::mem::replace(wait, TicketState::Ended(outcome)) {
            TicketState::Pending(waker) => waker,
            TicketState::Ended(_) => None,
        }
    }

    /// Ends all tickets. Adds who waits for them to `woken`.
    pub(crate) fn close(&mut self, woken: &mut Vec<Waker>) {
        self.closed = true;
        for wait in self.states.values_mut() {
            if let TicketState::Pending(waker) = wait {
                let waker = waker.take();
                *wait = TicketState::Ended(Outcome::Closed);
                woken.extend(waker);
            }
        }
    }

    pub(crate) fn poll(&mut self, token: Token, waker: &Waker) -> Poll<Outcome> {
        match self.states.get_mut(&token) {
            Some(TicketState::Pending(known)) => {
                *known = Some(waker.clone());
                Poll::Pending
            }
            Some(TicketState::Ended(outcome)) => Poll::Ready(*outcome),
            None => Poll::Ready(Outcome::Closed),
        }
    }

    pub(crate) fn give_up(&mut self, token: Token) {
        self.states.remove(&token);
    }
}
