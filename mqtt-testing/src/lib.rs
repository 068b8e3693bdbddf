//! What every test in this workspace shares: packet vectors, generators, reference models, and the *laws* that proptest,
//! the fuzz targets and the vectors all call. A law panics where it is broken. Never published.

#![forbid(unsafe_code)]

pub mod choices;
pub mod endpoint;
pub mod hostile;
pub mod laws;
pub mod model;
pub mod mosquitto;
pub mod packets;
pub mod pair;
pub mod process;
pub mod proxy;
pub mod schedule;
pub mod scripted;
pub mod solo;
pub mod vectors;
