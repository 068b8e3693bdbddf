//! Reads the clock and the random numbers of the system or of the browser.

#[cfg(not(all(target_family = "wasm", target_os = "unknown")))]
pub(crate) use std::time::Instant;
#[cfg(all(target_family = "wasm", target_os = "unknown"))]
pub(crate) use web_time::Instant;

/// Returns a random number, which spreads the reconnects of clients that lost their server at the same time.
#[cfg(not(all(target_family = "wasm", target_os = "unknown")))]
pub(crate) fn random() -> u32 {
    use std::hash::{BuildHasher, Hasher, RandomState};
    u32::try_from(RandomState::new().build_hasher().finish() >> 32).unwrap_or(0)
}

/// Returns a random number, which spreads the reconnects of clients that lost their server at the same time.
#[cfg(all(target_family = "wasm", target_os = "unknown"))]
pub(crate) fn random() -> u32 {
    let random = js_sys::Math::random() * f64::from(u32::MAX);
    #[allow(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "it is at least 0 and below 2 to the power of 32"
    )]
    let random = random as u32;
    random
}
