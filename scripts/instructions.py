#!/usr/bin/env python3
"""Counts the instructions of codec, session and broker by callgrind. Unlike times, the counts of two runs are equal.

Prints them; with --check fails where one is above its limit in mqtt-testing/instructions.tsv, with --write sets the limits to a
tenth above the counts, since another compiler may need a few more. The limits are for x86-64; on other machines nothing is checked."""

import math
import pathlib
import platform
import re
import subprocess
import sys
import tempfile

ROOT = pathlib.Path(__file__).resolve().parent.parent
LIMITS = ROOT / "mqtt-testing/instructions.tsv"
FEW, MANY = 1_000, 3_000


def build():
    command = ["cargo", "build", "--quiet", "--locked", "--release", "-p", "mqtt-testing", "--example", "instructions"]
    subprocess.run(command, cwd=ROOT, check=True)
    return ROOT / "target/release/examples/instructions"


def count(program, *arguments):
    with tempfile.NamedTemporaryFile() as out:
        command = ["valgrind", "--tool=callgrind", f"--callgrind-out-file={out.name}", program, *arguments]
        done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    found = re.search(r"refs:\s+([\d,]+)", done.stderr)
    if done.returncode != 0 or found is None:
        sys.exit(f"{arguments}: {done.stderr}")
    return int(found[1].replace(",", ""))


def measure():
    program = build()
    names = subprocess.run([program], capture_output=True, text=True, check=True).stdout.splitlines()
    # The difference of two runs has no start and no end of the program in it.
    return {
        name: (count(program, name, str(MANY)) - count(program, name, str(FEW))) / (MANY - FEW)
        for name in names
    }


def main():
    if platform.machine() != "x86_64":
        return print("the limits are those of x86-64: nothing to compare with here")
    counted = measure()
    for name, number in counted.items():
        print(f"{name:40} {number:6.0f}")
    if "--write" in sys.argv:
        lines = [f"{name}\t{math.ceil(number * 1.1)}\n" for name, number in counted.items()]
        LIMITS.write_text("# What scripts/instructions.py --check allows.\n" + "".join(lines))
    if "--check" in sys.argv:
        lines = [line.split("\t") for line in LIMITS.read_text().splitlines() if not line.startswith("#")]
        limits = {name: int(limit) for name, limit in lines}
        passed = [
            f"{name}: {number:.0f} instructions, its limit is {limits.get(name, 0)}"
            for name, number in counted.items()
            if number > limits.get(name, 0)
        ]
        if passed:
            sys.exit("\n".join(passed))


if __name__ == "__main__":
    main()
