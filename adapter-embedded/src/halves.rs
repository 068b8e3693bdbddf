//! Adapts the transports of a device.

use embedded_io::ErrorType;
#[cfg(feature = "blocking")]
use embedded_io::{Read, ReadReady, Write};

/// A transport of a reader and a writer, such as the two halves of a split UART.
#[derive(Debug)]
pub struct Halves<R, W> {
    /// The half that is read from.
    pub reader: R,
    /// The half that is written to.
    pub writer: W,
}

impl<R: ErrorType, W> ErrorType for Halves<R, W> {
    type Error = R::Error;
}

#[cfg(feature = "blocking")]
impl<R: Read, W> Read for Halves<R, W> {
    fn read(&mut self, buffer: &mut [u8]) -> Result<usize, R::Error> {
        self.reader.read(buffer)
    }
}

#[cfg(feature = "blocking")]
impl<R: ReadReady, W> ReadReady for Halves<R, W> {
    fn read_ready(&mut self) -> Result<bool, R::Error> {
        self.reader.read_ready()
    }
}

#[cfg(feature = "blocking")]
impl<R: ErrorType, W: Write<Error = R::Error>> Write for Halves<R, W> {
    fn write(&mut self, bytes: &[u8]) -> Result<usize, R::Error> {
        self.writer.write(bytes)
    }

    fn flush(&mut self) -> Result<(), R::Error> {
        self.writer.flush()
    }
}

#[cfg(feature = "async")]
impl<R: embedded_io_async::Read, W> embedded_io_async::Read for Halves<R, W> {
    async fn read(&mut self, buffer: &mut [u8]) -> Result<usize, R::Error> {
        self.reader.read(buffer).await
    }
}

#[cfg(feature = "async")]
impl<R: ErrorType, W: embedded_io_async::Write<Error = R::Error>> embedded_io_async::Write
    for Halves<R, W>
{
    async fn write(&mut self, bytes: &[u8]) -> Result<usize, R::Error> {
        self.writer.write(bytes).await
    }

    async fn flush(&mut self) -> Result<(), R::Error> {
        self.writer.flush().await
    }
}

/// A transport that cannot tell whether bytes have arrived ([`embedded_io::ReadReady`]), so each read waits.
///
/// The session gets the time only between reads. So either the reads of the transport must end by themselves, with an error
/// of kind [`embedded_io::ErrorKind::TimedOut`], which is not treated as a failure, or keep-alive must be off, since PINGREQ
/// would be late.
#[derive(Debug)]
pub struct Patient<T>(pub T);

impl<T: ErrorType> ErrorType for Patient<T> {
    type Error = T::Error;
}

#[cfg(feature = "blocking")]
impl<T: Read> Read for Patient<T> {
    fn read(&mut self, buffer: &mut [u8]) -> Result<usize, T::Error> {
        self.0.read(buffer)
    }
}

#[cfg(feature = "blocking")]
impl<T: ErrorType> ReadReady for Patient<T> {
    fn read_ready(&mut self) -> Result<bool, T::Error> {
        Ok(true)
    }
}

#[cfg(feature = "blocking")]
impl<T: Write> Write for Patient<T> {
    fn write(&mut self, bytes: &[u8]) -> Result<usize, T::Error> {
        self.0.write(bytes)
    }

    fn flush(&mut self) -> Result<(), T::Error> {
        self.0.flush()
    }
}
