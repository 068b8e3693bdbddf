//! A NOR flash that is memory, for the image `footprint`: it has little code of its own.

use cortex_m::singleton;
use embedded_storage::nor_flash::{
    ErrorType, NorFlash, NorFlashErrorKind, ReadNorFlash, check_erase, check_read, check_write,
};

const PAGE: usize = 256;
const CAPACITY: usize = 4 * PAGE;

/// The flash.
pub struct RamFlash(&'static mut [u8; CAPACITY]);

impl RamFlash {
    /// Returns the only flash, once.
    pub fn take() -> Option<Self> {
        singleton!(: [u8; CAPACITY] = [0xFF; CAPACITY]).map(Self)
    }

    /// Bytes of the flash.
    pub const fn range(&self) -> core::ops::Range<u32> {
        0..CAPACITY as u32
    }

    fn at(&mut self, offset: u32, len: usize) -> Result<&mut [u8], NorFlashErrorKind> {
        let rest = self.0.get_mut(offset as usize..);
        let bytes = rest.and_then(|rest| rest.get_mut(..len));
        bytes.ok_or(NorFlashErrorKind::OutOfBounds)
    }
}

impl ErrorType for RamFlash {
    type Error = NorFlashErrorKind;
}

impl ReadNorFlash for RamFlash {
    const READ_SIZE: usize = 1;

    fn read(&mut self, offset: u32, bytes: &mut [u8]) -> Result<(), NorFlashErrorKind> {
        check_read(self, offset, bytes.len())?;
        bytes.copy_from_slice(self.at(offset, bytes.len())?);
        Ok(())
    }

    fn capacity(&self) -> usize {
        CAPACITY
    }
}

impl NorFlash for RamFlash {
    const WRITE_SIZE: usize = 4;
    const ERASE_SIZE: usize = PAGE;

    fn erase(&mut self, from: u32, to: u32) -> Result<(), NorFlashErrorKind> {
        check_erase(self, from, to)?;
        self.at(from, (to - from) as usize)?.fill(0xFF);
        Ok(())
    }

    fn write(&mut self, offset: u32, bytes: &[u8]) -> Result<(), NorFlashErrorKind> {
        check_write(self, offset, bytes.len())?;
        for (to, from) in self.at(offset, bytes.len())?.iter_mut().zip(bytes) {
            *to &= from;
        }
        Ok(())
    }
}
