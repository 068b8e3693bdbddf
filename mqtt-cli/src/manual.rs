//! `mqtt completions` and `mqtt man`: files for packages of the program.

use std::path::PathBuf;

use clap::{Args, Command};
use clap_complete::Shell;
use clap_mangen::{Man, generate_to};

use crate::failure::{Failure, fail};

/// Prints completions for a shell.
///
/// Example: mqtt completions bash > /usr/share/bash-completion/completions/mqtt
#[derive(Args, Debug)]
pub(crate) struct Completions {
    /// The shell
    #[arg(value_enum)]
    shell: Shell,
}

/// Prints the manual page, or writes one for each command and each of their commands.
///
/// Example: mqtt man --directory /usr/share/man/man1
#[derive(Args, Debug)]
pub(crate) struct Manual {
    /// Write the pages of all commands into this directory
    #[arg(long, value_name = "DIRECTORY")]
    directory: Option<PathBuf>,
}

impl Completions {
    pub(crate) fn run(&self, mut program: Command) -> Result<(), Failure> {
        let mut text = Vec::new();
        clap_complete::generate(self.shell, &mut program, "mqtt", &mut text);
        crate::output(format_args!("{}", String::from_utf8_lossy(&text)));
        Ok(())
    }
}

impl Manual {
    pub(crate) fn run(&self, program: &Command) -> Result<(), Failure> {
        let Some(directory) = &self.directory else {
            let mut text = Vec::new();
            Man::new(program.clone()).render(&mut text).map_err(fail)?;
            crate::output(format_args!("{}", String::from_utf8_lossy(&text)));
            return Ok(());
        };
        generate_to(program.clone(), directory)
            .map_err(|error| fail(format!("{}: {error}", directory.display())))
    }
}
