//! Shared code of the tests, fuzz targets and benches of this workspace. Not published.
//!
//! - [`packets`]: packets as literals, from random bytes, and from a table of vectors;
//! - [`laws`]: properties that hold for any input;
//! - [`machines`]: clients and servers of `mqtt_session` in virtual time;
//! - [`simulation`]: programs, agents and a broker in virtual time;
//! - [`peers`] and [`wires`]: servers on 127.0.0.1, and proxies between them and a client;
//! - [`suites`]: tests that each adapter runs;
//! - [`process`]: programs under test; [`choices`]: decisions made from random bytes.

#![forbid(unsafe_code)]

pub mod choices;
pub mod laws;
pub mod machines;
pub mod packets;
pub mod peers;
pub mod process;
pub mod simulation;
pub mod suites;
pub mod wires;

/// Splits the input of a fuzz target: the first byte chooses the version, the rest is the case.
#[must_use]
pub fn version_of(data: &[u8]) -> (mqtt_proto::Version, &[u8]) {
    let version = match data.first() {
        Some(byte) if byte & 1 == 1 => mqtt_proto::Version::V5,
        _ => mqtt_proto::Version::V311,
    };
    (version, data.get(1..).unwrap_or_default())
}

/// Compiles the programs of the README.
#[cfg(doctest)]
#[doc = include_str!("../../README.md")]
struct Readme;

/// Compiles the adapter loop of the architecture document.
#[cfg(doctest)]
#[doc = include_str!("../../docs/ARCHITECTURE.md")]
struct Architecture;
