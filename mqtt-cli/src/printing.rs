//! Parses the options for printing messages.

use std::io::{self, Write};

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

/// Writes to standard output. Returns `false` if its reader has closed it.
pub(crate) fn print(line: &[u8]) -> Result<bool, Failure> {
    let mut out = io::stdout().lock();
    match out.write_all(line).and_then(|()| out.flush()) {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(false),
        Err(error) => Err(fail(format!("standard output: {error}"))),
    }
}
