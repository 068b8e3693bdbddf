//! OneNET: a token with an expiry time, signed by the key of the device or of its product.

use alloc::format;
use alloc::string::String;
use core::fmt;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;

use crate::{DeviceCredentials, Method};

/// The version of the token algorithm.
const VERSION: &str = "2018-10-31";

/// A device of OneNET, or another resource that a token gives access to.
#[derive(Clone)]
pub struct OneNet<'a> {
    /// The resource of the token: `products/{product id}/devices/{device name}` for a device, `products/{product id}` for all
    /// devices of a product.
    pub resource: String,
    /// The key in base64, as the console shows it.
    pub key: &'a str,
    /// When the token expires, in seconds since 1970.
    pub expires: u64,
    /// The hash function.
    pub method: Method,
}

impl fmt::Debug for OneNet<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("OneNet")
            .field("resource", &self.resource)
            .field("expires", &self.expires)
            .finish_non_exhaustive()
    }
}

/// The key is not valid base64.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct InvalidKey;

impl fmt::Display for InvalidKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the key is not base64")
    }
}

impl core::error::Error for InvalidKey {}

impl<'a> OneNet<'a> {
    /// The host for MQTT without TLS.
    pub const HOST: &'static str = "mqtts.heclouds.com";
    /// The port for MQTT without TLS.
    pub const PORT: u16 = 1883;

    /// Makes a device that signs by HMAC-SHA256.
    #[must_use]
    pub fn device(product_id: &str, device_name: &str, key: &'a str, expires: u64) -> Self {
        Self {
            resource: format!("products/{product_id}/devices/{device_name}"),
            key,
            expires,
            method: Method::default(),
        }
    }

    /// Returns the text that is signed: four values, one in each line.
    #[must_use]
    pub fn signed_text(&self) -> String {
        let (expires, method, resource) = (self.expires, self.method.name(), &self.resource);
        format!("{expires}\n{method}\n{resource}\n{VERSION}")
    }

    /// Returns the token, which is the password of CONNECT.
    ///
    /// # Errors
    /// [`InvalidKey`] if the key is not base64.
    pub fn token(&self) -> Result<String, InvalidKey> {
        let key = STANDARD.decode(self.key.trim()).map_err(|_| InvalidKey)?;
        let signature = self.method.sign(&key, self.signed_text().as_bytes());
        Ok(format!(
            "version={VERSION}&res={}&et={}&method={}&sign={}",
            percent(&self.resource),
            self.expires,
            self.method.name(),
            percent(&STANDARD.encode(signature))
        ))
    }

    /// Returns the fields of CONNECT: the device name, the product identifier and the token. A name that the resource does
    /// not have is empty.
    ///
    /// # Errors
    /// [`InvalidKey`] if the key is not base64.
    pub fn credentials(&self) -> Result<DeviceCredentials, InvalidKey> {
        let path = self.resource.strip_prefix("products/").unwrap_or_default();
        let (product, device) = path.split_once("/devices/").unwrap_or((path, ""));
        Ok(DeviceCredentials {
            client_id: device.into(),
            user_name: product.into(),
            password: self.token()?,
        })
    }
}

/// Encodes a text for a URL: letters, digits and `-._~` stay, every other byte becomes `%XX`.
fn percent(text: &str) -> String {
    let mut encoded = String::new();
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            encoded.push(char::from(byte));
        } else {
            encoded.push_str(&format!("%{byte:02X}"));
        }
    }
    encoded
}
