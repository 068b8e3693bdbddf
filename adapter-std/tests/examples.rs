//! The examples run.

use mqtt_testing::mosquitto::Mosquitto;
use mqtt_testing::process::{Process, example, run};

#[test]
fn a_handle_hears_what_it_says_and_a_bare_connection_hears_it_too() {
    let broker = Mosquitto::start("");
    let bare = Process::start(
        &example("std_bare"),
        &[&format!("127.0.0.1:{}", broker.port), "10"],
    );
    bare.wait_stdout("subscribed");
    let echo = run(
        &example("std_echo"),
        &[&format!("mqtt://127.0.0.1:{}", broker.port)],
        "",
    );
    assert_eq!(echo.code, Some(0), "{}", echo.stderr);
    assert!(
        echo.stdout.contains("examples/echo: number 9"),
        "{}",
        echo.stdout
    );
    assert!(
        echo.stdout.ends_with("0 messages remained\n"),
        "{}",
        echo.stdout
    );
    let bare = bare.end();
    assert_eq!(bare.code, Some(0), "{}", bare.stderr);
    assert!(
        bare.stdout.contains("examples/echo: number 9"),
        "{}",
        bare.stdout
    );
}
