"""Real prompts from the lines of a JSONL file.

A line is an object with ``prompt`` or ``text``; or ``conversations`` of ``{from, value}`` as ShareGPT has them, of
which the first human turn is taken; or ``messages`` of ``{role, content}`` as OpenAI's API has them, of which all up
to the last user turn are taken, blank lines between them. Lines without any text are left out.
"""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path
from typing import Any

from pdbench.errors import UsageError
from pdbench.workload.columns import read_json, read_text

_KEYS = ("prompt", "text", "conversations", "messages")
_HUMANS = ("human", "user")


def load_texts(path: Path) -> tuple[str, ...]:
    """The prompts in the order of the file. Raises ``UsageError`` naming the line."""
    modified = path.stat().st_mtime_ns if path.exists() else 0
    return _load(path, modified)


@lru_cache(maxsize=4)
def _load(path: Path, modified_ns: int) -> tuple[str, ...]:
    del modified_ns  # a file that has changed is read again
    found = []
    for line, text in enumerate(read_text(path, "prompts").split("\n"), 1):
        if not text.strip():
            continue
        prompt = _prompt_of(read_json(path, line, text))
        if prompt is None:
            remedy = f"a line needs one of {', '.join(_KEYS)}"
            raise UsageError("no prompt in it", where=f"{path}:{line}", remedy=remedy)
        if prompt.strip():
            found.append(prompt)
    if not found:
        raise UsageError("holds no prompt", where=str(path))
    return tuple(found)


def _prompt_of(row: Any) -> str | None:
    """The prompt of one object; ``""`` where its conversation has no human turn; ``None`` for another object."""
    if not isinstance(row, dict):
        return None
    for key in ("prompt", "text"):
        if isinstance(row.get(key), str):
            return str(row[key])
    turns = row.get("conversations")
    if isinstance(turns, list):
        said = [_field(turn, "value") for turn in turns if _field(turn, "from") in _HUMANS]
        return said[0] if said else ""
    turns = row.get("messages")
    if isinstance(turns, list):
        last = max((place for place, turn in enumerate(turns, 1) if _field(turn, "role") in _HUMANS), default=0)
        return "\n\n".join(_field(turn, "content") for turn in turns[:last])
    return None


def _field(turn: Any, key: str) -> str:
    value = turn.get(key) if isinstance(turn, dict) else None
    if isinstance(value, list):  # content in parts: the text ones
        value = "\n".join(_field(part, "text") for part in value)
    return value if isinstance(value, str) else ""
