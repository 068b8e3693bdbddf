//! Stellaris LM3S6965: Cortex-M3, PL011.

use super::Register;

pub const CLOCK_HZ: u32 = 12_500_000;
pub const IRQ: u16 = 5;

const UART: usize = 0x4000_C000;
const DATA: Register = Register(UART);
const FLAGS: Register = Register(UART + 0x18);
const CONTROL: Register = Register(UART + 0x30);
const MASK: Register = Register(UART + 0x38);

const RX_EMPTY: u32 = 1 << 4;
const TX_FULL: u32 = 1 << 5;
const RX: u32 = 1 << 4;
const RX_TIMEOUT: u32 = 1 << 6;

pub fn start() {
    CONTROL.write(1 | 1 << 8 | 1 << 9);
    MASK.write(RX | RX_TIMEOUT);
}

pub fn received() -> Option<u8> {
    (FLAGS.read() & RX_EMPTY == 0).then(|| DATA.read().to_le_bytes()[0])
}

pub fn can_send() -> bool {
    FLAGS.read() & TX_FULL == 0
}

pub fn send(byte: u8) {
    DATA.write(u32::from(byte));
}
