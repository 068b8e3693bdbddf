use embedded_io::{ErrorKind, ErrorType, Read, ReadReady, Write};
use mqtt_embedded::hex::Hex;

/// A modem that takes and returns few digits at once.
struct Modem {
    digits: Vec<u8>,
    most: usize,
}

impl ErrorType for Modem {
    type Error = ErrorKind;
}

impl Read for Modem {
    fn read(&mut self, buffer: &mut [u8]) -> Result<usize, ErrorKind> {
        let n = buffer.len().min(self.most).min(self.digits.len());
        for (place, digit) in buffer.iter_mut().zip(self.digits.drain(..n)) {
            *place = digit;
        }
        Ok(n)
    }
}

impl ReadReady for Modem {
    fn read_ready(&mut self) -> Result<bool, ErrorKind> {
        Ok(!self.digits.is_empty())
    }
}

impl Write for Modem {
    fn write(&mut self, bytes: &[u8]) -> Result<usize, ErrorKind> {
        let n = bytes.len().min(self.most);
        self.digits.extend(&bytes[..n]);
        Ok(n)
    }

    fn flush(&mut self) -> Result<(), ErrorKind> {
        Ok(())
    }
}

fn all() -> Vec<u8> {
    (0..=255).collect()
}

#[test]
fn every_byte_comes_back_however_few_digits_go_at_once() {
    for most in 1..40 {
        let mut hex = Hex::new(Modem {
            digits: Vec::new(),
            most,
        });
        let bytes = all();
        let mut at = 0;
        while at < bytes.len() {
            at += hex.write(&bytes[at..]).unwrap();
        }
        hex.flush().unwrap();
        let modem = hex.into_inner();
        let expected: String = bytes.iter().map(|byte| format!("{byte:02X}")).collect();
        assert_eq!(String::from_utf8(modem.digits.clone()).unwrap(), expected);

        let mut hex = Hex::new(modem);
        let (mut back, mut buffer) = (Vec::new(), [0; 7]);
        while hex.read_ready().unwrap() {
            let n = hex.read(&mut buffer).unwrap();
            back.extend_from_slice(&buffer[..n]);
        }
        assert_eq!(back, bytes);
    }
}

/// Half a byte is no byte: a read after `read_ready` does not wait.
#[test]
fn ready_is_a_whole_byte() {
    let modem = |digits: &[u8]| {
        Hex::new(Modem {
            digits: digits.to_vec(),
            most: 9,
        })
    };
    assert_eq!(modem(b"\r\n ").read_ready(), Ok(false));
    let mut hex = modem(b"\r\nd");
    assert_eq!(hex.read_ready(), Ok(false));
    let mut rest = hex.into_inner();
    rest.digits.extend(b"d0");
    let mut hex = Hex::new(rest);
    assert_eq!(hex.read_ready(), Ok(true));
    let mut byte = [0; 4];
    assert_eq!((hex.read(&mut byte), byte[0]), (Ok(1), 0xD0));
}
