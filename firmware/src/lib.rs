//! What the images share: a board's UART and clock, the semihosting log and exit code, and the script they run.
#![no_std]

pub mod board;
pub mod ring;
pub mod script;
pub mod semihosting;
pub mod stack;
