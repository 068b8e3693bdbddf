//! What the server said it supports (5, sections 3.2.2.3.4 to 3.2.2.3.13), and what a client must therefore not send.

use mqtt_proto::{ConnAck, QoS, ReasonCode, Subscription};

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

    pub(crate) fn by(connack: &ConnAck<'_>) -> Self {
        let properties = &connack.properties;
        let qos = match properties.maximum_qos() {
            Some(false) => QoS::AtMostOnce,
            Some(true) => QoS::AtLeastOnce,
            None => QoS::ExactlyOnce,
        };
        let available = [
            (properties.retain_available(), RETAIN),
            (properties.wildcard_subscription_available(), WILDCARDS),
            (properties.subscription_identifier_available(), IDENTIFIERS),
            (properties.shared_subscription_available(), SHARED),
        ];
        let missing = available.into_iter().filter(|(it, _)| *it == Some(false));
        Self {
            qos,
            missing: missing.fold(0, |all, (_, feature)| all | feature),
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
