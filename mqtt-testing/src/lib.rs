//! What every test in this workspace shares: packet vectors, generators, reference models, and the *laws* that proptest,
//! the fuzz targets and the vectors all call. A law panics where it is broken. Never published.

#![forbid(unsafe_code)]

pub mod agent_calls;
pub mod cancel;
pub mod choices;
pub mod endpoint;
pub mod flood;
#[cfg(feature = "handles")]
pub mod handles;
pub mod hostile;
pub mod interop;
pub mod laws;
pub mod model;
pub mod modem;
pub mod mosquitto;
#[cfg(feature = "handles")]
pub mod own;
pub mod packets;
pub mod pair;
pub mod process;
pub mod proxy;
pub mod raw;
pub mod schedule;
pub mod scripted;
pub mod siege;
pub mod solo;
pub mod system;
pub mod vectors;

/// For fuzz targets: the first byte chooses the version, the rest is the case.
#[must_use]
pub fn version_of(data: &[u8]) -> (mqtt_proto::Version, &[u8]) {
    let version = match data.first() {
        Some(byte) if byte & 1 == 1 => mqtt_proto::Version::V5,
        _ => mqtt_proto::Version::V311,
    };
    (version, data.get(1..).unwrap_or_default())
}

/// The programs of the README compile.
#[cfg(doctest)]
#[doc = include_str!("../../README.md")]
struct Readme;

/// The loop of an adapter compiles.
#[cfg(doctest)]
#[doc = include_str!("../../docs/ARCHITECTURE.md")]
struct Architecture;
