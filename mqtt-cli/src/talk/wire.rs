//! Holds the connection of `mqtt talk`: TCP or a serial line. A thread reads from it.

use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, TcpStream};
use std::path::Path;
use std::sync::Arc;
use std::sync::mpsc::Sender;
use std::time::Duration;

use serial2::SerialPort;

use super::Input;
use crate::failure::{Failure, fail};

/// The default port.
const PORT: u16 = 1883;

/// The writing side.
pub(super) enum Wire {
    Tcp(TcpStream),
    Serial(Arc<SerialPort>),
}

impl Wire {
    /// Connects. The port may be at the end of the address.
    pub(super) fn tcp(
        address: &str,
        port: Option<u16>,
        sender: Sender<Input>,
    ) -> Result<Self, Failure> {
        if address.contains("://") {
            let why = "mqtt talk speaks plain TCP to a HOST or HOST:PORT, not to a URL";
            return Err(fail(why));
        }
        let wrong = |error| fail(format!("{address}: {error}"));
        // An IPv6 address has colons; one with a port has brackets.
        let has_port = address.rsplit_once(':').is_some_and(|(host, port)| {
            port.parse::<u16>().is_ok() && (!host.contains(':') || host.ends_with(']'))
        });
        let stream = match port {
            Some(_) if has_port => return Err(fail("the port is given twice")),
            None if has_port => TcpStream::connect(address),
            port => {
                let host = address.trim_matches(['[', ']']);
                TcpStream::connect((host, port.unwrap_or(PORT)))
            }
        };
        let stream = stream.map_err(wrong)?;
        stream.set_nodelay(true).map_err(wrong)?;
        let mut reading = stream.try_clone().map_err(wrong)?;
        std::thread::spawn(move || read(|buffer| reading.read(buffer), &sender));
        Ok(Self::Tcp(stream))
    }

    pub(super) fn serial(device: &Path, baud: u32, sender: Sender<Input>) -> Result<Self, Failure> {
        let wrong = |error| fail(format!("{}: {error}", device.display()));
        let mut port = SerialPort::open(device, baud).map_err(wrong)?;
        port.set_read_timeout(Duration::from_secs(3600))
            .map_err(wrong)?;
        let port = Arc::new(port);
        let reading = Arc::clone(&port);
        std::thread::spawn(move || read(|buffer| reading.read(buffer), &sender));
        Ok(Self::Serial(port))
    }

    pub(super) fn write(&mut self, bytes: &[u8]) -> std::io::Result<()> {
        match self {
            Self::Tcp(stream) => stream.write_all(bytes),
            Self::Serial(port) => port.write_all(bytes),
        }
    }
}

impl Drop for Wire {
    /// Ends the reading thread.
    fn drop(&mut self) {
        if let Self::Tcp(stream) = self {
            let _ = stream.shutdown(Shutdown::Both);
        }
    }
}

fn read(mut read: impl FnMut(&mut [u8]) -> std::io::Result<usize>, sender: &Sender<Input>) {
    let mut buffer = [0; 4096];
    loop {
        let input = match read(&mut buffer) {
            Ok(0) => Input::Closed(None),
            Ok(len) => Input::Bytes(buffer.get(..len).unwrap_or_default().to_vec()),
            Err(error) if matches!(error.kind(), ErrorKind::TimedOut | ErrorKind::Interrupted) => {
                continue;
            }
            Err(error) => Input::Closed(Some(error)),
        };
        let is_over = matches!(input, Input::Closed(_));
        if sender.send(input).is_err() || is_over {
            return;
        }
    }
}
