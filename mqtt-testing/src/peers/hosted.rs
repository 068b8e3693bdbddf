//! Runs the broker of this workspace on a free port of 127.0.0.1 in a separate thread.

use std::thread::JoinHandle;

use mqtt_broker_host::broker::{Config, ConnectionId, Hooks, Verdict};
use mqtt_broker_host::{Host, Layers, Listener, control};
use mqtt_proto::{Connect, ReasonCode};
use tokio::net::TcpListener;
use tokio::sync::oneshot;

/// A running broker; it ends when this is dropped.
#[derive(Debug)]
pub struct HostedBroker {
    /// The port of the broker for plain MQTT.
    pub port: u16,
    /// The ports of the broker with layers.
    pub layered: Vec<u16>,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

#[derive(Debug)]
struct PasswordHooks {
    password: Option<&'static str>,
    names: u128,
}

impl Hooks for PasswordHooks {
    fn unguessable(&mut self) -> u128 {
        self.names += 1;
        self.names
    }

    fn connect(&mut self, _: ConnectionId, connect: &Connect<'_>) -> Verdict {
        match self.password {
            Some(password) if connect.password != Some(password.as_bytes()) => {
                Verdict::Refuse(ReasonCode::BadUserNameOrPassword)
            }
            _ => Verdict::Accept,
        }
    }
}

impl HostedBroker {
    /// Starts a broker that accepts every client or, with a password, those that send it. Its sessions hold a hundred
    /// thousand messages, of up to 16 MiB each.
    ///
    /// # Panics
    /// There is no free port.
    #[must_use]
    pub fn start(password: Option<&'static str>) -> Self {
        Self::with(password, Vec::new())
    }

    /// Starts a broker that accepts every client, with an additional port for each of these layers.
    ///
    /// # Panics
    /// There is no free port.
    #[must_use]
    pub fn over(layers: Vec<Layers>) -> Self {
        Self::with(None, layers)
    }

    fn with(password: Option<&'static str>, layers: Vec<Layers>) -> Self {
        let (stop, stopped) = oneshot::channel();
        let (told, ports) = std::sync::mpsc::channel();
        let thread = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build()
                .expect("a runtime");
            runtime.block_on(async {
                let mut listeners = Vec::new();
                for layers in [Layers::default()].into_iter().chain(layers) {
                    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
                    listeners.push(Listener::from(listener).over(layers));
                }
                let ports = listeners.iter().filter_map(Listener::address);
                let ports: Vec<_> = ports.map(|address| address.port()).collect();
                told.send(ports).expect("somebody waits for it");
                let mut config = Config::default();
                config.statistics_interval = 0;
                config.queued_messages = 100_000;
                config.packet_size = 16 << 20;
                config.outgoing_bytes = 16 << 20;
                let (control, commands) = control();
                let host = Host::new(config, PasswordHooks { password, names: 0 }, commands);
                let stop = async {
                    let _ = stopped.await;
                };
                host.run(listeners, stop).await;
                drop(control);
            });
        });
        let mut layered = ports.recv().expect("it starts");
        Self {
            port: layered.remove(0),
            layered,
            stop: Some(stop),
            thread: Some(thread),
        }
    }
}

impl Drop for HostedBroker {
    fn drop(&mut self) {
        if let Some(stop) = self.stop.take() {
            let _ = stop.send(());
        }
        // Clients may still be connected, so this does not wait for the thread.
        drop(self.thread.take());
    }
}
