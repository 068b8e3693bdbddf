//! `mqtt passwd`: writes the user file of a broker.

use std::io::IsTerminal;
use std::path::PathBuf;

use clap::Args;
use mqtt_broker_host::users;

use crate::failure::{Failure, fail};

/// Adds, changes or removes a user in a user file of the broker.
///
/// The password is asked for, or read from standard input if that is no terminal.
#[derive(Args, Debug)]
pub(crate) struct Passwd {
    /// The user file; it is made if it is not there
    file: PathBuf,
    /// The user
    user: String,
    /// Remove the user
    #[arg(short = 'D', long)]
    delete: bool,
}

impl Passwd {
    pub(crate) fn run(self) -> Result<(), Failure> {
        users::check_name(&self.user)?;
        if self.delete {
            users::remove(&self.file, &self.user)?;
        } else {
            users::set_password(&self.file, &self.user, &password()?)?;
        }
        Ok(())
    }
}

fn password() -> Result<String, Failure> {
    let password = if std::io::stdin().is_terminal() {
        let first = rpassword::prompt_password("password: ").map_err(fail)?;
        if rpassword::prompt_password("again: ").map_err(fail)? != first {
            return Err(fail("the passwords differ"));
        }
        first
    } else {
        let mut line = String::new();
        std::io::stdin().read_line(&mut line).map_err(fail)?;
        line.trim_end_matches(['\r', '\n']).to_owned()
    };
    if password.is_empty() {
        return Err(fail("the password is empty"));
    }
    Ok(password)
}
