//! What the broker has of one connection while its transport is open.

use mqtt_session::proto::Connect;
use mqtt_session::proto::num::to_usize;
use mqtt_session::{Instant, Server};

use crate::frames::Frames;
use crate::holders::EndRank;
use crate::largest::Part;
use crate::pressure::WithheldQueue;
use crate::subscribe::{Answer, Request};

/// Names a connection until the host says that it is closed. Never used again.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct ConnectionId {
    pub(crate) index: u32,
    pub(crate) serial: u32,
}

impl ConnectionId {
    /// A small number for tables: below [`crate::Config::connections`] and the number of connections that give way
    /// ([`crate::Broker::was_closed_for_room`]), unlike that of any other connection that is not closed.
    #[must_use]
    pub fn index(self) -> usize {
        to_usize(self.index)
    }
}

pub(crate) struct Connection {
    pub(crate) server: Server<'static>,
    pub(crate) serial: u32,
    pub(crate) session: Option<u32>,
    /// How many messages of QoS 1 and 2 the client lets be under way.
    pub(crate) window: usize,
    /// Its entry in the timers.
    pub(crate) timer: Option<Instant>,
    /// It is in the list of those that are ready.
    pub(crate) ready: bool,
    pub(crate) ended: bool,
    /// With fewer outgoing bytes than this, another message does not make it ready.
    pub(crate) gathers: u32,
    /// Another took its place.
    pub(crate) closed_for_room: bool,
    /// Stands for its address; 0 if that is not known.
    pub(crate) source: u64,
    /// What its machine has on the heap.
    pub(crate) heap_bytes: usize,
    /// The received bytes that the broker has not accepted, if they are many.
    pub(crate) input: Part,
    /// While it is not accepted: its place among those.
    pub(crate) pending: Option<EndRank>,
    /// Counts the packets that the transport took.
    pub(crate) frames: Frames,
    pub(crate) extra: Option<Box<Extra>>,
}

/// What few connections need, or not for long.
#[derive(Default)]
pub(crate) struct Extra {
    /// The CONNECT that awaits a decision.
    pub(crate) connect: Option<Box<[u8]>>,
    /// The authentication method of an accepted CONNECT (5).
    pub(crate) method: Option<Box<str>>,
    /// CONNECT said that the client is a bridge.
    pub(crate) bridge: bool,
    /// An answer that had no room.
    pub(crate) unanswered: Option<Answer>,
    /// The answer waits until other shards know the subscription.
    pub(crate) waits_for_links: bool,
    /// A SUBSCRIBE or UNSUBSCRIBE that is not done.
    pub(crate) request: Option<Box<Request>>,
    /// A message of this connection is on its way to many: the next packet waits.
    pub(crate) message_in_portions: bool,
    /// Its messages that are not acknowledged because a receiver is too full.
    pub(crate) withheld: Option<WithheldQueue>,
}

impl Extra {
    /// What an accepted CONNECT leaves, if it is anything.
    pub(crate) fn of(connect: &Connect<'_>) -> Option<Box<Self>> {
        let method = connect.properties.authentication_method();
        (connect.bridge || method.is_some()).then(|| {
            Box::new(Self {
                method: method.map(Into::into),
                bridge: connect.bridge,
                ..Self::default()
            })
        })
    }
}

impl Connection {
    pub(crate) const fn id(&self, index: u32) -> ConnectionId {
        let serial = self.serial;
        ConnectionId { index, serial }
    }

    pub(crate) const fn is(&self, id: ConnectionId) -> bool {
        self.serial == id.serial
    }

    pub(crate) fn extra(&mut self) -> &mut Extra {
        self.extra.get_or_insert_default()
    }
}
