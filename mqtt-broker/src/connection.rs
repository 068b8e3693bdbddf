//! The state of one connection while its transport is open.

use mqtt_session::proto::Connect;
use mqtt_session::{Instant, Server};

use crate::frames::Frames;
use crate::holders::EndRank;
use crate::keys::{ConnectionKey, SessionKey};
use crate::largest::Part;
use crate::pressure::WithheldQueue;
use crate::subscribe::{Answer, Request};

/// Names a connection until the host says that it is closed. Never used again.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct ConnectionId {
    pub(crate) index: ConnectionKey,
    pub(crate) serial: u32,
}

impl ConnectionId {
    /// Returns a small number for tables: below [`crate::Config::connections`] and the number of connections that give way
    /// ([`crate::Broker::was_closed_for_room`]), unlike that of any other connection that is not closed.
    #[must_use]
    pub fn index(self) -> usize {
        self.index.index()
    }
}

pub(crate) struct Connection {
    pub(crate) server: Server<'static>,
    pub(crate) serial: u32,
    pub(crate) session: Option<SessionKey>,
    /// How many messages at QoS 1 and 2 may be sent to the client without its acknowledgement.
    pub(crate) window: usize,
    /// The time of this connection's entry in the timers.
    pub(crate) timer: Option<Instant>,
    /// Whether the connection is in the list of those that are ready.
    pub(crate) ready: bool,
    pub(crate) ended: bool,
    /// With fewer outgoing bytes than this, another message does not make it ready.
    pub(crate) gathers: u32,
    /// Whether the broker ended it to make room for another connection.
    pub(crate) closed_for_room: bool,
    /// A number for the address of the client; 0 if the address is not known.
    pub(crate) source: u64,
    /// How many bytes the machine of the connection has on the heap.
    pub(crate) heap_bytes: usize,
    /// The received bytes that the broker has not accepted, if they are many.
    pub(crate) input: Part,
    /// The place of the connection among those that are not accepted yet.
    pub(crate) pending: Option<EndRank>,
    /// Counts the packets that the transport took.
    pub(crate) frames: Frames,
    pub(crate) extra: Option<Box<Extra>>,
}

/// State that few connections need, or that a connection needs for a short time.
#[derive(Default)]
pub(crate) struct Extra {
    /// The CONNECT that awaits a decision.
    pub(crate) connect: Option<Box<[u8]>>,
    /// The authentication method of an accepted CONNECT (5).
    pub(crate) method: Option<Box<str>>,
    /// Whether the client is a bridge according to its CONNECT.
    pub(crate) bridge: bool,
    /// An answer that had no room.
    pub(crate) unanswered: Option<Answer>,
    /// Whether the answer waits until other shards know the subscription.
    pub(crate) waits_for_links: bool,
    /// A SUBSCRIBE or UNSUBSCRIBE that is not done.
    pub(crate) request: Option<Box<Request>>,
    /// Whether the next packet waits, because a message of this connection goes to many receivers in portions.
    pub(crate) message_in_portions: bool,
    /// The messages of this connection that are not acknowledged because a receiver is too full.
    pub(crate) withheld: Option<WithheldQueue>,
}

impl Extra {
    /// Returns the state that an accepted CONNECT leaves. `None` if it leaves none.
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
    pub(crate) const fn id(&self, index: ConnectionKey) -> ConnectionId {
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
