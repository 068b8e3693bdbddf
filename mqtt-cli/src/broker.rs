//! `mqtt broker`: runs `mqtt_broker_host` with its settings as options, and logs to standard error.

use std::future::poll_fn;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::pin::{Pin, pin};
use std::task::Poll;

use clap::Args;
use mqtt_broker_host::signals::{self, Hangups};
use mqtt_broker_host::{Control, Listening, Reloader, Settings};
use tokio::net::TcpListener;
use tracing::{error, info, warn};

use crate::failure::{Failure, fail};
use crate::health;
use crate::import::{Translation, import};
use crate::local_http;
use crate::log::{self, Log};
use crate::notify::notify;
use crate::web;

/// Runs a broker until Ctrl-C or SIGTERM.
///
/// Serves MQTT 3.1, 3.1.1 and 5. Sessions, queues, retained messages and wills are in memory and end with the broker; with
/// --store they are on disk and survive a crash. On SIGHUP the broker reads the configuration, the users and the rules again; if
/// one of the files has an error, nothing changes.
#[derive(Args, Debug)]
pub(crate) struct Broker {
    /// Configuration file (TOML); its keys are the long names of these options
    #[arg(short, long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Listen on this port of this machine: --bind 127.0.0.1:PORT
    #[arg(short, long, value_name = "PORT", conflicts_with = "bind")]
    port: Option<u16>,
    /// Log more: --log debug
    #[arg(short, long, conflicts_with = "log")]
    verbose: bool,
    /// Print a configuration file of Mosquitto as TOML, with unsupported lines as comments, and exit: with 1 if one of them limits
    /// who may connect or what a client may do
    #[arg(long, value_name = "FILE", exclusive = true)]
    import: Option<PathBuf>,
    #[command(flatten)]
    settings: Settings,
}

impl Broker {
    pub(crate) async fn run(self) -> Result<(), Failure> {
        if let Some(path) = &self.import {
            return print(path);
        }
        let settings = self.settings()?;
        let log = Log::start(settings.log.as_deref(), settings.log_format.as_deref())?;
        let mut hangups = Hangups::new().map_err(fail)?;
        signals::ignore_user_signals().map_err(fail)?;
        let health = match settings.health {
            Some(address) => Some(local_http::listen("health", address).await?),
            None => None,
        };
        let web = match settings.web {
            Some(address) => Some(local_http::listen("web", address).await?),
            None => None,
        };
        let mut interrupted = pin!(signals::interrupted());
        let Some(broker) = listen(&settings, interrupted.as_mut()).await? else {
            return Ok(());
        };
        let health = answer(health, broker.control());
        let web = web::show(web, broker.control());
        let reloader = broker.reloader();
        let reload = async {
            loop {
                hangups.next().await;
                self.reload(&reloader, &log).await;
            }
        };
        let stop = async {
            // The first poll installs the signal handlers: a supervisor may send a signal as soon as the broker reports that it
            // is ready.
            let early = poll_fn(|cx| Poll::Ready(interrupted.as_mut().poll(cx))).await;
            notify("READY=1\nSTATUS=serves");
            if early.is_pending() {
                tokio::select! {
                    () = interrupted => {}
                    () = log.panicked() => {}
                }
            }
            notify("STOPPING=1");
        };
        let ended = tokio::select! {
            ended = broker.run(stop) => ended.map_err(Failure::from),
            () = reload => Ok(()),
            () = health => Ok(()),
            () = web => Ok(()),
        };
        log.defect().map_or(ended, Err)
    }

    /// Returns the options, with those of the configuration file for missing ones.
    fn settings(&self) -> Result<Settings, Failure> {
        let mut settings = self.settings.clone();
        if let Some(port) = self.port {
            settings.bind = Some(vec![format!("127.0.0.1:{port}")]);
        }
        if self.verbose {
            settings.log = Some("debug".to_owned());
        }
        Ok(match &self.config {
            Some(path) => settings.or(Settings::read(path)?),
            None => settings,
        })
    }

    /// Reads all files again, and logs the result. An error changes nothing.
    async fn reload(&self, reloader: &Reloader, log: &Log) {
        let result = async {
            let settings = self.settings()?;
            let level = log::level(settings.log.as_deref())?;
            let fixed = reloader.reload(&settings).await?;
            log.set(level)?;
            Ok::<_, Failure>(fixed)
        };
        match result.await {
            Ok(fixed) => {
                info!("users, rules and limits are read again");
                for name in fixed {
                    warn!(setting = name, "a change of this needs a new start");
                }
            }
            Err(failure) => error!(why = %failure, "not read again; all stays as it was"),
        }
    }
}

/// Makes the broker, and waits for its journal if there is an engine. Returns `None` if the process was asked to end before.
async fn listen(
    settings: &Settings,
    interrupted: Pin<&mut impl Future<Output = ()>>,
) -> Result<Option<Listening>, Failure> {
    if settings.engine.is_none() {
        // Nothing waits here, and a signal ends the process at once while it reads a store.
        return Ok(Some(settings.listen().await?));
    }
    let listening = async {
        // A process in reserve is as it should be: a supervisor must not end it.
        notify("READY=1\nSTATUS=in reserve");
        settings.listen().await
    };
    tokio::select! {
        // The first poll installs the signal handlers, before the supervisor learns that the process is ready.
        biased;
        () = interrupted => {
            warn!("shutting down");
            notify("STOPPING=1");
            Ok(None)
        }
        listening = listening => Ok(Some(listening?)),
    }
}

/// Prints the settings of a configuration file of Mosquitto. Fails afterwards if the result may allow more.
fn print(path: &Path) -> Result<(), Failure> {
    let text = std::fs::read_to_string(path);
    let text = text.map_err(|error| fail(format!("{}: {error}", path.display())))?;
    let Translation { toml, protecting } = import(&text);
    std::io::stdout().write_all(toml.as_bytes()).map_err(fail)?;
    if protecting.is_empty() {
        return Ok(());
    }
    let lines: Vec<String> = protecting
        .iter()
        .map(|(at, line)| format!("line {at}: {line}"))
        .collect();
    Err(fail(format!(
        "the settings lack lines that protect the broker, and may allow more than Mosquitto: {}",
        lines.join("; ")
    )))
}

/// Serves the state of the broker, if a listener is set.
async fn answer(listener: Option<TcpListener>, control: Control) {
    let Some(listener) = listener else {
        return std::future::pending().await;
    };
    if let Ok(address) = listener.local_addr() {
        info!(health = %address, "the state is told over HTTP");
    }
    health::serve(listener, control).await;
}
