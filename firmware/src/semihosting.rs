//! The log, the exit code and files of the host, through the debugger's interface that QEMU implements. No formatting: it would
//! be the largest part of a small image.

use core::arch::asm;

const SYS_OPEN: usize = 0x01;
const SYS_WRITE0: usize = 0x04;
const SYS_WRITE: usize = 0x05;
const SYS_READ: usize = 0x06;
const SYS_SEEK: usize = 0x0A;
const SYS_GET_CMDLINE: usize = 0x15;
const SYS_EXIT: usize = 0x18;
const APPLICATION_EXIT: usize = 0x2_0026;
const RUNTIME_ERROR: usize = 0x2_0023;
/// A file that exists is opened to be read and written: "r+b" of the C library.
const READ_AND_WRITE: usize = 3;

fn call(operation: usize, argument: usize) -> usize {
    let result;
    // SAFETY: QEMU reads what the argument says, and writes to the buffer that it names; all that is passed here is terminated and
    // lives long enough.
    unsafe {
        asm!("bkpt 0xAB", inlateout("r0") operation => result, in("r1") argument, options(nostack));
    }
    result
}

/// Calls with a block of words as the argument.
fn call_with<const N: usize>(operation: usize, block: [usize; N]) -> usize {
    call(operation, (&raw const block).expose_provenance())
}

/// Writes text to the log.
pub fn log(text: &str) {
    log_bytes(text.as_bytes());
}

fn log_bytes(text: &[u8]) {
    let mut bytes = text;
    while !bytes.is_empty() {
        let mut line = [0_u8; 33];
        let n = bytes.len().min(32);
        let (head, rest) = bytes.split_at_checked(n).unwrap_or_default();
        for (place, byte) in line.iter_mut().zip(head) {
            *place = *byte;
        }
        call(SYS_WRITE0, line.as_ptr().expose_provenance());
        bytes = rest;
    }
}

/// Writes `name=number` to the log, for the host to read.
pub fn tell(name: &str, number: u32) {
    log(name);
    let mut digits = [0_u8; 12];
    let mut rest = number;
    let mut first = 10;
    for (at, place) in digits.iter_mut().enumerate().take(10).rev() {
        *place = b'0' + u8::try_from(rest % 10).unwrap_or(0);
        rest /= 10;
        first = at;
        if rest == 0 {
            break;
        }
    }
    log("=");
    log_bytes(digits.get(first..10).unwrap_or_default());
    log("\n");
}

/// The number at the end of the command line, 0 if there is none.
pub fn argument() -> u16 {
    let mut text = [0_u8; 64];
    let mut words = command_line(&mut text).split(|byte| *byte == b' ');
    number(words.next_back().unwrap_or_default())
}

/// The path and the number on the command line `IMAGE PATH NUMBER`.
pub fn path_and_number(text: &mut [u8]) -> Option<(&str, u16)> {
    let line = core::str::from_utf8(command_line(text)).ok()?;
    let (_, arguments) = line.split_once(' ')?;
    let (path, digits) = arguments.rsplit_once(' ')?;
    Some((path, number(digits.as_bytes())))
}

fn command_line(text: &mut [u8]) -> &[u8] {
    let block = [text.as_mut_ptr().expose_provenance(), text.len()];
    call_with(SYS_GET_CMDLINE, block);
    text.split(|byte| *byte == 0).next().unwrap_or_default()
}

fn number(digits: &[u8]) -> u16 {
    digits.iter().fold(0, |number, digit| {
        number * 10 + u16::from(digit.wrapping_sub(b'0'))
    })
}

/// A file of the host.
pub struct File(usize);

impl File {
    /// Opens a file that exists.
    pub fn open(path: &str) -> Option<Self> {
        let mut name = [0_u8; 512];
        let (place, rest) = name.split_at_mut_checked(path.len())?;
        // A zero follows the name.
        rest.first()?;
        place.copy_from_slice(path.as_bytes());
        let name = name.as_ptr().expose_provenance();
        let handle = call_with(SYS_OPEN, [name, READ_AND_WRITE, path.len()]);
        (handle != usize::MAX).then_some(Self(handle))
    }

    fn seek(&self, at: u32) -> bool {
        usize::try_from(at).is_ok_and(|at| call_with(SYS_SEEK, [self.0, at]) == 0)
    }

    /// Fills `bytes` from this place. Returns whether it succeeded.
    pub fn read(&self, at: u32, bytes: &mut [u8]) -> bool {
        let place = bytes.as_mut_ptr().expose_provenance();
        self.seek(at) && call_with(SYS_READ, [self.0, place, bytes.len()]) == 0
    }

    /// Writes `bytes` to this place. Returns whether it succeeded.
    pub fn write(&self, at: u32, bytes: &[u8]) -> bool {
        let place = bytes.as_ptr().expose_provenance();
        self.seek(at) && call_with(SYS_WRITE, [self.0, place, bytes.len()]) == 0
    }
}

/// Ends QEMU: with 0 if all went well, else with 1.
pub fn exit(ok: bool) -> ! {
    call(SYS_EXIT, if ok { APPLICATION_EXIT } else { RUNTIME_ERROR });
    loop {
        cortex_m::asm::wfi();
    }
}
