//! `mqtt passwd`: writes the user file of a broker.

use std::io::IsTerminal;
use std::path::PathBuf;

use clap::Args;
use mqtt_broker_host::users;

use crate::failure::{Failure, fail};

/// Adds, changes or removes a user in a user file of the broker.
///
/// Asks for the password, or reads it from standard input if that is not a terminal.
#[derive(Args, Debug)]
pub(crate) struct Passwd {
    /// The user file; it is created if it does not exist
    file: PathBuf,
    /// The user
    user: String,
    /// The password, with -b; other users of this machine can see it while the program runs
    #[arg(requires = "batch")]
    password: Option<String>,
    /// Take the password from the command line
    #[arg(short, long, requires = "password", conflicts_with = "delete")]
    batch: bool,
    /// Make a new file with this user only; replaces an existing file
    #[arg(short, long, conflicts_with = "delete")]
    create: bool,
    /// Remove the user
    #[arg(short = 'D', long)]
    delete: bool,
    /// Memory of each password comparison, in KiB
    #[arg(long, value_name = "KIB", default_value_t = users::Cost::default().memory_kib)]
    memory: u32,
    /// Passes over this memory in a comparison
    #[arg(long, value_name = "NUMBER", default_value_t = users::Cost::default().iterations)]
    iterations: u32,
}

impl Passwd {
    pub(crate) fn run(self) -> Result<(), Failure> {
        users::check_name(&self.user)?;
        if self.delete {
            users::remove(&self.file, &self.user)?;
            return Ok(());
        }
        let mut cost = users::Cost::default();
        (cost.memory_kib, cost.iterations) = (self.memory, self.iterations);
        let password = match self.password {
            Some(password) => not_empty(password)?,
            None => not_empty(ask()?)?,
        };
        if self.create {
            users::create(&self.file, &self.user, &password, cost)?;
        } else {
            users::set_password(&self.file, &self.user, &password, cost)?;
        }
        Ok(())
    }
}

fn ask() -> Result<String, Failure> {
    if std::io::stdin().is_terminal() {
        let first = rpassword::prompt_password("password: ").map_err(fail)?;
        if rpassword::prompt_password("again: ").map_err(fail)? != first {
            return Err(fail("the passwords differ"));
        }
        Ok(first)
    } else {
        let mut line = String::new();
        std::io::stdin().read_line(&mut line).map_err(fail)?;
        Ok(line.trim_end_matches(['\r', '\n']).to_owned())
    }
}

fn not_empty(password: String) -> Result<String, Failure> {
    if password.is_empty() {
        return Err(fail("the password is empty"));
    }
    Ok(password)
}
