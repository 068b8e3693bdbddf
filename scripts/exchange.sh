#!/usr/bin/env bash
# `mqtt pub` and `mqtt sub` pass messages through Mosquitto while their connections are being cut.
# Installs Mosquitto by apt if it is missing.
set -euo pipefail
cd "$(dirname "$0")/.."
scripts/setup.sh mosquitto
cargo build --locked --release -p sansio-mqtt-cli
exec cargo run --locked --release --quiet -p sansio-mqtt-cli --example exchange
