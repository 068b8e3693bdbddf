//! Parses the options for the payload.

use std::io::Read;
use std::path::PathBuf;

use clap::{ArgGroup, Args};

use crate::failure::{Failure, fail};

/// The options for the payload, of which exactly one must be given. A command may add further ones to the group.
#[derive(Args, Debug)]
#[command(group = ArgGroup::new("message_source").required(true).args(["message", "file", "stdin_file", "null_message"]))]
pub(crate) struct PayloadArgs {
    /// Send this text
    #[arg(short, long, value_name = "TEXT", allow_hyphen_values = true)]
    message: Option<String>,
    /// Send the content of a file
    #[arg(short, long)]
    file: Option<PathBuf>,
    /// Send all of standard input as one message
    #[arg(short = 's', long)]
    stdin_file: bool,
    /// Send an empty message; with pub -r it clears the retained message of the topic
    #[arg(short, long)]
    null_message: bool,
}

impl PayloadArgs {
    /// Reads the payload from the given option. Returns an empty one if no option of this struct is given.
    pub(crate) fn read(&self) -> Result<Vec<u8>, Failure> {
        if let Some(text) = &self.message {
            return Ok(text.as_bytes().to_vec());
        }
        if let Some(path) = &self.file {
            let content = std::fs::read(path);
            return content.map_err(|error| fail(format!("{}: {error}", path.display())));
        }
        let mut payload = Vec::new();
        if self.stdin_file {
            std::io::stdin()
                .read_to_end(&mut payload)
                .map_err(|error| fail(format!("standard input: {error}")))?;
        }
        Ok(payload)
    }
}
