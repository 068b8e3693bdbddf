//! `mqtt broker`: the settings of `mqtt_broker_host` as options, and its log on standard error.

use std::path::PathBuf;

use clap::Args;
use mqtt_broker_host::{Settings, signals};

use crate::failure::{Failure, fail};

/// Runs a broker, until Ctrl-C or SIGTERM.
///
/// Serves MQTT 3.1, 3.1.1 and 5. Sessions, queues and retained messages are in memory and end with it.
#[derive(Args, Debug)]
pub(crate) struct Broker {
    /// Configuration file (TOML); its keys are the long names of these options
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    #[command(flatten)]
    settings: Settings,
}

impl Broker {
    pub(crate) async fn run(self) -> Result<(), Failure> {
        let settings = match &self.config {
            Some(path) => self.settings.or(Settings::read(path)?),
            None => self.settings,
        };
        start_log(settings.log.as_deref().unwrap_or("info"))?;
        let broker = settings.listen().await?;
        broker.run(signals::interrupted()).await;
        Ok(())
    }
}

fn start_log(level: &str) -> Result<(), Failure> {
    let level: tracing::Level = level.parse().map_err(|_| {
        fail(format!(
            "log {level:?}: must be error, warn, info, debug or trace"
        ))
    })?;
    tracing_subscriber::fmt()
        .with_max_level(level)
        .with_writer(std::io::stderr)
        .with_target(false)
        .with_ansi(std::io::IsTerminal::is_terminal(&std::io::stderr()))
        .init();
    Ok(())
}
