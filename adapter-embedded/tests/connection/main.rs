//! Connections over a transport in memory, whose every read and write the test decides, with a clock of its own.

mod asynch;
mod blocking;
mod far;
mod hex;
