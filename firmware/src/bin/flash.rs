//! A device that is reset at any instant. It publishes each number that it gets on `fw/told` on `fw/forwarded`, odd ones at QoS 2 and
//! even ones at QoS 1, and ends when the last number is acknowledged. Its session is in a flash that is a file of the host, whose path is
//! on the command line, followed by the step in which the power is cut.
//!
//! Each number is forwarded once, although the device forgets all but its flash: numbers are told in ascending order and at one QoS, so
//! that a number that is not above the last forwarded one is a repetition. The note of the last acknowledgement says which number
//! was forwarded last. Message and note are two records, of which the message is the first: if the power was cut between them, the note is
//! stored at the start, before anything is sent.
#![no_std]
#![no_main]

use core::convert::Infallible;
use core::panic::PanicInfo;

use cortex_m::singleton;
use firmware::board::{self, Millis, Uart};
use firmware::flash::FileFlash;
use firmware::semihosting::{exit, log, path_and_number};
use mqtt_embedded::blocking::{Connection, Flash};
use mqtt_embedded::proto::{
    Connect, PacketId, Properties, Property, QoS, Subscription, TopicFilter, TopicName, Version,
};
use mqtt_embedded::session::{
    Acknowledge, Client, Config, Event, Incoming, Instant, Outgoing, Receipt, Refused,
};
use mqtt_embedded::{Buffers, Error, SessionError};

/// The number after which the device ends.
const LAST: u16 = u16::MAX;
/// How many messages may be on their way. The other slots are for SUBSCRIBE.
const MOST_PENDING: usize = 12;

type Records = Flash<FileFlash, 128, 35>;

#[cortex_m_rt::entry]
fn main() -> ! {
    let (uart, clock) = board::start();
    let mut line = [0; 512];
    let flash = path_and_number(&mut line).and_then(|(path, cut)| FileFlash::open(path, cut));
    let (Some(flash), Some(buffers)) = (
        flash,
        singleton!(: Buffers<192, 320, 512, 16, 640> = Buffers::with_journal()),
    ) else {
        log("no flash\n");
        exit(false)
    };
    let mut config = Config::default();
    config.acknowledge = Acknowledge::ByHand;
    let (mut client, input) = buffers.client(config);
    let ran = run(uart, clock, &mut client, input, flash);
    log(match ran {
        Ok(()) => "done\n",
        Err(Error::Session(SessionError::Flash(_))) => "the flash failed\n",
        Err(Error::Session(SessionError::Refused(_))) => "the client refused\n",
        Err(_) => "the connection ended\n",
    });
    exit(ran.is_ok())
}

fn run(
    uart: Uart,
    clock: Millis,
    client: &mut Client<'_>,
    input: &mut [u8],
    flash: FileFlash,
) -> Result<(), Error<Infallible>> {
    let range = flash.range();
    let mut flash = Records::new(flash, range)?;
    let has_session = flash.restore(client)?;
    let mut last = forwarded(client);
    // Before MQTT 5, a session that begins with a clean start ends with its connection.
    let is_lost = cfg!(feature = "v5") && !has_session;
    let clean_start = is_lost || client.must_start_clean();
    let connection = Connection::new(uart, client, input, clock, &connect(clean_start))?;
    let mut connection = connection.with_flash(&mut flash);
    let mut held = Held::default();
    while last != Some(LAST) || connection.client().pending() > 0 {
        let now = connection.now();
        let (event, client) = connection.next()?;
        match event {
            Some(Event::Connected { .. }) => {
                let told = TopicFilter::from_static("fw/told");
                let told = [Subscription::new(told, QoS::ExactlyOnce)];
                client.subscribe(&told, Properties::EMPTY, now)?;
            }
            Some(Event::Subscribed { .. }) => log("subscribed\n"),
            Some(Event::Message(message)) => held.push(&message),
            _ => {}
        }
        while let Some((receipt, told)) = held.first() {
            match forward(connection.client(), receipt, told, &mut last, now) {
                // There is room after the next acknowledgement.
                Err(Refused::Full) => break,
                forwarded => forwarded?,
            }
            held.remove_first();
            connection.flush()?;
        }
    }
    connection.disconnect()
}

fn connect(clean_start: bool) -> Connect<'static> {
    const PROPERTIES: &[Property<'_>] = &[
        Property::SessionExpiryInterval(3_600),
        Property::ReceiveMaximum(8),
    ];
    let v5 = cfg!(feature = "v5");
    Connect {
        clean_start,
        properties: if v5 { PROPERTIES } else { &[] }.into(),
        ..Connect::new(if v5 { Version::V5 } else { Version::V311 }, "fw")
    }
}

/// Returns the number that was forwarded last, and completes what a power cut has interrupted.
fn forwarded(client: &mut Client<'_>) -> Option<u16> {
    let noted = client.note().and_then(number);
    let kept = client.unacknowledged_all();
    let kept = kept
        .filter_map(|(_, publish)| number(publish.payload))
        .max();
    if let (true, Some(kept), Some(unused)) = (kept > noted, kept, PacketId::new(u16::MAX)) {
        client.store_note(unused, &kept.to_be_bytes());
    }
    kept.max(noted)
}

/// Numbers that arrived and are not forwarded.
#[derive(Default)]
struct Held([Option<(Receipt, u16)>; 8]);

impl Held {
    fn push(&mut self, message: &Incoming<'_>) {
        let number = number(message.publish.payload);
        if let Some(free) = self.0.iter_mut().find(|place| place.is_none()) {
            *free = message.receipt.zip(number);
        }
    }

    fn first(&self) -> Option<(Receipt, u16)> {
        self.0.first().copied().flatten()
    }

    fn remove_first(&mut self) {
        self.0.rotate_left(1);
        if let Some(last) = self.0.last_mut() {
            *last = None;
        }
    }
}

fn forward(
    client: &mut Client<'_>,
    receipt: Receipt,
    told: u16,
    last: &mut Option<u16>,
    now: Instant,
) -> Result<(), Refused> {
    if Some(told) > *last {
        let qos = if told % 2 == 1 {
            QoS::ExactlyOnce
        } else {
            QoS::AtLeastOnce
        };
        if client.pending() >= MOST_PENDING {
            return Err(Refused::Full);
        }
        let topic = TopicName::from_static("fw/forwarded");
        client.publish(&Outgoing::new(topic, qos, &told.to_be_bytes()), now)?;
        *last = Some(told);
        log("forwarded\n");
    }
    let note = last.unwrap_or(told).to_be_bytes();
    client.acknowledge_with(receipt, &note, now)
}

fn number(bytes: &[u8]) -> Option<u16> {
    bytes.try_into().ok().map(u16::from_be_bytes)
}

#[panic_handler]
fn panic(_: &PanicInfo<'_>) -> ! {
    log("panic\n");
    exit(false)
}
