//! What the server said it supports (5, sections 3.2.2.3.4 to 3.2.2.3.13), and what a client must therefore not send.

use mqtt_proto::{PropertyId, QoS, ReasonCode, Subscription};

use crate::error::Refused;
use crate::event::Outgoing;

/// As small as can be: every session has one.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Supported {
    qos: QoS,
    /// A bit for each of the features below that the server does not have.
    missing: u8,
}

const RETAIN: u8 = 1;
const WILDCARDS: u8 = 2;
const IDENTIFIERS: u8 = 4;
const SHARED: u8 = 8;

impl Supported {
    pub(crate) const ALL: Self = Self {
        qos: QoS::ExactlyOnce,
        missing: 0,
    };

    /// The server's CONNACK has this property.
    pub(crate) const fn told(&mut self, property: PropertyId, value: u32) {
        let feature = match property {
            PropertyId::MaximumQoS if value == 0 => return self.qos = QoS::AtMostOnce,
            PropertyId::MaximumQoS => return self.qos = QoS::AtLeastOnce,
            PropertyId::RetainAvailable => RETAIN,
            PropertyId::WildcardSubscriptionAvailable => WILDCARDS,
            PropertyId::SubscriptionIdentifierAvailable => IDENTIFIERS,
            PropertyId::SharedSubscriptionAvailable => SHARED,
            _ => return,
        };
        if value == 0 {
            self.missing |= feature;
        }
    }

    const fn has(self, feature: u8) -> bool {
        self.missing & feature == 0
    }

    #[inline]
    pub(crate) fn publish(&self, message: &Outgoing<'_>) -> Result<(), Refused> {
        // 5 [MQTT-3.2.2-11]
        if message.qos > self.qos {
            return Err(Refused::NotSupportedByServer(ReasonCode::QoSNotSupported));
        }
        // 5 [MQTT-3.2.2-14]
        if message.retain && !self.has(RETAIN) {
            return Err(Refused::NotSupportedByServer(
                ReasonCode::RetainNotSupported,
            ));
        }
        Ok(())
    }

    pub(crate) fn subscribe(
        &self,
        filters: &[Subscription<'_>],
        identifier: bool,
    ) -> Result<(), Refused> {
        let refuse = |reason| Err(Refused::NotSupportedByServer(reason));
        if identifier && !self.has(IDENTIFIERS) {
            return refuse(ReasonCode::SubscriptionIdentifiersNotSupported);
        }
        for subscription in filters {
            if !self.has(SHARED) && subscription.filter.is_shared() {
                return refuse(ReasonCode::SharedSubscriptionsNotSupported);
            }
            if !self.has(WILDCARDS)
                && subscription
                    .filter
                    .as_bytes()
                    .iter()
                    .any(|b| matches!(b, b'+' | b'#'))
            {
                return refuse(ReasonCode::WildcardSubscriptionsNotSupported);
            }
        }
        Ok(())
    }
}
