"""pdbench, GuideLLM, AIPerf and a plain aiohttp client doing the same work, side by side.

    python -m benchmarks.peers --json peers.json

Each peer is installed with pip into its own environment under benchmarks/.peers/ (ignored by git) and driven by its
own command line, with all its processes on one core; the truth server has another. The tools take turns, for several
rounds. A tool's error is the distance of the percentiles *it reports* to those of the server's log for the same
requests; where it reports no percentile of single gaps, only of each request's mean gap, it is compared with the log's
mean gaps, and the table says so. Start and report: wall time minus the time between the first request's arrival and
the last write. Memory: the summed resident memory of its processes at its peak (shared pages count in each). Arrival
fit: Kolmogorov-Smirnov against the exponential law of the rate asked for, by the gaps the server saw. About fifteen
minutes, and the installation once.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import psutil
from scipy import stats

from benchmarks.common import ROOT, arguments, cores, make_job, pinned, poisson_ns, scratch, tell
from benchmarks.common import table as print_table
from benchmarks.judge import QUANTILES, Seen, Target, quantile, truth_of
from benchmarks.runs import command as pdbench_command
from benchmarks.runs import load_only, write_workload
from benchmarks.truth.server import Served, TruthServer, in_order

PEERS = ROOT / "benchmarks" / ".peers"
TOKENS = PROMPT = 64
LIMIT_S = 300
_SAMPLE_S = 0.25
# A word is a token: enough for tools that want to count, and nothing has to be downloaded.
_TOKENIZER = """
import sys
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast
vocabulary = {"[UNK]": 0, **{f"tok{i}": i + 1 for i in range(4096)}}
words = Tokenizer(models.WordLevel(vocabulary, unk_token="[UNK]"))
words.pre_tokenizer = pre_tokenizers.Whitespace()
PreTrainedTokenizerFast(tokenizer_object=words, unk_token="[UNK]", eos_token="tok0").save_pretrained(sys.argv[1])
"""

Reported = dict[str, dict[str, float]]  # metric of judge.Latencies -> {"p50": ms, ...}


@dataclass(frozen=True, slots=True)
class Work:
    """What every tool is asked to do."""

    rate: float
    requests: int

    @property
    def name(self) -> str:
        return f"{self.requests} x {TOKENS} at {self.rate:g} req/s"


@dataclass(frozen=True, slots=True)
class Tool:
    """``command`` gives the words for (URL, work, directory, seed), ``read`` its percentiles from (stdout, directory).
    ``stdin``: what it is told there."""

    name: str
    command: Callable[[str, Work, Path, int], list[str]]
    read: Callable[[bytes, Path], Reported]
    stdin: Callable[[str, Work, int], bytes] | None = None


# ---- the tools


def pdbench_words(url: str, work: Work, directory: Path, seed: int) -> list[str]:
    workload = write_workload(directory, rate=work.rate, requests=work.requests, tokens=TOKENS, prompt=PROMPT)
    return pdbench_command(url, workload, directory / "results", seed=seed)


def pdbench_report(stdout: bytes, _: Path) -> Reported:
    arm = next(iter(json.loads(stdout)["arms"].values()))
    return {"service_ttft": arm["service_ttft_ms"], "ttft": arm["ttft_ms"], "tbt": arm["tbt_ms"]}


def plain_words(*_: object) -> list[str]:
    return [sys.executable, "-m", "benchmarks.plain"]


def plain_stdin(url: str, work: Work, seed: int) -> bytes:
    job = make_job(url, poisson_ns(work.requests, work.rate, seed), tokens=TOKENS, journal=Path("none"), prompt=PROMPT)
    asked = {
        "url": f"{url}/v1/completions",
        "due": job.scheduled_ns,
        "tokens": TOKENS,
        "model": job.model,
        "run_id": "plain",
        "texts": [job.prompts.text(i, PROMPT) for i in job.index],
    }
    return msgspec.msgpack.encode(asked)


def plain_report(stdout: bytes, _: Path) -> Reported:
    seen = msgspec.convert(msgspec.msgpack.decode(stdout)["seen"], list[Seen])
    first = [one.chunk_ns[0] - one.sent_ns for one in seen]
    due = [one.chunk_ns[0] - one.scheduled_ns for one in seen]
    gaps = np.concatenate([np.diff(one.chunk_ns) for one in seen])
    return {name: of_ms(values) for name, values in (("service_ttft", first), ("ttft", due), ("tbt", gaps))}


def of_ms(values_ns: Any) -> dict[str, float]:
    return {f"p{q}": quantile(values_ns, q) / 1e6 for q in QUANTILES}


def aiperf_words(url: str, work: Work, directory: Path, seed: int) -> list[str]:
    return [
        *(str(program("aiperf")), "profile", "--model", "truth", "--url", url, "--endpoint-type", "completions"),
        *("--streaming", "--tokenizer", str(tokenizer("aiperf")), "--use-server-token-count"),
        *("--request-rate", f"{work.rate:g}", "--arrival-pattern", "poisson", "--request-count", str(work.requests)),
        *("--prompt-input-tokens-mean", str(PROMPT), "--prompt-input-tokens-stddev", "0"),
        *("--prompt-output-tokens-mean", str(TOKENS), "--prompt-output-tokens-stddev", "0"),
        *("--use-legacy-max-tokens", "--extra-inputs", "ignore_eos:true", "--random-seed", str(seed + 1)),
        *("--ui", "none", "--no-gpu-telemetry", "--no-server-metrics"),
        *("--output-artifact-dir", str(directory / "aiperf")),
    ]


def aiperf_report(_: bytes, directory: Path) -> Reported:
    found = json.loads((directory / "aiperf" / "profile_export_aiperf.json").read_text())
    named = {"service_ttft": "time_to_first_token", "tbt": "inter_chunk_latency"}
    return {name: {f"p{q}": found[key][f"p{q}"] for q in QUANTILES} for name, key in named.items()}


def guidellm_words(url: str, work: Work, directory: Path, seed: int) -> list[str]:
    """By the chat API, its default: with the completions API version 0.8.1 offers no request of synthetic data."""
    return [
        *(str(program("guidellm")), "run", "--disable-console"),
        *("--backend", f"kind=openai_http,target={url},model=truth"),
        *("--profile", f"kind=poisson,rate={work.rate:g}", "--constraint", f"kind=max_requests,count={work.requests}"),
        *("--tokenizer", f"kind=huggingface_auto,model={tokenizer('guidellm')}"),
        *("--data", f"kind=synthetic_text,prompt_tokens={PROMPT},output_tokens={TOKENS}"),
        *("--seed", f"kind=static,value={seed}"),
        *("--output", f"kind=json,path={directory / 'guidellm.json'}"),
    ]


def guidellm_report(_: bytes, directory: Path) -> Reported:
    """Its inter-token percentiles are of each request's mean."""
    metrics = json.loads((directory / "guidellm.json").read_text())["benchmarks"][0]["metrics"]
    named = {"service_ttft": "time_to_first_token_ms", "tpot": "inter_token_latency_ms"}
    return {
        name: {f"p{q}": metrics[key]["successful"]["percentiles"][f"p{q}"] for q in QUANTILES}
        for name, key in named.items()
    }


TOOLS = (
    Tool("pdbench", pdbench_words, pdbench_report),
    Tool("plain aiohttp", plain_words, plain_report, plain_stdin),
    Tool("aiperf", aiperf_words, aiperf_report),
    Tool("guidellm", guidellm_words, guidellm_report),
)
FOREIGN = ("aiperf", "guidellm")


# ---- installing


def program(name: str) -> Path:
    return PEERS / name / "bin" / name


def tokenizer(name: str) -> Path:
    return PEERS / name / "tokenizer"


def install(name: str) -> str:
    """Makes what is missing; returns why it could not, ``""`` if all is well."""
    python = PEERS / name / "bin" / "python"
    steps = []
    if not program(name).exists():
        pip = [str(python), "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
        steps += [
            [sys.executable, "-m", "venv", str(PEERS / name)],
            [*pip, "-c", str(ROOT / "constraints.txt"), name],
        ]
    if not tokenizer(name).exists():
        steps.append([str(python), "-c", _TOKENIZER, str(tokenizer(name))])
    for step in steps:
        done = subprocess.run(step, capture_output=True, text=True, check=False)
        if done.returncode:
            lines = [line for line in done.stderr.splitlines() if line.strip() and not line.startswith("WARNING")]
            return f"{name} could not be installed: {lines[-1] if lines else f'status {done.returncode}'}"
    return ""


def version(name: str) -> str:
    python = PEERS / name / "bin" / "python"
    code = f"import importlib.metadata as m; print(m.version({name!r}))"
    done = subprocess.run([str(python), "-c", code], capture_output=True, text=True, check=False)
    return f"{name} {done.stdout.strip()}"


# ---- one turn


class Memory:
    """Peak of the summed resident memory of a process and its descendants."""

    def __init__(self, pid: int) -> None:
        self.peak = 0
        self._root = psutil.Process(pid)
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def _run(self) -> None:
        while not self._over.wait(_SAMPLE_S):
            total = 0
            try:
                for process in [self._root, *self._root.children(recursive=True)]:
                    total += process.memory_info().rss
            except psutil.Error:
                continue
            self.peak = max(self.peak, total)

    def stop(self) -> int:
        self._over.set()
        self._thread.join()
        return self.peak


def turn(tool: Tool, work: Work, seed: int) -> dict[str, Any]:
    """One run of one tool; ``error`` says what went wrong, else the row is whole."""
    with scratch() as directory, TruthServer(core=cores()[1]) as truth:
        words = tool.command(truth.url, work, directory, seed)
        told = tool.stdin(truth.url, work, seed) if tool.stdin else b""
        (directory / "stdin").write_bytes(told)
        started = time.monotonic()
        with (directory / "stdin").open("rb") as stdin, (directory / "out").open("wb") as out:
            with pinned(cores()[0]):
                process = subprocess.Popen(
                    words, stdin=stdin, stdout=out, stderr=(directory / "err").open("wb"), cwd=home(tool, directory),
                    env={**os.environ, "NO_COLOR": "1"},
                )  # fmt: skip
            memory = Memory(process.pid)
            killer = threading.Timer(LIMIT_S, process.kill)
            killer.start()
            _, status, used = os.wait4(process.pid, 0)
            process.returncode = os.waitstatus_to_exitcode(status)
            killer.cancel()
        wall_s, peak = time.monotonic() - started, memory.stop()
        row: dict[str, Any] = {"tool": tool.name, "work": work.name, "rate": work.rate, "seed": seed, "error": ""}
        row |= {"cpu_s": used.ru_utime + used.ru_stime, "wall_s": wall_s, "rss_mb": peak / 1e6}
        log = load_only(truth.log(), TOKENS)
        try:
            reported = tool.read((directory / "out").read_bytes(), directory)
        except (OSError, ValueError, KeyError, StopIteration, TypeError) as error:
            said = [(directory / name).read_text(errors="replace").strip().splitlines()[-2:] for name in ("err", "out")]
            last = [line for lines in said for line in lines]
            return row | {"error": f"status {process.returncode}, {error!r}: {' | '.join(last)}"}
        return row | judged(reported, log, work) | overhead(log, wall_s)


def home(tool: Tool, directory: Path) -> Path:
    """Where it runs: peers may leave files behind."""
    return directory if tool.name in FOREIGN else ROOT


def overhead(log: dict[str, Served], wall_s: float) -> dict[str, float]:
    """Start and report: what is left of the wall time beside the load itself."""
    first, last = min(one.received_ns for one in log.values()), max(int(one.before_ns[-1]) for one in log.values())
    return {"start_and_report_s": wall_s - (last - first) / 1e9}


def judged(reported: Reported, log: dict[str, Served], work: Work) -> dict[str, Any]:
    """The distance of what it reports to the log (us), and how the requests arrived."""
    streams = in_order(log)
    truth = truth_of(streams)
    gap = "tbt" if "tbt" in reported else "tpot"
    row: dict[str, Any] = {"got": len(streams), "gap_metric": "each gap" if gap == "tbt" else "mean of a request"}
    for column, metric in (("ttft", "service_ttft"), ("gap", gap)):
        true = getattr(truth, metric)
        off = {q: abs(reported[metric][f"p{q}"] * 1e3 - quantile(true, q) / 1e3) for q in QUANTILES}
        row |= {f"{column}_p{q}_off_us": round(value, 1) for q, value in off.items()}
    gaps = np.diff([one.received_ns for one in streams]) / 1e9
    test = stats.kstest(gaps, "expon", args=(0, 1 / work.rate))
    late = np.concatenate([one.late_ns for one in streams])
    return row | {
        "ks_d": float(test.statistic),
        "ks_p": float(test.pvalue),
        "server_late_p99_us": quantile(late, 99) / 1e3,
    }


# ---- the table


def medians(rows: Sequence[dict[str, Any]], tool: str, work: str) -> dict[str, float]:
    """Of every number, over the rounds that succeeded."""
    good = [row for row in rows if row["tool"] == tool and row["work"] == work and not row["error"]]
    if not good:
        return {}
    numbers = [key for key, value in good[0].items() if isinstance(value, int | float)]
    return {key: float(np.median([row[key] for row in good])) for key in numbers}


def show(rows: Sequence[dict[str, Any]]) -> None:
    for work in dict.fromkeys(row["work"] for row in rows):
        cells = []
        for tool in dict.fromkeys(row["tool"] for row in rows):
            mine = [row for row in rows if row["tool"] == tool and row["work"] == work]
            m = medians(rows, tool, work)
            if not m:
                cells.append([tool, mine[0]["error"][:60], *[""] * 7])
                continue
            cells.append(
                [
                    tool,
                    "/".join(f"{m[f'ttft_p{q}_off_us']:,.0f}" for q in QUANTILES),
                    "/".join(f"{m[f'gap_p{q}_off_us']:,.0f}" for q in QUANTILES),
                    next(str(row["gap_metric"]) for row in mine if not row["error"]),
                    f"{m['cpu_s']:.1f}",
                    f"{m['rss_mb']:.0f}",
                    f"{m['start_and_report_s']:.1f}",
                    f"{m['ks_d']:.3f} ({m['ks_p']:.2f})",
                    f"{sum(bool(row['error']) for row in mine)} of {len(mine)}",
                ]
            )
        head = [
            "TTFT off us P50/P90/P99",
            "gap off us P50/P90/P99",
            "of",
            "CPU s",
            "RSS MB",
            "start+report s",
            "KS D (p)",
            "failed",
        ]
        print(f"\n{work}: medians of the rounds")
        print_table(["tool", *head], cells)


def targets_of(rows: Sequence[dict[str, Any]], light: Work) -> list[Target]:
    mine = medians(rows, "pdbench", light.name)
    others = [medians(rows, name, light.name) for name in FOREIGN]
    cheapest = min((m["cpu_s"] for m in others if m), default=float("nan"))
    return [
        Target(
            f"CPU of pdbench over that of the cheapest peer, {light.name}",
            1 / 3,
            mine.get("cpu_s", float("nan")) / cheapest,
            "times",
        ),
        Target(f"CPU of pdbench, {light.name}", 3.5, mine.get("cpu_s", float("nan")), "s"),
        Target("start and report of pdbench", 3.0, mine.get("start_and_report_s", float("nan")), "s"),
    ]


def main() -> int:
    parser = arguments(__doc__)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--requests", type=int, default=500, help="at the low rate; twice as many at the high one")
    parser.add_argument("--rates", type=float, nargs=2, default=[25.0, 100.0], metavar=("LOW", "HIGH"))
    parser.add_argument("--tools", nargs="+", choices=[tool.name for tool in TOOLS], default=[t.name for t in TOOLS])
    parser.add_argument("--reinstall", action="store_true")
    options = parser.parse_args()
    if options.reinstall:
        shutil.rmtree(PEERS, ignore_errors=True)
    missing = {name: why for name in FOREIGN if name in options.tools and (why := install(name))}
    for why in missing.values():
        print(why)
    tools = [tool for tool in TOOLS if tool.name in options.tools and tool.name not in missing]
    works = [Work(options.rates[0], options.requests), Work(options.rates[1], 2 * options.requests)]
    versions = [version(tool.name) for tool in tools if tool.name in FOREIGN]
    print(", ".join(versions))
    rows: list[dict[str, Any]] = []
    for seed in range(options.seed, options.seed + options.rounds):
        for work in works:
            # Nobody is always first.
            for tool in tools[seed % len(tools) :] + tools[: seed % len(tools)]:
                row = turn(tool, work, seed)
                rows.append(row)
    show(rows)
    return tell("peers", options, targets_of(rows, works[0]), [*rows, {"versions": versions, "missing": missing}])


if __name__ == "__main__":
    sys.exit(main())
