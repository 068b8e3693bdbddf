//! Binary data in options and in JSON.

use std::convert::Infallible;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer};
use serde_json::{Value, json};

use crate::hex;

/// Bytes. In an option they are text; in JSON a string, or `{"hex": "00 ff"}` if they are no text.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub(crate) struct Data(pub(crate) Vec<u8>);

impl Data {
    /// Parses hex digits.
    pub(crate) fn from_hex(text: &str) -> Result<Self, String> {
        hex::parse(text)
            .map(Self)
            .map_err(|error| error.to_string())
    }

    pub(crate) fn to_json(bytes: &[u8]) -> Value {
        std::str::from_utf8(bytes)
            .map_or_else(|_| json!({ "hex": hex::spaced(bytes) }), |text| json!(text))
    }

    pub(crate) fn from_json(value: &Value) -> Result<Self, String> {
        if let Some(text) = value.as_str() {
            return Ok(Self(text.as_bytes().to_vec()));
        }
        value
            .as_object()
            .filter(|object| object.len() == 1)
            .and_then(|object| object.get("hex")?.as_str())
            .ok_or_else(|| format!("{value} is neither a string nor {{\"hex\": \"...\"}}"))
            .and_then(Self::from_hex)
    }
}

impl FromStr for Data {
    type Err = Infallible;

    fn from_str(text: &str) -> Result<Self, Infallible> {
        Ok(Self(text.as_bytes().to_vec()))
    }
}

impl Serialize for Data {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        Self::to_json(&self.0).serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for Data {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let value = Value::deserialize(deserializer)?;
        Self::from_json(&value).map_err(serde::de::Error::custom)
    }
}
