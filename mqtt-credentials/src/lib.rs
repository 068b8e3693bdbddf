#![doc = include_str!("../README.md")]
#![no_std]
#![forbid(unsafe_code)]
#![warn(clippy::arithmetic_side_effects, clippy::panic, clippy::unwrap_used)]
#![warn(clippy::as_conversions, clippy::expect_used, clippy::indexing_slicing)]

extern crate alloc;

mod aliyun;
mod method;
mod onenet;

use alloc::string::String;
use core::fmt;

pub use aliyun::{Aliyun, Security};
pub use method::Method;
pub use onenet::{InvalidKey, OneNet};

/// The fields of CONNECT by which a device platform knows a device.
#[derive(Clone, Eq, PartialEq)]
pub struct DeviceCredentials {
    /// The client identifier.
    pub client_id: String,
    /// The user name.
    pub user_name: String,
    /// The password. Both platforms use printable ASCII.
    pub password: String,
}

/// Shows all fields but the password.
impl fmt::Debug for DeviceCredentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("DeviceCredentials")
            .field("client_id", &self.client_id)
            .field("user_name", &self.user_name)
            .finish_non_exhaustive()
    }
}
