//! A board: its UART, interrupt-driven and asleep in between, and a clock of milliseconds.

#[cfg_attr(feature = "lm3s6965evb", path = "lm3s6965evb.rs")]
#[cfg_attr(feature = "mps2-an386", path = "mps2_an386.rs")]
#[cfg_attr(feature = "stm32vldiscovery", path = "stm32vldiscovery.rs")]
#[cfg_attr(feature = "microbit", path = "microbit.rs")]
mod device;

use core::convert::Infallible;
use core::future::poll_fn;
use core::ptr;
use core::sync::atomic::{AtomicU32, Ordering};
use core::task::Poll;
use core::time::Duration;

use cortex_m::interrupt::InterruptNumber;
use cortex_m::peripheral::syst::SystClkSource;
use cortex_m::peripheral::{NVIC, Peripherals};
use cortex_m_rt::exception;
use embedded_io::{ErrorType, Read, ReadReady, Write};
use mqtt_embedded::session::Instant;
use mqtt_embedded::{Clock, Timer};

use crate::ring::Ring;

static RECEIVED: Ring<64> = Ring::new();
static MILLIS: AtomicU32 = AtomicU32::new(0);

/// A register of the board.
struct Register(usize);

impl Register {
    fn read(&self) -> u32 {
        // SAFETY: the addresses in `device` are registers of the board.
        unsafe { ptr::read_volatile(ptr::with_exposed_provenance(self.0)) }
    }

    fn write(&self, value: u32) {
        // SAFETY: as above.
        unsafe { ptr::write_volatile(ptr::with_exposed_provenance_mut(self.0), value) }
    }
}

#[derive(Clone, Copy)]
struct Irq(u16);

// SAFETY: `device` gives the number of its UART's interrupt.
unsafe impl InterruptNumber for Irq {
    fn number(self) -> u16 {
        self.0
    }
}

/// Starts clock and UART.
pub fn start() -> (Uart, Millis) {
    if let Some(mut core) = Peripherals::take() {
        core.SYST.set_clock_source(SystClkSource::Core);
        core.SYST.set_reload(device::CLOCK_HZ / 1_000 - 1);
        core.SYST.clear_current();
        core.SYST.enable_counter();
        core.SYST.enable_interrupt();
    }
    device::start();
    listen();
    (Uart, Millis)
}

/// Lets the receive interrupt come, also one that waited.
fn listen() {
    // SAFETY: the handler below uses only what may be shared with an interrupt.
    unsafe { NVIC::unmask(Irq(device::IRQ)) };
}

#[exception]
fn SysTick() {
    let now = MILLIS.load(Ordering::Relaxed);
    MILLIS.store(now.wrapping_add(1), Ordering::Relaxed);
}

/// The UART's receive interrupt; there is no other.
#[exception]
unsafe fn DefaultHandler(_: i16) {
    while !RECEIVED.is_full() {
        match device::received() {
            Some(byte) => RECEIVED.push(byte),
            None => return,
        }
    }
    // No room: the rest waits in the device, and the interrupt until something was taken.
    NVIC::mask(Irq(device::IRQ));
}

/// The UART. It has no carrier: a link that is cut looks like silence.
pub struct Uart;

impl Uart {
    /// Before a new connection: drops what still comes of the last, until the line was silent for a while.
    pub fn settle(&mut self, mut clock: Millis) {
        let mut silent_since = Clock::now(&mut clock);
        while Clock::now(&mut clock).since(silent_since) < SILENCE {
            while RECEIVED.pop().is_some() {
                silent_since = Clock::now(&mut clock);
                listen();
            }
            cortex_m::asm::wfi();
        }
    }
}

/// As long as no more of an old connection can be on its way.
const SILENCE: Duration = Duration::from_millis(100);

impl ErrorType for Uart {
    type Error = Infallible;
}

impl ReadReady for Uart {
    fn read_ready(&mut self) -> Result<bool, Infallible> {
        Ok(!RECEIVED.is_empty())
    }
}

impl Read for Uart {
    fn read(&mut self, buffer: &mut [u8]) -> Result<usize, Infallible> {
        let mut n = 0;
        while n == 0 && !buffer.is_empty() {
            for place in buffer.iter_mut() {
                let Some(byte) = RECEIVED.pop() else {
                    break;
                };
                *place = byte;
                n += 1;
            }
            listen();
            if n == 0 {
                cortex_m::asm::wfi();
            }
        }
        Ok(n)
    }
}

impl Write for Uart {
    fn write(&mut self, bytes: &[u8]) -> Result<usize, Infallible> {
        // As many as the device takes now, and at least one: mostly a short write.
        let mut n = 0;
        for byte in bytes {
            while n == 0 && !device::can_send() {}
            if !device::can_send() {
                break;
            }
            device::send(*byte);
            n += 1;
        }
        Ok(n)
    }

    fn flush(&mut self) -> Result<(), Infallible> {
        Ok(())
    }
}

/// The executor asks again after each interrupt, so nobody is woken in particular.
impl embedded_io_async::Read for Uart {
    async fn read(&mut self, buffer: &mut [u8]) -> Result<usize, Infallible> {
        poll_fn(|_| {
            if RECEIVED.is_empty() && !buffer.is_empty() {
                Poll::Pending
            } else {
                Poll::Ready(Read::read(self, buffer))
            }
        })
        .await
    }
}

impl embedded_io_async::Write for Uart {
    async fn write(&mut self, bytes: &[u8]) -> Result<usize, Infallible> {
        Write::write(self, bytes)
    }

    async fn flush(&mut self) -> Result<(), Infallible> {
        Ok(())
    }
}

/// Milliseconds since the start, counted by SysTick. Sleeps until an interrupt; the next tick is one.
#[derive(Clone, Copy)]
pub struct Millis;

impl Clock for Millis {
    fn now(&mut self) -> Instant {
        Instant::from_millis(u64::from(MILLIS.load(Ordering::Relaxed)))
    }

    fn idle(&mut self, _: Option<Instant>) {
        // If the interrupt of a byte was served before this instruction, SysTick ends it within a millisecond.
        cortex_m::asm::wfi();
    }
}

impl Timer for Millis {
    fn now(&mut self) -> Instant {
        Clock::now(self)
    }

    async fn until(&mut self, at: Option<Instant>) {
        poll_fn(|_| match at {
            Some(at) if at <= Clock::now(self) => Poll::Ready(()),
            _ => Poll::Pending,
        })
        .await;
    }
}
