"""The C truth server, compiled when needed, started on a core, and its log as arrays.

    with TruthServer(ttft_us=50_000, gap_us=20_000, core=0) as truth:
        ...                            # load truth.url, model "truth", "stalls", "two", "aligned" or "random"
        served = truth.log()           # by request id

``draw`` repeats in Python which gaps of ``stalls`` are long, so that the truth of a request is known without
asking.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Self

import numpy as np
import numpy.typing as npt
import requests

Ints = npt.NDArray[np.int64]

HERE = Path(__file__).resolve().parent
BUILD = HERE.parent / ".build"
SOURCES = (HERE / "server.c", HERE / "heap.h", HERE / "read.h")
FLAGS = ("-std=gnu11", "-O2", "-Wall", "-Wextra", "-Werror")
MODELS = ("truth", "stalls", "two", "aligned", "random")

_WRITE = np.dtype([("due_ns", "<i8"), ("before_ns", "<i8"), ("spent_ns", "<u4"), ("tokens", "<u4")])
_ENTRY = np.dtype(
    [
        ("received_ns", "<i8"),
        *((name, "<u4") for name in ("id_bytes", "writes", "prompt_tokens", "max_tokens", "blocked", "model")),
    ]
)
_MASK = (1 << 64) - 1


@dataclass(frozen=True, slots=True)
class Served:
    """One stream as the server wrote it; arrays hold one value an event, CLOCK_MONOTONIC ns.

    ``due_ns``: by the schedule; ``before_ns``, ``after_ns``: around the ``send``. ``blocked``: writes that the socket
    did not take at once, because the client did not read.
    """

    request_id: str
    model: str
    received_ns: int
    due_ns: Ints
    before_ns: Ints
    after_ns: Ints
    tokens: Ints
    prompt_tokens: int
    max_tokens: int
    blocked: int

    @property
    def service_ttft_ns(self) -> int:
        return int(self.before_ns[0]) - self.received_ns

    @property
    def late_ns(self) -> Ints:
        """The server's own error: written minus due."""
        return self.before_ns - self.due_ns


def parse_log(data: bytes) -> dict[str, Served]:
    """The answer of ``GET /log``; a request without an id is called ``anonymous-N``, N in order of arrival.

    Raises ValueError when an id was used twice or the log is cut off.
    """
    found: list[Served] = []
    at = 0
    while at < len(data):
        entry = np.frombuffer(data, _ENTRY, 1, at)[0]
        at += _ENTRY.itemsize
        n_id, n = int(entry["id_bytes"]), int(entry["writes"])
        name = data[at : at + n_id].decode()
        at += (n_id + 7) & ~7
        writes = np.frombuffer(data, _WRITE, n, at)
        at += n * _WRITE.itemsize
        before = writes["before_ns"].astype(np.int64)
        found.append(
            Served(
                request_id=name,
                model=MODELS[int(entry["model"])],
                received_ns=int(entry["received_ns"]),
                due_ns=writes["due_ns"].astype(np.int64),
                before_ns=before,
                after_ns=before + writes["spent_ns"].astype(np.int64),
                tokens=writes["tokens"].astype(np.int64),
                prompt_tokens=int(entry["prompt_tokens"]),
                max_tokens=int(entry["max_tokens"]),
                blocked=int(entry["blocked"]),
            )
        )
    found.reverse()  # the log begins with the newest
    served = {one.request_id or f"anonymous-{i}": one for i, one in enumerate(found)}
    if len(served) != len(found):
        raise ValueError("two requests had the same X-Request-Id")
    return served


def draw(request_id: str, event: int) -> int:
    """The 64 bits that decide the gap before ``event`` (1 is the second): below 1 in 100 it is a stall."""
    seed = 14695981039346656037
    for byte in request_id.encode():
        seed = ((seed ^ byte) * 1099511628211) & _MASK
    x = (seed + event + 0x9E3779B97F4A7C15) & _MASK
    x = ((x ^ (x >> 30)) * 0xBF58476D1CE4E5B9) & _MASK
    x = ((x ^ (x >> 27)) * 0x94D049BB133111EB) & _MASK
    return x ^ (x >> 31)


def stalls(request_id: str, event: int) -> bool:
    """Whether the gap before ``event`` of a ``stalls`` stream is 300 ms."""
    return draw(request_id, event) % 100 == 0


def build() -> Path:
    """The compiled server, made anew when its source or flags changed. Raises SystemExit without a compiler."""
    text = b"".join(source.read_bytes() for source in SOURCES) + " ".join(FLAGS).encode()
    program = BUILD / f"truth-{hashlib.sha256(text).hexdigest()[:12]}"
    if program.exists():
        return program
    compiler = shutil.which(os.environ.get("CC", "cc"))
    if compiler is None:
        raise SystemExit("the truth server needs a C compiler: install gcc or clang, or name one with CC=...")
    BUILD.mkdir(exist_ok=True)
    part = program.with_suffix(f".{os.getpid()}")
    done = subprocess.run(
        [compiler, *FLAGS, "-o", str(part), str(SOURCES[0]), "-lm"], capture_output=True, text=True, check=False
    )
    if done.returncode:
        raise SystemExit(f"{compiler} could not compile {SOURCES[0].name}:\n{done.stderr}")
    part.rename(program)
    return program


class TruthServer:
    """A running server; ends with the ``with`` block, or with this process. ``core``: the only one it may use."""

    def __init__(self, *, ttft_us: int = 50_000, gap_us: int = 20_000, core: int | None = None) -> None:
        self._process = subprocess.Popen(
            [str(build()), str(ttft_us), str(gap_us)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
        )
        if core is not None:
            os.sched_setaffinity(self._process.pid, {core})
        assert self._process.stdout is not None
        port = self._process.stdout.readline().strip()
        if not port:
            raise SystemExit(f"the truth server ended with status {self._process.wait()}")
        self.url = f"http://127.0.0.1:{int(port)}"

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    @property
    def pid(self) -> int:
        return self._process.pid

    def stop(self) -> None:
        for pipe in (self._process.stdin, self._process.stdout):
            if pipe is not None:
                pipe.close()
        self._process.wait(timeout=10)

    def log(self) -> dict[str, Served]:
        """What it wrote, by request id. Ask when no stream runs: answering delays writes."""
        return parse_log(self._get("log"))

    def clear(self) -> None:
        """Forget the log. Raises ``requests.HTTPError`` while streams run."""
        self._get("clear")

    def _get(self, what: str) -> bytes:
        answer = requests.get(f"{self.url}/{what}", timeout=60)
        answer.raise_for_status()
        return answer.content


def in_order(served: dict[str, Served]) -> Sequence[Served]:
    """By arrival."""
    return sorted(served.values(), key=lambda one: one.received_ns)
