//! Sends the queued messages of a session, and restores messages that an earlier process had sent.

use mqtt_session::proto::{Properties, QoS, Version};
use mqtt_session::{Instant, Outgoing, Refused, Server, ServerEvent, Step, Token};
use smallvec::SmallVec;

use crate::broker::Broker;
use crate::connection::ConnectionId;
use crate::deliver::{delivery_steps, send};
use crate::hooks::Hooks;
use crate::keys::{ConnectionKey, SessionKey};
use crate::message::forwarded;
use crate::queue::Queued;
use crate::rights::first_is_forbidden;
use crate::shards::is_for_keeping;
use crate::stall::Tried;

/// The steps for a queued message that its client may not receive.
const FORBIDDEN_STEPS: usize = 4;

/// The first message of a queue that can be worked on.
enum First {
    /// The client may not receive it.
    Forbidden,
    Expired,
    /// The message can be sent to this connection.
    Due(ConnectionKey),
}

impl<H: Hooks> Broker<H> {
    /// Sends the queued messages of a session as far as its window, its buffer and its share of the turn allow.
    pub(crate) fn pump(&mut self, key: SessionKey, now: Instant) {
        while let Some(first) = self.first_in_queue(key, now) {
            match first {
                First::Forbidden => {
                    self.meter.spend(FORBIDDEN_STEPS);
                    self.drop_first(key);
                }
                First::Expired => {
                    let expired = &mut self.statistics.publish_expired;
                    *expired = expired.saturating_add(1);
                    self.drop_first(key);
                }
                First::Due(index) => {
                    if !self.send_first(key, index, now) {
                        break;
                    }
                }
            }
        }
        self.release_if_shorter(key);
    }

    /// Handles the ends of messages that the machine decided without a packet of the client: a large message at QoS 0 ends when the
    /// transport has taken it.
    pub(crate) fn take_ends(&mut self, id: ConnectionId, now: Instant) {
        while let Some(connection) = self.connection_mut(id)
            && let Ok(Step::Packet {
                consumed: 0,
                event: Some(ServerEvent::Ended { token, how }),
            }) = connection.server.receive(&[], now)
        {
            // Changes of the machine are recorded before their results.
            self.take_changes(id.index);
            self.handle(id, ServerEvent::Ended { token, how }, &[], now);
        }
    }

    /// Returns what to do with the first message of a session's queue. Returns `None` if there is nothing to do now.
    fn first_in_queue(&mut self, key: SessionKey, now: Instant) -> Option<First> {
        let current = self.current_rights();
        let session = self.sessions.get_mut(key)?;
        let index = session.connection.filter(|_| !session.tells_first)?;
        let connection = self.connections.get(index)?;
        let is_stalled = session.queue.is_stalled();
        let Some(item) = session.queue.front() else {
            let links = self.links.as_ref();
            let is_stale = |shard| links.is_some_and(|links| links.is_stale(shard));
            if session.link.is_some_and(is_stale)
                || session.wants_retained() && connection.is_answered()
            {
                self.work_for(key);
            }
            return None;
        };
        // 5 [MQTT-3.3.2-5], [MQTT-4.3.3-7] and [MQTT-4.3.3-13]: only queued messages expire, not messages that were sent.
        // A retained message for another shard does not expire: that shard would still retain the older message of the topic.
        let is_kept = || session.link.is_some() && is_for_keeping(item.identifiers.as_slice());
        let has_expired = item.message.has_expired(now) && !is_kept();
        if !is_stalled {
            if !self.meter.has_share() {
                self.work_for(key);
                return None;
            }
            if !session.rights.are_full(self.rights)
                && first_is_forbidden(session, current, &mut self.hooks)
            {
                return Some(First::Forbidden);
            }
        }
        if has_expired {
            return Some(First::Expired);
        }
        (!is_stalled).then_some(First::Due(index))
    }

    fn drop_first(&mut self, key: SessionKey) {
        let session = self.sessions.get_mut(key);
        let dropped = session.and_then(|session| session.queue.pop(&mut self.queued));
        if let Some(item) = dropped {
            self.record_dropped(key, &item);
        }
    }

    /// Sends the first message of a session's queue. Returns `false` if its connection does not take it now.
    fn send_first(&mut self, key: SessionKey, index: ConnectionKey, now: Instant) -> bool {
        let share = self.connection_share();
        let session = self.sessions.get_mut(key);
        let connection = self.connections.get_mut(index);
        let (Some(session), Some(connection)) = (session, connection) else {
            return false;
        };
        let Some(item) = session.queue.front() else {
            return false;
        };
        let publish = item.message.publish();
        let message = item.outgoing(&publish);
        let identifiers = item.identifiers.as_slice();
        self.meter
            .spend(delivery_steps(&message).saturating_add(identifiers.len() / 8));
        let scarce = self.heap_bytes > self.config.connection_bytes_total;
        let sent = if scarce && connection.holds_more_than(share) {
            Err(Refused::Full)
        } else {
            let remaining = item.message.remaining(now);
            send(connection, &message, remaining, identifiers)
        };
        let steps = connection.recount(&mut self.heap_bytes);
        self.meter.spend(steps);
        if sent == Err(Refused::Full) {
            let tried = Tried {
                len: item.message.len(),
                head: item.message.head(),
                unsent: connection.server.unsent(),
                pending: connection.server.pending(),
                window: connection.window,
            };
            session.queue.stalls(&tried);
            return false;
        }
        session.note_taken(now);
        let Some(item) = session.queue.pop(&mut self.queued) else {
            return false;
        };
        // 5 [MQTT-4.8.2-4]: the message stays with this client until the client acknowledges it.
        if let (Ok(Some(token)), Some(_)) = (sent, item.share) {
            session.shared.insert(token, item.clone());
        }
        match sent {
            Ok(Some(token)) if item.qos > QoS::AtMostOnce => self.record_pumped(key, &item, token),
            Ok(_) => {}
            Err(_) => self.record_dropped(key, &item),
        }
        let message = &item.message;
        let payload = message.len().saturating_sub(message.head());
        self.sent_or_dropped(key, Some(index), sent, payload);
        true
    }
}

/// Restores to a session's machine a message that it had sent in an earlier process.
pub(crate) fn restore(
    server: &mut Server<'static>,
    item: &Queued,
    number: u32,
    version: Version,
) -> Result<Token, Refused> {
    let publish = item.message.publish();
    let message = item.outgoing(&publish);
    let identifiers = item.identifiers.as_slice().iter().copied();
    let properties = if version.is_v5() {
        forwarded(&publish.properties, None, identifiers)
    } else {
        SmallVec::new()
    };
    let message = Outgoing {
        properties: Properties::from(&properties[..]),
        ..message
    };
    server.restore_message(number, &message, version)
}
