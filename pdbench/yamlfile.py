"""YAML files that remember where every key stands, so that an error can say ``chat.yaml:7: arrivals.rate``.

A benchmark is configured by hand-written files, and most first runs fail on a typing error in one of them.
``read`` therefore keeps the line of every key beside the value; ``convert`` turns the values into a frozen
``msgspec.Struct`` and translates each complaint into file, line, key and, for unknown keys, a suggestion.

    doc = read(Path("workloads/chat.yaml"))
    workload = convert(doc, Workload)
"""

from __future__ import annotations

import re
import stat
import types
import typing
from collections.abc import Hashable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import msgspec
import yaml

from pdbench.errors import UsageError, did_you_mean

T = TypeVar("T")
Key = str | int

_AT = re.compile(r"^(?P<what>.*) - at `(?:key in )?(?P<path>\$[^`]*)`$", re.DOTALL)
_PART = re.compile(r"\.([^.\[\]]+)|\[(\d+|\.\.\.)\]")
_UNKNOWN = re.compile(r"Object contains unknown field `(?P<key>[^`]*)`")
_MISSING = re.compile(r"Object missing required field `(?P<key>[^`]*)`")
_OWN_KEY = re.compile(r"^(?P<key>[a-z_][a-z0-9_]*)(?P<rest>: | (?:must|is|does|has)\b| )")


_WORD = re.compile(r"[A-Za-z_][\w-]{0,39}")
_LARGEST = 1 << 20
_MOST_KEYS = 300_000


class _Loader(yaml.SafeLoader):
    """The safe loader, which also refuses a key given twice (plain YAML keeps the last one in silence)."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Hashable, Any]:
        seen: set[Any] = set()
        for key_node, _ in node.value:
            key = self.construct_object(key_node, deep=True)
            if isinstance(key, Hashable) and key in seen:
                raise yaml.constructor.ConstructorError(
                    None, None, f"the key '{key}' is given twice", key_node.start_mark
                )
            if isinstance(key, Hashable):
                seen.add(key)
        return super().construct_mapping(node, deep=deep)


@dataclass(frozen=True, slots=True)
class YamlDoc:
    """A file's values and the lines they stand on. ``path`` is None for values that came from no file."""

    path: Path | None
    data: dict[str, Any]
    lines: dict[tuple[Key, ...], int]

    def line(self, *keys: Key) -> int | None:
        """The line (from 1) of the deepest part of ``keys`` that the file has."""
        for end in range(len(keys), -1, -1):
            if (found := self.lines.get(tuple(keys[:end]))) is not None:
                return found
        return None

    def where(self, *keys: Key) -> str:
        """``"chat.yaml:7: arrivals.rate"``."""
        name = str(self.path) if self.path is not None else "(options)"
        line = self.line(*keys)
        head = f"{name}:{line}" if line is not None and self.path is not None else name
        return f"{head}: {dotted(keys)}" if keys else head

    def at(self, *keys: Key) -> Any:
        """The value at ``keys``. Raises ``KeyError`` or ``IndexError``."""
        value: Any = self.data
        for key in keys:
            value = value[key]
        return value


def dotted(keys: tuple[Key, ...] | list[Key]) -> str:
    """``("workers", 0, "role")`` -> ``"workers[0].role"``."""
    text = ""
    for key in keys:
        text += f"[{key}]" if isinstance(key, int) else (f".{key}" if text else str(key))
    return text


def read(path: Path) -> YamlDoc:
    """Read one mapping. Raises ``UsageError`` naming file and line: missing, malformed, not a mapping, not a file."""
    try:
        text = _bytes(path).decode("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
        raise UsageError(f"cannot read the file: {reason}", where=str(path)) from error
    return parse(text, path)


def _bytes(path: Path) -> bytes:
    """Never waits: what is no regular file (a pipe, a device) may have nothing to read, for ever."""
    if not stat.S_ISREG(path.stat().st_mode):
        raise UsageError("is not a regular file", where=str(path))
    with path.open("rb") as file:
        found = file.read(_LARGEST + 1)
    if len(found) > _LARGEST:
        raise UsageError(f"is larger than {_LARGEST >> 20} MiB", where=str(path), remedy="name a file written by hand")
    return found


def parse(text: str, path: Path | None = None) -> YamlDoc:
    """As ``read``, from a string. Raises ``UsageError``."""
    name = str(path) if path is not None else "(yaml)"
    lines: dict[tuple[Key, ...], int] = {}
    loader = None
    try:
        loader = _Loader(text)
        node = loader.get_single_node()
        if node is not None:
            _note_lines(node, (), lines)
        data = loader.construct_document(node) if node is not None else None
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        where = f"{name}:{mark.line + 1}" if mark is not None else name
        raise UsageError(f"malformed YAML: {error.problem or error.context}", where=where) from error
    except RecursionError as error:
        raise UsageError("malformed YAML: nested too deeply", where=name) from error
    except yaml.reader.ReaderError as error:  # its own text speaks of "<unicode string>"
        raise UsageError(f"malformed YAML: {error.reason} (character {error.position})", where=name) from error
    except (yaml.YAMLError, ValueError, TypeError, ArithmeticError, AttributeError, LookupError) as error:
        raise UsageError(f"malformed YAML: {error}", where=name) from error
    finally:
        if loader is not None:
            loader.dispose()
    if not isinstance(data, dict) or node is None:
        raise UsageError("expected a mapping of keys to values", where=f"{name}:1", remedy="e.g. name: chat")
    bad = [key for key in data if not isinstance(key, str)]
    if bad:
        raise UsageError(f"keys must be words, got {bad[0]!r:.40}", where=name)
    return YamlDoc(path, data, lines)


def _note_lines(node: yaml.Node, keys: tuple[Key, ...], lines: dict[tuple[Key, ...], int]) -> None:
    if len(lines) > _MOST_KEYS:  # aliases of aliases: a few lines can stand for billions
        raise ValueError("too many values")
    lines.setdefault(keys, node.start_mark.line + 1)
    if isinstance(node, yaml.MappingNode):
        for key_node, value_node in node.value:
            if isinstance(key_node, yaml.ScalarNode):
                inner = (*keys, str(key_node.value))
                lines[inner] = key_node.start_mark.line + 1
                _note_lines(value_node, inner, lines)
    elif isinstance(node, yaml.SequenceNode):
        for index, item in enumerate(node.value):
            _note_lines(item, (*keys, index), lines)


def convert(doc: YamlDoc, type_: type[T], *, keys: tuple[Key, ...] = ()) -> T:
    """The part of ``doc`` below ``keys`` as ``type_`` (a Struct or whatever ``msgspec.convert`` takes).

    Raises ``UsageError`` that names file:line and key; for an unknown key also the nearest known one.
    """
    try:
        return msgspec.convert(doc.at(*keys), type_)
    except msgspec.ValidationError as error:
        raise _usage_error(doc, type_, keys, str(error)) from error


def _usage_error(doc: YamlDoc, type_: Any, keys: tuple[Key, ...], text: str) -> UsageError:
    path: list[Key] = []
    if match := _AT.match(text):
        text = match["what"]
        path = _split(match["path"])
    if match := _UNKNOWN.match(text):
        known = _field_names(_type_at(type_, path))
        remedy = did_you_mean(match["key"], known)
        where = doc.where(*keys, *path, match["key"])
        if not _WORD.fullmatch(match["key"]):  # what is no key is a file of something else: none of it is shown
            where = where[: -len(match["key"])].rstrip(".: ")
        return UsageError("unknown key", where=where, remedy=remedy)
    if match := _MISSING.match(text):
        where = doc.where(*keys, *path)
        inside = f" in {dotted([*keys, *path])}" if keys or path else ""
        return UsageError(f"the key '{match['key']}' is missing{inside}", where=where.split(": ", 1)[0])
    match = _OWN_KEY.match(text)  # a Struct's own check: "rate must be above 0"
    if match and match["key"] in _field_names(_type_at(type_, path)):
        path.append(match["key"])
        if match["rest"] != " ":
            text = text[match.end("key") :].lstrip(": ")
    text = text.replace("Expected", "expected").replace("Invalid", "invalid")
    return UsageError(text, where=doc.where(*keys, *path))


def _split(path: str) -> list[Key]:
    """``"$.slo[0]"`` -> ``["slo", 0]``; ``[...]`` (a key of a dict) ends the path, its name is not told."""
    keys: list[Key] = []
    for match in _PART.finditer(path):
        name, index = match.groups()
        if index == "...":
            break
        keys.append(name if name is not None else int(index))
    return keys


def _type_at(type_: Any, keys: list[Key]) -> list[Any]:
    """The possible Struct types below ``keys``, unions opened."""
    options = _open(type_)
    for key in keys:
        inner: list[Any] = []
        for option in options:
            if isinstance(key, int):
                inner += [arg for arg in typing.get_args(option) if arg is not Ellipsis]
            elif isinstance(option, type) and issubclass(option, msgspec.Struct):
                fields = {f.encode_name: f.type for f in msgspec.structs.fields(option)}
                inner += [fields[key]] if key in fields else []
        options = [one for item in inner for one in _open(item)]
    return options


def _open(type_: Any) -> list[Any]:
    if typing.get_origin(type_) in (typing.Union, types.UnionType):
        return [one for arg in typing.get_args(type_) for one in _open(arg)]
    if typing.get_origin(type_) is typing.Annotated:
        return _open(typing.get_args(type_)[0])
    return [type_]


def _field_names(options: list[Any]) -> list[str]:
    names: set[str] = set()
    for option in options:
        if isinstance(option, type) and issubclass(option, msgspec.Struct):
            names |= {f.encode_name for f in msgspec.structs.fields(option)}
            if option.__struct_config__.tag_field:
                names.add(option.__struct_config__.tag_field)
    return sorted(names)
