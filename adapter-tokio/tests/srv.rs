//! Servers that SRV records name.

use mqtt_tokio::Handle;

fn run<T>(test: impl Future<Output = T>) -> T {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build();
    runtime.unwrap().block_on(test)
}

mqtt_testing::srv!(Handle::start_dialling, run);
