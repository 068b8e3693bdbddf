//! PINGREQ and PINGRESP: sections 3.12 and 3.13. Each is its fixed header.

use crate::header::PacketType;
use crate::sink::{Body, Sink};
use crate::version::Version;

/// A client asks for a sign of life.
///
/// ```
/// use mqtt_proto::{Encode, PingReq, Version};
/// let mut bytes = [0; 2];
/// assert_eq!(PingReq.encode(Version::V311, &mut bytes), Ok(2));
/// assert_eq!(bytes, [0xC0, 0x00]);
/// ```
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct PingReq;

/// The server's answer.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct PingResp;

impl Body for PingReq {
    fn first_byte(&self) -> u8 {
        PacketType::PingReq.first_byte()
    }

    fn write<S: Sink>(&self, _: Version, _: &mut S) {}
}

impl Body for PingResp {
    fn first_byte(&self) -> u8 {
        PacketType::PingResp.first_byte()
    }

    fn write<S: Sink>(&self, _: Version, _: &mut S) {}
}
