//! The log and the exit code, through the debugger's interface that QEMU implements. No formatting: it would be the largest
//! part of a small image.

use core::arch::asm;

const SYS_WRITE0: usize = 0x04;
const SYS_GET_CMDLINE: usize = 0x15;
const SYS_EXIT: usize = 0x18;
const APPLICATION_EXIT: usize = 0x2_0026;
const RUNTIME_ERROR: usize = 0x2_0023;

fn call(operation: usize, argument: usize) {
    // SAFETY: QEMU reads what the argument says; all that is passed here is terminated and lives long enough.
    unsafe {
        asm!("bkpt 0xAB", inlateout("r0") operation => _, in("r1") argument, options(nostack));
    }
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
    let block = [text.as_mut_ptr().expose_provenance(), text.len()];
    call(SYS_GET_CMDLINE, (&raw const block).expose_provenance());
    let mut words = text.split(|byte| matches!(byte, 0 | b' '));
    let last = words.rfind(|word| !word.is_empty());
    let digits = last.unwrap_or_default().iter();
    digits.fold(0, |number, digit| {
        number * 10 + u16::from(digit.wrapping_sub(b'0'))
    })
}

/// Ends QEMU: with 0 if all went well, else with 1.
pub fn exit(ok: bool) -> ! {
    call(SYS_EXIT, if ok { APPLICATION_EXIT } else { RUNTIME_ERROR });
    loop {
        cortex_m::asm::wfi();
    }
}
