//! Holds the state of a client while its session exists, whether it is connected or not.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use mqtt_session::proto::{QoS, Version};
use mqtt_session::{Instant, Server, Token};

use crate::holders::EndRank;
use crate::hooks::ClientInfo;
use crate::journal::Recorded;
use crate::keys::ConnectionKey;
use crate::largest::Part;
use crate::level::Shared;
use crate::long_wait::LongWait;
use crate::message::Message;
use crate::pressure::Pressure;
use crate::publisher::Publisher;
use crate::queue::{Identifiers, Queue, Queued};
use crate::retained::Walk;
use crate::rights::Rights;

/// The message that is published when the client's connection ends without DISCONNECT.
#[derive(Debug)]
pub(crate) struct Will {
    pub(crate) message: Message,
    /// How long after the end of the connection the will is due.
    pub(crate) delay: Duration,
}

/// The options of a subscription for its retained messages.
#[derive(Clone, Copy, Debug)]
pub(crate) struct RetainedOptions {
    pub(crate) qos: QoS,
    pub(crate) no_local: bool,
    pub(crate) identifier: Option<u32>,
}

/// A subscription that waits for its retained messages.
#[derive(Debug)]
struct RetainedRequest {
    filter: Arc<str>,
    wanted: RetainedOptions,
    /// Whether the client subscribed more than once: the retained messages are sent twice.
    again: bool,
}

/// The subscriptions whose retained messages are still to be sent.
#[derive(Debug, Default)]
struct RetainedRequests {
    /// The subscriptions by their numbers.
    waiting: BTreeMap<u32, RetainedRequest>,
    /// The subscription whose retained messages are being sent.
    walk: Option<(u32, RetainedOptions, Walk)>,
}

/// Where routing a message has found a session: its index among the receivers of this message.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct RoutingMark {
    pub(crate) message: u32,
    pub(crate) at: u32,
}

/// A session. Its delivery flows are in the [`Server`]: that of its connection, or `parked` while there is no connection.
#[derive(Debug)]
pub(crate) struct Session {
    pub(crate) client_id: Arc<str>,
    /// The hash of the client identifier, for uses that do not store the identifier.
    pub(crate) client_hash: u64,
    /// A number that differs from that of all earlier sessions with the same index.
    pub(crate) serial: u32,
    /// The place of the session among those that are ended first to make room.
    pub(crate) idle: Option<u64>,
    /// A number for the address of its client; 0 if it is not known.
    pub(crate) source: u64,
    /// The place of the session among those from the same address while its client is not connected.
    pub(crate) disconnected_rank: Option<EndRank>,
    /// Whether it has ended, except for subscriptions that are still to be removed.
    pub(crate) is_over: bool,
    /// Whether it is in the list of sessions with messages to send.
    pub(crate) at_work: bool,
    /// The name of its user.
    pub(crate) user_name: Option<Box<str>>,
    pub(crate) version: Version,
    pub(crate) rights: Rights,
    /// The client of the session, if it published retained messages on this connection.
    pub(crate) publisher: Option<Arc<Publisher>>,
    pub(crate) connection: Option<ConnectionKey>,
    pub(crate) parked: Option<Box<Server<'static>>>,
    /// How many bytes `parked` has on the heap.
    pub(crate) held: Part,
    pub(crate) queue: Queue,
    /// Whether the host knows that the queue had no room for a message since it was empty.
    pub(crate) full_queue_reported: bool,
    /// The state of the connected client while its queue is too full.
    pub(crate) pressure: Option<Box<Pressure>>,
    /// Since when publishers wait for it without a longer pause, if they ever did.
    pub(crate) long_wait: Option<Box<LongWait>>,
    /// The filters of its subscriptions as the client wrote them, each with the number of its wish for retained messages.
    pub(crate) filters: BTreeMap<Arc<str>, u32>,
    /// The bytes of the filters.
    pub(crate) filter_bytes: usize,
    /// How many of them count in the bytes of all sessions.
    pub(crate) counted_filter_bytes: usize,
    /// The number of the last subscription that wanted retained messages. It increases even when none waits, because a filter
    /// keeps its number.
    last_wish: u32,
    wishes: Option<Box<RetainedRequests>>,
    pub(crate) will: Option<Box<Will>>,
    /// When the will is due, while the client is not connected.
    pub(crate) will_at: Option<Instant>,
    /// When the session ends, while the client is not connected; `None` for never.
    pub(crate) ends_at: Option<Instant>,
    /// Messages in flight for shared subscriptions: if the session ends, another member gets them.
    pub(crate) shared: BTreeMap<Token, Queued>,
    /// The last messages whose routing has found this session: one routed at once, and one routed in portions.
    pub(crate) found: [RoutingMark; 2],
    /// The last list of several subscription identifiers: queued messages share it.
    identifiers: Option<Arc<[u32]>>,
    /// The shard to which it is the link, if it is one.
    pub(crate) link: Option<u8>,
    /// Whether its messages wait until the link has told the complete list of filters.
    pub(crate) tells_first: bool,
    /// The state of the session in the journal, if it is recorded.
    pub(crate) recorded: Option<Box<Recorded>>,
}

impl Session {
    pub(crate) fn new(client_id: Arc<str>, client_hash: u64, serial: u32) -> Self {
        Self {
            client_id,
            client_hash,
            serial,
            idle: None,
            source: 0,
            disconnected_rank: None,
            is_over: false,
            at_work: false,
            user_name: None,
            version: Version::V311,
            rights: Rights::default(),
            publisher: None,
            connection: None,
            parked: None,
            held: Part::default(),
            queue: Queue::default(),
            full_queue_reported: false,
            pressure: None,
            long_wait: None,
            filters: BTreeMap::new(),
            filter_bytes: 0,
            counted_filter_bytes: 0,
            last_wish: 0,
            wishes: None,
            will: None,
            will_at: None,
            ends_at: None,
            shared: BTreeMap::new(),
            found: [RoutingMark::default(); 2],
            identifiers: None,
            link: None,
            tells_first: false,
            recorded: None,
        }
    }

    pub(crate) fn info(&self) -> ClientInfo<'_> {
        ClientInfo {
            client_id: &self.client_id,
            user_name: self.user_name.as_deref(),
            version: self.version,
        }
    }

    /// Returns whether a subscription excludes a message because its own client has published it. The client identifier decides,
    /// not the session or the connection.
    pub(crate) fn hides(&self, no_local: bool, publisher: Option<u64>) -> bool {
        // 5 [MQTT-3.8.3-3]
        no_local && publisher == Some(self.client_hash)
    }

    /// Removes and returns the will, and subtracts its size from that of all wills.
    pub(crate) fn take_will(&mut self, all: &mut Shared) -> Option<Box<Will>> {
        let will = self.will.take()?;
        all.moves(will.message.size(), 0);
        Some(will)
    }

    /// Returns when its will or its end is due, while its client is not connected.
    pub(crate) fn due(&self) -> Option<Instant> {
        match (self.will_at, self.ends_at) {
            (Some(will), Some(end)) => Some(will.min(end)),
            (will, end) => will.or(end),
        }
    }

    /// Adds a subscription to a filter; with `sends`, its retained messages follow. If the client subscribes again before all of
    /// them are sent, they are sent once more from the first one, with the options of the last subscription. With even more
    /// subscriptions they are still sent twice.
    pub(crate) fn remember_filter(&mut self, filter: &str, wanted: RetainedOptions, sends: bool) {
        let known = self.filters.get_key_value(filter);
        let (filter, wish) = match known {
            Some((filter, wish)) => (Arc::clone(filter), *wish),
            None => {
                self.filter_bytes = self.filter_bytes.saturating_add(filter_size(filter));
                (filter.into(), 0)
            }
        };
        if let Some(wishes) = &mut self.wishes {
            if let Some(old) = wishes.waiting.get_mut(&wish) {
                old.wanted = wanted;
                old.again |= sends;
                return;
            }
            let walk = wishes.walk.as_mut();
            if let Some((_, old, _)) = walk.filter(|(number, _, _)| *number == wish) {
                *old = wanted;
                if sends {
                    wishes.walk = None;
                }
            }
        }
        let mut number = wish;
        if sends {
            self.last_wish = self.last_wish.wrapping_add(1).max(1);
            number = self.last_wish;
            let wishes = self.wishes.get_or_insert_default();
            let filter = Arc::clone(&filter);
            let again = false;
            let wish = RetainedRequest {
                filter,
                wanted,
                again,
            };
            wishes.waiting.insert(number, wish);
        }
        self.filters.insert(filter, number);
    }

    /// Removes a filter. Returns whether the session had it.
    pub(crate) fn forget_filter(&mut self, filter: &str) -> bool {
        let Some(wish) = self.filters.remove(filter) else {
            return false;
        };
        self.filter_bytes = self.filter_bytes.saturating_sub(filter_size(filter));
        // 3.1.1 [MQTT-3.10.4-2], 5 [MQTT-3.10.4-2]: no more messages are added for this subscription.
        if let Some(wishes) = &mut self.wishes {
            wishes.waiting.remove(&wish);
            wishes.walk.take_if(|(number, _, _)| *number == wish);
        }
        true
    }

    /// Notes that its client took or acknowledged a message.
    pub(crate) fn note_taken(&mut self, now: Instant) {
        if let Some(pressure) = &mut self.pressure {
            pressure.note_taken(now);
        }
    }

    /// Returns whether publishers wait while its queue is too full: it has a connection, or it is that of a shard, which comes back.
    pub(crate) const fn is_waited_for(&self) -> bool {
        self.connection.is_some() || self.link.is_some()
    }

    /// Returns whether the session has nothing that its client cannot make again.
    pub(crate) fn is_idle(&self) -> bool {
        let under_way = self.parked.as_ref().map_or(0, |parked| parked.pending());
        self.connection.is_none()
            && self.link.is_none()
            && self.filters.is_empty()
            && self.queue.is_empty()
            && self.will.is_none()
            && under_way == 0
    }

    pub(crate) fn wants_retained(&self) -> bool {
        self.wishes.is_some()
    }

    /// Returns the subscription whose retained messages are to be sent next.
    pub(crate) fn next_walk(&mut self) -> Option<(RetainedOptions, &mut Walk)> {
        let wishes = self.wishes.as_mut()?;
        if wishes.walk.is_none()
            && let Some(mut next) = wishes.waiting.first_entry()
        {
            let (number, wish) = (*next.key(), next.get_mut());
            wishes.walk = Some((number, wish.wanted, Walk::new(&wish.filter)));
            if !std::mem::take(&mut wish.again) {
                next.remove();
            }
        }
        if wishes.walk.is_none() {
            self.wishes = None;
        }
        let (_, wanted, walk) = self.wishes.as_mut()?.walk.as_mut()?;
        Some((*wanted, walk))
    }

    /// Returns the filter of the subscription whose retained messages are being sent.
    pub(crate) fn walked_filter(&self) -> Option<String> {
        let (_, _, walk) = self.wishes.as_ref()?.walk.as_ref()?;
        walk.filter()
    }

    /// Notes that the retained messages of the subscription are sent.
    pub(crate) fn end_walk(&mut self) {
        if let Some(wishes) = &mut self.wishes {
            wishes.walk = None;
        }
    }

    /// Returns identifiers of its subscriptions in a form to be stored with a message.
    pub(crate) fn identifiers(&mut self, identifiers: &[u32]) -> Identifiers {
        if identifiers.len() < 2 {
            return Identifiers::new(identifiers);
        }
        match &self.identifiers {
            Some(last) if last[..] == *identifiers => Identifiers::Many(Arc::clone(last)),
            _ => {
                let new: Arc<[u32]> = identifiers.into();
                self.identifiers = Some(Arc::clone(&new));
                Identifiers::Many(new)
            }
        }
    }
}

/// Returns the bytes of a subscription: its text here and in the tree of filters, and up to three nodes there.
pub(crate) const fn filter_size(filter: &str) -> usize {
    filter.len().saturating_mul(2).saturating_add(FILTER)
}

const FILTER: usize = 600;
