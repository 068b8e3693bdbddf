//! What an image costs without MQTT: clock, UART, log and exit code.
#![no_std]
#![no_main]

use core::panic::PanicInfo;
use embedded_io::{Read, ReadReady, Write};
use firmware::board::{self, Millis, Uart};
use firmware::semihosting::{exit, tell};
use firmware::stack::Painted;
use mqtt_embedded::Clock;

#[cortex_m_rt::entry]
fn main() -> ! {
    let (uart, clock) = board::start();
    let painted = Painted::new();
    let ok = echo(uart, clock);
    tell("stack", painted.peak());
    exit(ok)
}

/// Uses all that an adapter uses, so that nothing of the board counts as MQTT.
#[inline(never)]
fn echo(mut uart: Uart, mut clock: Millis) -> bool {
    let mut byte = [0];
    while byte != *b"q" {
        if uart.read_ready() != Ok(true) {
            let now = clock.now();
            clock.idle(Some(now));
        }
        if uart.read(&mut byte).is_err() || uart.write(&byte).is_err() || uart.flush().is_err() {
            return false;
        }
    }
    true
}

unsafe extern "C" {
    fn a_panic_is_reachable() -> !;
}

#[panic_handler]
fn panic(_: &PanicInfo<'_>) -> ! {
    // SAFETY: there is no such function. If this is reachable, the image does not link.
    unsafe { a_panic_is_reachable() }
}
