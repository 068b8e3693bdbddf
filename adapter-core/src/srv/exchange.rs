//! Asks DNS servers over UDP and, if the answer is too large for it, over TCP (RFC 7766).

use std::io::{self, ErrorKind, Read, Write};
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream, UdpSocket};
use std::time::{Duration, Instant};

use super::message::{Answer, Query, Record};
use super::share;

/// How often each server is asked: a datagram may be lost.
const ROUNDS: usize = 2;
/// How long one answer may take while there are other servers or rounds.
const PATIENCE: Duration = Duration::from_secs(2);
/// The size of a message over UDP (RFC 1035, section 4.2.1), and room for servers that send more.
const DATAGRAM: usize = 4_096;

/// Returns the records of the first server that answers.
pub(super) fn ask(
    query: &Query,
    servers: &[SocketAddr],
    until: Instant,
) -> io::Result<Vec<Record>> {
    let mut why = io::Error::new(ErrorKind::NotFound, "there is no DNS server");
    let mut left = servers.len() * ROUNDS;
    for server in (0..ROUNDS).flat_map(|_| servers) {
        let by = Instant::now() + share(until, left).min(PATIENCE);
        left -= 1;
        let failed = match one(query, *server, by) {
            Ok(Answer::Records(records)) => return Ok(records),
            Ok(Answer::Failed(why)) => io::Error::new(ErrorKind::InvalidData, why),
            Ok(Answer::Other | Answer::Truncated) => ErrorKind::InvalidData.into(),
            Err(error) if error.kind() == ErrorKind::WouldBlock => ErrorKind::TimedOut.into(),
            Err(error) => error,
        };
        why = io::Error::new(failed.kind(), format!("DNS server {server}: {failed}"));
    }
    Err(why)
}

fn one(query: &Query, server: SocketAddr, by: Instant) -> io::Result<Answer> {
    match over_udp(query, server, by)? {
        Answer::Truncated => over_tcp(query, server, by),
        answer => Ok(answer),
    }
}

/// Returns the time that is left, which a time-out of a socket must not have as 0.
fn rest(by: Instant) -> io::Result<Duration> {
    let rest = by.saturating_duration_since(Instant::now());
    if rest.is_zero() {
        return Err(ErrorKind::TimedOut.into());
    }
    Ok(rest)
}

fn over_udp(query: &Query, server: SocketAddr, by: Instant) -> io::Result<Answer> {
    let local: SocketAddr = match server {
        SocketAddr::V4(_) => (Ipv4Addr::UNSPECIFIED, 0).into(),
        SocketAddr::V6(_) => (Ipv6Addr::UNSPECIFIED, 0).into(),
    };
    // The system chooses a random port, and passes datagrams of this server only.
    let socket = UdpSocket::bind(local)?;
    socket.connect(server)?;
    socket.send(query.bytes())?;
    let mut space = [0; DATAGRAM];
    loop {
        socket.set_read_timeout(Some(rest(by)?))?;
        let n = socket.recv(&mut space)?;
        match query.answer(space.get(..n).unwrap_or_default()) {
            Answer::Other => {}
            answer => return Ok(answer),
        }
    }
}

fn over_tcp(query: &Query, server: SocketAddr, by: Instant) -> io::Result<Answer> {
    let mut stream = TcpStream::connect_timeout(&server, rest(by)?)?;
    stream.set_write_timeout(Some(rest(by)?))?;
    let length = u16::try_from(query.bytes().len()).map_err(io::Error::other)?;
    stream.write_all(&[&length.to_be_bytes(), query.bytes()].concat())?;
    let mut length = [0; 2];
    read_exact(&mut stream, &mut length, by)?;
    let mut message = vec![0; usize::from(u16::from_be_bytes(length))];
    read_exact(&mut stream, &mut message, by)?;
    Ok(query.answer(&message))
}

/// Fills the space until a time, however slowly the bytes come.
fn read_exact(stream: &mut TcpStream, mut space: &mut [u8], by: Instant) -> io::Result<()> {
    while !space.is_empty() {
        stream.set_read_timeout(Some(rest(by)?))?;
        match stream.read(space)? {
            0 => return Err(ErrorKind::UnexpectedEof.into()),
            n => space = space.get_mut(n..).unwrap_or_default(),
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The first server does not answer; the second one says that there are no records.
    #[test]
    fn the_next_server_is_asked_when_one_is_silent() {
        let bound = || UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let (silent, answering) = (bound(), bound());
        let servers = [&silent, &answering].map(|socket| socket.local_addr().unwrap());
        let thread = std::thread::spawn(move || {
            let mut space = [0; DATAGRAM];
            let (n, from) = answering.recv_from(&mut space).unwrap();
            // The bit QR makes an answer of the query.
            space[2] |= 0x80;
            answering.send_to(&space[..n], from).unwrap();
        });
        let query = Query::new(7, "_mqtt._tcp.plant.example").unwrap();
        let until = Instant::now() + Duration::from_secs(4);
        let found = ask(&query, &servers, until);
        thread.join().unwrap();
        assert_eq!(found.unwrap(), []);
    }

    #[test]
    fn a_silent_server_is_named() {
        let silent = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let server = silent.local_addr().unwrap();
        let query = Query::new(7, "_mqtt._tcp.plant.example").unwrap();
        let until = Instant::now() + Duration::from_millis(20);
        let error = ask(&query, &[server], until).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::TimedOut);
        let is_named = error
            .to_string()
            .starts_with(&format!("DNS server {server}"));
        assert!(is_named, "{error}");
    }
}
