//! Prints bytes in several forms: to read, for source code, for shells and for modems.

use std::io::{IsTerminal, Write};

use clap::{Args, ValueEnum};

use crate::failure::{Failure, fail};
use crate::hex;
use crate::printing::print_error;

/// A form of bytes.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq, ValueEnum)]
#[value(rename_all = "verbatim")]
pub(crate) enum Form {
    /// Two lower-case digits for each byte, separated by spaces
    #[default]
    #[value(name = "hex")]
    Hex,
    /// Two upper-case digits for each byte, separated by spaces
    #[value(name = "HEX")]
    UpperHex,
    /// Lower-case digits without spaces
    #[value(name = "digits")]
    Digits,
    /// An array in C
    #[value(name = "c")]
    C,
    /// An array in Rust
    #[value(name = "rust")]
    Rust,
    /// \x and two digits for each byte, as printf and most languages read it
    #[value(name = "escape")]
    Escape,
    /// Base64
    #[value(name = "base64")]
    Base64,
    /// Raw bytes, for a pipe or a file
    #[value(name = "raw")]
    Raw,
    /// The send command of a modem with the length, then upper-case hex
    #[value(name = "at")]
    At,
}

/// How packets are printed.
#[derive(Args, Clone, Debug, Default)]
#[command(next_help_heading = "Output")]
pub(crate) struct Output {
    /// The form of the bytes
    #[arg(
        long = "as",
        value_name = "FORM",
        value_enum,
        default_value_t,
        global = true
    )]
    form: Form,
    /// A command template for --as at: {len} stands for the length, {hex} and {HEX} for the digits without spaces, \n for a
    /// line end
    #[arg(long, value_name = "TEMPLATE", global = true)]
    at_command: Option<String>,
    /// Name of the array
    #[arg(long, value_name = "NAME", default_value = "packet", global = true)]
    name: String,
    /// Print the length on standard error, in decimal and in hex
    #[arg(long, global = true)]
    length: bool,
}

impl Output {
    /// Prints one packet.
    pub(crate) fn print(&self, bytes: &[u8]) -> Result<(), Failure> {
        if self.length {
            let len = bytes.len();
            print_error(&format!("{len} bytes, 0x{len:02x}"));
        }
        let form = if self.at_command.is_some() {
            Form::At
        } else {
            self.form
        };
        if form == Form::Raw {
            return raw(bytes);
        }
        crate::output(format_args!("{}\n", self.text(form, bytes)));
        Ok(())
    }

    fn text(&self, form: Form, bytes: &[u8]) -> String {
        let len = bytes.len();
        match form {
            Form::Hex | Form::Raw => hex::spaced(bytes),
            Form::UpperHex => hex::spaced(bytes).to_uppercase(),
            Form::Digits => hex::spaced(bytes).replace(' ', ""),
            Form::C => format!(
                "const unsigned char {}[{len}] = {{\n{}}};",
                self.name,
                array(bytes)
            ),
            Form::Rust => format!(
                "const {}: [u8; {len}] = [\n{}];",
                self.name.to_uppercase(),
                array(bytes)
            ),
            Form::Escape => bytes.iter().map(|byte| format!("\\x{byte:02x}")).collect(),
            Form::Base64 => {
                use base64::Engine;
                base64::engine::general_purpose::STANDARD.encode(bytes)
            }
            Form::At => self.modem(bytes),
        }
    }

    fn modem(&self, bytes: &[u8]) -> String {
        let len = bytes.len().to_string();
        let Some(template) = &self.at_command else {
            return format!("AT+CIPSEND={len}\n{}", hex::spaced(bytes).to_uppercase());
        };
        let digits = hex::spaced(bytes).replace(' ', "");
        template
            .replace("\\n", "\n")
            .replace("{len}", &len)
            .replace("{hex}", &digits)
            .replace("{HEX}", &digits.to_uppercase())
    }
}

/// Eight bytes in each line.
fn array(bytes: &[u8]) -> String {
    bytes
        .chunks(8)
        .map(|line| {
            let line: Vec<_> = line.iter().map(|byte| format!("0x{byte:02x}")).collect();
            format!("    {},\n", line.join(", "))
        })
        .collect()
}

fn raw(bytes: &[u8]) -> Result<(), Failure> {
    let mut out = std::io::stdout();
    if out.is_terminal() {
        return Err(fail(
            "raw bytes would disturb the terminal: send them to a file or a pipe",
        ));
    }
    let _ = out.write_all(bytes);
    Ok(())
}
