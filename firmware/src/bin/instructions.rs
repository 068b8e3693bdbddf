//! How many instructions the session takes for one PUBLISH at QoS 1 that comes in, from its bytes to its PUBACK. Run with
//! `-icount shift=5`, where each instruction takes 32 ns of the machine's time.
#![no_std]
#![no_main]

use core::hint::black_box;
use core::panic::PanicInfo;
use cortex_m::peripheral::SYST;
use cortex_m::peripheral::syst::SystClkSource;
use cortex_m::{Peripherals, singleton};
use firmware::semihosting::{exit, log, tell};
use mqtt_embedded::Buffers;
use mqtt_embedded::proto::{Connect, Version};
use mqtt_embedded::session::{Client, Config, Event, Instant, Step};

/// PUBLISH with QoS 1, topic `a/b` and four bytes; in MQTT 5 without properties.
const PUBLISH_311: [u8; 13] = *b"\x32\x0B\0\x03a/b\0\x07data";
const PUBLISH_5: [u8; 14] = *b"\x32\x0C\0\x03a/b\0\x07\0data";
const TIMES: u32 = 1_000;
/// Nanoseconds of a SysTick at 25 MHz, and of an instruction at `shift=5`.
const TICK: u32 = 40;
const INSTRUCTION: u32 = 32;

#[cortex_m_rt::entry]
fn main() -> ! {
    let (Some(mut core), Some(buffers)) = (
        Peripherals::take(),
        singleton!(: Buffers<128, 128, 64, 2> = Buffers::new()),
    ) else {
        exit(false);
    };
    core.SYST.set_clock_source(SystClkSource::Core);
    core.SYST.set_reload(0x00FF_FFFF);
    core.SYST.clear_current();
    core.SYST.enable_counter();

    let (mut client, _) = buffers.client(Config::default());
    let (version, connack, publish): (_, &[u8], &[u8]) = if cfg!(feature = "v5") {
        (Version::V5, b"\x20\x03\0\0\0", &PUBLISH_5)
    } else {
        (Version::V311, b"\x20\x02\0\0", &PUBLISH_311)
    };
    let now = Instant::from_millis(0);
    let connected = client.connect(&Connect::new(version, "count"), now).is_ok();
    client.sent(client.outgoing().len());
    if !connected || client.receive(connack, now).is_err() {
        exit(false);
    }
    let before = SYST::get_current();
    for _ in 0..TIMES {
        if !receive(&mut client, black_box(publish), now) {
            exit(false);
        }
    }
    // SysTick counts down.
    let ticks = before.wrapping_sub(SYST::get_current()) & 0x00FF_FFFF;
    tell("instructions", ticks / TIMES * TICK / INSTRUCTION);
    exit(true)
}

fn receive(client: &mut Client<'_>, publish: &[u8], now: Instant) -> bool {
    let came = matches!(
        client.receive(publish, now),
        Ok(Step::Packet {
            event: Some(Event::Message(_)),
            ..
        })
    );
    let puback = client.outgoing().len();
    client.sent(puback);
    came && puback == 4
}

#[panic_handler]
fn panic(_: &PanicInfo<'_>) -> ! {
    log("panic\n");
    exit(false)
}
