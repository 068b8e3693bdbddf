//! Shows the progress of `mqtt pub -l` through a file.

use std::fs::Metadata;
use std::io::{self, IsTerminal};

use indicatif::{ProgressBar, ProgressStyle};
use mqtt_tokio::proto::num::to_u64;

/// A bar on standard error, if that is a terminal and standard input a file.
#[derive(Debug)]
pub(crate) struct Progress(Option<ProgressBar>);

impl Progress {
    /// Shows a bar for the bytes of standard input.
    pub(crate) fn of_input(is_wanted: bool) -> Self {
        let is_shown = is_wanted && io::stderr().is_terminal();
        let file = is_shown.then(input).flatten().filter(Metadata::is_file);
        Self(file.map(|file| {
            let style = ProgressStyle::with_template(
                "{elapsed_precise} [{bar:40}] {bytes} of {total_bytes}, {eta} left",
            );
            ProgressBar::new(file.len())
                .with_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()))
        }))
    }

    /// Counts a message that was read from this many bytes.
    pub(crate) fn advance(&self, bytes: usize) {
        if let Some(bar) = &self.0 {
            bar.inc(to_u64(bytes));
        }
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        if let Some(bar) = &self.0 {
            bar.finish_and_clear();
        }
    }
}

#[cfg(unix)]
fn input() -> Option<Metadata> {
    use std::os::fd::AsFd;
    let input = io::stdin().as_fd().try_clone_to_owned().ok()?;
    std::fs::File::from(input).metadata().ok()
}

#[cfg(not(unix))]
fn input() -> Option<Metadata> {
    None
}
