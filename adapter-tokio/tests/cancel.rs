//! Drops every future at every await point, under tokio.

use mqtt_testing::suites::cancel::{a_connection, a_handle, echo};
use mqtt_tokio::{Handle, Options};
use tokio_util::compat::FuturesAsyncReadCompatExt;

#[tokio::test]
async fn a_connection_whose_every_future_is_dropped_loses_nothing() {
    a_connection::<mqtt_tokio::Stream<_>, mqtt_tokio::Clock>(|wire| wire.compat().into()).await;
}

#[tokio::test]
async fn a_handle_whose_every_future_is_dropped_loses_nothing() {
    let start = |options: Options| Handle::start_with(options, || async { Ok(echo().compat()) });
    a_handle(start).await;
}
