//! BBC micro:bit: nRF51 with a Cortex-M0 and 16 KiB of RAM.

use super::Register;
use core::sync::atomic::{AtomicBool, Ordering};

pub const CLOCK_HZ: u32 = 16_000_000;
pub const IRQ: u16 = 2;

const UART: usize = 0x4000_2000;
const START_RX: Register = Register(UART);
const START_TX: Register = Register(UART + 0x08);
const RX_READY: Register = Register(UART + 0x108);
const TX_READY: Register = Register(UART + 0x11C);
const INTERRUPT_SET: Register = Register(UART + 0x304);
const ENABLE: Register = Register(UART + 0x500);
const RXD: Register = Register(UART + 0x518);
const TXD: Register = Register(UART + 0x51C);

const RX_INTERRUPT: u32 = 1 << 2;

/// The device says when a byte was sent, not whether one can be.
static SENDING: AtomicBool = AtomicBool::new(false);

pub fn start() {
    ENABLE.write(4);
    START_RX.write(1);
    START_TX.write(1);
    INTERRUPT_SET.write(RX_INTERRUPT);
}

pub fn received() -> Option<u8> {
    if RX_READY.read() == 0 {
        return None;
    }
    RX_READY.write(0);
    Some(RXD.read().to_le_bytes()[0])
}

pub fn can_send() -> bool {
    !SENDING.load(Ordering::Relaxed) || TX_READY.read() != 0
}

pub fn send(byte: u8) {
    TX_READY.write(0);
    TXD.write(u32::from(byte));
    SENDING.store(true, Ordering::Relaxed);
}
