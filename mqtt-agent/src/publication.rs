//! Holds an owned message to be published.

use alloc::string::String;
use alloc::vec::Vec;

use bytes::Bytes;
use mqtt_proto::{Properties, Property, QoS};
use mqtt_session::Outgoing;

use crate::error::Error;
use crate::options::{pairs, topic_name};

/// An owned message to be published, which can go through a channel. Fields that only MQTT 5 has are marked (5); with 3.1.1 a
/// message that uses them is refused.
///
/// ```
/// use mqtt_agent::{Publication, proto::QoS};
/// let mut reading = Publication::new("pumps/7/pressure", QoS::AtLeastOnce, "3.2 bar");
/// reading.retain = true;
/// ```
#[derive(Clone, Debug, Default, Eq, PartialEq)]
#[non_exhaustive]
pub struct Publication {
    /// Topic name.
    pub topic: String,
    /// Quality of service. Default 0.
    pub qos: QoS,
    /// Whether the server keeps it for later subscribers. Default `false`.
    pub retain: bool,
    /// Payload.
    pub payload: Bytes,
    /// Whether the payload is UTF-8 text (5). Default `false`.
    pub is_text: bool,
    /// How long the server keeps it for subscribers that are not connected, in seconds (5). Default: for ever.
    pub expiry: Option<u32>,
    /// The content type of the payload, such as `application/json` (5).
    pub content_type: Option<String>,
    /// The topic for a response (5).
    pub response_topic: Option<String>,
    /// The data that a response returns, so that the requester can match it (5).
    pub correlation_data: Option<Bytes>,
    /// User properties (5).
    pub user_properties: Vec<(String, String)>,
}

impl Publication {
    /// Makes a message that is not retained and has no properties.
    pub fn new(topic: impl Into<String>, qos: QoS, payload: impl Into<Bytes>) -> Self {
        Self {
            topic: topic.into(),
            qos,
            payload: payload.into(),
            ..Self::default()
        }
    }

    /// Calls `then` with the message in its borrowed form.
    ///
    /// # Errors
    /// [`Error::Topic`] if the topic or the response topic is no valid topic name.
    pub fn with_outgoing<R>(&self, then: impl FnOnce(&Outgoing<'_>) -> R) -> Result<R, Error> {
        let topic = topic_name("topic", &self.topic)?;
        let properties = self.properties()?;
        Ok(then(&Outgoing {
            retain: self.retain,
            properties: Properties::from(&properties[..]),
            ..Outgoing::new(topic, self.qos, &self.payload)
        }))
    }

    /// Returns the properties of the message (5).
    ///
    /// # Errors
    /// [`Error::Topic`] if the response topic is no valid topic name.
    pub(crate) fn properties(&self) -> Result<Vec<Property<'_>>, Error> {
        let mut properties = Vec::new();
        if self.is_text {
            properties.push(Property::PayloadFormatIndicator(true));
        }
        properties.extend(self.expiry.map(Property::MessageExpiryInterval));
        properties.extend(self.content_type.as_deref().map(Property::ContentType));
        if let Some(topic) = &self.response_topic {
            let topic = topic_name("response topic", topic)?;
            properties.push(Property::ResponseTopic(topic));
        }
        let data = self.correlation_data.as_deref();
        properties.extend(data.map(Property::CorrelationData));
        properties.extend(pairs(&self.user_properties));
        Ok(properties)
    }
}
