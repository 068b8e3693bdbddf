//! The script over a UART, as a future.
#![no_std]
#![no_main]

use core::panic::PanicInfo;
use cortex_m::singleton;
use embedded_io_async::{Read, Write};
use firmware::block_on;
use firmware::board::{self, Millis};
use firmware::script::{self, Script};
use firmware::semihosting::{exit, log};
use mqtt_embedded::asynch::Connection;
use mqtt_embedded::session::Client;
use mqtt_embedded::{Buffers, Error};

#[cortex_m_rt::entry]
fn main() -> ! {
    let (mut uart, timer) = board::start();
    let Some(buffers) = singleton!(: Buffers<192, 320, 384, 8> = Buffers::new()) else {
        exit(false);
    };
    let (mut client, input) = buffers.client(script::config());
    let mut script = Script::default();
    for _ in 0..20 {
        uart.settle(timer);
        match block_on(serve(&mut uart, &mut client, input, timer, &mut script)) {
            Ok(()) => exit(script.succeeded()),
            Err(_) => log("connection lost\n"),
        }
    }
    exit(false)
}

async fn serve<T: Read + Write>(
    uart: T,
    client: &mut Client<'_>,
    input: &mut [u8],
    timer: Millis,
    script: &mut Script,
) -> Result<(), Error<T::Error>> {
    let mut connection = Connection::new(uart, client, input, timer, &script::connect())?;
    while !script.is_done() {
        let now = connection.now();
        let (event, client) = connection.next().await?;
        script.step(event, client, now);
    }
    connection.disconnect().await
}

#[panic_handler]
fn panic(_: &PanicInfo<'_>) -> ! {
    log("panic\n");
    exit(false)
}
