//! The smallest client that does all of it, to be measured: connect, subscribe, publish at QoS 1 and 2, receive both, keep
//! alive, disconnect.
#![no_std]
#![no_main]

use adapter_embedded::blocking::Connection;
use adapter_embedded::proto::{
    Connect, Properties, QoS, Subscription, TopicFilter, TopicName, Version,
};
use adapter_embedded::session::{Client, Config, Event, Lent, Outgoing, Received, Slot};
use adapter_embedded::{Error, State};
use core::panic::PanicInfo;
use cortex_m::singleton;
use embedded_io::{Read, ReadReady, Write};
use firmware::board::{self, Millis, Uart};
use firmware::semihosting::{exit, tell};
use firmware::stack::Painted;

const VERSION: Version = if cfg!(feature = "v5") {
    Version::V5
} else {
    Version::V311
};

/// All memory of the client.
struct Memory {
    input: [u8; 96],
    outgoing: [u8; 128],
    kept: [u8; 64],
    slots: [Slot; 2],
    received: [Received; 2],
}

#[cortex_m_rt::entry]
fn main() -> ! {
    let (uart, clock) = board::start();
    let memory = singleton!(: Memory = Memory {
        input: [0; 96],
        outgoing: [0; 128],
        kept: [0; 64],
        slots: [Slot::EMPTY; 2],
        received: [Received::EMPTY; 2],
    });
    let painted = Painted::new();
    let ok = match memory {
        Some(memory) => start(uart, clock, memory),
        None => false,
    };
    tell("stack", painted.peak());
    tell("state", u32::try_from(size_of::<State<'_>>()).unwrap_or(0));
    tell("slot", u32::try_from(size_of::<Slot>()).unwrap_or(0));
    tell(
        "received",
        u32::try_from(size_of::<Received>()).unwrap_or(0),
    );
    exit(ok)
}

#[inline(never)]
fn start(uart: Uart, clock: Millis, memory: &'static mut Memory) -> bool {
    let lent = Lent {
        outgoing: &mut memory.outgoing,
        kept: &mut memory.kept,
        slots: &mut memory.slots,
        received: &mut memory.received,
        ..Lent::default()
    };
    let client = singleton!(: State<'static> = Client::new(Config::default(), lent));
    match client {
        Some(client) => run(uart, clock, client, &mut memory.input).is_ok(),
        None => false,
    }
}

fn run<T: Read + ReadReady + Write>(
    uart: T,
    clock: Millis,
    client: &mut State<'_>,
    input: &mut [u8],
) -> Result<(), Error<T::Error>> {
    const TOPIC: TopicName<'static> = TopicName::from_static("fp");
    const FILTER: TopicFilter<'static> = TopicFilter::from_static("fp");
    let mut connect = Connect::new(VERSION, "fp");
    connect.keep_alive = 1;
    let mut connection = Connection::new(uart, client, input, clock, &connect)?;
    let mut ends = 0_u32;
    loop {
        let now = connection.now();
        let (event, client) = connection.next()?;
        match event {
            Some(Event::Connected { .. }) => {
                let filters = [Subscription::new(FILTER, QoS::ExactlyOnce)];
                client.subscribe(&filters, Properties::EMPTY, now)?;
            }
            Some(Event::Subscribed { .. }) => {
                client.publish(&Outgoing::new(TOPIC, QoS::AtLeastOnce, b"1"), now)?;
                client.publish(&Outgoing::new(TOPIC, QoS::ExactlyOnce, b"2"), now)?;
            }
            // Two ends, two messages and an answered ping.
            Some(Event::Acknowledged { .. } | Event::Message(_)) => ends += 1,
            Some(Event::Pong) if ends >= 4 => return connection.disconnect(),
            _ => {}
        }
    }
}

unsafe extern "C" {
    fn a_panic_is_reachable() -> !;
}

#[panic_handler]
fn panic(_: &PanicInfo<'_>) -> ! {
    // SAFETY: there is no such function. If this is reachable, the image does not link.
    #[cfg(not(feature = "lax"))]
    unsafe { a_panic_is_reachable() }
    #[cfg(feature = "lax")]
    loop {}
}
