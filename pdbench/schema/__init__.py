"""The documents' shapes as JSON Schema (2020-12): ``compare``, ``run``, ``simulate``, ``surface``, ``search``,
``tune``, ``verdict``, ``calibration``, ``baseline``, ``manifest``, and ``perfetto`` (an exported trace).

The files refer to ``common.schema.json``; ``load`` gives one schema that stands alone.
"""

from __future__ import annotations

import json
from importlib.resources import files
from typing import Any

NAMES = (
    "compare", "run", "simulate", "surface", "search", "tune", "verdict", "calibration", "baseline", "manifest",
    "perfetto",
)  # fmt: skip
_COMMON = "common.schema.json"


def load(name: str) -> dict[str, Any]:
    """The schema of one document, with the shared definitions put in. Raises ``ValueError`` if unknown."""
    if name not in NAMES:
        raise ValueError(f"no schema '{name}'; known: {', '.join(NAMES)}")
    text = _read(f"{name}.schema.json").replace(f'"{_COMMON}#/', '"#/')
    schema: dict[str, Any] = json.loads(text)
    schema["$defs"] = json.loads(_read(_COMMON))["$defs"]
    return schema


def _read(file: str) -> str:
    return (files(__name__) / file).read_text(encoding="utf-8")
