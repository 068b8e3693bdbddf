//! Peak stack by painting: what was never written to still has the paint.

use core::ptr;

const PAINT: u32 = 0xC0DE_57AC;

unsafe extern "C" {
    /// End of the statics, where the stack would end, from the linker script of cortex-m-rt.
    static mut __sheap: u32;
}

/// Paints the free stack, and remembers where it began.
pub struct Painted {
    top: usize,
}

/// Bytes right below the stack pointer that the painting itself uses.
const OWN: usize = 64;

impl Painted {
    #[inline(never)]
    pub fn new() -> Self {
        let top = usize::try_from(cortex_m::register::msp::read()).unwrap_or(0);
        let mut at = (&raw mut __sheap).addr();
        while at < top - OWN {
            // SAFETY: between the statics and the stack pointer nothing lives.
            unsafe { ptr::write_volatile(ptr::with_exposed_provenance_mut(at), PAINT) };
            at += 4;
        }
        Self { top }
    }

    /// The most bytes of stack that were in use below where it was painted.
    #[inline(never)]
    pub fn peak(&self) -> u32 {
        let mut at = (&raw mut __sheap).addr();
        // SAFETY: as above; it is only read.
        while at < self.top
            && unsafe { ptr::read_volatile(ptr::with_exposed_provenance::<u32>(at)) } == PAINT
        {
            at += 4;
        }
        u32::try_from(self.top - at).unwrap_or(u32::MAX)
    }
}

impl Default for Painted {
    fn default() -> Self {
        Self::new()
    }
}
