#!/usr/bin/env python3
"""Measures a client on a Cortex-M4 (mps2-an386 under QEMU, opt-level "z", fat LTO), for each set of features.

Builds the images `footprint` and `instructions` of firmware/, runs them against Mosquitto, and prints the table. With
`--check` it fails if a number is above its limit in firmware/limits.tsv; with `--write` it writes the table into docs/BENCHMARKS.md
and adapter-embedded/README.md, where a pair of comments marks its place, with the date and the compiler's version below it. With
`--tls` it prints flash and RAM of the image `tls` only, which runs in the test `firmware` of mqtt-cli, and with `--wear` the table of
wear only, which the test `wear` of adapter-embedded measures and limits.

  flash         .text + .rodata above those of the image `baseline`, in bytes; of "session in flash" with `sequential-storage`
  state         the session's own memory without what is lent to it; slot and received: each entry that is lent
  stack         the most that was in use below the call that runs the client, by painting
  RAM           .data + .bss, with all buffers of the script and the UART's, + stack
  instructions  of the session for one PUBLISH at QoS 1 that comes in

An image whose panic handler calls a function that does not exist links only if no panic can be reached: the blocking images are
linked so, a planted index must not link, and no image may have an allocator or formatting.
"""

import os
import re
import socket
import struct
import subprocess
import sys
import tempfile
import time
from datetime import date
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
FIRMWARE = ROOT / "firmware"
TARGET = "thumbv7em-none-eabihf"
PAGES = [ROOT / "docs" / "BENCHMARKS.md", ROOT / "adapter-embedded" / "README.md"]
COLUMNS = ["flash", "state", "slot", "received", "stack", "RAM", "instructions"]
SETS = [
    ("3.1.1", ""),
    ("3.1.1 and 5", "v5"),
    ("3.1.1 and 5, every feature reached", "v5,full"),
    ("3.1.1 and 5, async", "v5,asynch"),
    ("3.1.1 and 5, session in flash", "v5,flash"),
]
WEAR_OF = "Wear of a flash of 16 pages of 4 KiB with words of 4 bytes, once all pages are in use:"
BEGIN, END = "<!-- footprint -->\n", "<!-- end of footprint -->"


def build(image, features):
    features = ",".join(filter(None, ["mps2-an386", features]))
    command = ["cargo", "build", "--quiet", "--locked", "--release", "--bin", image, "--target", TARGET]
    command += ["--target-dir", "target/footprint", "--no-default-features", "--features", features]
    done = subprocess.run(command, cwd=FIRMWARE, capture_output=True, text=True)
    path = FIRMWARE / "target/footprint" / TARGET / "release" / image
    return path if done.returncode == 0 else None, done.stderr


def must_build(image, features):
    path, errors = build(image, features)
    if path is None:
        sys.exit(f"{image} with {features!r} does not build:\n{errors}")
    return path


def sections(path):
    """Size of each section, and the names of all symbols, of a 32-bit little-endian ELF file."""
    data = path.read_bytes()
    start, = struct.unpack_from("<I", data, 0x20)
    size, count, names = struct.unpack_from("<HHH", data, 0x2E)
    headers = [struct.unpack_from("<10I", data, start + n * size) for n in range(count)]

    def text(table, at):
        begin = headers[table][4] + at
        return data[begin : data.index(b"\0", begin)].decode()

    sizes = {text(names, header[0]): header[5] for header in headers}
    symbols = []
    for header in headers:
        if header[1] == 2:
            for at in range(header[4], header[4] + header[5], 16):
                symbols.append(text(header[6], struct.unpack_from("<I", data, at)[0]))
    return sizes, symbols


def run(image, *options):
    """Runs an image to its end and returns the numbers that it prints."""
    machine = ["qemu-system-arm", "-M", "mps2-an386", "-nographic", "-monitor", "none"]
    machine += ["-semihosting-config", "enable=on,target=native", "-kernel", image, *options]
    done = subprocess.run(machine, capture_output=True, text=True, timeout=60, stdin=subprocess.DEVNULL)
    if done.returncode != 0:
        sys.exit(f"{image} fails: {done.stdout}{done.stderr}")
    pairs = [line.split("=") for line in (done.stdout + done.stderr).split() if "=" in line]
    return {name: int(number) for name, number in pairs}


class Mosquitto:
    def __enter__(self):
        for _ in range(5):
            with socket.socket() as probe:
                probe.bind(("127.0.0.1", 0))
                self.port = probe.getsockname()[1]
            self.config = tempfile.NamedTemporaryFile("w", suffix=".conf")
            self.config.write(f"listener {self.port} 127.0.0.1\nallow_anonymous true\nlog_dest stderr\n")
            self.config.flush()
            program = next(filter(os.path.exists, ["/usr/sbin/mosquitto"]), "mosquitto")
            self.process = subprocess.Popen([program, "-c", self.config.name], stderr=subprocess.PIPE, text=True)
            for line in self.process.stderr:
                if line.rstrip().endswith("running"):
                    return self
            self.process.wait()
        sys.exit("Mosquitto does not start; scripts/setup.sh installs it")

    def __exit__(self, *_):
        self.process.kill()
        self.process.wait()


def flash(sizes):
    return sizes[".text"] + sizes[".rodata"]


def measure():
    baseline, _ = sections(must_build("baseline", ""))
    rows = {}
    with Mosquitto() as broker:
        for name, features in SETS:
            image = must_build("footprint", features)
            sizes, symbols = sections(image)
            for symbol in symbols:
                if "__rust_alloc" in symbol or "core3fmt" in symbol:
                    sys.exit(f"{name}: the image has {symbol}")
            row = run(str(image), "-serial", f"tcp:127.0.0.1:{broker.port}")
            row["flash"] = flash(sizes) - flash(baseline)
            # The pages of the flash are memory in this image, but not in a device.
            row["RAM"] = sizes.get(".data", 0) + sizes.get(".bss", 0) + row["stack"] - row.pop("pages", 0)
            counted = ",".join(name for name in ("v5", "flash") if name in features.split(","))
            counter = must_build("instructions", counted)
            row.update(run(str(counter), "-serial", "null", "-icount", "shift=5"))
            rows[name] = row
    path, errors = build("footprint", "planted")
    if path is not None or "a_panic_is_reachable" not in errors:
        sys.exit(f"an index that can panic must not link:\n{errors}")
    return rows


def table(rows):
    lines = ["| features | " + " | ".join(COLUMNS) + " |", "| --- |" + " ---: |" * len(COLUMNS)]
    for name, row in rows.items():
        lines.append(f"| {name} | " + " | ".join(f"{row[column]:,}" for column in COLUMNS) + " |")
    return "\n".join(lines) + "\n"


WEAR = [
    ("QoS 1", "AtLeastOnce, Always"),
    ("QoS 2", "ExactlyOnce, Always"),
    ("QoS 1 with `Durable::WhenOffline`, acknowledged in time", "AtLeastOnce, WhenOffline(1000)"),
]


def wear():
    """The table of what a message costs the flash, from what the test prints."""
    command = ["cargo", "test", "--quiet", "--locked", "-p", "sansio-mqtt-embedded", "--all-features", "--test", "connection"]
    command += ["wear", "--", "--nocapture"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    found = dict(re.findall(r"^(.+): (\d+ bytes, \d+ page erases) for 1,000 messages$", done.stdout, re.MULTILINE))
    if done.returncode != 0 or not all(printed in found for _, printed in WEAR):
        sys.exit(f"the test of the wear: {done.stdout}{done.stderr}")
    lines = ["| message of 40 bytes | bytes written | page erases for 1,000 messages |", "| --- | ---: | ---: |"]
    for name, printed in WEAR:
        numbers = re.findall(r"\d+", found[printed])
        lines.append(f"| {name} | " + " | ".join(numbers) + " |")
    return "\n".join(lines) + "\n"


def write(page, block):
    """Puts a block of text between the comments of a page."""
    text = page.read_text()
    if text.count(BEGIN) != 1 or text.count(END) != 1:
        sys.exit(f"{page}: the comments around the table are not there, or more than once")
    before, _, rest = text.partition(BEGIN)
    _, _, after = rest.partition(END)
    page.write_text(before + BEGIN + block + END + after)


def limits():
    lines = [line.split("\t") for line in (FIRMWARE / "limits.tsv").read_text().splitlines()]
    (_, *columns), *rows = [line for line in lines if not line[0].startswith("#")]
    return {name: dict(zip(columns, map(int, numbers))) for name, *numbers in rows}


def print_tls():
    baseline, _ = sections(must_build("baseline", ""))
    sizes, _ = sections(must_build("tls", "tls"))
    ram = sizes.get(".data", 0) + sizes.get(".bss", 0)
    print(f"flash {flash(sizes) - flash(baseline):,}, RAM without stack {ram:,}")


def main():
    if "--tls" in sys.argv:
        return print_tls()
    if "--wear" in sys.argv:
        return print(wear(), end="")
    started = time.monotonic()
    rows = measure()
    made = f"{table(rows)}\n{WEAR_OF}\n\n{wear()}"
    print(made)
    if "--write" in sys.argv:
        version = subprocess.run(["rustc", "--version"], cwd=FIRMWARE, capture_output=True, text=True, check=True).stdout.split()[1]
        for page in PAGES:
            write(page, f"{made}\nMeasured on {date.today()} with Rust {version}.\n")
    if "--check" in sys.argv:
        passed = [
            f"{name}: {column} is {row[column]}, its limit is {limit}"
            for name, row in rows.items()
            for column, limit in limits()[name].items()
            if row[column] > limit
        ]
        if passed:
            sys.exit("\n".join(passed))
        print(f"all within their limits, {time.monotonic() - started:.0f} s")


if __name__ == "__main__":
    main()
