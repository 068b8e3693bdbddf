//! Keeps the recorded messages in flight to a client.

use std::collections::VecDeque;

use mqtt_session::Token;

use super::name::RecordName;

/// The messages in the order of their tokens, which is the order in which they were sent. Clients acknowledge messages in about this
/// order, so most calls use only the ends of the list.
#[derive(Debug, Default)]
pub(super) struct Window {
    flights: VecDeque<Flight>,
    /// How many of them have ended.
    ended: usize,
}

/// A message in flight.
#[derive(Clone, Copy, Debug)]
pub(super) struct Flight {
    pub(super) token: Token,
    /// No name if the flight has ended.
    pub(super) record: RecordName,
    /// Whether the delivery may have a record.
    pub(super) has_flow: bool,
    /// Whether the message ends with this flight: no other session needs it, and no packet identifier of its publisher.
    pub(super) is_only: bool,
}

impl Window {
    /// Adds a message that was sent.
    pub(super) fn add(&mut self, flight: Flight) {
        let is_last = self.flights.back().is_none_or(|last| {
            let first = self.first();
            distance(first, flight.token) > distance(first, last.token)
        });
        if is_last {
            return self.flights.push_back(flight);
        }
        match self.find(flight.token) {
            Ok(known) => {
                if let Some(known) = self.flights.get_mut(known) {
                    if !known.record.is_some() {
                        self.ended = self.ended.saturating_sub(1);
                    }
                    *known = flight;
                }
            }
            Err(place) => self.flights.insert(place, flight),
        }
    }

    /// Returns a message in flight.
    pub(super) fn get_mut(&mut self, token: Token) -> Option<&mut Flight> {
        let place = self.find(token).ok()?;
        let flight = self.flights.get_mut(place)?;
        flight.record.is_some().then_some(flight)
    }

    /// Notes that the message that was sent last ends with this flight. Returns whether it was this one.
    pub(super) fn last_is_only(&mut self, token: Token) -> bool {
        let last = self.flights.back_mut();
        let Some(last) = last.filter(|last| last.token == token && last.record.is_some()) else {
            return false;
        };
        last.is_only = true;
        true
    }

    /// Removes a message.
    pub(super) fn end(&mut self, token: Token) -> Option<Flight> {
        // Most clients acknowledge the oldest message first.
        if self.ended == 0
            && self
                .flights
                .front()
                .is_some_and(|first| first.token == token)
        {
            let first = self.flights.pop_front();
            if self.flights.is_empty() {
                self.flights.shrink_to(KEPT);
            }
            return first;
        }
        self.end_any(token)
    }

    fn end_any(&mut self, token: Token) -> Option<Flight> {
        let flight = self.get_mut(token)?;
        let ended = *flight;
        flight.record = RecordName::NONE;
        self.ended = self.ended.saturating_add(1);
        while self.flights.front().is_some_and(|f| !f.record.is_some()) {
            self.flights.pop_front();
            self.ended = self.ended.saturating_sub(1);
        }
        if self.ended > self.flights.len() / 2 {
            self.flights.retain(|flight| flight.record.is_some());
            self.ended = 0;
        }
        if self.flights.is_empty() {
            self.flights.shrink_to(KEPT);
        }
        Some(ended)
    }

    /// Returns the messages that have not ended, in order.
    pub(super) fn into_flights(self) -> impl Iterator<Item = Flight> {
        let flights = self.flights.into_iter();
        flights.filter(|flight| flight.record.is_some())
    }

    fn first(&self) -> u32 {
        self.flights.front().map_or(0, |first| first.token.number())
    }

    fn find(&self, token: Token) -> Result<usize, usize> {
        let first = self.first();
        let wanted = distance(first, token);
        if wanted == 0 {
            return if self.flights.is_empty() {
                Err(0)
            } else {
                Ok(0)
            };
        }
        self.flights
            .binary_search_by_key(&wanted, |flight| distance(first, flight.token))
    }
}

/// Returns how many numbers later than `first` a token is. Numbers begin again at 0 after the last one.
const fn distance(first: u32, token: Token) -> u32 {
    token.number().wrapping_sub(first)
}

/// For how many messages memory stays allocated.
const KEPT: usize = 64;

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use mqtt_session::proto::Version;
    use mqtt_session::{Config, Heap, Server};

    use super::*;

    fn token(number: u32) -> Token {
        let mut server = Server::new(Config::default(), Heap);
        server.restore_released(number, Version::V5).unwrap()
    }

    /// Returns the tokens of an ascending sequence of numbers that begins here.
    fn tokens(first: u32, count: u32) -> Vec<Token> {
        let numbers = (0..count).map(|n| first.wrapping_add(n));
        let with_id = numbers.filter(|number| number & 0xFFFF != 0);
        with_id.map(token).collect()
    }

    #[test]
    fn messages_end_in_any_order() {
        for first in [1, u32::MAX - 100] {
            let tokens = tokens(first, 300);
            let (mut window, mut model) = (Window::default(), BTreeMap::new());
            let mut random = 1_u32;
            for (token, n) in tokens.iter().zip(1_u64..) {
                let record = RecordName::new(n, 0);
                let flight = Flight {
                    token: *token,
                    record,
                    has_flow: false,
                    is_only: false,
                };
                window.add(flight);
                model.insert(n, *token);
                random = random.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
                // The first one stays for long; one of the others ends.
                let nth = usize::try_from(random >> 16).unwrap() % model.len();
                if n > 40 && nth > 0 {
                    let (n, token) = model.iter().nth(nth).map(|(n, t)| (*n, *t)).unwrap();
                    model.remove(&n);
                    assert_eq!(
                        window.end(token).map(|f| f.record),
                        Some(RecordName::new(n, 0))
                    );
                    assert!(window.end(token).is_none() && window.get_mut(token).is_none());
                }
                for (n, token) in &model {
                    let found = window.get_mut(*token).map(|flight| flight.record);
                    assert_eq!(found, Some(RecordName::new(*n, 0)));
                }
                assert!(window.flights.len() <= 2 * model.len() + 1);
            }
            let left = window.into_flights().map(|flight| flight.record);
            assert!(left.eq(model.keys().map(|n| RecordName::new(*n, 0))));
        }
    }

    #[test]
    fn a_message_that_is_added_late_is_found() {
        let tokens = tokens(7, 6);
        let mut window = Window::default();
        for nth in [2, 5, 0, 3, 1, 4] {
            let record = RecordName::new(nth + 1, 0);
            let token = tokens[usize::try_from(nth).unwrap()];
            window.add(Flight {
                token,
                record,
                has_flow: nth == 3,
                is_only: false,
            });
        }
        for (token, n) in tokens.iter().zip(1..) {
            let ended = window.end(*token).unwrap();
            assert_eq!(
                (ended.record, ended.has_flow),
                (RecordName::new(n, 0), n == 4)
            );
        }
    }
}
