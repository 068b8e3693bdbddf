//! Tests of `mqtt broker`: its commands, and several client libraries.

#[cfg(unix)]
mod addresses;
mod bench;
mod bridge;
mod broker;
#[cfg(unix)]
mod browser;
mod clients;
mod commands;
mod health;
#[cfg(unix)]
mod layers;
mod log;
mod log_lines;
#[cfg(unix)]
mod outputs;
#[cfg(target_os = "linux")]
mod packaging;
mod pressure;
#[cfg(unix)]
mod refusals;
mod reload;
#[cfg(unix)]
mod secrets;
#[cfg(target_os = "linux")]
mod statistics;
#[cfg(target_os = "linux")]
mod top;
