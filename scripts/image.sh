#!/usr/bin/env bash
# Makes the root file system of the image of packaging/Dockerfile in a folder that does not exist yet: the program `mqtt`, linked statically,
# and the certificates of public authorities. With --check it also runs a broker in it by chroot, which needs root, as an ordinary user,
# and clients against it.
#   scripts/image.sh [--check] FOLDER
# The profile is `release`, or what PROFILE says.
set -euo pipefail
check=
[ "${1:-}" != --check ] || { check=yes; shift; }
image=$(realpath -m "${1:?usage: image.sh [--check] FOLDER}")
cd "$(dirname "$0")/.."
profile="${PROFILE:-release}"
target="$(uname -m)-unknown-linux-musl"
out="${CARGO_TARGET_DIR:-$PWD/target}/$target/${profile/dev/debug}"

rustup target list --installed | grep -qx "$target" || rustup target add "$target"
cargo build --locked --profile "$profile" --target "$target" -p sansio-mqtt-cli
mkdir -p "$(dirname "$image")"
mkdir "$image" "$image/etc" "$image/etc/mqtt" "$image/etc/ssl" "$image/etc/ssl/certs"
mkdir -p "$image/var/lib/mqtt"
cp "$out/mqtt" "$image/mqtt"
cp broker-host/broker.toml "$image/etc/mqtt/broker.toml"
if [ -e /etc/ssl/certs/ca-certificates.crt ]; then
    cp /etc/ssl/certs/ca-certificates.crt "$image/etc/ssl/certs/"
fi
! readelf -d "$image/mqtt" | grep NEEDED || { echo "the program needs libraries"; exit 1; }
[ -n "$check" ] || exit 0

broker=
trap '[ -z "$broker" ] || kill "$broker" 2>/dev/null || true' EXIT
printf 'bind = ["127.0.0.1:0"]\n' >"$image/etc/mqtt/check.toml"
inside=(chroot --userspec=65534:65534 "$image" /mqtt)
"${inside[@]}" --version
: >"$image.log"
"${inside[@]}" broker --config /etc/mqtt/check.toml 2>"$image.log" &
broker=$!
for _ in $(seq 100); do
    ! grep -q listening "$image.log" || break
    sleep 0.1
done
port=$(sed -n 's/.*127\.0\.0\.1:\([0-9]*\).*/\1/p' "$image.log")
[ -n "$port" ] || { cat "$image.log"; exit 1; }
"${inside[@]}" pub -h 127.0.0.1 -p "$port" -t image -m works -r -q 1
[ "$("${inside[@]}" sub -h 127.0.0.1 -p "$port" -t image -C 1 -W 10)" = works ]
"${inside[@]}" check 127.0.0.1 -p "$port"
kill "$broker"
wait "$broker"
broker=
rm "$image/etc/mqtt/check.toml" "$image.log"
printf 'the image works: '
du -h "$image/mqtt"
