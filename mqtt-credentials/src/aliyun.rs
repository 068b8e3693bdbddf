//! Aliyun IoT Platform: one secret for each device, and an HMAC over its names.

use alloc::format;
use alloc::string::String;

use crate::{DeviceCredentials, Method};

/// The security mode, which is a part of the client identifier.
#[derive(Clone, Copy, Debug, Default, Eq, Hash, PartialEq)]
#[non_exhaustive]
pub enum Security {
    /// `securemode=2`: TLS.
    Tls,
    /// `securemode=3`: TCP without TLS.
    #[default]
    Plain,
}

impl Security {
    /// Returns the number of `securemode=`.
    #[must_use]
    pub const fn number(self) -> u8 {
        match self {
            Self::Tls => 2,
            Self::Plain => 3,
        }
    }
}

/// A device of Aliyun IoT Platform.
#[derive(Clone, Copy)]
pub struct Aliyun<'a> {
    /// `ProductKey` of the console.
    pub product_key: &'a str,
    /// `DeviceName` of the console.
    pub device_name: &'a str,
    /// `DeviceSecret` of the console.
    pub device_secret: &'a str,
    /// The part of the client identifier that the device chooses, at most 64 characters. With `None` it is
    /// `ProductKey.DeviceName`, as the console shows it.
    pub client_id: Option<&'a str>,
    /// Milliseconds since 1970. The platform neither requires it nor compares it with its clock; if there is one, it is
    /// signed.
    pub timestamp: Option<u64>,
    /// The hash function of the signature.
    pub method: Method,
    /// The security mode.
    pub security: Security,
}

impl core::fmt::Debug for Aliyun<'_> {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.debug_struct("Aliyun")
            .field("product_key", &self.product_key)
            .field("device_name", &self.device_name)
            .finish_non_exhaustive()
    }
}

impl<'a> Aliyun<'a> {
    /// The port for MQTT, with and without TLS.
    pub const PORT: u16 = 1883;

    /// Makes a device without a timestamp that signs by HMAC-SHA256 and connects without TLS.
    #[must_use]
    pub fn new(product_key: &'a str, device_name: &'a str, device_secret: &'a str) -> Self {
        Self {
            product_key,
            device_name,
            device_secret,
            client_id: None,
            timestamp: None,
            method: Method::default(),
            security: Security::default(),
        }
    }

    fn client_id(&self) -> String {
        self.client_id.map_or_else(
            || format!("{}.{}", self.product_key, self.device_name),
            String::from,
        )
    }

    /// Returns the text that is signed: the names in alphabetical order, each followed by its value.
    #[must_use]
    pub fn signed_text(&self) -> String {
        let timestamp = self
            .timestamp
            .map_or_else(String::new, |time| format!("timestamp{time}"));
        format!(
            "clientId{}deviceName{}productKey{}{timestamp}",
            self.client_id(),
            self.device_name,
            self.product_key
        )
    }

    /// Returns the fields of CONNECT.
    #[must_use]
    pub fn credentials(&self) -> DeviceCredentials {
        let timestamp = self
            .timestamp
            .map_or_else(String::new, |time| format!(",timestamp={time}"));
        let client_id = format!(
            "{}|securemode={},signmethod=hmac{}{timestamp}|",
            self.client_id(),
            self.security.number(),
            self.method.name()
        );
        let signature = self
            .method
            .sign(self.device_secret.as_bytes(), self.signed_text().as_bytes());
        DeviceCredentials {
            client_id,
            user_name: format!("{}&{}", self.device_name, self.product_key),
            password: signature.iter().map(|byte| format!("{byte:02x}")).collect(),
        }
    }

    /// Returns the host of the public instance in `region`, such as `cn-shanghai`. A private instance has a host of its own,
    /// which the console shows.
    #[must_use]
    pub fn host(&self, region: &str) -> String {
        format!("{}.iot-as-mqtt.{region}.aliyuncs.com", self.product_key)
    }
}
