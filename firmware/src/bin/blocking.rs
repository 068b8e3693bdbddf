//! The script over a UART, blocking.
#![no_std]
#![no_main]

use core::panic::PanicInfo;
use cortex_m::singleton;
use embedded_io::{Read, ReadReady, Write};
use firmware::board::{self, Millis};
use firmware::script::{self, Script};
use firmware::semihosting::{exit, log};
use mqtt_embedded::blocking::Connection;
use mqtt_embedded::session::Client;
use mqtt_embedded::{Buffers, Error};

#[cortex_m_rt::entry]
fn main() -> ! {
    let (mut uart, clock) = board::start();
    let Some(buffers) = singleton!(: Buffers<192, 320, 384, 8> = Buffers::new()) else {
        exit(false);
    };
    let (mut client, input) = buffers.client(script::config());
    let mut script = Script::default();
    for _ in 0..20 {
        uart.settle(clock);
        match serve(&mut uart, &mut client, input, clock, &mut script) {
            Ok(()) => exit(script.succeeded()),
            Err(_) => log("connection lost\n"),
        }
    }
    exit(false)
}

fn serve<T: Read + ReadReady + Write>(
    uart: T,
    client: &mut Client<'_>,
    input: &mut [u8],
    clock: Millis,
    script: &mut Script,
) -> Result<(), Error<T::Error>> {
    let mut connection = Connection::new(uart, client, input, clock, &script::connect())?;
    while !script.is_done() {
        let now = connection.now();
        let (event, client) = connection.next()?;
        script.step(event, client, now);
    }
    connection.disconnect()
}

#[panic_handler]
fn panic(_: &PanicInfo<'_>) -> ! {
    log("panic\n");
    exit(false)
}
