//! Tests of `mqtt broker`: its commands, and several client libraries.

mod bridge;
mod broker;
mod clients;
mod commands;
mod health;
mod log;
mod reload;
