//! Decides which limits the queues of receivers apply to a message, by its publisher.

use mqtt_session::proto::{QoS, ReasonCode};

use crate::broker::Broker;
use crate::hooks::Hooks;
use crate::keys::SessionKey;
use crate::pressure::WaitsFor;
use crate::queue::Room;

/// The limits that queues apply to the message that is being routed, and the receiver for which its publisher waits.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct RoutingLimits {
    pub(crate) room: Room,
    /// The fullest of the receivers that are too full, and its level.
    pub(crate) by: Option<(WaitsFor, usize)>,
    /// For a message of another shard: that shard, and the hash of the topic.
    pub(crate) from: Option<(u8, u64)>,
    /// Whether its publisher waits for receivers of other shards.
    pub(crate) waits_elsewhere: bool,
    /// Whether the queue of another shard had no room for it.
    pub(crate) is_incomplete: bool,
}

impl RoutingLimits {
    /// For a message whose publisher does not wait.
    pub(crate) const NONE: Self = Self {
        room: Room::Own,
        by: None,
        from: None,
        waits_elsewhere: false,
        is_incomplete: false,
    };

    /// For a message that was taken from another queue.
    pub(crate) const MOVED: Self = Self {
        room: Room::Any,
        ..Self::NONE
    };

    pub(crate) const fn by(&self) -> Option<WaitsFor> {
        match self.by {
            Some((by, _)) => Some(by),
            None => None,
        }
    }

    /// Returns the answer to a message: a client of MQTT 5 is told at QoS 1 that a shard does not get it. At QoS 2 the answer
    /// would free the packet identifier, which is recorded with the message for the other receivers.
    pub(crate) fn answer(&self, qos: QoS, reason: ReasonCode) -> ReasonCode {
        let is_of_client = self.from.is_none() && qos == QoS::AtLeastOnce;
        if self.is_incomplete && is_of_client && !reason.is_error() {
            ReasonCode::QuotaExceeded
        } else {
            reason
        }
    }
}

impl<H: Hooks> Broker<H> {
    /// Returns the limits that queues apply to messages of this session.
    pub(crate) fn limits_for_publisher(&self, key: SessionKey) -> RoutingLimits {
        let publisher = self.sessions.get(key);
        let Some(publisher) = publisher.filter(|_| self.config.slow_consumer_ms > 0) else {
            return RoutingLimits::NONE;
        };
        let pressure = publisher.pressure.as_ref();
        RoutingLimits {
            // Withheld acknowledgements do not slow down a publisher that is always read, so the limit is lower.
            room: pressure.map_or(Room::Any, |_| Room::Limited),
            // A receiver that is given up is not looked at again, so nothing would end its wait for those that wait for it.
            waits_elsewhere: pressure.is_none_or(|pressure| !pressure.is_slow()),
            ..RoutingLimits::NONE
        }
    }

    /// Returns the limits that queues apply to messages of another shard to this topic.
    pub(crate) fn limits_for_shard(&self, shard: u8, topic: &[u8]) -> RoutingLimits {
        if self.config.slow_consumer_ms == 0 {
            return RoutingLimits::NONE;
        }
        RoutingLimits {
            room: Room::Limited,
            from: Some((shard, self.hash_of_topic(topic))),
            ..RoutingLimits::NONE
        }
    }
}
