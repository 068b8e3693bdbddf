//! A property of MQTT 5 with its name: `content-type=json` as an option, `{"content-type": "json"}` in JSON.

use std::str::FromStr;

use mqtt_tokio::proto::{Property, PropertyId, PropertyKind, PropertyValue};
use serde::ser::SerializeMap;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use serde_json::{Map, Value, json};

use super::Data;
use crate::properties::{Typed, option_name};
use crate::{failure, hex};

/// A property, or the topic alias.
#[derive(Clone, Debug)]
pub(crate) struct Named(pub(crate) Typed);

impl FromStr for Named {
    type Err = failure::Failure;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let (name, value) = text
            .split_once('=')
            .ok_or_else(|| failure::fail(format!("{text:?} has not the form NAME=VALUE")))?;
        let values: Vec<String> = if name == "user-property" {
            value.splitn(2, '=').map(str::to_owned).collect()
        } else {
            vec![value.to_owned()]
        };
        Typed::new(name, &values).map(Self)
    }
}

impl Named {
    /// Makes the property of a decoded packet.
    pub(crate) fn of(property: &Property<'_>) -> Self {
        let id = property.id();
        let values = match property.value() {
            PropertyValue::Flag(flag) => vec![u8::from(flag).to_string()],
            PropertyValue::Number(number) => vec![number.to_string()],
            PropertyValue::Text(text) => vec![text.to_owned()],
            PropertyValue::Topic(topic) => vec![topic.as_str().to_owned()],
            PropertyValue::Binary(bytes) => vec![typed_bytes(bytes)],
            PropertyValue::Pair(name, value) => vec![name.to_owned(), value.to_owned()],
        };
        Self(Typed::of(id, values))
    }

    /// Makes the topic alias of a PUBLISH.
    pub(crate) fn alias(alias: u16) -> Self {
        Self(Typed::of(PropertyId::TopicAlias, vec![alias.to_string()]))
    }

    fn value(&self) -> Value {
        let text = self.0.text();
        match self.0.id.kind() {
            PropertyKind::Pair => {
                let (name, value) = self.0.pair();
                json!([name, value])
            }
            PropertyKind::Binary => self
                .0
                .binary()
                .map_or(Value::Null, |bytes| Data::to_json(&bytes)),
            PropertyKind::Text | PropertyKind::Topic => json!(text),
            _ => text
                .parse::<u32>()
                .map_or_else(|_| json!(text), |number| json!(number)),
        }
    }
}

/// Returns bytes in the form of [`Typed::binary`]: text, or hex after `hex:`.
fn typed_bytes(bytes: &[u8]) -> String {
    match std::str::from_utf8(bytes) {
        Ok(text) if !text.starts_with("hex:") => text.to_owned(),
        _ => format!("hex:{}", hex::spaced(bytes)),
    }
}

impl Serialize for Named {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(Some(1))?;
        map.serialize_entry(&option_name(self.0.id), &self.value())?;
        map.end()
    }
}

impl<'de> Deserialize<'de> for Named {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        use serde::de::Error;
        let map = Map::deserialize(deserializer)?;
        let mut entries = map.iter();
        let (Some((name, value)), None) = (entries.next(), entries.next()) else {
            return Err(D::Error::custom(
                "a property is an object with one entry, such as {\"content-type\": \"json\"}",
            ));
        };
        let values = match value {
            Value::Bool(flag) => vec![u8::from(*flag).to_string()],
            Value::Number(number) => vec![number.to_string()],
            // Text that begins with hex: is text here, as {"hex": ...} is for the rest.
            Value::String(text) if binary(name) => vec![typed_bytes(text.as_bytes())],
            Value::String(text) => vec![text.clone()],
            Value::Array(pair) => pair
                .iter()
                .map(|text| text.as_str().unwrap_or_default().to_owned())
                .collect(),
            other => {
                let data = Data::from_json(other).map_err(D::Error::custom)?;
                vec![typed_bytes(&data.0)]
            }
        };
        Typed::new(name, &values)
            .map(Self)
            .map_err(D::Error::custom)
    }
}

fn binary(name: &str) -> bool {
    name == option_name(PropertyId::CorrelationData)
        || name == option_name(PropertyId::AuthenticationData)
}
