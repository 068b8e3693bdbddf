#!/usr/bin/env python3
"""Checks that no Rust file, function, list of parameters or line of prose is longer than the limits below, and that the files of the
pure cores do not import each other in large circles.

A file counts with all its lines. A function counts from the line of `fn` to its closing brace; `self` is no parameter. Prose are the
comments of Rust files and the text of Markdown files, without tables and blocks of code. EXCEPTIONS names the files that may exceed
limits; none does. An exception that is not needed is an error as well."""

import pathlib
import re
import subprocess
import sys

FILE, FUNCTION, PARAMETERS, PROSE = 600, 60, 5, 140
# In these folders at most so many files import each other in a circle.
LAYERED, CIRCLE = ["mqtt-proto/src", "mqtt-session/src"], 3
# Path to the limits that it may exceed.
EXCEPTIONS = {
}

root = pathlib.Path(__file__).resolve().parent.parent
# Comments, string and character literals, which may hold braces; a lifetime is no literal.
LITERAL = re.compile(
    r"//[^\n]*|/\*.*?\*/|b?r(#*)\".*?\"\1|b?\"(?:\\.|[^\"\\])*\"|b?'(?:\\(?:x..|u\{[^}]*\}|.)|[^'\\\n])'", re.S
)
TESTS = re.compile(r"#\[cfg\((?:all\()?test\b[^\n]*\s+(?:#\[[^\n]*\s+)*mod \w+ \{")
USED = re.compile(r"(\bpub(?:\([^)]*\))?\s+)?\buse\s+([^;]+);|\b(?:crate|super)(?:::\w+)+")
FUNCTION_NAME = re.compile(r"\bfn\s+(\w+)\s*")


def blank(match):
    """Replaces a literal by spaces, so that offsets and lines stay."""
    return re.sub(r"[^\n]", " ", match.group())


def closing(text, start, pairs):
    """The offset behind the bracket that closes the one at `start`."""
    depth = 0
    for offset in range(start, len(text)):
        if text[offset] in pairs[0]:
            depth += 1
        elif text[offset] in pairs[1] and not (text[offset] == ">" and text[offset - 1] in "-="):
            depth -= 1
            if depth == 0:
                return offset + 1
    return len(text)


def parameters(text):
    """How many parameters a list in parentheses has, without `self`."""
    depth, parts, part = 0, [], ""
    for offset, character in enumerate(text[1:-1], 1):
        if character in "([{<":
            depth += 1
        elif character in ")]}" or (character == ">" and text[offset - 1] not in "-="):
            depth -= 1
        if character == "," and depth == 0:
            parts, part = [*parts, part], ""
        else:
            part += character
    parts = [part for part in [*parts, part] if part.strip()]
    return len([part for part in parts if not re.match(r"\s*(&\s*('\w+\s+)?)?(mut\s+)?self\b", part)])


def functions(text):
    """Name, line, length and number of parameters of each function that has a body."""
    for match in FUNCTION_NAME.finditer(text):
        at = match.end()
        if text[at : at + 1] == "<":
            at = closing(text, at, ("<", ">"))
        if text[at : at + 1] != "(":
            continue
        end = closing(text, at, ("(", ")"))
        body = re.compile(r"[{;]").search(text, end)
        # An array type in the signature has a semicolon of its own.
        while body and body.group() == ";" and text.count("[", end, body.start()) > text.count("]", end, body.start()):
            body = re.compile(r"[{;]").search(text, body.end())
        if not body or body.group() == ";":
            continue
        last = closing(text, body.start(), ("{", "}"))
        line = text.count("\n", 0, match.start()) + 1
        yield match.group(1), line, text.count("\n", match.start(), last) + 1, parameters(text[at:end])


def check(path):
    """What is too long in a file: the kind of limit, and a sentence."""
    text = (root / path).read_text()
    lines = len(text.splitlines())
    if lines > FILE:
        yield "file", f"{path}: {lines} lines, at most {FILE}"
    for name, line, length, count in functions(LITERAL.sub(blank, text)):
        if length > FUNCTION:
            yield "function", f"{path}:{line}: `{name}` has {length} lines, at most {FUNCTION}"
        if count > PARAMETERS:
            yield "parameters", f"{path}:{line}: `{name}` has {count} parameters, at most {PARAMETERS}"


def long_prose(path, mark):
    """The lines of prose that are too long: those that begin with `mark`."""
    is_code = False
    for number, line in enumerate((root / path).read_text().splitlines(), 1):
        found = re.match(rf"\s*{mark}\s*(.*)", line)
        if found and found.group(1).startswith("```"):
            is_code = not is_code
        elif found and len(line) > PROSE and not is_code and not found.group(1).startswith("|"):
            yield f"{path}:{number}: {len(line)} characters, at most {PROSE}"


def expanded(tree):
    """The paths of a `use`, each as a list of names."""
    head, brace, rest = tree.partition("{")
    if not brace:
        return [re.sub(r"\s+as\s+\w+", "", tree).strip().split("::")]
    parts, depth = [""], 0
    for character in rest.rpartition("}")[0]:
        depth += (character == "{") - (character == "}")
        if character == "," and depth == 0:
            parts.append("")
        else:
            parts[-1] += character
    return [path for part in parts if part.strip() for path in expanded(head.strip() + part.strip())]


class Imports:
    """Which files of a folder import which others, without what is only for tests. A name that a file re-exports is imported from the
    file that has it."""

    def __init__(self, folder):
        self.files, self.exported, self.imported = {}, {}, {}
        for path in sorted((root / folder).rglob("*.rs")):
            names = path.relative_to(root / folder).with_suffix("").parts
            module = tuple(name for name in names if name not in ("lib", "mod"))
            text = LITERAL.sub(blank, path.read_text())
            while tests := TESTS.search(text):
                text = text[: tests.start()] + text[closing(text, tests.end() - 1, "{}") :]
            self.files[module] = text
        for module, text in self.files.items():
            self.exported[module], self.imported[module] = {}, []
            for public, tree, path in ((m.group(1), m.group(2), m.group()) for m in USED.finditer(text)):
                for names in expanded(tree or path):
                    if (names := self.absolute(module, names)) and public:
                        self.exported[module][names[-1]] = names
                    elif names:
                        self.imported[module].append(names)

    def absolute(self, module, names):
        """A path from the root of the crate; empty if it leads to another crate."""
        if names[0] == "crate":
            return tuple(names[1:])
        ours = names[0] == "super" or (*module, names[0]) in self.files
        while names[0] == "super":
            module, names = module[:-1], names[1:]
        return (*module, *names) if ours else ()

    def file_of(self, names, depth=0):
        """The file that has what a path names."""
        for end in range(len(names), -1, -1):
            if names[:end] in self.files:
                onward = self.exported[names[:end]].get(names[end] if end < len(names) else None)
                return self.file_of(onward, depth + 1) if onward and depth < 5 else names[:end]

    def circles(self):
        """The sets of files of which each imports, through others, each other one."""
        graph = {module: {self.file_of(names) for names in paths} for module, paths in self.imported.items()}
        reached = {}
        for module in graph:
            seen, ahead = set(), [module]
            while ahead:
                new = graph[ahead.pop()] - seen
                seen |= new
                ahead += new
            reached[module] = seen
        return {frozenset(other for other in reached[one] if one in reached[other]) for one in graph if one in reached[one]}


def listed(pattern):
    """The files of this repository with such a name."""
    command = ["git", "ls-files", "-co", "--exclude-standard", pattern]
    found = subprocess.run(command, cwd=root, capture_output=True, text=True, check=True)
    return [path for path in found.stdout.splitlines() if (root / path).exists()]


wrong, used = [], set()
files, documents = listed("*.rs"), listed("*.md")
for path in files:
    for kind, sentence in check(path):
        if kind in EXCEPTIONS.get(path, ()):
            used.add((path, kind))
        else:
            wrong.append(sentence)
for paths, mark in ((files, "//[/!]?"), (documents, "")):
    wrong += [sentence for path in paths for sentence in long_prose(path, mark)]
for path, kinds in EXCEPTIONS.items():
    wrong += [f"{path}: the exception for its {kind} is not needed" for kind in kinds if (path, kind) not in used]
for folder in LAYERED:
    for circle in Imports(folder).circles():
        if len(circle) > CIRCLE:
            names = sorted("::".join(module) or "lib" for module in circle)
            wrong.append(f"{folder}: {len(circle)} files import each other in a circle: {', '.join(names)}")
print(*wrong, sep="\n")
print(f"{len(files)} files of Rust, {len(documents)} of Markdown, {len(wrong)} of their parts too long or in a circle")
sys.exit(1 if wrong else 0)
