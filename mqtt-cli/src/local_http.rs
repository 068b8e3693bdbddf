//! Serves HTTP on a port of this machine, for `mqtt broker --health` and `--web`.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use http_body_util::Full;
use hyper::body::{Bytes, Incoming};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio::time::{sleep, timeout};

use crate::failure::{Failure, fail};

/// How many connections are served at the same time.
const CONNECTIONS: usize = 32;
/// How long a request and its answer may take.
const PATIENCE: Duration = Duration::from_secs(5);
/// How long to wait when a connection cannot be accepted.
const ACCEPT_AGAIN: Duration = Duration::from_millis(100);

/// Listens for requests. Only this machine can connect, because each client can read the statistics of the broker.
pub(crate) async fn listen(setting: &str, address: SocketAddr) -> Result<TcpListener, Failure> {
    if !address.ip().is_loopback() {
        return Err(fail(format!(
            "{setting} {address}: must be an address of this machine only, such as 127.0.0.1:{}",
            address.port()
        )));
    }
    let bound = TcpListener::bind(address).await;
    bound.map_err(|error| fail(format!("cannot bind {address}: {error}")))
}

/// Accepts connections and serves each in a separate task while this is polled. A slow client gets no answer.
pub(crate) async fn serve_each<F>(listener: TcpListener, serve: impl Fn(TcpStream) -> F)
where
    F: Future<Output = ()> + Send + 'static,
{
    let places = Arc::new(Semaphore::new(CONNECTIONS));
    loop {
        let Ok(place) = Arc::clone(&places).acquire_owned().await else {
            return; // the semaphore is never closed
        };
        let Ok((stream, _)) = listener.accept().await else {
            sleep(ACCEPT_AGAIN).await;
            continue;
        };
        let served = timeout(PATIENCE, serve(stream));
        tokio::spawn(async move {
            let _ = served.await;
            drop(place);
        });
    }
}

/// Answers one request. A client without a valid request gets no answer.
pub(crate) async fn respond<F>(stream: TcpStream, answer: impl Fn(Request<Incoming>) -> F)
where
    F: Future<Output = Result<Response<Full<Bytes>>, Infallible>>,
{
    let _ = http1::Builder::new()
        .timer(TokioTimer::new())
        .keep_alive(false)
        .serve_connection(TokioIo::new(stream), service_fn(answer))
        .await;
}
