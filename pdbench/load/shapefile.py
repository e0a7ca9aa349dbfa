"""``--shape FILE[:CLASS]``: what a Locust user's shape will do, found before anything starts (``tick.py``)."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

from pdbench import resources
from pdbench.errors import UsageError
from pdbench.workload.shapes import Means, Shape, Tick

LONGEST_S = 86_400.0
_LIMIT_S = 60.0


def read_shape(text: str, means: Means, duration_s: float | None) -> Shape:
    """The shape's ticks until it ends, or until ``duration_s``. Raises ``UsageError`` with the file's line."""
    path, name = _split(text)
    if not path.is_file():
        raise UsageError("there is no such file", where=f"--shape {path}")
    limit_s = duration_s if duration_s is not None else LONGEST_S
    said = _ask(path, name, limit_s)
    if "error" in said:
        raise UsageError(said["error"], where=said.get("where") or f"--shape {path}", remedy=_remedy(said, path))
    end_s = said["end_s"]
    if end_s is None and duration_s is None:
        raise UsageError("the shape never ends", where=f"--shape {text}", remedy="add --duration, e.g. 10m")
    ticks = tuple(Tick(*tick) for tick in said["ticks"])
    if not ticks:
        raise UsageError("the shape ends before it begins", where=f"--shape {text}")
    return Shape(f"{path}:{said['class']}", means, ticks, float(end_s if end_s is not None else limit_s))


def _split(text: str) -> tuple[Path, str]:
    file, colon, name = text.rpartition(":")
    if colon and name.isidentifier() and not Path(text).exists():
        return Path(file), name
    return Path(text), ""


def _ask(path: Path, name: str, limit_s: float) -> dict[str, Any]:
    try:
        done = subprocess.run(
            [sys.executable, "-m", "pdbench.load.tick", str(path), name, str(limit_s)],
            capture_output=True,
            text=True,
            timeout=_LIMIT_S,
            check=False,
            stdin=subprocess.DEVNULL,
            env=resources.own_env(),
        )
    except subprocess.TimeoutExpired:
        what = f"the shape did not answer within {_LIMIT_S:g} s"
        raise UsageError(what, where=f"--shape {path}", remedy="tick() must return at once") from None
    try:
        said = json.loads(done.stdout)
    except ValueError:
        last = (done.stderr.strip().splitlines() or ["it said nothing"])[-1]
        raise UsageError(f"the shape could not be read: {last}", where=f"--shape {path}") from None
    return dict(said)


def _remedy(said: dict[str, Any], path: Path) -> str:
    if said.get("live"):
        return "a plan is fixed before the run, so a shape may depend on get_run_time() only"
    if said.get("known"):
        return f"name one: --shape {path}:{said['known'][0]}"
    return ""
