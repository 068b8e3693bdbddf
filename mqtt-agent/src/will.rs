//! The will of a client.

use alloc::vec::Vec;

use mqtt_proto::{Properties, Property, Version, Will};

use crate::error::Error;
use crate::options::topic_name;
use crate::publication::Publication;

/// A will that owns what it says.
///
/// ```
/// use mqtt_agent::{OwnedWill, Publication, proto::QoS};
/// let mut will = OwnedWill::new(Publication::new("pumps/7/state", QoS::AtLeastOnce, "gone"));
/// will.message.retain = true;
/// will.delay = 10;
/// ```
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub struct OwnedWill {
    /// What the server publishes when the connection ends without a goodbye. CONNECT is refused here if its topic is no topic
    /// name.
    pub message: Publication,
    /// Seconds between the end of the connection and the will (5). Default 0.
    pub delay: u32,
}

impl OwnedWill {
    /// A will that is published at once.
    #[must_use]
    pub const fn new(message: Publication) -> Self {
        Self { message, delay: 0 }
    }

    /// The will as CONNECT has it; `properties` are [`Self::properties`].
    ///
    /// # Errors
    /// The topic is no topic name.
    pub(crate) fn as_will<'a>(&'a self, properties: &'a [Property<'a>]) -> Result<Will<'a>, Error> {
        let message = &self.message;
        Ok(Will {
            topic: topic_name("will topic", &message.topic)?,
            payload: &message.payload,
            qos: message.qos,
            retain: message.retain,
            properties: Properties::from(properties),
        })
    }

    /// Its properties, which only MQTT 5 has.
    ///
    /// # Errors
    /// The response topic is no topic name.
    pub(crate) fn properties(&self, version: Version) -> Result<Vec<Property<'_>>, Error> {
        if !version.is_v5() {
            return Ok(Vec::new());
        }
        let mut properties = self.message.properties()?;
        if self.delay > 0 {
            properties.push(Property::WillDelayInterval(self.delay));
        }
        Ok(properties)
    }
}
