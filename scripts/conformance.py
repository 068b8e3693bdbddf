#!/usr/bin/env python3
"""Writes docs/CONFORMANCE.md: each numbered statement of both standards, whom it binds, where it is kept and which test shows it.

With `--check` it writes nothing, and fails if the file is not up to date or a statement that binds a client or a server has
no test. Whom a statement binds is said in `scripts/statements.txt`; tests are those in the tables `statements! { ... }`,
whose names are identifiers of statements; a statement is kept where the source cites it."""

import pathlib
import re
import sys

root = pathlib.Path(__file__).resolve().parent.parent
tables = ["broker-host/tests/conformance/main.rs", "mqtt-session/tests/statements.rs"]

# Where the statements of a section are kept if no line cites them.
sections = [
    (r"1\.5|2\.|4\.7\.[01]|4\.7\.3|4\.8\.2-[12]$", "mqtt-proto/src"),
    (r"3\.1\.0|3\.2\.0", "mqtt-session/src/server.rs"),
    (r"3\.1\.2-(11|12|13|14|15|16|17|18|19|20|21|22)$|3\.1\.3-(1|3|4|10|11|12)$|3\.2\.2-1$", "mqtt-proto/src/connect.rs"),
    (r"3\.[12]\.|4\.1\.", "mqtt-broker/src/connect.rs"),
    (r"3\.3\.1-(5|6|7|8|9|10|11|12)$", "mqtt-broker/src/deliver.rs"),
    (r"3\.(3\.[12]|4|5|6|7|8\.[13]|9\.3|10\.[13]|11|14\.1|15)", "mqtt-proto/src"),
    (r"3\.(8|9|10)\.", "mqtt-broker/src/broker.rs"),
    (r"3\.3\.[45]|4\.5\.0-1|4\.7\.2|4\.8\.2", "mqtt-broker/src/deliver.rs"),
    (r"4\.12", "mqtt-broker/src/broker.rs"),
    (r"3\.(12|14)|4\.", "mqtt-session/src"),
    (r"7\.", "broker-host/src/host.rs"),
]


def statements():
    for line in (root / "scripts/statements.txt").read_text().splitlines():
        version, statement, role, *reason = line.split(" ", 3)
        yield version, statement, role, "".join(reason)


def tests():
    """(version, statement) to "file: scenario"."""
    found = {}
    for path in tables:
        table = (root / path).read_text().split("statements! {", 1)[1]
        row = re.compile(r"^ +(?:(\w+)::)?(\w+):\s*\[([^\]]*)\]\s*\[([^\]]*)\];", re.M)
        for module, scenario, old, new in row.findall(table):
            file = path.replace("main.rs", f"{module}.rs") if module else path
            for version, names in (("3.1.1", old), ("5", new)):
                for name in names.split():
                    parts = name.removeprefix("mqtt_").split("_")
                    statement = "MQTT-" + ".".join(parts[:3]) + "-" + parts[3]
                    if (version, statement) in found:
                        sys.exit(f"{path}: two tests for {version} {statement}")
                    found[version, statement] = (file, scenario)
    return found


def citations():
    """(version, statement) to the source files that cite it."""
    found = {}
    citation = re.compile(r"(?:\b(3\.1\.1|5) |\b(?:and|or|to|,) )?\\?\[?\b(MQTT-\d+\.\d+\.\d+-\d+)\b")
    for path in sorted(root.glob("*/src/**/*.rs")):
        if path.parts[len(root.parts)] in ("mqtt-testing", "benches"):
            continue
        for line in path.read_text().splitlines():
            version, end = None, 0
            for match in citation.finditer(line):
                version = match.group(1) or (version if match.start() - end <= 3 else None)
                end = match.end()
                if version:
                    found.setdefault((version, match.group(2)), set()).add(str(path.relative_to(root)))
    return found


def main():
    shown, cited = tests(), citations()
    known = {(version, statement) for version, statement, _, _ in statements()}
    wrong = [f"a test for {version} {statement}, which there is not" for version, statement in shown.keys() - known]
    out = [
        "# Conformance",
        "",
        "Made by `scripts/conformance.py`; CI checks that it is up to date and that no statement that binds a",
        "client or a server is without a test. A server is the broker, tested over TCP on loopback; a client is the machine that",
        "all adapters drive. The tests bear the identifiers of their statements; what is named here is the scenario they run.",
    ]
    for version in ("3.1.1", "5"):
        rows, count = [], {}
        for own, statement, role, reason in statements():
            if own != version:
                continue
            count[role] = count.get(role, 0) + 1
            test = shown.get((version, statement))
            number = statement.removeprefix("MQTT-")
            places = sorted(cited.get((version, statement), []))
            if not places and role != "none":
                places = [next((place for pattern, place in sections if re.match(pattern, number)), None)]
                if places == [None]:
                    wrong.append(f"{version} {statement}: where is it kept?")
            if role != "none" and not test:
                wrong.append(f"{version} {statement} binds us and has no test")
            if role == "none" and not reason:
                wrong.append(f"{version} {statement} has neither a test nor a reason")
            kept = ", ".join(f"`{place}`" for place in places)
            how = f"`{test[1]}` in [{pathlib.Path(test[0]).name}](../{test[0]})" if test else f"none: {reason}"
            rows.append(f"| {statement} | {role if role != 'none' else '-'} | {kept or '-'} | {how} |")
        total = ", ".join(f"{count[role]} {role}" for role in ("server", "client", "both", "none") if role in count)
        out += ["", f"## MQTT {version}", "", f"{len(rows)} statements: {total}.", ""]
        out += ["| statement | binds | kept in | test |", "| --- | --- | --- | --- |", *rows]
    text = "\n".join(out) + "\n"
    path = root / "docs/CONFORMANCE.md"
    if "--check" not in sys.argv:
        path.write_text(text)
    elif not path.exists() or path.read_text() != text:
        wrong.append("docs/CONFORMANCE.md is not up to date: run scripts/conformance.py")
    print(*wrong, sep="\n", end="\n" if wrong else "")
    print(f"{len(known)} statements, {len(shown)} with a test, {len(wrong)} wrong")
    sys.exit(1 if wrong else 0)


main()
