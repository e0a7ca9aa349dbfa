"""Asks a Locust user's ``LoadTestShape`` what it will do, ahead of time, in a process of its own.

    python -m pdbench.load.tick FILE [CLASS] LIMIT_S  ->  one JSON object on stdout

Importing somebody's locustfile runs their code and patches sockets; so this is a child, and its clock is ours:
``time``, ``monotonic`` and ``perf_counter`` say the virtual run time, a second a tick, as Locust's own loop would.
"""

from __future__ import annotations

import importlib.util
import json
import math
import os
import sys
import time
import traceback
from pathlib import Path
from types import ModuleType
from typing import Any


class LiveError(Exception):
    """The shape asked for what only exists while it runs."""


class _Runner:
    """Stands for the runner: how many users there are can be told, nothing else."""

    def __init__(self) -> None:
        self.users = 0.0

    @property
    def user_count(self) -> int:
        return round(self.users)

    @property
    def target_user_count(self) -> int:
        return round(self.users)

    def __getattr__(self, name: str) -> Any:
        raise LiveError(f"the shape looks at runner.{name} while it runs")


class _Clock:
    """The time module's clocks, on virtual time."""

    def __init__(self) -> None:
        self.now_s = 0.0
        for name in ("time", "monotonic", "perf_counter"):
            base = getattr(time, name)()
            setattr(time, name, lambda base=base: base + self.now_s)


def shape_classes(module: ModuleType) -> dict[str, Any]:
    """Concrete shapes that the file defines or imports, by name, as Locust finds them."""
    from locust import LoadTestShape

    return {
        name: found
        for name, found in vars(module).items()
        if isinstance(found, type) and issubclass(found, LoadTestShape) and not getattr(found, "abstract", False)
    }


def evaluate(file: str, name: str, limit_s: float) -> dict[str, Any]:
    """``{"class", "ticks": [[t, users, spawn_rate], ...], "end_s"}``; ``end_s`` is None if it never ended."""
    import locust

    clock, runner = _Clock(), _Runner()
    sys.path.insert(0, str(Path(file).resolve().parent))
    spec = importlib.util.spec_from_file_location("pdbench_user_shape", file)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    known = shape_classes(module)
    if not known or (name and name not in known) or (not name and len(known) > 1):
        return {"error": _which(name, list(known)), "known": list(known)}
    chosen = name or next(iter(known))
    shape = known[chosen]()
    locust.LoadTestShape.runner = runner  # type: ignore[assignment]
    shape.get_run_time = lambda: clock.now_s
    ticks: list[list[float]] = []
    second = 0
    while second < limit_s:
        clock.now_s = float(second)
        if (said := shape.tick()) is None:
            return {"class": chosen, "ticks": ticks, "end_s": second}
        users, pace = _checked(said)
        if not ticks or ticks[-1][1:] != [users, pace]:
            ticks.append([float(second), users, pace])
        runner.users += max(-pace, min(pace, users - runner.users))
        second += 1
    return {"class": chosen, "ticks": ticks, "end_s": None}


def _which(name: str, known: list[str]) -> str:
    if not known:
        return "the file has no LoadTestShape"
    return f"it has no shape '{name}'" if name else f"it has several shapes: {', '.join(known)}"


def _checked(said: Any) -> tuple[float, float]:
    ok = isinstance(said, tuple | list) and len(said) in (2, 3)
    numbers = [one for one in (said[:2] if ok else ()) if isinstance(one, int | float) and math.isfinite(one)]
    if len(numbers) != 2 or numbers[0] < 0 or numbers[1] <= 0:
        raise ValueError(f"tick() returned {said!r}: it must be (users, spawn_rate above 0) or None")
    return float(numbers[0]), float(numbers[1])


def place_of(error: BaseException, file: str) -> str:
    """``file:line`` of the last frame in the user's file; the file alone where there is none."""
    if isinstance(error, SyntaxError) and error.filename and error.lineno:
        return f"{error.filename}:{error.lineno}"
    path = Path(file).resolve()  # as frames name it, however it was typed
    inside = [frame for frame in traceback.extract_tb(error.__traceback__) if Path(frame.filename).resolve() == path]
    return f"{file}:{inside[-1].lineno}" if inside else file


def answer(file: str, name: str, limit_s: float) -> dict[str, Any]:
    """As ``evaluate``, or ``{"error", "where"}`` for whatever their file did wrong."""
    try:
        return evaluate(file, name, limit_s)
    except LiveError as error:
        return {"error": str(error), "where": place_of(error, file), "live": True}
    except BaseException as error:  # their file may do anything, sys.exit included
        return {"error": f"{type(error).__name__}: {error}", "where": place_of(error, file)}


def main(file: str, name: str, limit_s: float) -> int:
    out = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what their file prints is not our answer
    with out:
        json.dump(answer(file, name, limit_s), out)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1], sys.argv[2], float(sys.argv[3])))
