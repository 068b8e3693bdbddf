//! `mqtt encode`: prints the bytes of a packet that is given by options or JSON.

use std::path::{Path, PathBuf};

use clap::{Args, CommandFactory, Parser};
use mqtt_tokio::proto::{Decoded, MAX_PACKET, Packet, Version};
use serde_json::{Map, Value};

use crate::anatomy;
use crate::args::version;
use crate::decode::reader::all_decode;
use crate::failure::{Failure, fail};
use crate::packet::defect::Defect;
use crate::packet::form::Output;
use crate::packet::{Draft, Named};
use crate::printing::print_error;

/// Prints the bytes of a packet in a form to copy.
///
/// The packet is given by options, or with --json by the JSON that `mqtt decode --json` prints.
///
/// Examples:
///
///   mqtt encode publish -t temperature --hex 19
///
///   mqtt encode --as at --length publish -t a/b -m hello
///
///   mqtt encode -V 5 -D content-type=json publish -t a/b -m '{}'
///
///   mqtt encode --bad flags subscribe -t a/b
///
///   mqtt decode --json 30050001616869 | mqtt encode --json -
#[derive(Args, Debug)]
#[command(disable_version_flag = true, verbatim_doc_comment)]
pub(crate) struct Encode {
    /// The version to write: 3.1, 3.1.1 or 5 [default: 3.1.1]
    #[arg(short = 'V', long, value_name = "VERSION", value_parser = version, global = true)]
    version: Option<Version>,
    /// A property (5) as NAME=VALUE; a user property as user-property=NAME=VALUE. May be repeated
    #[arg(
        short = 'D',
        long = "property",
        value_name = "NAME=VALUE",
        global = true
    )]
    properties: Vec<Named>,
    /// Put this defect into the packet
    #[arg(long, value_name = "WHAT", value_enum, global = true)]
    bad: Option<Defect>,
    #[command(flatten)]
    output: Output,
    /// Read packets from this file of JSON objects; - is standard input
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    #[command(subcommand)]
    packet: Option<Draft>,
}

impl Encode {
    pub(crate) fn run(mut self) -> Result<(), Failure> {
        match (self.packet.take(), &self.json) {
            (Some(draft), None) => self.print(draft, self.version.unwrap_or_default()),
            (None, Some(path)) => {
                for (draft, version) in read(path, self.version.unwrap_or_default())? {
                    self.print(draft, version)?;
                }
                Ok(())
            }
            _ => wrong_arguments(),
        }
    }

    fn print(&self, draft: Draft, version: Version) -> Result<(), Failure> {
        self.output.print(&self.make(draft, version)?)
    }

    /// Returns the bytes of the packet that was given, if one was. `version` applies if the options have none.
    pub(crate) fn bytes(&mut self, version: Version) -> Result<Option<Vec<u8>>, Failure> {
        let version = self.version.unwrap_or(version);
        self.packet
            .take()
            .map(|draft| self.make(draft, version))
            .transpose()
    }

    fn make(&self, mut draft: Draft, version: Version) -> Result<Vec<u8>, Failure> {
        draft.settle().map_err(fail)?;
        if !self.properties.is_empty() {
            let Some(properties) = draft.properties_mut() else {
                return Err(fail("PINGREQ and PINGRESP have no properties"));
            };
            properties.extend(self.properties.iter().cloned());
        }
        let bytes = draft.bytes(version)?;
        match self.bad {
            Some(defect) => spoil(&bytes, version, defect),
            None => Ok(bytes),
        }
    }
}

fn spoil(bytes: &[u8], version: Version, defect: Defect) -> Result<Vec<u8>, Failure> {
    match Packet::decode(bytes, version, MAX_PACKET) {
        Ok(Decoded::Packet { packet, .. }) => {
            let spoilt = defect.put(bytes, &anatomy::rows(bytes, &packet, version))?;
            // Other bytes have taken the place of what is missing, such as a payload that of the packet identifier.
            if all_decode(&spoilt, version) {
                print_error("mqtt: note: the packet is valid with this defect, with other values");
            }
            Ok(spoilt)
        }
        _ => Err(fail("the packet is wrong without --bad")),
    }
}

/// Exits with a message if no packet was given.
fn wrong_arguments() -> ! {
    #[derive(Parser)]
    #[command(name = "mqtt encode", bin_name = "mqtt encode")]
    struct Alone {
        #[command(flatten)]
        encode: Encode,
    }
    Alone::command()
        .error(
            clap::error::ErrorKind::MissingSubcommand,
            "give a packet type, or --json FILE",
        )
        .exit()
}

/// Reads packets from a file of JSON objects.
fn read(path: &Path, version: Version) -> Result<Vec<(Draft, Version)>, Failure> {
    let text = if path == Path::new("-") {
        std::io::read_to_string(std::io::stdin())
    } else {
        std::fs::read_to_string(path)
    };
    let text = text.map_err(|error| fail(format!("{}: {error}", path.display())))?;
    serde_json::Deserializer::from_str(&text)
        .into_iter::<Map<String, Value>>()
        .enumerate()
        .map(|(n, object)| {
            object
                .map_err(|error| error.to_string())
                .and_then(|object| from_json(object, version))
                .map_err(|why| fail(format!("JSON object {}: {why}", n + 1)))
        })
        .collect()
}

/// Returns one packet, and the version in its JSON.
pub(crate) fn from_json(
    mut object: Map<String, Value>,
    version: Version,
) -> Result<(Draft, Version), String> {
    if object.contains_key("error") {
        return Err("the packet is malformed".to_owned());
    }
    // Fields that `mqtt decode` adds for its readers.
    for key in ["at", "length", "fields", "direction", "assumed", "notes"] {
        object.remove(key);
    }
    let version = match object.remove("version") {
        Some(text) => crate::args::version(text.as_str().unwrap_or_default())?,
        None => version,
    };
    let draft: Draft =
        serde_json::from_value(Value::Object(object)).map_err(|error| error.to_string())?;
    Ok((draft, version))
}
