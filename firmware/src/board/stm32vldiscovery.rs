//! STM32VLDISCOVERY: Cortex-M3 with 8 KiB of RAM, USART1.

use super::Register;

pub const CLOCK_HZ: u32 = 24_000_000;
pub const IRQ: u16 = 37;

const USART: usize = 0x4001_3800;
const STATUS: Register = Register(USART);
const DATA: Register = Register(USART + 0x04);
const CONTROL: Register = Register(USART + 0x0C);
const CLOCKS: Register = Register(0x4002_1018);

const RX_NOT_EMPTY: u32 = 1 << 5;
const TX_EMPTY: u32 = 1 << 7;
const ENABLE: u32 = 1 << 13 | 1 << 3 | 1 << 2;
const RX_INTERRUPT: u32 = 1 << 5;

pub fn start() {
    CLOCKS.write(CLOCKS.read() | 1 << 14);
    CONTROL.write(ENABLE | RX_INTERRUPT);
}

pub fn received() -> Option<u8> {
    (STATUS.read() & RX_NOT_EMPTY != 0).then(|| DATA.read().to_le_bytes()[0])
}

pub fn can_send() -> bool {
    STATUS.read() & TX_EMPTY != 0
}

pub fn send(byte: u8) {
    DATA.write(u32::from(byte));
}
