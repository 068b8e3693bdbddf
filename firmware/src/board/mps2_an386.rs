//! Arm MPS2 with the AN386 image: Cortex-M4F, CMSDK UART.

use super::Register;

pub const CLOCK_HZ: u32 = 25_000_000;
pub const IRQ: u16 = 0;

const UART: usize = 0x4000_4000;
const DATA: Register = Register(UART);
const STATE: Register = Register(UART + 0x04);
const CONTROL: Register = Register(UART + 0x08);
const INTERRUPT: Register = Register(UART + 0x0C);
const DIVIDER: Register = Register(UART + 0x10);

const TX_FULL: u32 = 1;
const RX_FULL: u32 = 1 << 1;
const TX_ENABLE: u32 = 1;
const RX_ENABLE: u32 = 1 << 1;
const RX_INTERRUPT: u32 = 1 << 3;

pub fn start() {
    DIVIDER.write(16);
    CONTROL.write(TX_ENABLE | RX_ENABLE | RX_INTERRUPT);
}

pub fn received() -> Option<u8> {
    if STATE.read() & RX_FULL == 0 {
        return None;
    }
    INTERRUPT.write(RX_FULL);
    Some(DATA.read().to_le_bytes()[0])
}

pub fn can_send() -> bool {
    STATE.read() & TX_FULL == 0
}

pub fn send(byte: u8) {
    DATA.write(u32::from(byte));
}
