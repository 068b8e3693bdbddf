//! The session over a serial port. Without a second argument the port is one end of a pseudo-terminal pair, and a thread at
//! the other end plays a modem that carries bytes to the broker and back. With a second argument the port is that device,
//! with a transparent modem behind it.
//!
//! `cargo run -p sansio-mqtt-embedded --example embedded_serial -- 127.0.0.1:1883 [/dev/ttyUSB0]`

use std::io::{Read, Write};
use std::net::TcpStream;
use std::thread;
use std::time::{Duration, Instant as Now};

use embedded_io_adapters::std::FromStd;
use mqtt_embedded::blocking::Connection;
use mqtt_embedded::proto::{
    Connect, Properties, QoS, Subscription, TopicFilter, TopicName, Version,
};
use mqtt_embedded::session::{Config, Event, Outgoing};
use mqtt_embedded::{Buffers, Patient};
use serialport::{SerialPort, TTYPort};

const TOPIC: TopicName<'static> = TopicName::from_static("examples/serial");
const FILTER: TopicFilter<'static> = TopicFilter::from_static("examples/serial");

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut arguments = std::env::args().skip(1);
    let broker = arguments.next().unwrap_or_else(|| "127.0.0.1:1883".into());
    let mut port: Box<dyn SerialPort> = match arguments.next() {
        Some(device) => serialport::new(device, 115_200).open()?,
        None => {
            let (port, modem) = TTYPort::pair()?;
            carry(modem, TcpStream::connect(broker)?)?;
            Box::new(port)
        }
    };
    // A read ends after this time, so that the session gets the time.
    port.set_timeout(Duration::from_millis(20))?;
    let start = Now::now();
    let clock = || u64::try_from(start.elapsed().as_millis()).unwrap_or(u64::MAX);

    let mut buffers = Buffers::<256, 320, 256, 4>::new();
    let (mut client, input) = buffers.client(Config::default());
    let connect = Connect::new(Version::V5, "serial");
    let transport = Patient(FromStd::new(port));
    let mut connection = Connection::new(transport, &mut client, input, clock, &connect)?;
    let (mut heard, mut acknowledged) = (0, 0);
    while heard < 10 || acknowledged < 10 {
        let now = connection.now();
        let (event, client) = connection.next()?;
        match event {
            Some(Event::Connected { .. }) => {
                let filters = [Subscription::new(FILTER, QoS::ExactlyOnce)];
                client.subscribe(&filters, Properties::EMPTY, now)?;
            }
            Some(Event::Subscribed { .. }) => {
                client.publish(&Outgoing::new(TOPIC, QoS::ExactlyOnce, b"number 0"), now)?;
            }
            Some(Event::Acknowledged { .. }) => {
                acknowledged += 1;
                if acknowledged < 10 {
                    let payload = format!("number {acknowledged}");
                    let message = Outgoing::new(TOPIC, QoS::ExactlyOnce, payload.as_bytes());
                    client.publish(&message, now)?;
                }
            }
            Some(Event::Message(message)) => {
                heard += 1;
                println!("heard {}", String::from_utf8_lossy(message.publish.payload));
            }
            _ => {}
        }
    }
    connection.disconnect()?;
    println!("10 messages acknowledged and heard");
    Ok(())
}

/// Plays the modem: carries bytes both ways until either side ends.
fn carry(modem: TTYPort, broker: TcpStream) -> Result<(), Box<dyn std::error::Error>> {
    let (mut from_device, mut to_device) = (modem.try_clone_native()?, modem);
    let (mut from_broker, mut to_broker) = (broker.try_clone()?, broker);
    from_device.set_timeout(Duration::from_secs(3_600))?;
    thread::spawn(move || pass(&mut from_device, &mut to_broker));
    thread::spawn(move || pass(&mut from_broker, &mut to_device));
    Ok(())
}

fn pass(from: &mut impl Read, to: &mut impl Write) {
    let mut buffer = [0; 512];
    while let Ok(n @ 1..) = from.read(&mut buffer) {
        if to.write_all(&buffer[..n]).is_err() {
            return;
        }
    }
}
