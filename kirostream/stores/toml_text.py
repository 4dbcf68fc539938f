"""A TOML document as text: where its values stand, and how to change one of them and nothing else.

`tomllib` reads TOML and forgets the text, so it can say neither in which line a value stands nor write it back with its
comments. This scan finds where keys and values begin and end, and leaves their meaning to `tomllib`: a document has to
have been read by it before, and what comes of a change is read by it again and has to mean what was wanted, or the
change is refused. So the scan may be simple, and cannot do harm.

A path is the keys that lead to a value, the number of a table within its array included: ``("listen", 0, "port")``.
"""

from __future__ import annotations

import datetime
import json
import math
import re
import tomllib
from collections.abc import Mapping
from typing import Any, Final, TypeAlias

from kirostream.dataclass import dataclass

Path: TypeAlias = tuple[str | int, ...]

_BLANK: Final = re.compile(r"(?:[ \t\r\n]|#[^\n]*)*")
_SPACE: Final = re.compile(r"[ \t]*")
_BARE: Final = re.compile(r"[A-Za-z0-9_-]+")
_STRING: Final = re.compile(
    r'"""(?:[^\\]|\\.)*?"""(?:"{0,2})|\'\'\'.*?\'\'\'(?:\'{0,2})|"(?:[^"\\\n]|\\.)*"|\'[^\'\n]*\'', re.DOTALL
)
_SCALAR: Final = re.compile(r"\d{4}-\d\d-\d\d \d\d:[^\s,\]}#]*|[^\s,\]}#]+")


class TomlRefused(ValueError):
    """The document cannot be changed so by a small edit. It has to be done by hand."""


@dataclass(frozen=True, slots=True)
class Entry:
    """A key and its value. `start` and `end` are the value's place in the text, `key` that of the key.

    `table` is the path of the table it is written in; `inline` says that this one is between braces. `end` of an
    inline table is behind its brace.
    """

    path: Path
    table: Path
    inline: bool
    key: int
    start: int
    end: int


class TomlText:
    """A document that `tomllib` has read.

    Args:
        text: the document.
    """

    def __init__(self, text: str) -> None:
        self.text = text
        self.entries: list[Entry] = []
        self.tables: dict[Path, tuple[int, int]] = {}
        """The place of each table's header: where it begins, and where its line ends."""
        self._at = 0
        self._scan()

    def __repr__(self) -> str:
        return f"<TomlText of {len(self.entries)} entries>"

    def line(self, path: Path) -> int:
        """The line, from 1, of what stands at `path`; of what is nearest to it, where nothing does; 0: of nothing."""
        while path:
            places = [entry.key for entry in self.entries if entry.path[: len(path)] == path]
            places += [begin for table, (begin, _) in self.tables.items() if table[: len(path)] == path]
            if places:
                return self.text.count("\n", 0, min(places)) + 1
            path = path[:-1]
        return 0

    # Changes: each gives the new text

    def put(self, path: tuple[str, ...], value: object) -> str:
        """The document with `value` at `path`. Everything else stays as it is, to the byte.

        Raises:
            TomlRefused: it has no place there, or cannot be written as TOML.
        """
        wanted = tomllib.loads(self.text)
        table: Any = wanted
        for part in path[:-1]:
            table = table.setdefault(part, {})
            if not isinstance(table, dict):
                raise TomlRefused(f"{'.'.join(path[:-1])} is no table in the file")
        table[path[-1]] = value
        return self._checked(self._with(path, literal(value), value), wanted)

    def drop(self, path: tuple[str, ...]) -> str:
        """The document without what stands at `path`; it may stand nowhere.

        Raises:
            TomlRefused: it cannot be taken out.
        """
        wanted: Any = tomllib.loads(self.text)
        table = wanted
        for part in path[:-1]:
            table = table.get(part, {}) if isinstance(table, dict) else {}
        if path[-1] not in table:
            return self.text
        del table[path[-1]]
        return self._checked(self._without(path), wanted)

    def _with(self, path: tuple[str, ...], written: str, value: object) -> str:
        text = self.text
        here = next((entry for entry in self.entries if entry.path == path), None)
        if here is not None:
            return text[: here.start] + written + text[here.end :]
        below = [entry for entry in self.entries if entry.path[: len(path)] == path]
        if isinstance(value, Mapping) and (below or path in self.tables):  # a table of its own: entry by entry
            return self._merged(path, value)
        parent = path[:-1]
        brace = next((entry for entry in self.entries if entry.path == parent), None)
        if brace is not None:
            inside = text[brace.start + 1 : brace.end - 1]
            comma = ", " if inside.strip() else ""
            at = brace.start + 1 + len(inside.rstrip())
            return f"{text[:at]}{comma or ' '}{_key(path[-1:])} = {written}{'' if comma else ' '}{text[at:]}"
        eol = "\r\n" if "\r\n" in text else "\n"
        written_here = [entry for entry in self.entries if entry.table == parent and not entry.inline]
        if parent in self.tables or (not parent and written_here):
            begin = self._line_end(written_here[-1].end) if written_here else self.tables[parent][1]
            return self._insert(begin, f"{_key(path[-1:])} = {written}", eol)
        dotted = [entry for entry in self.entries if entry.path[: len(parent)] == parent and not entry.inline]
        if parent and dotted and len(dotted[-1].table) < len(parent):  # the table is there by dotted keys alone
            last = dotted[-1]
            relative = path[len(last.table) :]
            return self._insert(self._line_end(last.end), f"{_key(relative)} = {written}", eol)
        if not parent:
            return f"{_key(path)} = {written}{eol}{text}"
        gap = "" if not text else eol if text.endswith("\n") else eol * 2
        return f"{text}{gap}[{_key(parent)}]{eol}{_key(path[-1:])} = {written}{eol}"

    def _merged(self, path: tuple[str, ...], value: Mapping[Any, Any]) -> str:
        """The table at `path` made to hold `value`, one entry at a time."""
        held: Any = tomllib.loads(self.text)
        for part in path:
            held = held[part]
        text = self.text
        for name in [each for each in held if each not in value]:
            text = TomlText(text).drop((*path, name))
        for name, each in value.items():
            if name not in held or held[name] != each:
                text = TomlText(text).put((*path, str(name)), each)
        return text

    def _without(self, path: tuple[str, ...]) -> str:
        text = self.text
        entry = next((entry for entry in self.entries if entry.path == path), None)
        if entry is not None and not entry.inline:
            return text[: text.rfind("\n", 0, entry.key) + 1] + text[self._line_end(entry.end) :]
        if entry is not None:
            before, after = text[: entry.key].rstrip(), text[entry.end :].lstrip()
            if after.startswith(","):
                return before + " " + after[1:].lstrip()
            return before.removesuffix(",").rstrip() + " " + after
        below = [entry for entry in self.entries if entry.path[: len(path)] == path and not entry.inline]
        spans = [(text.rfind("\n", 0, entry.key) + 1, self._line_end(entry.end)) for entry in below]
        spans += [span for table, span in self.tables.items() if table[: len(path)] == path]
        for begin, end in sorted(spans, reverse=True):
            text = text[:begin] + text[end:]
        return text

    def _checked(self, text: str, wanted: dict[str, Any]) -> str:
        try:
            found = tomllib.loads(text)
        except tomllib.TOMLDecodeError as error:
            raise TomlRefused("there is no simple place for it in the file") from error
        if _bare(found) != _bare(wanted):
            raise TomlRefused("there is no simple place for it in the file")
        return text

    def _insert(self, at: int, line: str, eol: str) -> str:
        before = self.text[:at]
        if before and not before.endswith("\n"):
            before += eol
        return f"{before}{line}{eol}{self.text[at:]}"

    def _line_end(self, at: int) -> int:
        """Behind the line that `at` is in."""
        return (self.text.find("\n", at) + 1) or len(self.text)

    # The scan

    def _scan(self) -> None:
        table: Path = ()
        counts: dict[Path, int] = {}
        while True:
            self._skip(_BLANK)
            if self._at >= len(self.text):
                return
            if self.text[self._at] != "[":
                self._entry(table, table, inline=False)
                continue
            begin = self._at
            array = self.text.startswith("[[", begin)
            self._at += 2 if array else 1
            path: Path = ()
            for part in self._keys():
                path = (*path, part)
                if path in counts:  # the last table of that array is meant
                    path = (*path, counts[path] - 1)
            if array:
                path = path[:-1] if path[:-1] in counts else path
                number = counts.get(path, 0)
                counts[path] = number + 1
                path = (*path, number)
            table = path
            end = self._line_end(self._at)
            self.tables[table] = self.text.rfind("\n", 0, begin) + 1, end
            self._at = end

    def _entry(self, base: Path, table: Path, *, inline: bool) -> None:
        key = self._at
        path = (*base, *self._keys())
        self._skip(_SPACE)
        self._at += 1  # the sign of equality
        self._skip(_SPACE)
        start = self._at
        number = len(self.entries)
        self._value(path)
        self.entries.insert(number, Entry(path, table, inline, key, start, self._at))

    def _keys(self) -> list[str]:
        parts: list[str] = []
        while True:
            self._skip(_SPACE)
            found = _STRING.match(self.text, self._at) or _BARE.match(self.text, self._at)
            if found is None:  # cannot be: tomllib has read it
                raise TomlRefused("a key was expected")
            self._at = found.end()
            quoted = found[0][0] in "\"'"
            parts.append(str(tomllib.loads(f"key = {found[0]}")["key"]) if quoted else found[0])
            self._skip(_SPACE)
            if not self.text.startswith(".", self._at):
                return parts
            self._at += 1

    def _value(self, path: Path) -> None:
        first = self.text[self._at]
        if first == "[":
            self._at += 1
            number = 0
            while True:
                self._skip(_BLANK)
                if self.text[self._at] == "]":
                    break
                self._value((*path, number))
                number += 1
                self._skip(_BLANK)
                if self.text[self._at] == ",":
                    self._at += 1
            self._at += 1
        elif first == "{":
            self._at += 1
            while True:
                self._skip(_BLANK)
                if self.text[self._at] == "}":
                    break
                self._entry(path, path, inline=True)
                self._skip(_BLANK)
                if self.text[self._at] == ",":
                    self._at += 1
            self._at += 1
        else:
            found = _STRING.match(self.text, self._at) or _SCALAR.match(self.text, self._at)
            if found is None:
                raise TomlRefused("a value was expected")
            self._at = found.end()

    def _skip(self, what: re.Pattern[str]) -> None:
        found = what.match(self.text, self._at)
        if found is not None:
            self._at = found.end()


def literal(value: object) -> str:
    """`value` as TOML writes it, on one line.

    Raises:
        TomlRefused: TOML has nothing like it.
    """
    match value:
        case bool():
            return "true" if value else "false"
        case int():
            return str(value)
        case float():
            return repr(value) if math.isfinite(value) else str(value)
        case str():
            if not value.isprintable() and any(0xD800 <= ord(each) <= 0xDFFF for each in value):
                raise TomlRefused("half a surrogate pair cannot be written")
            return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")
        case datetime.datetime() | datetime.date() | datetime.time():
            return value.isoformat()
        case Mapping():
            inside = ", ".join(f"{_key((str(name),))} = {literal(each)}" for name, each in value.items())
            return f"{{ {inside} }}" if inside else "{}"
        case list() | tuple():
            return f"[{', '.join(map(literal, value))}]"
    raise TomlRefused(f"a {type(value).__name__} cannot be written")


def _key(path: tuple[str, ...]) -> str:
    return ".".join(part if _BARE.fullmatch(part) else literal(part) for part in path)


def _bare(tree: object) -> object:
    """A tree without its empty tables: a header may stay behind when its last entry has gone."""
    if not isinstance(tree, dict):
        return tree
    found = {name: _bare(each) for name, each in tree.items()}
    return {name: each for name, each in found.items() if each != {}}
