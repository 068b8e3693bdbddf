//! Subscribes, publishes ten messages at QoS 2, receives them, and disconnects: `cargo run --example std_echo --
//! mqtt://127.0.0.1:1883`.

use std::time::Duration;

use mqtt_std::proto::QoS;
use mqtt_std::{Handle, Options};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let url = std::env::args()
        .nth(1)
        .unwrap_or_else(|| "mqtt://127.0.0.1:1883".into());
    let handle = Handle::connect(Options::from_url(&url)?)?;
    let mut echoes = handle.subscribe("examples/echo", QoS::ExactlyOnce)?;
    println!("subscribed: {}", echoes.granted()[0]);
    for n in 0..10 {
        let payload = format!("number {n}");
        let ticket = handle.publish("examples/echo", QoS::ExactlyOnce, false, payload)?;
        println!("published: {}", ticket.wait());
        if let Some(message) = echoes.next() {
            let payload = String::from_utf8_lossy(&message.payload);
            println!("{}: {payload}", message.topic());
        }
    }
    let unsent = handle.close(Duration::from_secs(5));
    println!("{} messages remained", unsent.len());
    Ok(())
}
