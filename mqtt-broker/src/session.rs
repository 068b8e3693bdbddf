//! What a client has here while its session lives, connected or not.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use mqtt_session::proto::Version;
use mqtt_session::{Instant, Server, Token};

use crate::hooks::ClientInfo;
use crate::message::Message;
use crate::queue::{Queue, Queued};

/// The message for the case that the client is gone.
#[derive(Debug)]
pub(crate) struct Will {
    pub(crate) message: Message,
    /// How long after the end of the connection it is due (5 \[MQTT-3.1.3-9\]).
    pub(crate) delay: Duration,
}

/// A session. The delivery flows are in the [`Server`]: the one of its connection, or `parked` while there is none.
#[derive(Debug)]
pub(crate) struct Session {
    pub(crate) client_id: Arc<str>,
    pub(crate) user_name: Option<Box<str>>,
    pub(crate) version: Version,
    pub(crate) connection: Option<u32>,
    pub(crate) parked: Option<Box<Server<'static>>>,
    pub(crate) queue: Queue,
    /// The filters it subscribes to, as the client wrote them.
    pub(crate) filters: BTreeSet<Box<str>>,
    pub(crate) will: Option<Box<Will>>,
    /// While away: when the will is due.
    pub(crate) will_at: Option<Instant>,
    /// While away: when the session ends; `None` is never.
    pub(crate) ends_at: Option<Instant>,
    /// Under way for shared subscriptions: if the session ends, another member gets them.
    pub(crate) shared: Vec<(Token, Queued)>,
    /// The last publish that found this session, and where it is among its targets.
    pub(crate) found: (u64, usize),
}

impl Session {
    pub(crate) fn new(client_id: Arc<str>) -> Self {
        Self {
            client_id,
            user_name: None,
            version: Version::V311,
            connection: None,
            parked: None,
            queue: Queue::default(),
            filters: BTreeSet::new(),
            will: None,
            will_at: None,
            ends_at: None,
            shared: Vec::new(),
            found: (0, 0),
        }
    }

    pub(crate) fn info(&self) -> ClientInfo<'_> {
        ClientInfo {
            client_id: &self.client_id,
            user_name: self.user_name.as_deref(),
            version: self.version,
        }
    }

    /// When something of it is due while it is away.
    pub(crate) fn due(&self) -> Option<Instant> {
        match (self.will_at, self.ends_at) {
            (Some(will), Some(end)) => Some(will.min(end)),
            (will, end) => will.or(end),
        }
    }
}
