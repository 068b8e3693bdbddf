//! Implements a transport with the WebSocket of the browser.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::fmt;
use std::future::poll_fn;
use std::io;
use std::rc::Rc;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use js_sys::{ArrayBuffer, Uint8Array};
use mqtt_adapter_core::Scheme;
use mqtt_adapter_core::bytes::BytesMut;
use mqtt_adapter_core::driver::{Timer, Transport};
use wasm_bindgen::JsCast;
use wasm_bindgen::closure::Closure;
use web_sys::{BinaryType, CloseEvent, MessageEvent, WebSocket};

use crate::timer::Clock;

/// How many bytes the browser may buffer before a write waits.
const BUFFERED: u32 = 256 << 10;
/// After what time a waiting write reads the browser's buffered amount again, because the browser has no event for it.
const ASK_AGAIN: Duration = Duration::from_millis(5);

/// A WebSocket of the browser.
pub struct Socket {
    socket: WebSocket,
    state: Rc<RefCell<State>>,
    drained: Clock,
    /// These closures must live as long as the browser may call them.
    _on_message: Closure<dyn FnMut(MessageEvent)>,
    _on_open: Closure<dyn FnMut()>,
    _on_close: Closure<dyn FnMut(CloseEvent)>,
}

/// The content of the browser's events.
#[derive(Default)]
struct State {
    is_open: bool,
    arrived: VecDeque<Uint8Array>,
    /// Why the WebSocket ended; an empty text is a clean end.
    ended: Option<String>,
    waker: Option<Waker>,
}

impl State {
    fn wake(&mut self) -> Option<Waker> {
        self.waker.take()
    }
}

impl fmt::Debug for Socket {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Socket").field(&self.socket.url()).finish()
    }
}

impl Socket {
    /// Opens a WebSocket. The future is ready when the server has accepted it.
    ///
    /// # Errors
    /// The scheme is neither `ws` nor `wss`, or the browser cannot connect. A browser reports the reason only in its console.
    pub async fn open(scheme: Scheme, host: &str, port: u16, path: &str) -> io::Result<Self> {
        let url = url(scheme, host, port, path)?;
        // 3.1.1 [MQTT-6.0.0-3], 5 [MQTT-6.0.0-3]: a client asks for the sub-protocol mqtt.
        let socket = WebSocket::new_with_str(&url, "mqtt")
            .map_err(|error| failed(&format!("{url}: {error:?}")))?;
        let socket = Self::over(socket);
        poll_fn(|cx| socket.poll_open(cx)).await?;
        Ok(socket)
    }

    fn over(socket: WebSocket) -> Self {
        // 3.1.1 [MQTT-6.0.0-1], 5 [MQTT-6.0.0-1]: packets are sent in binary frames.
        socket.set_binary_type(BinaryType::Arraybuffer);
        let state = Rc::new(RefCell::new(State::default()));
        let tell = |state: &Rc<RefCell<State>>, change: &dyn Fn(&mut State)| {
            let mut state = state.borrow_mut();
            change(&mut state);
            let waker = state.wake();
            drop(state);
            if let Some(waker) = waker {
                waker.wake();
            }
        };
        let told = Rc::clone(&state);
        let on_message = Closure::new(move |event: MessageEvent| {
            tell(
                &told,
                &|state| match event.data().dyn_into::<ArrayBuffer>() {
                    Ok(bytes) => state.arrived.push_back(Uint8Array::new(&bytes)),
                    // 3.1.1 [MQTT-6.0.0-1], 5 [MQTT-6.0.0-1]: any other frame ends the connection.
                    Err(_) => state.ended = Some("the server sent a text frame".to_owned()),
                },
            );
        });
        let told = Rc::clone(&state);
        let on_open = Closure::new(move || tell(&told, &|state| state.is_open = true));
        let told = Rc::clone(&state);
        let on_close = Closure::new(move |event: CloseEvent| {
            tell(&told, &|state| {
                state.ended.get_or_insert_with(|| match event.code() {
                    1000 => String::new(),
                    code => {
                        let text = format!("the WebSocket was closed ({code}) {}", event.reason());
                        text.trim_end().to_owned()
                    }
                });
            });
        });
        socket.set_onmessage(Some(on_message.as_ref().unchecked_ref()));
        socket.set_onopen(Some(on_open.as_ref().unchecked_ref()));
        // After an error the browser also reports a close. An error event has no description.
        socket.set_onclose(Some(on_close.as_ref().unchecked_ref()));
        Self {
            socket,
            state,
            drained: Clock::after(ASK_AGAIN),
            _on_message: on_message,
            _on_open: on_open,
            _on_close: on_close,
        }
    }

    fn poll_open(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let mut state = self.state.borrow_mut();
        if let Some(why) = &state.ended {
            return Poll::Ready(Err(failed(why)));
        }
        if state.is_open {
            return Poll::Ready(Ok(()));
        }
        state.waker = Some(cx.waker().clone());
        Poll::Pending
    }
}

impl Transport for Socket {
    fn poll_fill(
        &mut self,
        cx: &mut Context<'_>,
        buffer: &mut BytesMut,
    ) -> Poll<io::Result<usize>> {
        let mut state = self.state.borrow_mut();
        // An empty frame is not the end of the stream.
        while let Some(bytes) = state.arrived.pop_front() {
            let n = usize::try_from(bytes.length()).unwrap_or_default();
            if n > 0 {
                let before = buffer.len();
                buffer.resize(before + n, 0);
                bytes.copy_to(buffer.get_mut(before..).unwrap_or_default());
                return Poll::Ready(Ok(n));
            }
        }
        match &state.ended {
            Some(why) if why.is_empty() => Poll::Ready(Ok(0)),
            Some(why) => Poll::Ready(Err(failed(why))),
            None => {
                state.waker = Some(cx.waker().clone());
                Poll::Pending
            }
        }
    }

    fn poll_write(&mut self, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        if self.socket.ready_state() != WebSocket::OPEN {
            return Poll::Ready(Err(io::ErrorKind::BrokenPipe.into()));
        }
        while self.socket.buffered_amount() > BUFFERED {
            if self.drained.poll(cx).is_pending() {
                return Poll::Pending;
            }
            self.drained.reset(ASK_AGAIN);
        }
        let sent = self.socket.send_with_u8_array(bytes);
        Poll::Ready(match sent {
            Ok(()) => Ok(bytes.len()),
            Err(error) => Err(failed(&format!("{error:?}"))),
        })
    }

    fn poll_flush(&mut self, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_close(&mut self, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        // The browser sends its buffered bytes before it closes.
        let _ = self.socket.close_with_code(1000);
        Poll::Ready(Ok(()))
    }
}

impl Drop for Socket {
    fn drop(&mut self) {
        self.socket.set_onmessage(None);
        self.socket.set_onopen(None);
        self.socket.set_onclose(None);
        let _ = self.socket.close();
    }
}

fn url(scheme: Scheme, host: &str, port: u16, path: &str) -> io::Result<String> {
    let name = match scheme {
        Scheme::Ws => "ws",
        Scheme::Wss => "wss",
        _ => {
            let message = "a browser opens WebSocket only: the URL must begin with ws:// or wss://";
            return Err(io::Error::new(io::ErrorKind::Unsupported, message));
        }
    };
    let host = match host.contains(':') {
        true => format!("[{host}]"),
        false => host.to_owned(),
    };
    Ok(format!("{name}://{host}:{port}{path}"))
}

fn failed(why: &str) -> io::Error {
    let why = match why {
        "" => "the server closed the WebSocket",
        why => why,
    };
    io::Error::new(io::ErrorKind::ConnectionAborted, why)
}
