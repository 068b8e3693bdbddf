//! The choice between fast code and small code, at one place with one name.

/// Whether fast code is preferred to small code: on targets of 64 bits, which are hosts.
pub const FAST: bool = cfg!(target_pointer_width = "64");
