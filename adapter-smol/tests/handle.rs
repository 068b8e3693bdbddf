//! Runs the suites of the handle under smol and under async-std.

use mqtt_smol::{Handle, Options};
use mqtt_testing::suites::handles::unanswered;

mod on_smol {
    use super::*;

    fn start(options: Options) -> Handle {
        let (handle, driver) = Handle::new(options);
        smol::spawn(driver).detach();
        handle
    }

    mqtt_testing::handles!(start, smol::block_on);
    mqtt_testing::services!(start, smol::block_on, 5_000);
}

mod on_async_std {
    use super::*;

    fn start(options: Options) -> Handle {
        let (handle, driver) = Handle::new(options);
        drop(async_std::task::spawn(driver));
        handle
    }

    mqtt_testing::handles!(start, async_std::task::block_on);
}

#[test]
fn a_request_has_a_time_limit() {
    smol::block_on(unanswered(async |options, request, limit| {
        let spawn = |driver| smol::spawn(driver).detach();
        let handle = Handle::connect(options, spawn).await?;
        handle.request(request, limit).await
    }));
}
