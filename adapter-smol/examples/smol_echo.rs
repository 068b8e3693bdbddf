//! Subscribes, publishes ten messages at QoS 2, hears them, and leaves: `cargo run --example smol_echo -- mqtt://127.0.0.1:1883`.

use std::time::Duration;

use adapter_smol::proto::{QoS, Subscription, TopicFilter, TopicName};
use adapter_smol::{Handle, Options, Outgoing};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    smol::block_on(echo())
}

async fn echo() -> Result<(), Box<dyn std::error::Error>> {
    let url = std::env::args()
        .nth(1)
        .unwrap_or_else(|| "mqtt://127.0.0.1:1883".into());
    let (handle, driver) = Handle::new(Options::from_url(&url)?);
    smol::spawn(driver).detach();
    handle.connected().await?;
    let filter = TopicFilter::new("examples/echo")?;
    let (granted, mut echoes) = handle
        .subscribe(&Subscription::new(filter, QoS::ExactlyOnce))
        .await?;
    println!("subscribed: {granted}");
    for n in 0..10 {
        let payload = format!("number {n}");
        let topic = TopicName::new("examples/echo")?;
        let ticket = handle
            .publish(&Outgoing::new(topic, QoS::ExactlyOnce, payload.as_bytes()))
            .await?;
        println!("published: {:?}", ticket.await);
        if let Some(message) = echoes.next().await {
            println!(
                "{}: {}",
                message.topic(),
                String::from_utf8_lossy(&message.payload)
            );
        }
    }
    let unsent = handle.close(Duration::from_secs(5)).await;
    println!("{} messages remained", unsent.len());
    Ok(())
}
