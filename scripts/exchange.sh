#!/usr/bin/env bash
# Passes messages from `mqtt pub` to `mqtt sub` through Mosquitto while their connections are cut.
# Installs Mosquitto by apt if it is missing.
set -euo pipefail
cd "$(dirname "$0")/.."
scripts/setup.sh mosquitto
cargo build --locked --release -p sansio-mqtt-cli
exec cargo run --locked --release --quiet -p sansio-mqtt-cli --example exchange
