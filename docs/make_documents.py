"""``reference/documents.md``: every key of every JSON document, from the schemas that tests hold documents to."""

from __future__ import annotations

import html
import json
import re
from collections.abc import Iterator
from typing import Any

from pdbench import schema

Schema = dict[str, Any]

INTRO = """\
# Documents

Made from the JSON schemas in `pdbench/schema/`, which every document is tested against. `--json` prints one;
`results/RUN/summary.json` holds the same, and `manifest.json` beside it says how it came about.

Latencies are milliseconds, with the unit in the key. `null` stands for infinity: the figure falls on a request that did
not complete. A metric that does not apply is absent. An effect is a natural-log ratio or a difference, and **positive
always means that the head is worse**. Keys marked with a dot (●) are always there.

`a.b` is the key `b` of the object `a`, `a.NAME.b` that of each of its entries (an arm, a metric), `a[].b` that of each
item of a list. Unknown keys are refused, unless a row says otherwise.
"""


def documents_page() -> str:
    """A section for each document, then one for each part that several share."""
    lines = [INTRO, "| document | is |", "|---|---|"]
    loaded = {name: schema.load(name) for name in schema.NAMES}
    lines += [f"| [{name}](#{name}) | {text(found.get('title', ''))} |" for name, found in loaded.items()]
    for name, found in loaded.items():
        lines += ["", f"## {name} {{#{name}}}", "", text(found.get("title", "")) + ".", *section(found)]
    lines += ["", "## Shared parts {#shared-parts}", ""]
    for name, found in sorted(loaded["compare"]["$defs"].items()):
        lines += ["", f"### {name} {{#part-{name}}}", *section(found)]
    return "\n".join([*lines, ""])


def section(found: Schema) -> list[str]:
    """What a schema says of itself, and its keys as a table (its type, where it has no keys)."""
    lines = ["", text(found["description"])] if "description" in found else []
    if "$comment" in found:
        lines += ["", text(found["$comment"])]
    rows = list(rows_of(found, ""))
    if not rows:
        return [*lines, "", f"Type: {type_of(found)}."]
    table = ["", "| key | | type | meaning |", "|---|---|---|---|"]
    return [*lines, *table, *(f"| {breakable(key)} | {' | '.join(rest)} |" for key, *rest in rows)]


def breakable(key: str) -> str:
    """A long key as code that may be broken after a dot, so that the other columns keep their room."""
    return f'<code class="key">{text(key.strip("`")).replace(".", ".<wbr>")}</code>'


def rows_of(found: Schema, prefix: str) -> Iterator[tuple[str, str, str, str]]:
    """(key, dot, type, meaning) of every key below, those of inline objects included."""
    needed = found.get("required", [])
    for name, inner in found.get("properties", {}).items():
        yield f"`{prefix}{name}`", "●" if name in needed else "", type_of(inner), text(inner.get("description", ""))
        yield from below(inner, f"{prefix}{name}")
    more = found.get("additionalProperties")
    if isinstance(more, dict):
        if prefix or not found.get("properties"):
            return
        yield f"`{prefix}NAME`", "", type_of(more), text(more.get("description", ""))
        yield from below(more, f"{prefix}NAME")


def below(found: Schema, path: str) -> Iterator[tuple[str, str, str, str]]:
    """The keys of what lies inside a value: an object's, each entry's, each item's."""
    for one in (found, *(inner for many in ("anyOf", "oneOf", "allOf") for inner in found.get(many, []))):
        if "properties" in one:
            yield from rows_of(one, f"{path}.")
        entries, items = one.get("additionalProperties"), one.get("items")
        if isinstance(entries, dict):
            yield from below(entries, f"{path}.NAME")
        if isinstance(items, dict):
            yield from below(items, f"{path}[]")


def type_of(found: Schema) -> str:
    """A type in words: ``number``, ``list of [worker](#part-worker)``, the values of an enumeration."""
    if "$ref" in found:
        name = found["$ref"].rsplit("/", 1)[-1]
        return f"[{name}](#part-{name})"
    for many in ("anyOf", "oneOf", "allOf"):
        if many in found:
            parts = [type_of(one) for one in found[many] if one.keys() & {"$ref", "type", "const", "enum", "anyOf"}]
            return (" or " if many != "allOf" else ", ").join(parts)
    if "const" in found:
        return f"`{value(found['const'])}`"
    if "enum" in found:
        return ", ".join(f"`{value(one)}`" for one in found["enum"])
    kinds = found.get("type", "any")
    return " or ".join(kind_of(kind, found) for kind in ([kinds] if isinstance(kinds, str) else kinds))


def kind_of(kind: str, found: Schema) -> str:
    """One JSON type, with what it holds and its bounds."""
    items, entries = found.get("items"), found.get("additionalProperties")
    if kind == "array":
        return f"list of {type_of(items)}" if isinstance(items, dict) else "list"
    if kind == "object":
        if isinstance(entries, dict) and "properties" not in found:
            return f"object of {type_of(entries)}"
        return "object" if entries is False or "properties" in found else "object, open"
    if kind in ("number", "integer"):
        low, above = found.get("minimum"), found.get("exclusiveMinimum")
        high, under = found.get("maximum"), found.get("exclusiveMaximum")
        words = [f"≥ {low}" * (low is not None), f"> {above}" * (above is not None)]
        words += [f"≤ {high}" * (high is not None), f"< {under}" * (under is not None)]
        bounds = ", ".join(filter(None, words))
        return html.escape(f"{kind} {bounds}".strip(), quote=False)
    return kind


def value(one: Any) -> str:
    return one if isinstance(one, str) else json.dumps(one)


def text(words: str) -> str:
    """Text for a table cell."""
    escaped = html.escape(words, quote=False)
    return re.sub(r"[|*_`\[\]]", lambda found: f"&#{ord(found.group())};", escaped)
