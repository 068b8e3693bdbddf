//! Drops every future at every await point, under smol and under async-std.

use mqtt_smol::{Clock, Handle, Options, Stream};
use mqtt_testing::suites::cancel::{a_connection, a_handle, echo};

#[test]
fn a_connection_whose_every_future_is_dropped_loses_nothing() {
    smol::block_on(a_connection::<Stream<_>, Clock>(Stream::from));
    async_std::task::block_on(a_connection::<Stream<_>, Clock>(Stream::from));
}

#[test]
fn a_handle_whose_every_future_is_dropped_loses_nothing() {
    smol::block_on(a_handle(|options: Options| {
        let (handle, driver) = Handle::with(options, || async { Ok(echo()) });
        smol::spawn(driver).detach();
        handle
    }));
    async_std::task::block_on(a_handle(|options: Options| {
        let (handle, driver) = Handle::with(options, || async { Ok(echo()) });
        drop(async_std::task::spawn(driver));
        handle
    }));
}
