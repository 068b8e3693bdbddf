//! A NOR flash in memory whose power can be cut within each write and erase.

use std::cell::RefCell;
use std::rc::Rc;

use embedded_storage::nor_flash::{
    ErrorType, NorFlash, NorFlashErrorKind, ReadNorFlash, check_erase, check_read, check_write,
};
use embedded_storage_async::nor_flash as asynch;

/// An erase has this many parts of a page, and is interrupted after any of them.
const PARTS: usize = 4;

struct Inner {
    bytes: Vec<u8>,
    /// How many words and parts of pages may still change; `None` is without end.
    left: Option<usize>,
    written: usize,
    erased: usize,
}

/// The flash, with pages of `PAGE` bytes and words of `WORD` bytes. Clones are the same one.
#[derive(Clone)]
pub(crate) struct Nor<const PAGE: usize = 256, const WORD: usize = 4>(Rc<RefCell<Inner>>);

impl<const PAGE: usize, const WORD: usize> Nor<PAGE, WORD> {
    pub(crate) fn new(pages: usize) -> Self {
        Self::with(vec![0xFF; pages * PAGE])
    }

    /// Makes a flash with this content.
    pub(crate) fn with(bytes: Vec<u8>) -> Self {
        Self(Rc::new(RefCell::new(Inner {
            bytes,
            left: None,
            written: 0,
            erased: 0,
        })))
    }

    /// Cuts the power within the word or part of a page that follows `steps` others.
    pub(crate) fn cut_after(&self, steps: Option<usize>) {
        self.0.borrow_mut().left = steps;
    }

    pub(crate) fn is_cut(&self) -> bool {
        self.0.borrow().left == Some(0)
    }

    /// How many bytes were written, and how many pages erased.
    pub(crate) fn wear(&self) -> (usize, usize) {
        let inner = self.0.borrow();
        (inner.written, inner.erased)
    }

    /// Returns the content.
    pub(crate) fn bytes(&self) -> Vec<u8> {
        self.0.borrow().bytes.clone()
    }

    pub(crate) fn pages(&self) -> u32 {
        u32::try_from(self.0.borrow().bytes.len()).unwrap()
    }
}

impl Inner {
    /// Returns whether there is power for one more step; `None` if it ends within this step.
    fn step(&mut self) -> Result<bool, NorFlashErrorKind> {
        match &mut self.left {
            None => Ok(true),
            Some(0) => Err(NorFlashErrorKind::Other),
            Some(left) => {
                *left -= 1;
                Ok(*left > 0)
            }
        }
    }
}

impl<const PAGE: usize, const WORD: usize> ErrorType for Nor<PAGE, WORD> {
    type Error = NorFlashErrorKind;
}

impl<const PAGE: usize, const WORD: usize> ReadNorFlash for Nor<PAGE, WORD> {
    const READ_SIZE: usize = 1;

    fn read(&mut self, offset: u32, bytes: &mut [u8]) -> Result<(), NorFlashErrorKind> {
        check_read(self, offset, bytes.len())?;
        if self.is_cut() {
            return Err(NorFlashErrorKind::Other);
        }
        let start = usize::try_from(offset).unwrap();
        bytes.copy_from_slice(&self.0.borrow().bytes[start..start + bytes.len()]);
        Ok(())
    }

    fn capacity(&self) -> usize {
        self.0.borrow().bytes.len()
    }
}

impl<const PAGE: usize, const WORD: usize> NorFlash for Nor<PAGE, WORD> {
    const WRITE_SIZE: usize = WORD;
    const ERASE_SIZE: usize = PAGE;

    fn erase(&mut self, from: u32, to: u32) -> Result<(), NorFlashErrorKind> {
        check_erase(self, from, to)?;
        let inner = &mut *self.0.borrow_mut();
        let range = usize::try_from(from).unwrap()..usize::try_from(to).unwrap();
        inner.erased += range.len() / PAGE;
        for part in range.step_by(PAGE / PARTS) {
            if !inner.step()? {
                return Err(NorFlashErrorKind::Other);
            }
            inner.bytes[part..part + PAGE / PARTS].fill(0xFF);
        }
        Ok(())
    }

    fn write(&mut self, offset: u32, bytes: &[u8]) -> Result<(), NorFlashErrorKind> {
        check_write(self, offset, bytes.len())?;
        let inner = &mut *self.0.borrow_mut();
        let start = usize::try_from(offset).unwrap();
        let words = inner.bytes[start..start + bytes.len()].chunks_mut(WORD);
        assert!(
            words.flatten().all(|byte| *byte == 0xFF),
            "a word is written twice"
        );
        for (n, word) in bytes.chunks(WORD).enumerate() {
            let whole = inner.step()?;
            let place = &mut inner.bytes[start + n * WORD..][..WORD];
            for (to, from) in place.iter_mut().zip(word) {
                // Half of the bits have changed when the power ends.
                *to &= from | if whole { 0 } else { 0x55 };
            }
            if !whole {
                return Err(NorFlashErrorKind::Other);
            }
            inner.written += WORD;
        }
        Ok(())
    }
}

/// The same for a device that awaits its flash.
impl<const PAGE: usize, const WORD: usize> asynch::ReadNorFlash for Nor<PAGE, WORD> {
    const READ_SIZE: usize = 1;

    async fn read(&mut self, offset: u32, bytes: &mut [u8]) -> Result<(), NorFlashErrorKind> {
        ReadNorFlash::read(self, offset, bytes)
    }

    fn capacity(&self) -> usize {
        ReadNorFlash::capacity(self)
    }
}

impl<const PAGE: usize, const WORD: usize> asynch::NorFlash for Nor<PAGE, WORD> {
    const WRITE_SIZE: usize = WORD;
    const ERASE_SIZE: usize = PAGE;

    async fn erase(&mut self, from: u32, to: u32) -> Result<(), NorFlashErrorKind> {
        NorFlash::erase(self, from, to)
    }

    async fn write(&mut self, offset: u32, bytes: &[u8]) -> Result<(), NorFlashErrorKind> {
        NorFlash::write(self, offset, bytes)
    }
}

/// A flash whose writes and erases are pending once, when they have done their work.
pub(crate) struct Slow(pub(crate) Nor);

impl ErrorType for Slow {
    type Error = NorFlashErrorKind;
}

impl asynch::ReadNorFlash for Slow {
    const READ_SIZE: usize = 1;

    async fn read(&mut self, offset: u32, bytes: &mut [u8]) -> Result<(), NorFlashErrorKind> {
        ReadNorFlash::read(&mut self.0, offset, bytes)
    }

    fn capacity(&self) -> usize {
        ReadNorFlash::capacity(&self.0)
    }
}

impl asynch::NorFlash for Slow {
    const WRITE_SIZE: usize = <Nor as NorFlash>::WRITE_SIZE;
    const ERASE_SIZE: usize = <Nor as NorFlash>::ERASE_SIZE;

    async fn erase(&mut self, from: u32, to: u32) -> Result<(), NorFlashErrorKind> {
        let done = NorFlash::erase(&mut self.0, from, to);
        futures_lite::future::yield_now().await;
        done
    }

    async fn write(&mut self, offset: u32, bytes: &[u8]) -> Result<(), NorFlashErrorKind> {
        let done = NorFlash::write(&mut self.0, offset, bytes);
        futures_lite::future::yield_now().await;
        done
    }
}
