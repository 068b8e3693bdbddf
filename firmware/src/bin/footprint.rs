//! The smallest client that does all of it, to be measured: connect, subscribe, publish at QoS 1 and 2, receive both, keep
//! alive, disconnect.
#![no_std]
#![no_main]

use core::panic::PanicInfo;
use cortex_m::singleton;
use firmware::board::{self, Millis, Uart};
use firmware::semihosting::{exit, tell};
use firmware::stack::Painted;
use mqtt_embedded::Error;
use mqtt_embedded::proto::{
    Connect, Properties, QoS, Subscription, TopicFilter, TopicName, Version,
};
use mqtt_embedded::session::{Client, Config, Event, Lent, Outgoing, ReceiveSlot, Slot};

const VERSION: Version = if cfg!(feature = "v5") {
    Version::V5
} else {
    Version::V311
};

/// All memory of the client.
struct Memory {
    input: [u8; 48],
    outgoing: [u8; 128],
    kept: [u8; 48],
    slots: [Slot; 2],
    received: [ReceiveSlot; 2],
    #[cfg(feature = "flash")]
    journal: [u8; 160],
}

#[cortex_m_rt::entry]
fn main() -> ! {
    let (uart, clock) = board::start();
    let memory = singleton!(: Memory = Memory {
        input: [0; 48],
        outgoing: [0; 128],
        kept: [0; 48],
        slots: [Slot::EMPTY; 2],
        received: [ReceiveSlot::EMPTY; 2],
        #[cfg(feature = "flash")]
        journal: [0; 160],
    });
    let painted = Painted::new();
    #[cfg(feature = "planted")]
    core::hint::black_box([1_u8, 2][core::hint::black_box(1_usize)]);
    let ok = match memory.and_then(create) {
        Some((client, input)) => start(uart, clock, client, input),
        None => false,
    };
    tell("stack", painted.peak());
    tell("state", u32::try_from(size_of::<Client<'_>>()).unwrap_or(0));
    tell("slot", u32::try_from(size_of::<Slot>()).unwrap_or(0));
    tell(
        "received",
        u32::try_from(size_of::<ReceiveSlot>()).unwrap_or(0),
    );
    exit(ok)
}

/// On a stack frame of its own, where the client lies before it is in its place.
#[inline(never)]
#[allow(
    clippy::needless_update,
    reason = "without the feature `flash` there are more fields"
)]
fn create(
    memory: &'static mut Memory,
) -> Option<(&'static mut Client<'static>, &'static mut [u8])> {
    let lent = Lent {
        outgoing: &mut memory.outgoing,
        kept: &mut memory.kept,
        slots: &mut memory.slots,
        received: &mut memory.received,
        #[cfg(feature = "flash")]
        journal: &mut memory.journal,
        ..Lent::default()
    };
    let client = singleton!(: Client<'static> = Client::new(Config::default(), lent))?;
    Some((client, &mut memory.input))
}

#[inline(never)]
fn start(uart: Uart, clock: Millis, client: &mut Client<'_>, input: &mut [u8]) -> bool {
    finish(run(uart, clock, client, input))
}

/// The flash of the device, which is memory here, and how much of the memory it takes.
#[cfg(feature = "flash")]
fn flash() -> Option<mqtt_embedded::blocking::Flash<firmware::ram_flash::RamFlash, 64, 6>> {
    let flash = firmware::ram_flash::RamFlash::take()?;
    let range = flash.range();
    tell("pages", range.end);
    mqtt_embedded::blocking::Flash::new(flash, range).ok()
}

/// The same text for both kinds of connections.
macro_rules! run {
    ($connection:path, $($bounds:ident)+, $clock:ident $(, $async:ident, $wait:tt)?) => {
        $($async)? fn run<T: $($bounds +)+, C: $clock>(
            uart: T,
            clock: C,
            client: &mut Client<'_>,
            input: &mut [u8],
        ) -> Result<(), Error<T::Error>> {
            const TOPIC: TopicName<'static> = TopicName::from_static("fp");
            const FILTER: TopicFilter<'static> = TopicFilter::from_static("fp");
            #[cfg(feature = "flash")]
            let Some(mut flash) = flash() else {
                exit(false)
            };
            #[cfg(feature = "flash")]
            flash.restore(client)?;
            #[cfg_attr(feature = "flash", allow(unused_mut))]
            let mut connection = {
                let mut connect = Connect::new(VERSION, "fp");
                connect.keep_alive = 1;
                <$connection>::new(uart, client, input, clock, &connect)?
            };
            #[cfg(feature = "flash")]
            let mut connection = connection.with_flash(&mut flash);
            let mut ends = 0_u32;
            loop {
                let now = connection.now();
                let (event, client) = connection.next()$(.$wait)??;
                #[cfg(feature = "full")]
                everything::reach(&event, client, now);
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
                    Some(Event::Pong) if ends >= 4 => return connection.disconnect()$(.$wait)?,
                    _ => {}
                }
            }
        }
    };
}

#[cfg(not(feature = "asynch"))]
use {
    embedded_io::{Read, ReadReady, Write},
    mqtt_embedded::{Clock, blocking::Connection},
};
#[cfg(not(feature = "asynch"))]
run!(Connection<'_, '_, T, C>, Read ReadReady Write, Clock);

#[cfg(feature = "asynch")]
use {
    embedded_io_async::{Read, Write},
    mqtt_embedded::{Timer, asynch::Connection},
};
#[cfg(feature = "asynch")]
run!(Connection<'_, '_, T, C>, Read Write, Timer, async, await);

#[cfg(not(feature = "asynch"))]
fn finish(result: Result<(), Error<core::convert::Infallible>>) -> bool {
    result.is_ok()
}

#[cfg(feature = "asynch")]
fn finish(run: impl Future<Output = Result<(), Error<core::convert::Infallible>>>) -> bool {
    firmware::block_on(run).is_ok()
}

/// Reaches every feature of a client, so that none is left out of the image; none of it runs.
#[cfg(feature = "full")]
mod everything {
    use core::hint::black_box;
    use mqtt_embedded::proto::{
        Auth, Connect, Disconnect, Properties, Property, QoS, ReasonCode, TopicFilter, TopicName,
        Version, Will,
    };
    use mqtt_embedded::session::{
        Acknowledge, Client, Event, Instant, Offline, Outgoing, Receipt, SessionLost,
    };

    pub fn reach(event: &Option<Event<'_>>, client: &mut Client<'_>, now: Instant) {
        if black_box(false) {
            properties(black_box(event), client);
            call(client, now);
        }
        if let (true, Some(Event::Message(message))) = (black_box(false), event) {
            let topic = client.topic(&message.publish);
            black_box(topic.as_str());
            acknowledge(client, message.receipt, now);
        }
    }

    fn acknowledge(client: &mut Client<'_>, receipt: Option<Receipt>, now: Instant) {
        if let Some(receipt) = receipt {
            let _ = client.acknowledge(receipt, ReasonCode::QuotaExceeded, now);
        }
    }

    fn properties(event: &Option<Event<'_>>, client: &Client<'_>) {
        let properties = match event {
            Some(Event::Connected { connack, .. } | Event::Refused(connack)) => connack.properties,
            Some(Event::Message(message)) => message.publish.properties,
            Some(Event::Disconnected(disconnect)) => disconnect.properties,
            Some(Event::Auth(auth)) => auth.properties,
            _ => Properties::EMPTY,
        };
        for property in properties.iter() {
            black_box(property);
        }
        for (token, publish) in client.unacknowledged_all() {
            black_box((token, publish, client.unacknowledged(token)));
        }
    }

    fn call(client: &mut Client<'_>, now: Instant) {
        let config = client.config_mut();
        config.acknowledge = black_box(Acknowledge::ByHand);
        config.offline = black_box(Offline::DropOldest);
        config.session_lost = black_box(SessionLost::HandBack);
        config.auto_alias = black_box(4);
        let list = black_box([
            Property::SessionExpiryInterval(60),
            Property::ReceiveMaximum(2),
            Property::UserProperty("a", "b"),
            Property::AuthenticationMethod("m"),
            Property::AuthenticationData(b"d"),
        ]);
        let properties: Properties<'_> = (&list[..]).into();
        let topic = TopicName::new(black_box("a/b")).unwrap_or_default();
        let filter = TopicFilter::new(black_box("$share/g/+/#")).unwrap_or_default();
        let mut connect = Connect::new(black_box(Version::V311), "id");
        connect.user_name = black_box(Some("user"));
        connect.password = black_box(Some(b"password"));
        connect.properties = properties;
        connect.will = black_box(Some(Will {
            properties,
            ..Will::new(topic, b"gone")
        }));
        let _ = black_box(client.connect(&connect, now));
        let mut message = Outgoing::new(topic, black_box(QoS::ExactlyOnce), b"hello");
        message.retain = black_box(true);
        message.properties = properties;
        let _ = black_box(client.publish(&message, now));
        let _ = black_box(client.unsubscribe(&[filter], properties, now));
        let auth = Auth {
            reason: black_box(ReasonCode::ReAuthenticate),
            properties,
        };
        let _ = black_box(client.authenticate(&auth, now));
        let bye = Disconnect {
            reason: black_box(ReasonCode::DisconnectWithWill),
            properties,
        };
        let _ = black_box(client.disconnect(&bye));
        client.assume_session(black_box("id"));
        client.forget_session();
    }
}

#[cfg(not(any(feature = "asynch", feature = "flash")))]
unsafe extern "C" {
    fn a_panic_is_reachable() -> !;
}

#[panic_handler]
fn panic(_: &PanicInfo<'_>) -> ! {
    // A future can be polled once too often, so every one of them can panic. `sequential-storage` has assertions.
    #[cfg(any(feature = "asynch", feature = "flash"))]
    exit(false);
    // SAFETY: there is no such function. If this is reachable, the image does not link.
    #[cfg(not(any(feature = "asynch", feature = "flash")))]
    unsafe {
        a_panic_is_reachable()
    }
}
