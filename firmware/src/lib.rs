//! What the images share: a board's UART and clock, the semihosting log and exit code, and the script they run.
#![no_std]

pub mod board;
#[cfg(feature = "flash")]
pub mod flash;
#[cfg(feature = "net")]
pub mod lan9118;
mod mem;
#[cfg(feature = "flash")]
pub mod ram_flash;
pub mod ring;
pub mod script;
pub mod semihosting;
pub mod stack;

use core::future::Future;
use core::pin::pin;
use core::task::{Context, Poll, Waker};

/// The smallest executor: asks again after each interrupt.
pub fn block_on<F: Future>(future: F) -> F::Output {
    let mut future = pin!(future);
    let mut context = Context::from_waker(Waker::noop());
    loop {
        if let Poll::Ready(output) = future.as_mut().poll(&mut context) {
            return output;
        }
        cortex_m::asm::wfi();
    }
}
