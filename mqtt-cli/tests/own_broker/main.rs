//! `mqtt broker` as its users meet it: its commands, and clients of others through it.

mod bridge;
mod broker;
mod clients;
mod commands;
mod health;
mod log;
mod reload;
