//! The log of `mqtt broker`: lines on standard error, at a level that can change.

use tracing::Level;
use tracing::level_filters::LevelFilter;
use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::util::SubscriberInitExt as _;
use tracing_subscriber::{Registry, fmt, reload};

use crate::failure::{Failure, fail};

/// What is logged when nothing is said.
const DEFAULT_LEVEL: &str = "info";

/// The log of this process.
#[derive(Debug)]
pub(crate) struct Log {
    level: reload::Handle<LevelFilter, Registry>,
}

impl Log {
    /// Starts the log. A process has one.
    pub(crate) fn start(level_name: Option<&str>) -> Result<Self, Failure> {
        let (filter, handle) = reload::Layer::new(LevelFilter::from(level(level_name)?));
        let lines = fmt::layer()
            .with_writer(std::io::stderr)
            .with_target(false)
            .with_ansi(std::io::IsTerminal::is_terminal(&std::io::stderr()));
        tracing_subscriber::registry()
            .with(filter)
            .with(lines)
            .init();
        Ok(Self { level: handle })
    }

    /// Changes the level.
    pub(crate) fn set(&self, level: Level) -> Result<(), Failure> {
        self.level.reload(LevelFilter::from(level)).map_err(fail)
    }
}

/// Returns the level of this name.
pub(crate) fn level(name: Option<&str>) -> Result<Level, Failure> {
    let name = name.unwrap_or(DEFAULT_LEVEL);
    name.parse().map_err(|_| {
        fail(format!(
            "log {name:?}: must be error, warn, info, debug or trace"
        ))
    })
}
