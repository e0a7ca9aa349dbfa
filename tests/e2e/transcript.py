"""What a user types, and what comes back: ``pdbench`` as a process, and a server that is not ours beside it.

Every process that a test starts, and every one that those start, carries a mark in its environment; ``leftovers``
finds those that outlived what they were for.
"""

from __future__ import annotations

import json
import os
import secrets
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import psutil
import pytest

from pdbench.cli.main import run

ROOT = Path(__file__).resolve().parents[2]
FAKE = ROOT / "tests" / "e2e" / "fake_server.py"
_MARK = "PDBENCH_TEST_MARK"
DEADLINE_S = 100.0


class Typed:
    """One finished command."""

    def __init__(self, args: list[str], code: int, out: str, err: str) -> None:
        self.args, self.code, self.out, self.err = args, code, out, err

    @property
    def document(self) -> dict[str, Any]:
        """The whole of stdout as one JSON document."""
        found = json.loads(self.out)
        assert isinstance(found, dict)
        return found

    def ended(self, code: int) -> bool:
        """Whether it ended with ``code``, or, where a busy machine made the run INVALID, with 12."""
        return self.code == (code if self.document["validity"]["status"] == "VALID" else 12)

    def __repr__(self) -> str:
        return f"$ pdbench {' '.join(self.args)}\n[{self.code}]\n{self.out}\n{self.err}"


class Desk:
    """A place to type commands in; its processes carry one mark."""

    def __init__(self) -> None:
        self.mark = secrets.token_hex(8)
        self.env = {k: v for k, v in os.environ.items() if not k.startswith("PDBENCH_")}
        path = os.pathsep.join([str(ROOT), str(ROOT / "backends"), os.environ.get("PYTHONPATH", "")])
        self.env |= {_MARK: self.mark, "NO_COLOR": "1", "COLUMNS": "100", "PYTHONPATH": path.rstrip(os.pathsep)}
        self.env["PDBENCH_NO_REPORT"] = "1"  # a page beside every run would double the time of the suite

    def start(self, *args: str) -> subprocess.Popen[str]:
        return subprocess.Popen(
            [sys.executable, "-m", "pdbench", *args],
            cwd=ROOT,
            env=self.env,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def type(self, *args: str, deadline_s: float = DEADLINE_S) -> Typed:
        process = self.start(*args)
        try:
            out, err = process.communicate(timeout=deadline_s)
        except subprocess.TimeoutExpired:
            process.kill()
            out, err = process.communicate()
            raise AssertionError(f"it did not end: pdbench {' '.join(args)}\n{err}") from None
        return Typed(list(args), process.returncode, out, err)

    @contextmanager
    def fake(self, folder: Path, *flags: str) -> Iterator[str]:
        """A running fake server; its base URL."""
        port_file = folder / f"fake-{secrets.token_hex(4)}.port"
        process = subprocess.Popen(
            [sys.executable, str(FAKE), "--port-file", str(port_file), *flags], env=self.env, stdin=subprocess.DEVNULL
        )
        try:
            until(port_file.exists, "the fake server's port")
            yield f"http://127.0.0.1:{port_file.read_text()}"
        finally:
            process.kill()
            process.wait()

    def processes(self) -> list[psutil.Process]:
        """Running processes with this desk's mark."""
        found = []
        for process in psutil.process_iter():
            try:
                marked = process.environ().get(_MARK) == self.mark
                if marked and process.status() != psutil.STATUS_ZOMBIE:
                    found.append(process)
            except psutil.Error:
                continue
        return found

    def leftovers(self) -> list[str]:
        """Command lines of processes with this desk's mark that still run."""
        found = []
        for process in self.processes():
            with suppress(psutil.Error):
                found.append(" ".join(process.cmdline()))
        return found


Type = Callable[..., Typed]


@pytest.fixture
def type_here(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Iterator[Type]:
    """Types a command into this very process; at the end, no process that it started may be left."""
    for name in [name for name in os.environ if name.startswith("PDBENCH_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("NO_COLOR", "1")
    monkeypatch.chdir(ROOT)
    before = {child.pid for child in psutil.Process().children(recursive=True)}

    def typed(*args: str) -> Typed:
        code = run(list(args))
        shown = capsys.readouterr()
        return Typed(list(args), code, shown.out, shown.err)

    yield typed
    assert {child.pid for child in psutil.Process().children(recursive=True)} <= before


def until(holds: Any, what: str, deadline_s: float = 30.0) -> None:
    """Poll until ``holds()``; fails with ``what`` after the deadline."""
    deadline = time.monotonic() + deadline_s
    while not holds():
        assert time.monotonic() < deadline, f"not in time: {what}"
        time.sleep(0.02)


TINY = """\
name: tiny
arrivals: {process: constant, rate: 20}
prompt_tokens: {distribution: fixed, value: 32}
output_tokens: {distribution: fixed, value: 8}
num_requests: 20
warmup: 0
slo: ["ttft p90 <= 2s", "tpot p90 <= 1s"]
"""


def tiny(folder: Path, **changes: str) -> str:
    """A small, fast workload file; ``changes`` replace its lines by key. No warm-up: it costs each run a second."""
    lines = [
        f"{line.split(':')[0]}: {changes.get(line.split(':')[0], line.split(': ', 1)[1])}" for line in TINY.splitlines()
    ]
    path = folder / "tiny.yaml"
    path.write_text("\n".join(lines) + "\n")
    return str(path)


def brief(folder: Path, **changes: str) -> str:
    """``tiny`` in half the time."""
    return tiny(folder, **{"arrivals": "{process: constant, rate: 40}", **changes})
