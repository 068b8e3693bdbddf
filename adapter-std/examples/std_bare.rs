//! Uses a bare connection in one thread: prints the messages of a topic, and answers events by calls of the machine.

use std::time::Duration;

use mqtt_std::proto::{Connect, Properties, QoS, Subscription, TopicFilter, Version};
use mqtt_std::session::Event;
use mqtt_std::{Config, Connection};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let address = std::env::args()
        .nth(1)
        .unwrap_or_else(|| "127.0.0.1:1883".into());
    let count: u32 = std::env::args()
        .nth(2)
        .map_or(Ok(u32::MAX), |count| count.parse())?;
    let connect = Connect::new(Version::V5, "");
    let mut connection = Connection::dial(
        &*address,
        &connect,
        Config::default(),
        Duration::from_secs(10),
    )?;
    let mut left = count;
    while left > 0 {
        let now = connection.now();
        let (event, client) = connection.next()?;
        match event {
            Some(Event::Connected { .. }) => {
                let filter = TopicFilter::new("examples/#")?;
                let subscription = Subscription::new(filter, QoS::AtLeastOnce);
                client.subscribe(&[subscription], Properties::EMPTY, now)?;
            }
            Some(Event::Subscribed { .. }) => println!("subscribed"),
            Some(Event::Message(message)) => {
                let payload = String::from_utf8_lossy(message.publish.payload);
                println!("{}: {payload}", client.topic(&message.publish));
                left -= 1;
            }
            Some(Event::Refused(connack)) => return Err(connack.reason.to_string().into()),
            _ => {}
        }
    }
    connection.disconnect()?;
    Ok(())
}
