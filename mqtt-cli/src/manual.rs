//! `mqtt completions` and `mqtt man`: files for packages of the program.

use std::path::{Path, PathBuf};

use clap::{Args, Command};
use clap_complete::Shell;
use clap_mangen::Man;

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

/// Prints the manual page, or writes one for each command.
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
            let page = page(program.clone())?;
            crate::output(format_args!("{}", String::from_utf8_lossy(&page)));
            return Ok(());
        };
        write(directory, "mqtt", program.clone())?;
        for command in program.get_subcommands() {
            let name = format!("mqtt-{}", command.get_name());
            write(directory, &name, command.clone().display_name(name.clone()))?;
        }
        Ok(())
    }
}

fn page(command: Command) -> Result<Vec<u8>, Failure> {
    let mut text = Vec::new();
    Man::new(command).render(&mut text).map_err(fail)?;
    Ok(text)
}

fn write(directory: &Path, name: &str, command: Command) -> Result<(), Failure> {
    let path = directory.join(format!("{name}.1"));
    std::fs::write(&path, page(command)?)
        .map_err(|error| fail(format!("{}: {error}", path.display())))
}
