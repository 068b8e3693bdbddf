//! Opens the connection of a command, reports its events on standard error, and ends it on Ctrl-C.

use std::io;
use std::net::{IpAddr, ToSocketAddrs};
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use mqtt_adapter_core::dial::{Dialler, Opened};
use mqtt_broker_host::signals;
use mqtt_tokio::proto::Version;
use mqtt_tokio::{ConnectionEvent, DialOptions, Handle, Options, Socket, Unsent};
use tokio::time::{Instant, timeout_at};

use crate::failure::{Failure, fail, sentence};
use crate::printing::print_error;
use crate::tap::{Tap, Watcher, to_stderr};

/// Opens connections.
#[derive(Clone, Debug)]
pub(crate) struct Dial {
    dialler: Arc<Dialler>,
}

impl Dial {
    /// To where these options say, with these settings of sockets, TLS, WebSocket and proxies.
    pub(crate) fn new(options: &Options, layers: DialOptions) -> Self {
        Self {
            dialler: Arc::new(Dialler::new(options, layers)),
        }
    }

    async fn open(&self) -> io::Result<Opened<Socket>> {
        Opened::new(mqtt_tokio::connect(&self.dialler).await?, &self.dialler).await
    }
}

/// Returns the addresses of a name of this machine.
pub(crate) fn local_addresses(name: &str) -> Result<Vec<IpAddr>, Failure> {
    let found = (name, 0).to_socket_addrs();
    let found = found.map_err(|error| fail(format!("the local address {name}: {error}")))?;
    Ok(found.map(|address| address.ip()).collect())
}

/// Starts a client.
pub(crate) fn start(options: Options, dial: Dial, debug: bool) -> Handle {
    start_watched(options, dial, move || {
        debug.then(|| Box::new(to_stderr) as Watcher)
    })
}

/// Starts a client with a watcher for each connection.
pub(crate) fn start_watched(
    options: Options,
    dial: Dial,
    mut watcher: impl FnMut() -> Option<Watcher> + Send + 'static,
) -> Handle {
    let version = options.version;
    Handle::start_over(options, move || {
        let dial = dial.clone();
        let watcher = watcher();
        async move { Ok(Tap::new(dial.open().await?, version, watcher)) }
    })
}

/// Prints the events of the connection on standard error, unless `quiet`. Returns when waiting is useless: the first attempt
/// failed, or a lost connection was not restored within `patience`, if that is set.
pub(crate) async fn watch(
    handle: &Handle,
    version: Version,
    patience: Option<Duration>,
    quiet: bool,
) -> Failure {
    let mut events = handle.events();
    let mut news = PrintedReasons::new(quiet);
    let mut gives_up = None;
    let mut why = String::new();
    loop {
        let next = match gives_up {
            Some(at) => timeout_at(at, events.next()).await,
            None => Ok(events.next().await),
        };
        let Ok(next) = next else {
            let span = patience.unwrap_or_default().as_secs_f32();
            return fail(format!(
                "the connection did not come back within {span} s: {why}"
            ));
        };
        match next {
            Some(ConnectionEvent::Connected(_)) => {
                gives_up = None;
                news.connected();
            }
            Some(ConnectionEvent::Lost(error)) if news.was_connected => {
                if gives_up.is_none() {
                    gives_up = patience.map(|patience| Instant::now() + patience);
                }
                why = sentence(&error);
                news.lost(&why);
            }
            Some(ConnectionEvent::Lost(error) | ConnectionEvent::Stopped(error)) => {
                return Failure::connection(&error, version);
            }
            Some(_) => {}
            None => return fail("the client is closed"),
        }
    }
}

/// Prints the events of a client with a store, which works without a connection. Returns when the client has stopped.
pub(crate) async fn watch_stored(handle: &Handle, version: Version, quiet: bool) -> Failure {
    let mut events = handle.events();
    let mut news = PrintedReasons::new(quiet);
    while let Some(event) = events.next().await {
        match event {
            ConnectionEvent::Connected(_) => news.connected(),
            ConnectionEvent::Lost(error) => news.lost(&sentence(&error)),
            ConnectionEvent::StoreFull => {
                news.say(format_args!("there is no room in the store: messages wait"));
            }
            ConnectionEvent::StoreHasRoom => {
                news.say(format_args!("there is room in the store again"));
            }
            ConnectionEvent::Stopped(error) => return Failure::connection(&error, version),
            _ => {}
        }
    }
    fail("the client is closed")
}

/// A connection of at least this length counts as a good one: the reason of its end is printed even if it was printed before.
const STEADY: Duration = Duration::from_secs(10);

/// Prints each reason once, not for each attempt.
struct PrintedReasons {
    quiet: bool,
    was_connected: bool,
    /// When the connection began, if there is one.
    since: Option<Instant>,
    /// The printed reasons of short connections.
    losses: Vec<String>,
    /// The printed reasons of failed attempts since the last connection.
    failures: Vec<String>,
    /// Whether anything was printed since the last connection.
    told: bool,
}

impl PrintedReasons {
    const fn new(quiet: bool) -> Self {
        Self {
            quiet,
            was_connected: false,
            since: None,
            losses: Vec::new(),
            failures: Vec::new(),
            told: false,
        }
    }

    fn connected(&mut self) {
        self.was_connected = true;
        self.since = Some(Instant::now());
        if std::mem::take(&mut self.told) {
            print_error("mqtt: connected again");
        }
    }

    /// Handles a lost connection or, if there was none, a failed attempt.
    fn lost(&mut self, why: &str) {
        if let Some(since) = self.since.take() {
            if since.elapsed() >= STEADY {
                self.losses.clear();
            }
            self.failures.clear();
            if is_new(&mut self.losses, why) {
                self.say(format_args!("connection lost: {why}; reconnecting"));
            }
        } else if is_new(&mut self.failures, why) {
            self.say(format_args!("{why}; trying again"));
        }
    }

    fn say(&mut self, text: std::fmt::Arguments<'_>) {
        if !self.quiet {
            print_error(&format!("mqtt: {text}"));
            self.told = true;
        }
    }
}

fn is_new(known: &mut Vec<String>, why: &str) -> bool {
    let is_new = known.iter().all(|known| known != why);
    if is_new {
        known.push(why.to_owned());
    }
    is_new
}

/// How long closing may take.
pub(crate) const GOODBYE: Duration = Duration::from_secs(5);

/// How long closing may take after a signal.
const HASTE: Duration = Duration::from_millis(500);

/// The signal that ends a command. One value serves the whole command, because the listeners of another one would not see a signal
/// that came before them.
pub(crate) struct Interruption {
    signal: Pin<Box<dyn Future<Output = ()>>>,
    has_come: bool,
}

impl Interruption {
    pub(crate) fn new() -> Self {
        Self {
            signal: Box::pin(signals::interrupted()),
            has_come: false,
        }
    }

    /// Waits for the signal. Returns at once if it has come already, also if the future of an earlier call was dropped.
    pub(crate) async fn wait(&mut self) {
        if !self.has_come {
            self.signal.as_mut().await;
            self.has_come = true;
        }
    }
}

/// Closes the client within `limit`, or within [`HASTE`] after the signal. Returns the messages that were not acknowledged.
pub(crate) async fn close(
    handle: &Handle,
    limit: Duration,
    interruption: &mut Interruption,
) -> Vec<Unsent> {
    tokio::select! {
        remained = handle.close(limit) => remained,
        () = interruption.wait() => handle.close(HASTE).await,
    }
}

#[cfg(all(test, unix))]
mod tests {
    use std::future::poll_fn;
    use std::pin::pin;
    use std::task::Poll;

    use mqtt_testing::process::signal;

    use super::*;

    async fn is_ready<F: Future<Output = ()>>(mut future: Pin<&mut F>) -> bool {
        poll_fn(|cx| Poll::Ready(future.as_mut().poll(cx).is_ready())).await
    }

    /// The first wait of a command ends, for another reason, in the same poll in which the signal comes.
    #[tokio::test]
    async fn a_signal_between_two_waits_is_seen() {
        let mut interruption = Interruption::new();
        let mut witness = pin!(signals::interrupted());
        assert!(!is_ready(pin!(interruption.wait())).await);
        assert!(!is_ready(witness.as_mut()).await);
        signal(std::process::id(), "TERM");
        witness.await;
        assert!(is_ready(pin!(interruption.wait())).await);
        assert!(is_ready(pin!(interruption.wait())).await);
    }
}
