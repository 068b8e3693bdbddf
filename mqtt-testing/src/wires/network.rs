//! A network in front of a server, which can be cut.

use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::{Arc, Condvar, Mutex};
use std::thread::spawn;

/// A network that can be cut as in a partition: its connections stay, and their bytes wait until it is whole again.
#[derive(Debug)]
pub struct Network {
    /// The port of the network on 127.0.0.1.
    pub port: u16,
    gate: Arc<Gate>,
}

#[derive(Debug, Default)]
struct Gate {
    is_cut: Mutex<bool>,
    changed: Condvar,
}

impl Network {
    /// Carries bytes from and to `target` on 127.0.0.1.
    ///
    /// # Panics
    /// There is no free port.
    #[must_use]
    pub fn to(target: u16) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let port = listener.local_addr().expect("its address").port();
        let gate = Arc::<Gate>::default();
        let network = Self {
            port,
            gate: Arc::clone(&gate),
        };
        spawn(move || {
            for near in listener.incoming().map_while(Result::ok) {
                // While nobody listens behind it, the connection ends.
                let Ok(far) = TcpStream::connect(("127.0.0.1", target)) else {
                    continue;
                };
                let (Ok(back), Ok(to)) = (far.try_clone(), near.try_clone()) else {
                    continue;
                };
                let gates = (Arc::clone(&gate), Arc::clone(&gate));
                spawn(move || gates.0.carry(&near, &far));
                spawn(move || gates.1.carry(&back, &to));
            }
        });
        network
    }

    /// Cuts the network, or makes it whole again.
    ///
    /// # Panics
    /// One of its threads has panicked.
    pub fn cut(&self, is_cut: bool) {
        *self.gate.is_cut.lock().expect("no panic") = is_cut;
        self.gate.changed.notify_all();
    }
}

impl Gate {
    fn carry(&self, mut from: &TcpStream, mut to: &TcpStream) {
        let mut buffer = vec![0; 64 << 10];
        while let Ok(len @ 1..) = from.read(&mut buffer) {
            self.wait();
            if to.write_all(&buffer[..len]).is_err() {
                break;
            }
        }
        // The end of a connection does not pass either.
        self.wait();
        let _ = (from.shutdown(Shutdown::Both), to.shutdown(Shutdown::Both));
    }

    fn wait(&self) {
        let is_cut = self.is_cut.lock().expect("no panic");
        drop(self.changed.wait_while(is_cut, |is_cut| *is_cut));
    }
}
