//! SOCKS version 5: RFC 1928, with user name and password of RFC 1929.

use std::net::IpAddr;

use super::{ProxyOptions, refused, wrong};
use crate::error::Error;
use crate::queue::Queue;

/// The dialogue with a SOCKS5 proxy.
#[derive(Debug)]
pub(super) struct Socks5 {
    state: State,
    /// The part of the next answer that has arrived; at most 262 bytes, as its length byte allows.
    answer: Vec<u8>,
    /// The request with user name and password.
    login: Vec<u8>,
    request: Vec<u8>,
}

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum State {
    /// The methods were sent.
    Offered,
    /// User name and password were sent.
    LoggedIn,
    /// The request for the connection was sent.
    Asked,
    Done,
}

const VERSION: u8 = 5;
const NO_LOGIN: u8 = 0;
const PASSWORD: u8 = 2;

impl Socks5 {
    pub(super) fn new(
        proxy: &ProxyOptions,
        host: &str,
        port: u16,
        queue: &mut Queue,
    ) -> Result<Self, Error> {
        let mut request = vec![VERSION, 1, 0];
        match host.parse() {
            Ok(IpAddr::V4(address)) => {
                request.push(1);
                request.extend(address.octets());
            }
            Ok(IpAddr::V6(address)) => {
                request.push(4);
                request.extend(address.octets());
            }
            Err(_) => {
                request.push(3);
                push_short(&mut request, host, "the host")?;
            }
        }
        request.extend(port.to_be_bytes());
        let mut login = Vec::new();
        queue.0.extend_from_slice(match &proxy.credentials {
            None => &[VERSION, 1, NO_LOGIN],
            Some((user, password)) => {
                login.push(1);
                push_short(&mut login, user, "the user name")?;
                push_short(&mut login, password, "the password")?;
                &[VERSION, 2, NO_LOGIN, PASSWORD]
            }
        });
        Ok(Self {
            state: State::Offered,
            answer: Vec::new(),
            login,
            request,
        })
    }

    /// Returns the minimum length of the answer, as far as it is known.
    fn needs(&self) -> usize {
        match (self.state, self.answer.as_slice()) {
            (State::Offered | State::LoggedIn, _) => 2,
            (State::Asked, [_, _, _, 1, ..]) => 4 + 4 + 2,
            (State::Asked, [_, _, _, 3, len, ..]) => 4 + 1 + usize::from(*len) + 2,
            (State::Asked, [_, _, _, 4, ..]) => 4 + 16 + 2,
            (State::Asked, _) => 5,
            (State::Done, _) => 0,
        }
    }

    /// Takes the answers of the proxy. Returns whether it has connected.
    pub(super) fn take(&mut self, wire: &mut &[u8], queue: &mut Queue) -> Result<bool, Error> {
        while self.state != State::Done && !wire.is_empty() {
            self.step(wire, queue)?;
        }
        Ok(self.state == State::Done)
    }

    /// Takes one answer from the front of `wire`, and handles it.
    fn step(&mut self, wire: &mut &[u8], queue: &mut Queue) -> Result<(), Error> {
        while self.answer.len() < self.needs() {
            let Some((byte, rest)) = wire.split_first() else {
                return Ok(());
            };
            self.answer.push(*byte);
            *wire = rest;
        }
        let answer = std::mem::take(&mut self.answer);
        match (self.state, answer.as_slice()) {
            (State::Offered, [VERSION, NO_LOGIN]) => self.ask(queue),
            (State::Offered, [VERSION, PASSWORD]) if !self.login.is_empty() => {
                queue.0.extend_from_slice(&self.login);
                self.state = State::LoggedIn;
            }
            (State::Offered, [VERSION, 0xff | PASSWORD]) if self.login.is_empty() => {
                return Err(refused("the proxy requires a user name and a password"));
            }
            (State::Offered, [VERSION, _]) => {
                return Err(refused(
                    "the proxy requires another method than user name and password",
                ));
            }
            (State::LoggedIn, [_, 0]) => self.ask(queue),
            (State::LoggedIn, _) => {
                return Err(refused("the proxy refuses the user name or the password"));
            }
            (State::Asked, [VERSION, 0, ..]) => self.state = State::Done,
            (State::Asked, [VERSION, code, ..]) => {
                return Err(refused(format!("the proxy cannot connect: {}", why(*code))));
            }
            _ => return Err(refused("the proxy does not speak SOCKS5")),
        }
        Ok(())
    }

    fn ask(&mut self, queue: &mut Queue) {
        queue.0.extend_from_slice(&self.request);
        self.state = State::Asked;
    }
}

/// Appends a string of at most 255 bytes, with its length before it.
fn push_short(bytes: &mut Vec<u8>, text: &str, what: &str) -> Result<(), Error> {
    let len = u8::try_from(text.len())
        .ok()
        .filter(|len| *len > 0)
        .ok_or_else(|| wrong(format!("{what} must have 1 to 255 bytes for SOCKS5")))?;
    bytes.push(len);
    bytes.extend(text.bytes());
    Ok(())
}

const fn why(code: u8) -> &'static str {
    match code {
        2 => "its rules forbid it",
        3 => "the network cannot be reached",
        4 => "the host cannot be reached",
        5 => "the host refused the connection",
        6 => "it took too long",
        7 => "it knows no CONNECT",
        8 => "it does not know this kind of address",
        _ => "it failed",
    }
}
