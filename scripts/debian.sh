#!/usr/bin/env bash
# Makes the Debian package of the program `mqtt` by cargo-deb (`cargo install cargo-deb`), with completions, manual pages and the unit of
# systemd, and checks what is in it. The path of the package is the last line.
# The profile is `release`, or what PROFILE says.
set -euo pipefail
cd "$(dirname "$0")/.."
profile="${PROFILE:-release}"
export CARGO_TARGET_DIR="${CARGO_TARGET_DIR:-$PWD/target}"
out="$CARGO_TARGET_DIR/${profile/dev/debug}"
files="$out/installed"
unpacked=$(mktemp -d)
trap 'rm -rf "$unpacked"' EXIT

cargo build --locked --profile "$profile" -p sansio-mqtt-cli
rm -rf "$files"
mkdir -p "$files/man"
"$out/mqtt" man --directory "$files/man"
gzip -9n "$files"/man/*
for shell in bash zsh fish; do "$out/mqtt" completions "$shell" >"$files/mqtt.$shell"; done
package=$(cargo deb --quiet --no-build --profile "$profile" -p sansio-mqtt-cli --output "$CARGO_TARGET_DIR/debian/")
package="${package:-$(ls -t "$CARGO_TARGET_DIR"/debian/*.deb | head -1)}"

dpkg-deb --extract "$package" "$unpacked/root"
dpkg-deb --control "$package" "$unpacked/control"
for file in bin/mqtt lib/systemd/system/mqtt-broker.service share/man/man1/mqtt.1.gz share/man/man1/mqtt-sub.1.gz \
    share/bash-completion/completions/mqtt share/zsh/vendor-completions/_mqtt share/fish/vendor_completions.d/mqtt.fish \
    share/doc/mqtt/copyright; do
    [ -s "$unpacked/root/usr/$file" ] || { echo "usr/$file is missing"; find "$unpacked/root"; exit 1; }
done
cmp broker-host/broker.toml "$unpacked/root/etc/mqtt/broker.toml"
grep -qx /etc/mqtt/broker.toml "$unpacked/control/conffiles"
grep '^Depends: .*libc6' "$unpacked/control/control"
"$unpacked/root/usr/bin/mqtt" --version
echo "$package"
