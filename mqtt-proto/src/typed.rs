//! The fields of a view as the types of packets. A view that was read without a fault has them all; in one that was not, those
//! that cannot be are replaced by the first or the empty one.

use crate::connect::Connect;
use crate::id::{Delivery, PacketId, TopicAlias};
use crate::list::List;
use crate::properties::Properties;
use crate::publish::Publish;
use crate::subscribe::Subscription;
use crate::topic::{TopicFilter, TopicName};
use crate::wire::{ReasonCode, View};

impl<'a> View<'a> {
    /// The packet identifier.
    #[must_use]
    #[inline]
    pub fn packet_id(&self) -> PacketId {
        PacketId::new(self.id).unwrap_or(PacketId::FIRST)
    }

    /// The topic of PUBLISH.
    #[must_use]
    pub const fn topic_name(&self) -> TopicName<'a> {
        TopicName::validated(self.topic)
    }

    /// The properties.
    #[must_use]
    #[inline]
    pub const fn properties(&self) -> Properties<'a> {
        Properties::validated(self.properties)
    }

    /// The reason code; of CONNACK see [`Self::connack_reason`].
    #[must_use]
    #[inline]
    pub fn reason_code(&self) -> ReasonCode {
        ReasonCode::new(self.reason).unwrap_or_default()
    }

    /// The reason code of CONNACK, into which the return code of 3.1.1 is mapped.
    #[must_use]
    pub fn connack_reason(&self, v5: bool) -> ReasonCode {
        let reason = if cfg!(feature = "v5") && v5 {
            ReasonCode::new(self.reason)
        } else {
            ReasonCode::from_return_code(self.reason)
        };
        reason.unwrap_or_default()
    }

    /// The codes of SUBACK or UNSUBACK.
    #[must_use]
    #[inline]
    pub const fn codes(&self) -> List<'a, ReasonCode> {
        List::validated(self.body)
    }

    /// The filters of SUBSCRIBE with their options.
    #[must_use]
    #[inline]
    pub const fn subscriptions(&self) -> List<'a, Subscription<'a>> {
        List::validated(self.body)
    }

    /// The filters of UNSUBSCRIBE.
    #[must_use]
    #[inline]
    pub const fn filters(&self) -> List<'a, TopicFilter<'a>> {
        List::validated(self.body)
    }

    /// CONNECT.
    #[must_use]
    pub fn connect(&self) -> Connect<'a> {
        Connect::of(self)
    }

    /// PUBLISH.
    #[must_use]
    #[inline]
    pub fn publish(&self) -> Publish<'a> {
        let delivery = match self.flags & 6 {
            0 => Delivery::AtMostOnce,
            2 => Delivery::AtLeastOnce(self.packet_id()),
            _ => Delivery::ExactlyOnce(self.packet_id()),
        };
        Publish {
            dup: self.flags & 8 != 0,
            retain: self.flags & 1 != 0,
            delivery,
            topic: self.topic_name(),
            topic_alias: TopicAlias::new(self.alias),
            properties: self.properties(),
            payload: self.body,
        }
    }
}
