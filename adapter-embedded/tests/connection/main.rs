//! Connections over a transport in memory. The test decides about each read and write, and about the time.

mod asynch;
mod blocking;
mod far;
#[cfg(feature = "flash")]
mod flash;
#[cfg(feature = "flash")]
mod formats;
mod hex;
#[cfg(feature = "flash")]
mod nor;
mod over;
#[cfg(feature = "flash")]
mod restarts;
#[cfg(feature = "flash")]
mod wear;
