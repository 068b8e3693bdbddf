//! Methods of [`View`] that return its fields in the types of packets. If the view was read without a fault, all its fields are
//! valid. In a view with a fault, an invalid field is replaced by the first packet identifier, by success, or by an empty
//! value.

use crate::connect::Connect;
use crate::id::{Delivery, PacketId, TopicAlias};
use crate::list::List;
use crate::properties::Properties;
use crate::publish::Publish;
use crate::subscribe::Subscription;
use crate::topic::{TopicFilter, TopicName};
use crate::wire::{ReasonCode, View};

impl<'a> View<'a> {
    /// Returns the packet identifier.
    #[must_use]
    #[inline]
    pub fn packet_id(&self) -> PacketId {
        PacketId::new(self.id).unwrap_or(PacketId::FIRST)
    }

    /// Returns the topic of PUBLISH.
    #[must_use]
    pub const fn topic_name(&self) -> TopicName<'a> {
        TopicName::validated(self.topic)
    }

    /// Returns the properties.
    #[must_use]
    #[inline]
    pub const fn properties(&self) -> Properties<'a> {
        Properties::validated(self.properties)
    }

    /// Returns the reason code. For CONNACK see [`Self::connack_reason`].
    #[must_use]
    #[inline]
    pub fn reason_code(&self) -> ReasonCode {
        ReasonCode::new(self.reason).unwrap_or_default()
    }

    /// Returns the reason code of CONNACK. A return code of 3.1.1 becomes the reason code with the same meaning.
    #[must_use]
    pub fn connack_reason(&self, v5: bool) -> ReasonCode {
        let reason = if cfg!(feature = "v5") && v5 {
            ReasonCode::new(self.reason)
        } else {
            ReasonCode::from_return_code(self.reason)
        };
        reason.unwrap_or_default()
    }

    /// Returns the codes of SUBACK or UNSUBACK.
    #[must_use]
    #[inline]
    pub const fn codes(&self) -> List<'a, ReasonCode> {
        List::validated(self.body)
    }

    /// Returns the filters of SUBSCRIBE with their options.
    #[must_use]
    #[inline]
    pub const fn subscriptions(&self) -> List<'a, Subscription<'a>> {
        List::validated(self.body)
    }

    /// Returns the filters of UNSUBSCRIBE.
    #[must_use]
    #[inline]
    pub const fn filters(&self) -> List<'a, TopicFilter<'a>> {
        List::validated(self.body)
    }

    /// Returns the CONNECT.
    #[must_use]
    pub fn connect(&self) -> Connect<'a> {
        Connect::of(self)
    }

    /// Returns the PUBLISH.
    #[must_use]
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
