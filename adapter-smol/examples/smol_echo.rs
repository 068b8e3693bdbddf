//! Subscribes, publishes ten messages at QoS 2, receives them, and disconnects: `cargo run --example smol_echo --
//! mqtt://127.0.0.1:1883`.

use std::time::Duration;

use mqtt_smol::proto::QoS;
use mqtt_smol::{Handle, Options};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    smol::block_on(echo())
}

async fn echo() -> Result<(), Box<dyn std::error::Error>> {
    let url = std::env::args()
        .nth(1)
        .unwrap_or_else(|| "mqtt://127.0.0.1:1883".into());
    let options = Options::from_url(&url)?;
    let handle = Handle::connect(options, |driver| smol::spawn(driver).detach()).await?;
    let mut echoes = handle.subscribe("examples/echo", QoS::ExactlyOnce).await?;
    println!("subscribed: {}", echoes.granted()[0]);
    for n in 0..10 {
        let payload = format!("number {n}");
        let ticket = handle
            .publish("examples/echo", QoS::ExactlyOnce, false, &payload)
            .await?;
        println!("published: {}", ticket.await);
        if let Some(message) = echoes.next().await {
            let payload = String::from_utf8_lossy(&message.payload);
            println!("{}: {payload}", message.topic());
        }
    }
    let unsent = handle.close(Duration::from_secs(5)).await;
    println!("{} messages remained", unsent.len());
    Ok(())
}
