//! `mqtt broker`: the settings of `mqtt_broker_host` as options, and its log on standard error.

use std::path::PathBuf;

use clap::Args;
use mqtt_broker_host::signals::{self, Hangups};
use mqtt_broker_host::{Reloader, Settings};
use tracing::{error, info, warn};

use crate::failure::{Failure, fail};
use crate::log::{self, Log};

/// Runs a broker, until Ctrl-C or SIGTERM.
///
/// Serves MQTT 3.1, 3.1.1 and 5. Sessions, queues and retained messages are in memory and end with it. On SIGHUP it reads the
/// configuration, the users and the rules again; if one of them is wrong, all stays as it was.
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
        let settings = self.settings()?;
        let log = Log::start(settings.log.as_deref(), settings.log_format.as_deref())?;
        let mut hangups = Hangups::new().map_err(fail)?;
        signals::ignore_user_signals().map_err(fail)?;
        let broker = settings.listen().await?;
        let reloader = broker.reloader();
        let reload = async {
            loop {
                hangups.next().await;
                self.reload(&reloader, &log).await;
            }
        };
        tokio::select! {
            () = broker.run(signals::interrupted()) => Ok(()),
            () = reload => Ok(()),
        }
    }

    /// Returns the options, and what the configuration file says where there is none.
    fn settings(&self) -> Result<Settings, Failure> {
        let settings = self.settings.clone();
        Ok(match &self.config {
            Some(path) => settings.or(Settings::read(path)?),
            None => settings,
        })
    }

    /// Reads all files again, and tells how that went. What is wrong leaves everything as it was.
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
