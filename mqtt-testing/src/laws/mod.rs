//! Laws: functions that take bytes of proptest, of the fuzzer or of a vector, and panic if a property does not hold.

pub mod agent;
pub mod broker;
pub mod codec;
pub mod delivery;
pub mod journal;
pub mod machine;
pub mod model;
pub mod restarts;
#[cfg(feature = "transport")]
pub mod transport;
pub mod views;
