#!/usr/bin/env python3
"""Checks that each statement of the standard that is cited exists, in the version it is cited for.

A citation is `3.1.1 [MQTT-3.1.2-24]` or `5 [MQTT-3.1.2-22]`, in Rust and Markdown files; `and [MQTT-...]` goes on with the
same version. An identifier without a version must exist in one of the two. `scripts/statements.txt` lists all of them."""

import pathlib
import re
import sys

root = pathlib.Path(__file__).resolve().parent.parent
known = {"3.1.1": set(), "5": set()}
for line in (root / "scripts/statements.txt").read_text().splitlines():
    version, statement = line.split()[:2]
    known[version].add(statement)

citation = re.compile(r"(?:\b(3\.1\.1|5) |\b(?:and|or|to|,) )?\\?\[?\b(MQTT-\d+\.\d+\.\d+-\d+)\b")
wrong, count = [], 0
for path in sorted([*root.glob("*/**/*.rs"), *root.glob("**/*.md")]):
    if "target" in path.parts or ".venv" in path.parts:
        continue
    for number, line in enumerate(path.read_text().splitlines(), 1):
        version, end = None, 0
        for match in citation.finditer(line):
            # A version holds for the identifiers that follow it directly.
            joined = match.start() - end <= 3
            version = match.group(1) or (version if joined else None)
            end = match.end()
            count += 1
            statement = match.group(2)
            places = [version] if version else list(known)
            if not any(statement in known[place] for place in places):
                wrong.append(f"{path.relative_to(root)}:{number}: {version or 'neither version'} has no {statement}")
print(*wrong, sep="\n")
print(f"{count} citations, {len(wrong)} wrong")
sys.exit(1 if wrong else 0)
