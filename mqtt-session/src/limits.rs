//! What the server said it supports (5, sections 3.2.2.3.4 to 3.2.2.3.13), and what a client must therefore not send.

use mqtt_proto::{ConnAck, QoS, ReasonCode, Subscription};

use crate::error::Refused;
use crate::event::Outgoing;

#[derive(Clone, Copy, Debug)]
pub(crate) struct Supported {
    qos: QoS,
    retain: bool,
    wildcards: bool,
    identifiers: bool,
    shared: bool,
}

impl Supported {
    pub(crate) const ALL: Self = Self {
        qos: QoS::ExactlyOnce,
        retain: true,
        wildcards: true,
        identifiers: true,
        shared: true,
    };

    pub(crate) fn by(connack: &ConnAck<'_>) -> Self {
        let properties = &connack.properties;
        let qos = match properties.maximum_qos() {
            Some(false) => QoS::AtMostOnce,
            Some(true) => QoS::AtLeastOnce,
            None => QoS::ExactlyOnce,
        };
        Self {
            qos,
            retain: properties.retain_available().unwrap_or(true),
            wildcards: properties.wildcard_subscription_available().unwrap_or(true),
            identifiers: properties
                .subscription_identifier_available()
                .unwrap_or(true),
            shared: properties.shared_subscription_available().unwrap_or(true),
        }
    }

    #[inline]
    pub(crate) fn publish(&self, message: &Outgoing<'_>) -> Result<(), Refused> {
        // 5 [MQTT-3.2.2-11]
        if message.qos > self.qos {
            return Err(Refused::NotSupportedByServer(ReasonCode::QoSNotSupported));
        }
        // 5 [MQTT-3.2.2-14]
        if message.retain && !self.retain {
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
        if identifier && !self.identifiers {
            return refuse(ReasonCode::SubscriptionIdentifiersNotSupported);
        }
        for subscription in filters {
            if !self.shared && subscription.filter.share_name().is_some() {
                return refuse(ReasonCode::SharedSubscriptionsNotSupported);
            }
            if !self.wildcards
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
