"""What the benchmarks share: which core is whose, plans, how each client is driven, and how results are told.

The client gets one core, the server another, the benchmark itself the server's while it only waits. All stamps are
CLOCK_MONOTONIC of one machine.
"""

from __future__ import annotations

import argparse
import os
import random
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import msgspec
import psutil

from benchmarks.judge import Seen, Target
from pdbench.load.job import ClockChoice, Job
from pdbench.load.steer import LoadOutcome, run_load
from pdbench.target.fingerprint import machine
from pdbench.workload.prompts import PromptMaker

ROOT = Path(__file__).resolve().parents[1]
ClientName = Literal["kernel", "user", "aiohttp"]
CLIENTS: tuple[ClientName, ...] = ("kernel", "user", "aiohttp")
_SAMPLE_S = 0.2
_TICK_S = 1 / os.sysconf("SC_CLK_TCK")


def cores() -> tuple[int, int]:
    """(client's, server's): the last and the first core this process may use; the same where there is one only."""
    usable = sorted(os.sched_getaffinity(0))
    return usable[-1], usable[0]


@contextmanager
def pinned(core: int) -> Iterator[None]:
    """This thread, and what it starts meanwhile, on one core."""
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {core})
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


def poisson_ns(n: int, rate: float, seed: int) -> list[int]:
    """Due instants of ``n`` requests, offsets from the start."""
    draw = random.Random(seed)
    at, due = 0.0, []
    for _ in range(n):
        at += draw.expovariate(rate)
        due.append(round(at * 1e9))
    return due


def make_job(
    url: str,
    due_ns: Sequence[int],
    *,
    tokens: int,
    journal: Path,
    model: str = "truth",
    clock: ClockChoice = "auto",
    prompt: int = 64,
    run_id: str = "bench",
) -> Job:
    """A plan for ``pdbench`` and for the plain client alike."""
    n = len(due_ns)
    return Job(
        base_url=url,
        model=model,
        clock=clock,
        prompts=PromptMaker(salt=run_id),
        index=list(range(n)),
        scheduled_ns=list(due_ns),
        prompt_tokens=[prompt] * n,
        output_tokens=[tokens] * n,
        warmup=[False] * n,
        journal=str(journal),
        run_id=run_id,
    )


# ---- watching processes


def cpu_s(pid: int) -> float:
    """User and system seconds of a process with all its threads; resolution: a kernel tick."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) * _TICK_S


def peak_rss(pid: int) -> int:
    """The most memory a process has held, bytes."""
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) * 1024
    return 0


@dataclass(slots=True)
class Usage:
    """``samples``: (monotonic ns, CPU seconds so far). ``rss``: peak of one process, bytes."""

    samples: list[tuple[int, float]] = field(default_factory=list)
    rss: int = 0

    def cpu_between(self, start_ns: int, end_ns: int) -> tuple[int, int, float] | None:
        """(first instant, last instant, CPU seconds between) of the samples inside a window; None without two."""
        inside = [sample for sample in self.samples if start_ns <= sample[0] <= end_ns]
        if len(inside) < 2:
            return None
        return inside[0][0], inside[-1][0], inside[-1][1] - inside[0][1]


class Watch:
    """Samples the one child process whose command line holds ``word``, from the thread that makes it."""

    def __init__(self, word: str) -> None:
        self.usage = Usage()
        self._word = word
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)

    def __enter__(self) -> Usage:
        self._thread.start()
        return self.usage

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()

    def _run(self) -> None:
        pid = None
        while not self._over.wait(_SAMPLE_S):
            pid = pid or self._find()
            if pid is None:
                continue
            try:
                self.usage.samples.append((time.monotonic_ns(), cpu_s(pid)))
                self.usage.rss = max(self.usage.rss, peak_rss(pid))
            except OSError:  # it ended
                return

    def _find(self) -> int | None:
        for child in psutil.Process().children():
            try:
                if any(self._word in part for part in child.cmdline()):
                    return child.pid
            except psutil.Error:
                continue
        return None


# ---- driving clients


@dataclass(frozen=True, slots=True)
class ClientRun:
    """What one client made of one plan. ``outcome``: of pdbench only."""

    name: str
    seen: list[Seen]
    cpu_s: float
    wall_s: float
    usage: Usage
    failed: int = 0
    outcome: LoadOutcome | None = None


def drive(client: ClientName, job: Job, core: int) -> ClientRun:
    """Run the plan by one client on one core."""
    return _plain(job, core) if client == "aiohttp" else _pdbench(job, core)


def _pdbench(job: Job, core: int) -> ClientRun:
    started = time.monotonic()
    with Watch("pdbench.load.engine") as usage, pinned(core):
        outcome = run_load(job)
    wall_s = time.monotonic() - started
    if outcome.status != "complete" or outcome.facts is None:
        raise SystemExit(f"the load engine: {outcome.status}: {outcome.reason}\n" + "\n".join(outcome.stderr))
    done = [record for record in outcome.records if record.status == "ok"]
    seen = [
        Seen(r.request_id, r.scheduled_ns, r.sent_ns or 0, r.chunk_ns, r.chunk_tokens, r.output_tokens) for r in done
    ]
    name = f"pdbench, {outcome.clock} clock"
    return ClientRun(name, seen, outcome.facts.cpu_s, wall_s, usage, len(outcome.records) - len(done), outcome)


def plain_words() -> list[str]:
    """The aiohttp client, in a process of its own so that its CPU can be told apart; ``told_plain`` is its input."""
    return [sys.executable, "-m", "benchmarks.plain"]


def told_plain(job: Job) -> bytes:
    """The job as the aiohttp client reads it."""
    asked = {
        "url": f"{job.base_url}{job.endpoint.path}",
        "due": job.scheduled_ns,
        "tokens": job.output_tokens[0],
        "model": job.model,
        "run_id": job.run_id,
        "texts": [job.prompts.text(i, n) for i, n in zip(job.index, job.prompt_tokens, strict=True)],
    }
    return msgspec.msgpack.encode(asked)


def _plain(job: Job, core: int) -> ClientRun:
    started = time.monotonic()
    with Watch("benchmarks.plain") as usage, pinned(core):
        done = subprocess.run(
            plain_words(),
            input=told_plain(job),
            stdout=subprocess.PIPE,
            check=True,
            cwd=ROOT,
        )
    wall_s = time.monotonic() - started
    answer = msgspec.msgpack.decode(done.stdout)
    seen = msgspec.convert(answer["seen"], list[Seen])
    return ClientRun("plain aiohttp", seen, answer["cpu_s"], wall_s, usage, len(job) - len(seen))


@contextmanager
def scratch() -> Iterator[Path]:
    """A directory for journals and results."""
    with tempfile.TemporaryDirectory(prefix="pdbench-bench-") as name:
        yield Path(name)


# ---- telling


def arguments(doc: str | None) -> argparse.ArgumentParser:
    """A parser with what every benchmark takes."""
    parser = argparse.ArgumentParser(description=doc, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", type=Path, metavar="FILE", help="write everything there as well")
    parser.add_argument("--seed", type=int, default=0)
    return parser


def tell(kind: str, options: argparse.Namespace, targets: Sequence[Target], rows: Sequence[dict[str, Any]]) -> int:
    """Print the targets, write the document. The exit code: 0 when all targets were met, 1 when one was missed."""
    print()
    for target in targets:
        print(target.line)
    if options.json:
        document = {
            "kind": kind,
            "machine": {**machine(), "load_1min": round(os.getloadavg()[0], 2)},
            "options": {key: str(value) for key, value in vars(options).items() if key != "json"},
            "targets": [target.document() for target in targets],
            "rows": list(rows),
        }
        options.json.write_bytes(msgspec.json.format(msgspec.json.encode(document), indent=1) + b"\n")
    return 0 if all(target.met for target in targets) else 1


def table(head: Sequence[str], rows: Sequence[Sequence[str]], say: Callable[[str], None] = print) -> None:
    """Columns as wide as they need be, the first to the left."""
    widths = [max(len(row[i]) for row in [head, *rows]) for i in range(len(head))]
    for row in [head, *rows]:
        cells = [
            cell.ljust(width) if i == 0 else cell.rjust(width)
            for i, (cell, width) in enumerate(zip(row, widths, strict=True))
        ]
        say("  ".join(cells).rstrip())


def triple(values: dict[str, float]) -> str:
    """P50 / P90 / P99 in one cell."""
    return "/".join(f"{value:,.0f}" for value in values.values())
