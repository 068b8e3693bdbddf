//! Parses the options for printing messages.

use std::io::{self, Write};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use clap::Args;
use mqtt_tokio::Message;

use crate::failure::{Failure, fail};
use crate::format::Format;

#[derive(Args, Debug)]
pub(crate) struct Printing {
    /// Print topic and message
    #[arg(short, long, conflicts_with = "format")]
    verbose: bool,
    /// Print each message in this format: %t topic, %p payload, %q QoS, %r retained, %l length, %x and %X hex, %m packet
    /// identifier, %j and %J JSON, %I and %U time, %C %D %E %F %P %R %S properties, @X strftime, \n and other escapes
    #[arg(short = 'F', long, value_name = "FORMAT")]
    format: Option<String>,
    /// Print the JSON of %j and %J in several lines
    #[arg(long)]
    pretty: bool,
    /// Print no line end after a message
    #[arg(short = 'N', long)]
    no_eol: bool,
}

impl Printing {
    /// Parses the format before the program connects, so that an error is reported first.
    pub(crate) fn format(&self) -> Result<Format, Failure> {
        let format = match (&self.format, self.verbose) {
            (Some(format), _) => Format::parse(format)?,
            (None, true) => Format::verbose(),
            (None, false) => Format::payload(),
        };
        Ok(format.pretty(self.pretty))
    }

    /// Returns whether nothing is printed for this message: as in mosquitto_sub, an empty payload has no line.
    pub(crate) fn skips(&self, message: &Message) -> bool {
        self.format.is_none() && !self.verbose && message.payload.is_empty()
    }

    /// Returns the line to print for this message.
    ///
    /// # Errors
    /// The format cannot print the message: it has an unknown time format.
    pub(crate) fn line(&self, format: &Format, message: &Message) -> Result<Vec<u8>, String> {
        let mut line = Vec::new();
        format.write(message, &mut line)?;
        if !self.no_eol && !self.skips(message) {
            line.push(b'\n');
        }
        Ok(line)
    }
}

/// Whether a line is being written to standard output, which blocks the thread while the reader of the output does not read.
static WRITES: AtomicBool = AtomicBool::new(false);
/// Whether a line is being written to standard error.
static WRITES_ERROR: AtomicBool = AtomicBool::new(false);

/// How long a write may take after the program was interrupted.
const STUCK: Duration = Duration::from_millis(500);
/// The time for the message of a program that then ends.
const LAST_WORDS: Duration = Duration::from_millis(100);

/// Ends the process after SIGINT or SIGTERM if it then still writes: its thread cannot handle the signal.
pub(crate) fn end_stuck_output() -> io::Result<()> {
    let watch = || {
        let mut runtime = tokio::runtime::Builder::new_current_thread();
        let Ok(runtime) = runtime.enable_all().build() else {
            return;
        };
        runtime.block_on(mqtt_broker_host::signals::interrupted());
        // The thread of the program may begin to write after the signal, before it handles it.
        loop {
            std::thread::sleep(STUCK);
            if WRITES.load(Ordering::Relaxed) {
                // Standard error may be the same full pipe, so that writing to it takes as long.
                let tell = || print_error("mqtt: nobody reads standard output");
                let _ = std::thread::Builder::new().spawn(tell);
                std::thread::sleep(LAST_WORDS);
                std::process::exit(1);
            }
            if WRITES_ERROR.load(Ordering::Relaxed) {
                std::process::exit(1);
            }
        }
    };
    let thread = std::thread::Builder::new().name("interrupt".to_owned());
    thread.spawn(watch).map(drop)
}

/// Writes a line to standard error. The program goes on if nobody can read it.
pub(crate) fn print_error(line: &str) {
    WRITES_ERROR.store(true, Ordering::Relaxed);
    let _ = writeln!(io::stderr(), "{line}");
    WRITES_ERROR.store(false, Ordering::Relaxed);
}

/// Writes to standard output. Returns `false` if its reader has closed it.
pub(crate) fn print(line: &[u8]) -> Result<bool, Failure> {
    let mut out = io::stdout().lock();
    WRITES.store(true, Ordering::Relaxed);
    let written = out.write_all(line).and_then(|()| out.flush());
    WRITES.store(false, Ordering::Relaxed);
    match written {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(false),
        Err(error) => Err(fail(format!("standard output: {error}"))),
    }
}
