"""A tuned backend YAML: chosen values written into the file's own text, with a note of the sweep behind them.

Values are replaced where they stand (YAML says where each begins and ends), so comments and layout survive; a key
the file left to its default is added to its worker. The result is read again: where it does not say exactly what it
should, the file is written afresh and its comments are lost. Pure.

    rewritten(text, {(0, "token_budget"): 128}, note={"workload": "chat", ...})
"""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Any

import yaml

Data = dict[str, Any]
Changes = Mapping[tuple[int, str], int]
"""(place of the worker, key) -> value."""

_NOTE = "# Written by pdbench tune; the sweep it rests on:\n"


def changed(data: Data, changes: Changes) -> Data:
    """The backend's data with the workers' values changed."""
    found = copy.deepcopy(data)
    found["workers"] = [dict(worker) for worker in found["workers"]]  # two may be one in the file (an alias)
    for (place, key), value in changes.items():
        found["workers"][place][key] = value
    return found


def rewritten(text: str, changes: Changes, note: Data) -> tuple[str, bool]:
    """The YAML with the values and ``tuned: note``, and whether its comments were kept."""
    wanted = changed(yaml.safe_load(text), changes) | {"tuned": note}
    noted = _NOTE + yaml.safe_dump({"tuned": note}, sort_keys=False, allow_unicode=True, width=110)
    try:
        kept = _without_note(_replaced(text, changes)).rstrip("\n") + "\n" + noted
        if yaml.safe_load(kept) == wanted:
            return kept, True
    except (yaml.YAMLError, KeyError, IndexError):
        pass
    return fresh(wanted), False


def fresh(data: Data) -> str:
    """The YAML without any of the old text."""
    head = {key: value for key, value in data.items() if key != "tuned"}
    body = yaml.safe_dump(head, sort_keys=False, allow_unicode=True, width=110)
    return body + _NOTE + yaml.safe_dump({"tuned": data["tuned"]}, sort_keys=False, allow_unicode=True, width=110)


def _replaced(text: str, changes: Changes) -> str:
    """The text with the values put in, from its end on, so that places stay true."""
    root = yaml.compose(text, Loader=yaml.SafeLoader)
    workers = _child(root, "workers")
    edits: list[tuple[int, int, str]] = []
    for (place, key), value in changes.items():
        worker = workers.value[place]
        found = _child(worker, key)
        if found is not None:
            edits.append((found.start_mark.index, found.end_mark.index, str(value)))
        elif worker.flow_style:
            end = worker.end_mark.index - 1  # the closing brace
            edits.append((end, end, f", {key}: {value}"))
        else:
            first = worker.value[0][0].start_mark  # a line of its own before the first key, which moves down
            edits.append((first.index, first.index, f"{key}: {value}\n{' ' * first.column}"))
    for start, end, new in sorted(edits, reverse=True):
        text = text[:start] + new + text[end:]
    return text


def _without_note(text: str) -> str:
    """Without an earlier sweep's note: from ``tuned`` (or the comment above it) to the next key."""
    root: Any = yaml.compose(text, Loader=yaml.SafeLoader)
    starts = {key.value: key.start_mark.line for key, _ in root.value}
    if "tuned" not in starts:
        return text
    lines = text.splitlines(keepends=True)
    first = starts["tuned"]
    last = min((line for line in starts.values() if line > first), default=len(lines))
    if first and lines[first - 1] == _NOTE:
        first -= 1
    return "".join(lines[:first] + lines[last:])


def _child(node: Any, key: str) -> Any:
    """The value's node of a mapping, or ``None``."""
    return next((value for name, value in node.value if name.value == key), None)
