//! PINGREQ and PINGRESP: sections 3.12 and 3.13. Both consist of the fixed header alone.

use crate::encode::Body;
use crate::out::Out;
use crate::version::Version;
use crate::wire::kind;

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
    fn first_byte(&self) -> u8 {
        kind::PINGREQ << 4
    }

    fn write(&self, _: Version, _: &mut Out<'_>) {}
}

impl Body for PingResp {
    fn first_byte(&self) -> u8 {
        kind::PINGRESP << 4
    }

    fn write(&self, _: Version, _: &mut Out<'_>) {}
}
