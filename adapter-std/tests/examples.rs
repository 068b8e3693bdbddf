//! Runs the examples.

#[test]
fn a_handle_hears_what_it_says_and_a_bare_connection_hears_it_too() {
    mqtt_testing::process::examples_converse("std");
}
