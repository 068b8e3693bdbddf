//! Holds the will of a client.

use alloc::vec::Vec;

use mqtt_proto::{Properties, Property, Version, Will};

use crate::error::Error;
use crate::options::topic_name;
use crate::publication::Publication;

/// An owned will message.
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
    /// The message that the server publishes when the connection ends without DISCONNECT. If its topic is no valid topic
    /// name, [`crate::Agent::opened`] fails.
    pub message: Publication,
    /// Seconds between the end of the connection and the will message (5). Default 0.
    pub delay: u32,
}

impl OwnedWill {
    /// Makes a will without a delay.
    #[must_use]
    pub const fn new(message: Publication) -> Self {
        Self { message, delay: 0 }
    }

    /// Returns the will for CONNECT; `properties` is the result of [`Self::properties`].
    ///
    /// # Errors
    /// The topic is no valid topic name.
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

    /// Returns the properties of the will; empty in 3.1.1.
    ///
    /// # Errors
    /// The response topic is no valid topic name.
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
