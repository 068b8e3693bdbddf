//! A NOR flash that is a file of the host. It survives a reset and the end of QEMU. The power can be cut within each word that is
//! written, and between the parts of a page that is erased.

use embedded_storage::nor_flash::{
    ErrorType, NorFlash, NorFlashErrorKind, ReadNorFlash, check_erase, check_read, check_write,
};

use crate::semihosting::{File, exit, log};

const PAGE: usize = 256;
const WORD: usize = 4;
/// An erase changes this many bytes in each step.
const PART: usize = 16;
const CAPACITY: u32 = 16 * 256;

/// The flash. The file has as many bytes as the flash; bytes that were never written are 0xFF.
pub struct FileFlash {
    file: File,
    /// After how many steps, each a word or a part of a page, the power is cut; 0 is never.
    steps_left: u16,
}

impl FileFlash {
    /// Opens the flash in this file. The power is cut in the step with this number; 0 is never.
    pub fn open(path: &str, cut: u16) -> Option<Self> {
        let file = File::open(path)?;
        Some(Self {
            file,
            steps_left: cut,
        })
    }

    /// Bytes of the flash.
    pub const fn range(&self) -> core::ops::Range<u32> {
        0..CAPACITY
    }

    /// Returns whether the power lasts for this step.
    fn step(&mut self) -> bool {
        let lasts = self.steps_left != 1;
        self.steps_left = self.steps_left.saturating_sub(1);
        lasts
    }
}

/// The device is without power from here on. The host starts it again.
fn power_cut(what: &str) -> ! {
    log(what);
    exit(false)
}

const fn done(succeeded: bool) -> Result<(), NorFlashErrorKind> {
    if succeeded {
        Ok(())
    } else {
        Err(NorFlashErrorKind::Other)
    }
}

impl ErrorType for FileFlash {
    type Error = NorFlashErrorKind;
}

impl ReadNorFlash for FileFlash {
    const READ_SIZE: usize = 1;

    fn read(&mut self, offset: u32, bytes: &mut [u8]) -> Result<(), NorFlashErrorKind> {
        check_read(self, offset, bytes.len())?;
        done(self.file.read(offset, bytes))
    }

    fn capacity(&self) -> usize {
        CAPACITY as usize
    }
}

impl NorFlash for FileFlash {
    const WRITE_SIZE: usize = WORD;
    const ERASE_SIZE: usize = PAGE;

    fn erase(&mut self, from: u32, to: u32) -> Result<(), NorFlashErrorKind> {
        check_erase(self, from, to)?;
        for part in (from..to).step_by(PART) {
            if !self.step() {
                power_cut("power cut in an erase\n");
            }
            done(self.file.write(part, &[0xFF; PART]))?;
        }
        Ok(())
    }

    fn write(&mut self, offset: u32, bytes: &[u8]) -> Result<(), NorFlashErrorKind> {
        check_write(self, offset, bytes.len())?;
        for (at, word) in (offset..).step_by(WORD).zip(bytes.chunks(WORD)) {
            let mut before = [0; WORD];
            done(self.file.read(at, &mut before))?;
            if before != [0xFF; WORD] {
                log("a word is written twice\n");
                return Err(NorFlashErrorKind::Other);
            }
            if !self.step() {
                // Half of the bits have changed when the power ends.
                let mut torn = [0x55; WORD];
                for (to, from) in torn.iter_mut().zip(word) {
                    *to |= from;
                }
                done(self.file.write(at, &torn))?;
                power_cut("power cut in a write\n");
            }
            done(self.file.write(at, word))?;
        }
        Ok(())
    }
}
