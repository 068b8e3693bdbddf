//! Random numbers of the system.

use std::io;

/// Returns a random number.
pub(crate) fn random() -> io::Result<u128> {
    let mut bytes = [0; 16];
    getrandom::fill(&mut bytes).map_err(io::Error::from)?;
    Ok(u128::from_le_bytes(bytes))
}
