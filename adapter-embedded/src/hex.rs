//! Modems in hex mode, whose AT commands for data carry each byte as two ASCII hexadecimal digits.

use embedded_io::ErrorType;
#[cfg(feature = "blocking")]
use embedded_io::{Read, ReadReady, Write};

/// A transport that writes and reads bytes as pairs of hexadecimal digits.
///
/// It writes upper-case digits and reads both cases. It skips white space and line ends between digits, which modems print,
/// and all other bytes that are no digits. Answers of the modem that contain digits (`+CIPRCV:`) must be removed by a
/// transport inside of it. A digit that is lost on the line shifts all digits after it: the session sees bytes that are no
/// packet, ends the connection and is kept.
///
/// ```
/// use mqtt_embedded::hex::Hex;
/// use embedded_io::{Read, Write};
/// let mut line = [0; 4];
/// Hex::new(&mut line[..]).write(&[0xC0, 0x00]).unwrap();
/// assert_eq!(&line, b"C000");
///
/// let mut bytes = [0; 8];
/// let n = Hex::new(&b"d0\r\n 00"[..]).read(&mut bytes).unwrap();
/// assert_eq!(bytes[..n], [0xD0, 0x00]);
/// ```
#[derive(Debug)]
pub struct Hex<T> {
    inner: T,
    /// The first digit of a byte whose second digit has not arrived.
    half: Option<u8>,
    /// A byte that arrived during a call that only asked whether one had.
    ready: Option<u8>,
    /// The second digit of a byte of which the transport took only the first.
    unwritten: Option<u8>,
}

/// How many digits are read or written at once.
const CHUNK: usize = 32;

impl<T> Hex<T> {
    /// Makes a transport around another one.
    pub const fn new(inner: T) -> Self {
        Self {
            inner,
            half: None,
            ready: None,
            unwritten: None,
        }
    }

    /// Returns the inner transport. Half a byte that was read or written is lost.
    pub fn into_inner(self) -> T {
        self.inner
    }

    /// Returns how many digits may be read so that their bytes fit.
    fn digits_for(&self, bytes: usize) -> usize {
        bytes
            .saturating_mul(2)
            .saturating_sub(usize::from(self.half.is_some()))
            .min(CHUNK)
    }

    /// Puts the bytes that the digits complete into `buffer`. Returns how many bytes.
    fn take(&mut self, digits: &[u8], buffer: &mut [u8]) -> usize {
        let values = digits.iter().filter_map(|digit| value(*digit));
        let (half, mut n) = (&mut self.half, 0_usize);
        let bytes = values.filter_map(|low| match half.take() {
            Some(high) => Some(high << 4 | low),
            None => {
                *half = Some(low);
                None
            }
        });
        for (place, byte) in buffer.iter_mut().zip(bytes) {
            *place = byte;
            n = n.saturating_add(1);
        }
        n
    }

    /// Notes that the transport took `n` digits of `bytes`. Returns how many bytes they begin.
    fn wrote(&mut self, bytes: &[u8], n: usize) -> usize {
        let begun = n.div_ceil(2);
        if n % 2 == 1 {
            self.unwritten = begun
                .checked_sub(1)
                .and_then(|last| bytes.get(last))
                .map(|byte| digit(byte & 0x0F));
        }
        begun
    }
}

/// Returns the digits of as many bytes as fit, and the number of digits.
fn digits_of(bytes: &[u8]) -> ([u8; CHUNK], usize) {
    let mut digits = [0; CHUNK];
    let (pairs, _) = digits.as_chunks_mut::<2>();
    for ([high, low], byte) in pairs.iter_mut().zip(bytes) {
        (*high, *low) = (digit(byte >> 4), digit(byte & 0x0F));
    }
    (digits, bytes.len().saturating_mul(2).min(CHUNK))
}

const fn digit(value: u8) -> u8 {
    if value < 10 {
        b'0'.wrapping_add(value)
    } else {
        b'A'.wrapping_add(value.wrapping_sub(10))
    }
}

fn value(digit: u8) -> Option<u8> {
    char::from(digit)
        .to_digit(16)
        .and_then(|value| u8::try_from(value).ok())
}

impl<T: ErrorType> ErrorType for Hex<T> {
    type Error = T::Error;
}

/// Generates the code for both kinds of traits: `wait` is `.await` or nothing.
macro_rules! transport {
    ($read:path, $write:path $(, $async:ident, $wait:tt)?) => {
        impl<T: $read> $read for Hex<T> {
            $($async)? fn read(&mut self, buffer: &mut [u8]) -> Result<usize, T::Error> {
                let Some((first, _)) = buffer.split_first_mut() else {
                    return Ok(0);
                };
                if let Some(byte) = self.ready.take() {
                    *first = byte;
                    return Ok(1);
                }
                let mut digits = [0; CHUNK];
                loop {
                    let most = self.digits_for(buffer.len());
                    let room = digits.get_mut(..most).unwrap_or_default();
                    let n = self.inner.read(room)$(.$wait)??;
                    let taken = self.take(digits.get(..n).unwrap_or_default(), buffer);
                    if n == 0 || taken > 0 {
                        return Ok(taken);
                    }
                }
            }
        }

        impl<T: $write> $write for Hex<T> {
            $($async)? fn write(&mut self, bytes: &[u8]) -> Result<usize, T::Error> {
                if let Some(digit) = self.unwritten {
                    if self.inner.write(&[digit])$(.$wait)?? == 0 {
                        return Ok(0);
                    }
                    self.unwritten = None;
                }
                let (digits, len) = digits_of(bytes);
                let n = self.inner.write(digits.get(..len).unwrap_or_default())$(.$wait)??;
                Ok(self.wrote(bytes, n))
            }

            $($async)? fn flush(&mut self) -> Result<(), T::Error> {
                if let Some(digit) = self.unwritten
                    && self.inner.write(&[digit])$(.$wait)?? > 0
                {
                    self.unwritten = None;
                }
                self.inner.flush()$(.$wait)?
            }
        }
    };
}

#[cfg(feature = "blocking")]
transport!(Read, Write);
#[cfg(feature = "async")]
transport!(
    embedded_io_async::Read,
    embedded_io_async::Write,
    async,
    await
);

#[cfg(feature = "blocking")]
impl<T: Read + ReadReady> ReadReady for Hex<T> {
    /// Returns whether a whole byte is available.
    fn read_ready(&mut self) -> Result<bool, T::Error> {
        while self.ready.is_none() {
            if !self.inner.read_ready()? {
                return Ok(false);
            }
            let (mut digit, mut byte) = ([0], [0]);
            let n = self.inner.read(&mut digit)?;
            if n == 0 {
                // The end of the stream, which a read reports.
                return Ok(true);
            }
            if self.take(&digit, &mut byte) > 0 {
                self.ready = byte.first().copied();
            }
        }
        Ok(true)
    }
}
