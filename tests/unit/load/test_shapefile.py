"""A Locust user's shape, asked ahead of time: files good and bad, in the child's own function."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from pdbench.errors import UsageError
from pdbench.load import shapefile
from pdbench.load.tick import place_of
from pdbench.workload.plan import make_plan
from pdbench.workload.shapes import Means, Shape, Tick, ramps, streams, with_shape
from tests.unit.workload.helpers import workload

HEAD = "from locust import LoadTestShape, HttpUser\n"
STEPS = (
    HEAD
    + """
class Steps(LoadTestShape):
    def tick(self):
        t = self.get_run_time()
        print("a shape may talk")
        return (10, 5) if t < 4 else (2, 100) if t < 7 else None
"""
)
OWN_CLOCK = HEAD + (
    "import time\nclass Own(LoadTestShape):\n    def tick(self):\n"
    "        return (3, 3) if time.perf_counter() - self.start_time < 3 else None\n"
)
FOREVER = HEAD + "class Ever(LoadTestShape):\n    def tick(self):\n        return (4, 4)\n"


def shape(*ticks: tuple[float, float, float], end: float, means: Means = "rate") -> Shape:
    return Shape("f.py:S", means, tuple(Tick(*tick) for tick in ticks), end)


GOOD = {
    "steps": (STEPS, "", None, (Tick(0, 10, 5), Tick(4, 2, 100)), 7.0),
    "named": (STEPS, "Steps", 5.0, (Tick(0, 10, 5), Tick(4, 2, 100)), 5.0),
    "own clock": (OWN_CLOCK, "", None, (Tick(0, 3, 3),), 3.0),
    "forever": (FOREVER, "", 12.5, (Tick(0, 4, 4),), 12.5),
}
BAD = {
    "live": (
        HEAD + "class S(LoadTestShape):\n    def tick(self):\n        return (self.runner.stats.total, 1)\n",
        ":4",
    ),
    "error": (HEAD + "class S(LoadTestShape):\n    def tick(self):\n        return 1 / 0\n", ":4: ZeroDivisionError"),
    "syntax": (HEAD + "class S(:\n", ":2: SyntaxError"),
    "none": (HEAD, "no LoadTestShape"),
    "two": (HEAD + "class A(LoadTestShape):\n    tick = None\nclass B(LoadTestShape):\n    tick = None\n", "A, B"),
    "wrong": (HEAD + "class S(LoadTestShape):\n    def tick(self):\n        return 5\n", "tick() returned 5"),
    "exit": ("import sys\nsys.exit(3)\n", ":2: SystemExit"),
    "never": (FOREVER, "never ends"),
    "no file": (None, "no such file"),
}


_CHILD = """
import json, os, sys
from pdbench.load.tick import answer
out = os.fdopen(os.dup(1), "w")
os.dup2(2, 1)
json.dump([answer(*case) for case in json.load(sys.stdin)], out)
"""


@pytest.fixture(scope="module")
def answers(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """What the child says of every file, from one child: importing Locust takes a second."""
    folder = tmp_path_factory.mktemp("shapes")
    asked = {name: (source, wanted, limit or 100.0) for name, (source, wanted, limit, *_) in GOOD.items()}
    asked |= {name: (source, "", 100.0) for name, (source, _) in BAD.items() if source is not None}
    cases = []
    for number, (source, wanted, limit) in enumerate(asked.values()):
        (file := folder / f"{number}.py").write_text(source)
        cases.append((str(file), wanted, limit))
    done = subprocess.run(
        [sys.executable, "-c", _CHILD], input=json.dumps(cases), capture_output=True, text=True, check=True
    )
    return dict(zip(asked, json.loads(done.stdout), strict=True))


@pytest.mark.parametrize("case", GOOD)
def test_a_shape_is_asked_on_virtual_time(
    tmp_path: Path, case: str, answers: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    _, _, duration_s, ticks, end_s = GOOD[case]
    monkeypatch.setattr(shapefile, "_ask", lambda *_: answers[case])
    (tmp_path / "shape.py").touch()
    found = shapefile.read_shape(str(tmp_path / "shape.py"), "rate", duration_s)
    assert (found.ticks, found.end_s) == (ticks, end_s)


@pytest.mark.parametrize("case", BAD)
def test_a_bad_shape_is_refused_with_its_line(
    tmp_path: Path, case: str, answers: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    source, says = BAD[case]
    monkeypatch.setattr(shapefile, "_ask", lambda *_: answers[case])
    if source is not None:
        (tmp_path / "shape.py").touch()
    with pytest.raises(UsageError) as raised:
        shapefile.read_shape(str(tmp_path / "shape.py"), "rate", None)
    assert says in str(raised.value)


def test_a_file_is_really_asked(tmp_path: Path) -> None:
    (file := tmp_path / "shape.py").write_text(STEPS)
    found = shapefile.read_shape(f"{file}:Steps", "concurrency", None)
    assert (found.source, found.means, found.end_s) == (f"{file}:Steps", "concurrency", 7.0)


def test_a_line_is_named_however_the_file_was_typed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "shape.py").write_text("\n\n1 / 0\n")
    monkeypatch.chdir(tmp_path)
    found = {}
    for typed in ("shape.py", "./shape.py", str(tmp_path / "shape.py")):
        code = compile((tmp_path / "shape.py").read_text(), str(tmp_path / "shape.py"), "exec")  # as imports name it
        with pytest.raises(ZeroDivisionError) as raised:
            exec(code, {})
        found[typed] = place_of(raised.value, typed)
    assert found == {typed: f"{typed}:3" for typed in found}


def test_the_child_leaves_locust_out_of_this_process() -> None:
    code = "import sys, pdbench.load.shapefile; print('locust' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"


@pytest.mark.parametrize(
    ("ticks", "end", "points"),
    [
        ([(0, 10, 5)], 4, [(0, 0), (2, 10), (4, 10)]),
        ([(0, 10, 5), (1, 0, 5)], 4, [(0, 0), (1, 5), (2, 0), (4, 0)]),  # a new tick takes over on the way
        ([(0, 10, 1)], 4, [(0, 0), (4, 4)]),  # never reached
        ([(0, 4, 4), (2, 4, 4)], 3, [(0, 0), (1, 4), (3, 4)]),
    ],
)
def test_users_come_and_go_at_the_spawn_rate(
    ticks: list[tuple[float, float, float]], end: float, points: list[tuple[float, float]]
) -> None:
    assert ramps(shape(*ticks, end=end)) == points


def test_streams_are_whole_and_open_at_once() -> None:
    found = streams(shape((0, 3, 1), (5, 1, 2), end=8, means="concurrency"))
    assert found == [(0, 1), (1, 2), (2, 3), (5, 2), (5.5, 1)]


def test_a_shape_drives_a_workload() -> None:
    rate = with_shape(workload(), shape((0, 10, 5), end=12))
    assert rate.arrivals.process == "curve"
    counts = [int((~make_plan(rate, seed=seed).warmup).sum()) for seed in range(20)]
    assert sum(counts) / 20 == pytest.approx(110, rel=0.08), "Poisson's own spread around the shape's integral"
    closed = with_shape(workload(), shape((0, 3, 3), end=12, means="concurrency"))
    assert closed.arrivals.process == "closed"
    with pytest.raises(UsageError, match=r"f\.py:S"):
        with_shape(workload(), shape((0, 0, 5), end=12))
