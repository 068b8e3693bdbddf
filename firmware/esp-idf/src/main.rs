//! A client on an ESP32-C3 with std: threads, sockets and name resolution are those of ESP-IDF. It publishes the time since its start
//! every ten seconds, and prints what is published on `esp32/commands`. On a computer the same program runs as it is.
//!
//! The README says what a project for the board adds: Wi-Fi, which has to be up before `main` calls [`run`].

use std::thread;
use std::time::{Duration, Instant};

use mqtt_std::proto::QoS;
use mqtt_std::{Error, Handle, Options};

/// How often a value is published.
const PERIOD: Duration = Duration::from_secs(10);

/// Where the broker is; `BROKER=mqtt://192.168.1.2 cargo build` sets it for the board.
const BROKER: &str = match option_env!("BROKER") {
    Some(url) => url,
    None => "mqtt://127.0.0.1:1883",
};

fn main() -> Result<(), Error> {
    run(BROKER)
}

/// Publishes and receives until the client ends, which it does only for errors that trying again cannot help.
fn run(broker: &str) -> Result<(), Error> {
    let mut options = Options::from_url(broker)?;
    options.client_id = "esp32-c3".into();
    options.clean_start = false; // the broker keeps commands while the board is away
    options.keep_alive = 30;
    // An ESP32-C3 has 400 KiB of memory, of which Wi-Fi takes its share. What is kept for the broker and for this program is bounded.
    options.config.packet_limit = 4 * 1024;
    options.config.outgoing_limit = 8 * 1024;
    options.config.kept_limit = 16 * 1024;
    options.receive_limit = 8 * 1024;
    let handle = Handle::start(options); // connects, and reconnects after each loss

    let commands = handle.subscribe("esp32/commands", QoS::AtLeastOnce)?;
    thread::spawn(move || {
        for command in commands {
            println!("{}: {:?}", command.topic(), command.payload);
        }
    });
    let start = Instant::now();
    loop {
        let seconds = start.elapsed().as_secs().to_string();
        // Without a connection the value waits. At QoS 0 it would be left out.
        drop(handle.publish("esp32/uptime", QoS::AtLeastOnce, false, seconds)?);
        thread::sleep(PERIOD);
    }
}
