//! A client on the nRF52840 DK with Embassy. It publishes the temperature of the chip every ten seconds, and `on` and `off` on
//! `dk/led` switch LED1. MQTT goes through the serial port of the board, which a computer connects with a broker.
#![no_std]
#![no_main]

use embassy_executor::Spawner;
use embassy_nrf::buffered_uarte::{self, BufferedUarte};
use embassy_nrf::gpio::{Level, Output, OutputDrive};
use embassy_nrf::temp::{self, Temp};
use embassy_nrf::{bind_interrupts, peripherals, uarte};
use embassy_time::{Duration, Instant, Timer, with_timeout};
use embedded_io_async::{Read, Write};
use mqtt_embedded::asynch::Connection;
use mqtt_embedded::proto::{
    Connect, Properties, QoS, Subscription, TopicFilter, TopicName, Version,
};
use mqtt_embedded::session::{Client, Config, Event, Outgoing, Refused};
use mqtt_embedded::{Buffers, EmbassyTime, Error};
use panic_halt as _;
use static_cell::StaticCell;

bind_interrupts!(struct Interrupts {
    UARTE0 => buffered_uarte::InterruptHandler<peripherals::UARTE0>;
    TEMP => temp::InterruptHandler;
});

/// How often the temperature is published.
const PERIOD: Duration = Duration::from_secs(10);
/// The line counts as silent after this time without a byte.
const SILENCE: Duration = Duration::from_millis(500);

/// Input, output, kept bytes, slots.
type Memory = Buffers<256, 320, 512, 8>;

/// The parts of the board that the messages are about.
struct Board {
    thermometer: Temp<'static>,
    led: Output<'static>,
}

#[embassy_executor::main]
async fn main(_spawner: Spawner) {
    static RECEIVED: StaticCell<[u8; 256]> = StaticCell::new();
    static SENT: StaticCell<[u8; 256]> = StaticCell::new();
    static MEMORY: StaticCell<Memory> = StaticCell::new();

    let chip = embassy_nrf::init(Default::default());
    let mut board = Board {
        thermometer: Temp::new(chip.TEMP, Interrupts),
        led: Output::new(chip.P0_13, Level::High, OutputDrive::Standard),
    };
    let mut config = uarte::Config::default();
    config.baudrate = uarte::Baudrate::Baud115200;
    let mut uart = BufferedUarte::new(
        chip.UARTE0,
        chip.TIMER0,
        chip.PPI_CH0,
        chip.PPI_CH1,
        chip.PPI_GROUP0,
        chip.P0_08,
        chip.P0_06,
        Interrupts,
        config,
        RECEIVED.init([0; 256]),
        SENT.init([0; 256]),
    );
    let (mut client, input) = MEMORY.init(Memory::new()).client(Config::default());
    loop {
        // A line that was cut only falls silent; what remains of the last connection is read first.
        drain(&mut uart).await;
        // The session stays in `client`: what was not acknowledged goes out again on the next connection.
        let _why = serve(&mut uart, &mut client, input, &mut board).await;
        Timer::after_secs(1).await;
    }
}

/// Reads until the line is silent.
async fn drain(uart: &mut impl Read) {
    let mut bytes = [0; 32];
    while with_timeout(SILENCE, uart.read(&mut bytes)).await.is_ok() {}
}

/// Serves one connection until it ends.
async fn serve<T: Read + Write>(
    uart: T,
    client: &mut Client<'_>,
    input: &mut [u8],
    board: &mut Board,
) -> Result<(), Error<T::Error>> {
    let connect = Connect {
        clean_start: false,
        keep_alive: 30,
        ..Connect::new(Version::V311, "nrf52840-dk")
    };
    let mut connection = Connection::new(uart, client, input, EmbassyTime, &connect)?;
    let mut due = Instant::now();
    loop {
        let patience = due.saturating_duration_since(Instant::now());
        let now = connection.now();
        let (event, client) = connection.next_within(patience.into()).await?;
        match event {
            Some(Event::Connected { .. }) => {
                let filter = TopicFilter::from_static("dk/led");
                client.subscribe(
                    &[Subscription::new(filter, QoS::AtLeastOnce)],
                    Properties::EMPTY,
                    now,
                )?;
            }
            Some(Event::Message(message)) => match message.publish.payload {
                b"on" => board.led.set_low(),
                b"off" => board.led.set_high(),
                _ => {}
            },
            _ => {}
        }
        if Instant::now() >= due {
            due += PERIOD;
            let celsius = board.thermometer.read().await.to_num::<i32>();
            let now = connection.now();
            publish(connection.client(), now, celsius)?;
        }
    }
}

/// Publishes the temperature. A value for which there is no room, or no connection, is left out: the next one is newer.
fn publish(
    client: &mut Client<'_>,
    now: mqtt_embedded::session::Instant,
    celsius: i32,
) -> Result<(), Refused> {
    let mut text = [0; 11];
    let topic = TopicName::from_static("dk/temperature");
    let message = Outgoing::new(topic, QoS::AtLeastOnce, decimal(celsius, &mut text));
    match client.publish(&message, now) {
        Ok(_) | Err(Refused::Full | Refused::Offline) => Ok(()),
        Err(refused) => Err(refused),
    }
}

/// Writes a number in decimal digits.
fn decimal(number: i32, text: &mut [u8; 11]) -> &[u8] {
    let mut rest = number.unsigned_abs();
    let mut at = text.len();
    loop {
        at -= 1;
        text[at] = b'0' + (rest % 10) as u8;
        rest /= 10;
        if rest == 0 {
            break;
        }
    }
    if number < 0 {
        at -= 1;
        text[at] = b'-';
    }
    &text[at..]
}
