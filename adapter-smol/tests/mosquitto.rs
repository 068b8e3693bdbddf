//! Runs the client under smol and under async-std against Mosquitto, also through a proxy that cuts the connection at random
//! bytes.

use mqtt_smol::{Clock, Handle, Options};

mod on_smol {
    use super::*;

    fn start(options: Options) -> Handle {
        let (handle, driver) = Handle::new(options);
        smol::spawn(driver).detach();
        handle
    }

    mqtt_testing::interop!(Clock, start, smol::block_on);
}

mod on_async_std {
    use super::*;

    fn start(options: Options) -> Handle {
        let (handle, driver) = Handle::new(options);
        drop(async_std::task::spawn(driver));
        handle
    }

    mqtt_testing::interop!(Clock, start, async_std::task::block_on);
}
