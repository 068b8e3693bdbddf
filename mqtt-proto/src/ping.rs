//! PINGREQ and PINGRESP: sections 3.12 and 3.13. Both consist of the fixed header alone.

use crate::encode::{Body, Draft};
use crate::out::Out;
use crate::properties::Properties;
use crate::version::Version;
use crate::wire::PacketType;

/// A client asks the server to show that it is alive.
///
/// ```
/// use mqtt_proto::{Encode, PingReq, Version};
/// let mut bytes = [0; 2];
/// assert_eq!(PingReq.encode(Version::V311, &mut bytes), Ok(2));
/// assert_eq!(bytes, [0xC0, 0x00]);
/// ```
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct PingReq;

/// The server's answer to PINGREQ.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct PingResp;

impl Body for PingReq {
    fn write(&self, version: Version, out: &mut Out<'_>) {
        Draft::new(PacketType::PingReq, Properties::EMPTY).write(version, out, &|_| {});
    }
}

impl Body for PingResp {
    fn write(&self, version: Version, out: &mut Out<'_>) {
        Draft::new(PacketType::PingResp, Properties::EMPTY).write(version, out, &|_| {});
    }
}
