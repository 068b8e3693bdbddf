//! Tells the other shards the filters of the own clients. The messages of this kind are at QoS 0, because a link that is opened again
//! begins with the complete list. They wait only for room in the outgoing bytes, not in the queue of the link.
//!
//! | bytes | |
//! | --- | --- |
//! | 1 | the list begins: filters that are not in it are gone |
//! | 2 | the list ends |
//! | 3, text | a filter |
//! | 4, identifier (4 bytes), connected members (4), text | a shared subscription |
//! | 5, text | the filter is gone |
//! | 6, number (8) | all changes up to this number were told |
//! | 7, number (8) | the receiver of a number 6 knows these changes |
//! | 8, hash (8) | messages to the topic with this hash wait for a receiver whose queue is too full |
//! | 9, hash (8) | no receiver of this topic is too full any more |
//!
//! A text is its length (2 bytes) and its UTF-8 bytes.

use mqtt_session::proto::{QoS, TopicName};
use mqtt_session::{Outgoing, Refused};

use super::Links;
use super::filters::{Filters, Told};
use super::table::{List, Peer};
use crate::broker::Broker;
use crate::connection::ConnectionId;
use crate::hooks::Hooks;
use crate::keys::SessionKey;

/// The topic of what shards tell each other. Clients cannot publish to it.
pub(super) const TOPIC: TopicName<'static> = TopicName::from_static("$SYS/shard");

/// How many bytes of a message are used before another message is begun.
pub(super) const MESSAGE: usize = 1 << 10;

/// An entry of a message.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Entry<'a> {
    Begin,
    End,
    Filter(&'a str),
    Share {
        identifier: u32,
        connected: u32,
        filter: &'a str,
    },
    Gone(&'a str),
    Told(u64),
    Known(u64),
    Busy(u64),
    Idle(u64),
}

impl<'a> Entry<'a> {
    pub(super) fn write(self, bytes: &mut Vec<u8>) {
        match self {
            Self::Begin => bytes.push(1),
            Self::End => bytes.push(2),
            Self::Filter(filter) => {
                bytes.push(3);
                write_text(bytes, filter);
            }
            Self::Share {
                identifier,
                connected,
                filter,
            } => {
                bytes.push(4);
                bytes.extend_from_slice(&identifier.to_be_bytes());
                bytes.extend_from_slice(&connected.to_be_bytes());
                write_text(bytes, filter);
            }
            Self::Gone(filter) => {
                bytes.push(5);
                write_text(bytes, filter);
            }
            Self::Told(number) => {
                bytes.push(6);
                bytes.extend_from_slice(&number.to_be_bytes());
            }
            Self::Known(number) => {
                bytes.push(7);
                bytes.extend_from_slice(&number.to_be_bytes());
            }
            Self::Busy(topic) => {
                bytes.push(8);
                bytes.extend_from_slice(&topic.to_be_bytes());
            }
            Self::Idle(topic) => {
                bytes.push(9);
                bytes.extend_from_slice(&topic.to_be_bytes());
            }
        }
    }

    /// Takes the entry at the front of the bytes; `None` at their end, and for bytes that are no entry.
    pub(super) fn read(bytes: &mut &'a [u8]) -> Option<Self> {
        let (kind, rest) = bytes.split_first()?;
        *bytes = rest;
        Some(match kind {
            1 => Self::Begin,
            2 => Self::End,
            3 => Self::Filter(read_text(bytes)?),
            4 => {
                let identifier = u32::from_be_bytes(take(bytes)?);
                let connected = u32::from_be_bytes(take(bytes)?);
                let filter = read_text(bytes)?;
                Self::Share {
                    identifier,
                    connected,
                    filter,
                }
            }
            5 => Self::Gone(read_text(bytes)?),
            6 => Self::Told(u64::from_be_bytes(take(bytes)?)),
            7 => Self::Known(u64::from_be_bytes(take(bytes)?)),
            8 => Self::Busy(u64::from_be_bytes(take(bytes)?)),
            9 => Self::Idle(u64::from_be_bytes(take(bytes)?)),
            _ => return None,
        })
    }
}

pub(super) fn write_text(bytes: &mut Vec<u8>, text: &str) {
    // A filter of MQTT is not longer than this length can say.
    let len = u16::try_from(text.len()).unwrap_or(0);
    bytes.extend_from_slice(&len.to_be_bytes());
    let text = text.as_bytes().get(..usize::from(len));
    bytes.extend_from_slice(text.unwrap_or_default());
}

pub(super) fn read_text<'a>(bytes: &mut &'a [u8]) -> Option<&'a str> {
    let len = u16::from_be_bytes(take(bytes)?);
    let (text, rest) = bytes.split_at_checked(usize::from(len))?;
    *bytes = rest;
    std::str::from_utf8(text).ok()
}

fn take<const N: usize>(bytes: &mut &[u8]) -> Option<[u8; N]> {
    let (taken, rest) = bytes.split_first_chunk()?;
    *bytes = rest;
    Some(*taken)
}

impl Peer {
    /// Writes the next entries. Returns how many changes they have, and whether they end the list.
    fn write_some(&self, filters: &Filters, last: u64, bytes: &mut Vec<u8>) -> (usize, List) {
        if let Some(number) = self.to_confirm() {
            Entry::Known(number).write(bytes);
        }
        let mut list = self.list();
        if list == List::Begins {
            Entry::Begin.write(bytes);
            list = List::Goes;
        }
        let mut taken = 0_usize;
        let mut told = last;
        for (number, filter) in self.owed() {
            if bytes.len() >= MESSAGE {
                told = number.saturating_sub(1);
                break;
            }
            taken = taken.saturating_add(1);
            let entry = match filters.state(filter) {
                Told::Filter => Entry::Filter(filter),
                Told::Share(identifier, connected) => Entry::Share {
                    identifier,
                    connected,
                    filter,
                },
                Told::Gone => Entry::Gone(filter),
            };
            entry.write(bytes);
        }
        if told == last && list == List::Goes {
            Entry::End.write(bytes);
            list = List::Ended;
        }
        if taken > 0 || told > self.told() || list != self.list() {
            Entry::Told(told).write(bytes);
        }
        (taken, list)
    }
}

impl Links {
    /// Begins to tell a shard the complete list of filters.
    pub(super) fn tell_all(&mut self, shard: u8, session: SessionKey) {
        self.has_news = true;
        let number = self.next_change();
        let Self { peers, filters, .. } = self;
        if let Some(peer) = peers.get_mut(usize::from(shard)) {
            peer.opened(session);
            for filter in filters.names() {
                peer.owe(number, filter);
            }
        }
    }

    /// Notes that a shard knows the changes up to a number. Returns the connections whose SUBACK waited for it.
    pub(super) fn confirmed(&mut self, shard: u8, number: u64) -> Vec<ConnectionId> {
        if let Some(peer) = self.peer(shard) {
            peer.confirm(number);
        }
        self.released()
    }

    /// Returns the connections whose SUBACK waits for no other shard any more.
    pub(super) fn released(&mut self) -> Vec<ConnectionId> {
        let present = self.others().filter(|peer| !peer.is_away());
        let known = present.map(Peer::confirmed).min();
        let known = known.unwrap_or_else(|| self.last_change());
        let mut released = Vec::new();
        while let Some((number, id)) = self.waiting.front().copied()
            && number <= known
        {
            self.waiting.pop_front();
            released.push(id);
        }
        released
    }

    /// Returns whether another shard that is not away does not know all changes.
    pub(super) fn is_unconfirmed(&self) -> bool {
        let last = self.last_change();
        let mut present = self.others().filter(|peer| !peer.is_away());
        present.any(|peer| peer.confirmed() < last)
    }
}

impl<H: Hooks> Broker<H> {
    /// Makes a SUBACK wait until the other shards know the subscription: what a client publishes anywhere after that SUBACK must
    /// find the subscription.
    pub(crate) fn wait_for_links(&mut self, id: ConnectionId) {
        let Some(links) = self.links.as_mut().filter(|links| links.is_unconfirmed()) else {
            return;
        };
        let number = links.last_change();
        links.waiting.push_back((number, id));
        if let Some(connection) = self.connection_mut(id) {
            connection.extra().waits_for_links = true;
        }
    }

    /// Writes what there is to tell to other shards, as far as the links take it.
    pub(crate) fn settle_links(&mut self) {
        let Self {
            links: Some(links),
            sessions,
            connections,
            ..
        } = self
        else {
            return;
        };
        if !links.has_news {
            return;
        }
        let last = links.last_change();
        let (own, mut is_full) = (usize::from(links.own), false);
        let (mut written, mut told) = (Vec::new(), Vec::new());
        let mut bytes = Vec::new();
        for (_, peer) in links
            .peers
            .iter_mut()
            .enumerate()
            .filter(|(at, _)| *at != own)
        {
            let session = peer.session().and_then(|key| sessions.get(key));
            let index = session.and_then(|session| session.connection);
            let Some(connection) = index.and_then(|at| connections.get_mut(at)) else {
                continue;
            };
            loop {
                bytes.clear();
                let reports = peer.busy.write(&mut bytes);
                let (taken, list) = peer.write_some(&links.filters, last, &mut bytes);
                if bytes.is_empty() {
                    break;
                }
                let message = Outgoing::new(TOPIC, QoS::AtMostOnce, &bytes);
                if connection.server.publish(&message) == Err(Refused::Full) {
                    is_full = true;
                    break;
                }
                peer.busy.wrote(reports);
                peer.wrote(taken, list, last);
                written.extend(index);
            }
            if peer.list() == List::Ended {
                told.extend(peer.session());
            }
        }
        links.has_news = is_full;
        for index in written {
            self.mark_ready(index);
        }
        for key in told {
            if let Some(session) = self.sessions.get_mut(key)
                && std::mem::take(&mut session.tells_first)
            {
                self.work_for(key);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn entries_are_read_as_they_were_written() {
        let all = [
            Entry::Begin,
            Entry::Filter("a/+"),
            Entry::Share {
                identifier: 17,
                connected: 3,
                filter: "$share/g/a",
            },
            Entry::End,
            Entry::Gone("b"),
            Entry::Told(u64::MAX),
            Entry::Known(7),
            Entry::Busy(8),
            Entry::Idle(u64::MAX),
        ];
        let mut bytes = Vec::new();
        for entry in all {
            entry.write(&mut bytes);
        }
        let mut rest = &bytes[..];
        let read: Vec<_> = std::iter::from_fn(|| Entry::read(&mut rest)).collect();
        assert_eq!(read, all);
        // No prefix is read as something else.
        for len in 0..bytes.len() {
            let mut rest = &bytes[..len];
            let read: Vec<_> = std::iter::from_fn(|| Entry::read(&mut rest)).collect();
            assert_eq!(read, all[..read.len()]);
        }
        assert_eq!(Entry::read(&mut &[0x40, 1, 2][..]), None);
    }
}
