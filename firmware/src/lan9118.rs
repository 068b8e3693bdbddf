//! The network card of mps2-an386: SMSC LAN9118, as far as it takes to send and receive frames by hand.

use core::ptr;

use smoltcp::phy::{self, Device, DeviceCapabilities, Medium};
use smoltcp::time::Instant;

const BASE: usize = 0x4020_0000;
const RX_DATA: usize = 0x00;
const TX_DATA: usize = 0x20;
const RX_STATUS: usize = 0x40;
const TX_STATUS: usize = 0x48;
const TX_CONFIG: usize = 0x70;
const RX_LEVEL: usize = 0x7C;
const TX_LEVEL: usize = 0x80;
const MAC_COMMAND: usize = 0xA4;
const MAC_DATA: usize = 0xA8;

const MAC_CONTROL: u32 = 1;
const TX_ENABLE: u32 = 1 << 3;
const RX_ENABLE: u32 = 1 << 2;
const BUSY: u32 = 1 << 31;
const RX_ERROR: u32 = 1 << 15;

/// The address that QEMU gives its first card.
pub const ADDRESS: [u8; 6] = [0x52, 0x54, 0x00, 0x12, 0x34, 0x56];

/// The longest frame without its checksum.
const FRAME: usize = 1514;

/// The card.
pub struct Lan9118(());

fn read(register: usize) -> u32 {
    // SAFETY: the registers above are those of the card.
    unsafe { ptr::read_volatile(ptr::with_exposed_provenance(BASE + register)) }
}

fn write(register: usize, value: u32) {
    // SAFETY: as above.
    unsafe { ptr::write_volatile(ptr::with_exposed_provenance_mut(BASE + register), value) }
}

impl Lan9118 {
    /// Turns it on.
    pub fn start() -> Self {
        write(TX_CONFIG, 1 << 1);
        write(MAC_DATA, TX_ENABLE | RX_ENABLE);
        write(MAC_COMMAND, BUSY | MAC_CONTROL);
        while read(MAC_COMMAND) & BUSY != 0 {}
        Self(())
    }
}

/// A frame that came.
pub struct Received {
    frame: [u8; FRAME],
    len: usize,
}

/// The right to send one.
pub struct Sending;

impl Device for Lan9118 {
    type RxToken<'a> = Received;
    type TxToken<'a> = Sending;

    fn receive(&mut self, _: Instant) -> Option<(Received, Sending)> {
        if read(RX_LEVEL) >> 16 & 0xFF == 0 {
            return None;
        }
        let status = read(RX_STATUS);
        let with_checksum = usize::try_from(status >> 16 & 0x3FFF).ok()?;
        let mut received = Received {
            frame: [0; FRAME],
            len: with_checksum.saturating_sub(4).min(FRAME),
        };
        // The checksum and the padding are read as well, and dropped.
        let mut places = received.frame.chunks_mut(4);
        for _ in 0..with_checksum.div_ceil(4) {
            let word = read(RX_DATA).to_le_bytes();
            if let Some(place) = places.next() {
                for (place, byte) in place.iter_mut().zip(word) {
                    *place = byte;
                }
            }
        }
        (status & RX_ERROR == 0).then_some((received, Sending))
    }

    fn transmit(&mut self, _: Instant) -> Option<Sending> {
        while read(TX_LEVEL) >> 16 & 0xFF != 0 {
            read(TX_STATUS);
        }
        Some(Sending)
    }

    fn capabilities(&self) -> DeviceCapabilities {
        let mut capabilities = DeviceCapabilities::default();
        capabilities.medium = Medium::Ethernet;
        capabilities.max_transmission_unit = FRAME;
        capabilities
    }
}

impl phy::RxToken for Received {
    fn consume<R, F: FnOnce(&[u8]) -> R>(self, f: F) -> R {
        f(self.frame.get(..self.len).unwrap_or_default())
    }
}

impl phy::TxToken for Sending {
    fn consume<R, F: FnOnce(&mut [u8]) -> R>(self, len: usize, f: F) -> R {
        let mut frame = [0; FRAME];
        let frame = frame.get_mut(..len).unwrap_or_default();
        let result = f(frame);
        let len = u32::try_from(len).unwrap_or(0);
        write(TX_DATA, 1 << 13 | 1 << 12 | len);
        write(TX_DATA, len);
        for piece in frame.chunks(4) {
            let mut word = [0; 4];
            for (place, byte) in word.iter_mut().zip(piece) {
                *place = *byte;
            }
            write(TX_DATA, u32::from_le_bytes(word));
        }
        result
    }
}
