//! What a client has here while its session lives, connected or not.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use mqtt_session::proto::{QoS, Version};
use mqtt_session::{Instant, Server, Token};

use crate::holders::Offer;
use crate::hooks::ClientInfo;
use crate::journal::Recorded;
use crate::message::Message;
use crate::pressure::Pressure;
use crate::publisher::Publisher;
use crate::queue::{Identifiers, Queue, Queued};
use crate::retained::Walk;
use crate::rights::Rights;

/// The message for the case that the client is gone.
#[derive(Debug)]
pub(crate) struct Will {
    pub(crate) message: Message,
    /// How long after the end of the connection it is due (5 \[MQTT-3.1.3-9\]).
    pub(crate) delay: Duration,
}

/// How a subscription wants its retained messages.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Wanted {
    pub(crate) qos: QoS,
    pub(crate) no_local: bool,
    pub(crate) identifier: Option<u32>,
}

/// A subscription that waits for its retained messages.
#[derive(Debug)]
struct Wish {
    filter: Arc<str>,
    wanted: Wanted,
    /// It was asked for more than once: they come twice.
    again: bool,
}

/// The retained messages that a session is still to get.
#[derive(Debug, Default)]
struct Wishes {
    /// By their numbers.
    waiting: BTreeMap<u32, Wish>,
    /// The one that gets them now.
    walk: Option<(u32, Wanted, Walk)>,
}

/// Where a message that is routed found a session before: among the receivers of this message.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Mark {
    pub(crate) message: u32,
    pub(crate) at: u32,
}

/// A session. The delivery flows are in the [`Server`]: the one of its connection, or `parked` while there is none.
#[derive(Debug)]
pub(crate) struct Session {
    pub(crate) client_id: Arc<str>,
    /// Stands for the client identifier where it need not be kept.
    pub(crate) client_hash: u64,
    /// No other session that had its place has the same.
    pub(crate) serial: u32,
    /// Its place among those that give way first.
    pub(crate) idle: Option<u64>,
    /// Stands for the address of its client; 0 if that is not known.
    pub(crate) source: u64,
    /// While its client is away: its place among the sessions from the same address.
    pub(crate) away: Option<Offer>,
    /// It has ended, but for subscriptions that are still to be removed.
    pub(crate) is_over: bool,
    /// It is in the list of those with more to send.
    pub(crate) at_work: bool,
    /// The user that it belongs to.
    pub(crate) user_name: Option<Box<str>>,
    pub(crate) version: Version,
    pub(crate) rights: Rights,
    /// Its client, if it published retained messages on this connection.
    pub(crate) publisher: Option<Arc<Publisher>>,
    pub(crate) connection: Option<u32>,
    pub(crate) parked: Option<Box<Server<'static>>>,
    /// What `parked` has on the heap.
    pub(crate) held: usize,
    pub(crate) queue: Queue,
    /// Its queue is too full, and its client is connected.
    pub(crate) pressure: Option<Box<Pressure>>,
    /// The filters it subscribes to, as the client wrote them, and the number of the wish for retained messages.
    pub(crate) filters: BTreeMap<Arc<str>, u32>,
    /// What they take.
    pub(crate) filter_bytes: usize,
    /// Numbers the subscriptions that want retained messages. It counts on when none waits: a filter keeps its number.
    last_wish: u32,
    wishes: Option<Box<Wishes>>,
    pub(crate) will: Option<Box<Will>>,
    /// While away: when the will is due.
    pub(crate) will_at: Option<Instant>,
    /// While away: when the session ends; `None` is never.
    pub(crate) ends_at: Option<Instant>,
    /// Under way for shared subscriptions: if the session ends, another member gets them.
    pub(crate) shared: BTreeMap<Token, Queued>,
    /// The last messages that found this session: one routed at once, and one routed in portions.
    pub(crate) found: [Mark; 2],
    /// The last several identifiers that went with a message: what is queued shares them.
    identifiers: Option<Arc<[u32]>>,
    /// What the journal knows of it, if it is recorded.
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
            away: None,
            is_over: false,
            at_work: false,
            user_name: None,
            version: Version::V311,
            rights: Rights::default(),
            publisher: None,
            connection: None,
            parked: None,
            held: 0,
            queue: Queue::default(),
            pressure: None,
            filters: BTreeMap::new(),
            filter_bytes: 0,
            last_wish: 0,
            wishes: None,
            will: None,
            will_at: None,
            ends_at: None,
            shared: BTreeMap::new(),
            found: [Mark::default(); 2],
            identifiers: None,
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

    /// Whether a subscription hides a message from its client, who published it: the client counts, not its session or
    /// connection.
    pub(crate) fn hides(&self, no_local: bool, publisher: Option<u64>) -> bool {
        // 5 [MQTT-3.8.3-3]
        no_local && publisher == Some(self.client_hash)
    }

    /// Takes the will out of the session, and what it counts out of that of all.
    pub(crate) fn take_will(&mut self, all: &mut usize) -> Option<Box<Will>> {
        let will = self.will.take()?;
        *all = all.saturating_sub(will.message.size());
        Some(will)
    }

    /// When something of it is due while it is away.
    pub(crate) fn due(&self) -> Option<Instant> {
        match (self.will_at, self.ends_at) {
            (Some(will), Some(end)) => Some(will.min(end)),
            (will, end) => will.or(end),
        }
    }

    /// Subscribes to a filter; if `sends`, retained messages follow. Asked again before all of them came, they come once
    /// more from the first, as the last of the subscriptions says; asked more often than that, they still come twice.
    pub(crate) fn remember_filter(&mut self, filter: &str, wanted: Wanted, sends: bool) {
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
            let wish = Wish {
                filter,
                wanted,
                again,
            };
            wishes.waiting.insert(number, wish);
        }
        self.filters.insert(filter, number);
    }

    /// Whether the filter was subscribed to.
    pub(crate) fn forget_filter(&mut self, filter: &str) -> bool {
        let Some(wish) = self.filters.remove(filter) else {
            return false;
        };
        self.filter_bytes = self.filter_bytes.saturating_sub(filter_size(filter));
        // 3.1.1 [MQTT-3.10.4-2], 5 [MQTT-3.10.4-2]: nothing more is added for this subscription.
        if let Some(wishes) = &mut self.wishes {
            wishes.waiting.remove(&wish);
            wishes.walk.take_if(|(number, _, _)| *number == wish);
        }
        true
    }

    /// Its client took a message, or acknowledged one.
    pub(crate) fn took(&mut self, now: Instant) {
        if let Some(pressure) = &mut self.pressure {
            pressure.took(now);
        }
    }

    /// Whether nothing is lost with it but what its client can make again.
    pub(crate) fn is_idle(&self) -> bool {
        let under_way = self.parked.as_ref().map_or(0, |parked| parked.pending());
        self.connection.is_none()
            && self.filters.is_empty()
            && self.queue.is_empty()
            && self.will.is_none()
            && under_way == 0
    }

    pub(crate) fn wants_retained(&self) -> bool {
        self.wishes.is_some()
    }

    /// The subscription whose retained messages come next.
    pub(crate) fn next_walk(&mut self) -> Option<(Wanted, &mut Walk)> {
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

    /// The filter of the subscription that gets its retained messages now.
    pub(crate) fn walked_filter(&self) -> Option<String> {
        let (_, _, walk) = self.wishes.as_ref()?.walk.as_ref()?;
        walk.filter()
    }

    /// The subscription has its retained messages.
    pub(crate) fn end_walk(&mut self) {
        if let Some(wishes) = &mut self.wishes {
            wishes.walk = None;
        }
    }

    /// Identifiers of its subscriptions, to be kept with a message.
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

/// What a subscription takes: its text here and in the tree of filters, and there up to three nodes.
pub(crate) const fn filter_size(filter: &str) -> usize {
    filter.len().saturating_mul(2).saturating_add(FILTER)
}

const FILTER: usize = 600;
