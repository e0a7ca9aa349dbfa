"""The load generators that are compared with pdbench: how each is installed, called and read.

A peer lives in an environment of its own under benchmarks/.peers/ (ignored by git) and is driven by its own command
line; only what it reports itself is read.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec
import numpy as np

from benchmarks.common import ROOT, make_job, plain_words, poisson_ns, told_plain
from benchmarks.judge import QUANTILES, Seen, quantile
from benchmarks.runs import command as pdbench_command
from benchmarks.runs import write_workload

PEERS = ROOT / "benchmarks" / ".peers"
TOKENS = PROMPT = 64
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


def plain_stdin(url: str, work: Work, seed: int) -> bytes:
    due_ns = poisson_ns(work.requests, work.rate, seed)
    return told_plain(make_job(url, due_ns, tokens=TOKENS, journal=Path("none"), prompt=PROMPT, run_id="plain"))


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
    Tool("plain aiohttp", lambda *_: plain_words(), plain_report, plain_stdin),
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
