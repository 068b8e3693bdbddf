//! The program `mqtt`: publishes, subscribes, runs a broker, decodes and encodes packets.

// These macros panic if nobody reads standard error: `printing::print_error` does not.
#![warn(clippy::print_stderr)]

mod anatomy;
mod args;
mod bench;
mod broker;
mod check;
mod decode;
mod defaults;
mod demo;
mod encode;
mod examples;
mod failure;
mod format;
mod health;
mod hex;
mod import;
mod json;
mod layered;
mod link;
mod local_http;
mod log;
mod manual;
mod notify;
mod outbox;
mod packet;
mod passwd;
mod payload;
mod printing;
mod progress;
mod properties;
mod publish;
mod review;
mod rr;
mod secrets;
mod sign;
mod source;
mod store;
mod store_client;
mod subscribe;
mod talk;
mod tap;
mod tls;
mod top;
mod web;

use std::ffi::OsString;
use std::fmt;
use std::io::{IsTerminal as _, Write};
use std::process::ExitCode;

use clap::{ArgMatches, CommandFactory, FromArgMatches, Parser, Subcommand};

use crate::failure::Failure;

/// MQTT 3.1.1 and 5 from the command line.
#[derive(Debug, Parser)]
#[command(name = "mqtt", version)]
struct Program {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    Pub(Box<publish::Publish>),
    Sub(Box<subscribe::Subscribe>),
    Rr(Box<rr::Request>),
    Broker(Box<broker::Broker>),
    Passwd(passwd::Passwd),
    Store(store::StoreCommand),
    Demo(demo::Demo),
    Top(Box<top::Top>),
    Bench(bench::Bench),
    Decode(decode::Decode),
    Encode(encode::Encode),
    Sign(sign::Sign),
    Talk(talk::Talk),
    Check(check::Check),
    Completions(manual::Completions),
    Man(manual::Manual),
}

fn main() -> ExitCode {
    let arguments = defaults::with_file(std::env::args_os().collect());
    let matches = program().try_get_matches_from(&arguments);
    let parsed = matches.and_then(|matches| {
        let program = Program::from_arg_matches(&matches)?;
        Ok((program, matches))
    });
    let (program, matches) = match parsed {
        Ok(parsed) => parsed,
        Err(error) => return wrong_arguments(&error, &arguments),
    };
    match run(program.command, &property_groups(&matches)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => failure.exit(),
    }
}

fn program() -> clap::Command {
    examples::with_examples(Program::command())
}

/// Prints help or an error of the arguments. Wrong arguments exit with 1 in the programs of mosquitto, and with 2 in most others.
fn wrong_arguments(error: &clap::Error, arguments: &[OsString]) -> ExitCode {
    // Help has examples of URLs, an error may repeat the user's.
    if error.use_stderr() {
        let text = error.render();
        let text = if std::io::stderr().is_terminal() {
            text.ansi().to_string()
        } else {
            text.to_string()
        };
        let _ = write!(std::io::stderr(), "{}", secrets::removed(&text));
    } else {
        let _ = error.print();
    }
    let is_mosquitto_s = defaults::file_name(arguments).is_some();
    match error.exit_code() {
        2 if is_mosquitto_s => ExitCode::from(1),
        code => ExitCode::from(u8::try_from(code).unwrap_or(2)),
    }
}

fn run(command: Command, properties: &[Vec<String>]) -> Result<(), Failure> {
    match command {
        Command::Decode(decode) => decode.run(),
        Command::Encode(encode) => encode.run(),
        Command::Sign(sign) => sign.run(),
        Command::Talk(talk) => talk.run(),
        Command::Check(check) => check.run(),
        Command::Completions(completions) => completions.run(program()),
        Command::Man(manual) => manual.run(&program()),
        Command::Broker(broker) => block_on(broker.run()),
        Command::Passwd(passwd) => passwd.run(),
        Command::Store(store) => store.run(),
        Command::Demo(demo) => block_on(demo.run()),
        Command::Bench(bench) => block_on(bench.run()),
        Command::Top(top) => block_on(top.run()),
        Command::Pub(publish) => {
            printing::end_stuck_output().map_err(failure::fail)?;
            block_on(publish.run(properties))
        }
        Command::Sub(subscribe) => {
            printing::end_stuck_output().map_err(failure::fail)?;
            block_on(subscribe.run(properties))
        }
        Command::Rr(request) => {
            printing::end_stuck_output().map_err(failure::fail)?;
            block_on(request.run(properties))
        }
    }
}

/// How many threads do blocking work: files, standard input, password comparisons.
const BLOCKING: usize = 4;

fn block_on(work: impl Future<Output = Result<(), Failure>>) -> Result<(), Failure> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .max_blocking_threads(BLOCKING)
        .build()
        .map_err(failure::fail)?;
    let done = runtime.block_on(work);
    // A waiting read of standard input must not keep the program running.
    runtime.shutdown_background();
    done
}

/// Returns the values of each `-D`; the derived structs have them in one list.
fn property_groups(matches: &ArgMatches) -> Vec<Vec<String>> {
    let Some((_, matches)) = matches.subcommand() else {
        return Vec::new();
    };
    match matches.try_get_occurrences::<String>("properties") {
        Ok(Some(groups)) => groups.map(|values| values.cloned().collect()).collect(),
        _ => Vec::new(),
    }
}

/// Writes a line of JSON. Control characters that JSON allows unescaped, such as U+009B, are escaped for terminals.
fn output_json(value: &serde_json::Value) {
    let text = value.to_string();
    let line: String = text
        .chars()
        .map(|character| match u32::from(character) {
            code @ 0x7F..=0x9F => format!("\\u{code:04x}"),
            _ => character.to_string(),
        })
        .collect();
    output(format_args!("{line}\n"));
}

/// Writes to standard output. An output that its reader has closed is not an error.
fn output(text: fmt::Arguments<'_>) {
    let _ = std::io::stdout().write_fmt(text);
}
