//! Returns random numbers of the system.

use crate::Error;

/// Returns unguessable bytes.
pub(crate) fn random<const N: usize>() -> Result<[u8; N], Error> {
    let mut bytes = [0; N];
    getrandom::fill(&mut bytes).map_err(|error| Error::Random(error.into()))?;
    Ok(bytes)
}
