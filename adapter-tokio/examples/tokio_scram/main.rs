//! Shows enhanced authentication with SCRAM-SHA-256 (MQTT 5, section 4.12; RFC 7677): the client proves that it knows the
//! password without sending the password, and the broker proves the same to the client.
//!
//! `cargo run -p sansio-mqtt-tokio --example tokio_scram` starts a broker and connects to it, with the right password and with a
//! wrong one. With a URL, such as `mqtt://127.0.0.1:1883`, it connects to a broker that knows the user `pump-7` with the password
//! `pencil`.

mod client;
mod scram;
mod server;

use std::time::Duration;

use mqtt_broker_host::broker::Config;
use mqtt_broker_host::{Host, control};
use mqtt_tokio::proto::{QoS, Version};
use mqtt_tokio::{Error, Handle, MakeAuthenticator, Options};
use tokio::net::TcpListener;

use client::ScramClient;
use server::ScramServer;

const USER: &str = "pump-7";
const PASSWORD: &str = "pencil";

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    match std::env::args().nth(1) {
        Some(url) => runtime.block_on(talk(Options::from_url(&url)?, PASSWORD))?,
        None => runtime.block_on(with_a_broker())?,
    }
    Ok(())
}

async fn with_a_broker() -> Result<(), Box<dyn std::error::Error>> {
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let options = Options::new("127.0.0.1", listener.local_addr()?.port());
    let (_control, commands) = control();
    let hooks = ScramServer::new(USER, PASSWORD);
    let host = Host::new(Config::default(), hooks, commands);
    let (done, end) = tokio::sync::oneshot::channel::<()>();
    let clients = async {
        talk(options.clone(), PASSWORD).await?;
        match talk(options, "pencils").await {
            Err(error) if error.is_authentication_failure() => println!("refused: {error}"),
            other => return Err(format!("a wrong password: {other:?}").into()),
        }
        drop(done);
        Ok(())
    };
    let serve = host.run([listener], async {
        let _ = end.await;
    });
    tokio::join!(serve, clients).1
}

/// Connects, publishes a message and receives it.
async fn talk(mut options: Options, password: &'static str) -> Result<(), Error> {
    options.version = Version::V5;
    options.authenticator = Some(MakeAuthenticator::new(move || {
        ScramClient::new(USER, password)
    }));
    let handle = Handle::connect(options).await?;
    println!("connected");
    let mut echoes = handle.subscribe("examples/scram", QoS::AtLeastOnce).await?;
    let published = handle
        .publish("examples/scram", QoS::AtLeastOnce, false, "hello")
        .await?;
    println!("published: {}", published.await);
    if let Some(message) = echoes.next().await {
        println!("heard: {}", String::from_utf8_lossy(&message.payload));
    }
    let _ = handle.close(Duration::from_secs(5)).await;
    Ok(())
}
