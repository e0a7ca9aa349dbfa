"""How wrong is the client? pdbench's two clocks and a plain aiohttp client against a server that knows.

    python benchmarks/client.py --rate 100 --requests 500 --tokens 64 --json out.json

All three send the same plan to the same server (``truth_server.py``), one after the other. Reported in
microseconds: dispatch lag (sent - scheduled), the error of every receive stamp (stamp - the server's write
instant), of service TTFT and of TBT (the gap between two stamps against the gap between the two writes), and
the client's CPU seconds. ``--aligned`` makes all streams emit together, as engines that batch decode do.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import math
import random
import subprocess
import sys
import tempfile
import time
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple

import requests

from pdbench.load.job import Job
from pdbench.load.steer import run_load
from pdbench.workload.prompts import PromptMaker

HERE = Path(__file__).resolve().parent
QUANTILES = (50, 90, 99)


class Seen(NamedTuple):
    """One request as a client saw it (CLOCK_MONOTONIC ns)."""

    request_id: str
    scheduled_ns: int
    sent_ns: int
    chunk_ns: list[int]


class Client(NamedTuple):
    name: str
    seen: list[Seen]
    cpu_s: float
    wall_s: float


def percentiles_us(values: list[int]) -> dict[str, float]:
    ranked = sorted(values)
    picks = {f"p{q}": ranked[math.ceil(len(ranked) * q / 100) - 1] / 1e3 for q in QUANTILES}
    return {key: round(value, 1) for key, value in picks.items()}


def make_job(url: str, options: argparse.Namespace, clock: Any, directory: Path) -> Job:
    draw = random.Random(options.seed)
    n, at, due = options.requests, 0.0, []
    for _ in range(n):
        at += draw.expovariate(options.rate)
        due.append(round(at * 1e9))
    return Job(
        base_url=url,
        model="truth-aligned" if options.aligned else "truth",
        clock=clock,
        prompts=PromptMaker(salt=str(options.seed)),
        index=list(range(n)),
        scheduled_ns=due,
        prompt_tokens=[options.prompt] * n,
        output_tokens=[options.tokens] * n,
        warmup=[False] * n,
        journal=str(directory / "journal"),
        run_id=f"bench-{clock}",
    )


def ours(job: Job) -> Client:
    started = time.monotonic()
    outcome = run_load(job)
    wall_s = time.monotonic() - started
    assert outcome.status == "complete"
    assert outcome.facts is not None
    assert {record.status for record in outcome.records} == {"ok"}
    seen = [Seen(r.request_id, r.scheduled_ns, r.sent_ns or 0, r.chunk_ns) for r in outcome.records]
    return Client(f"pdbench, {outcome.clock} clock", seen, outcome.facts.cpu_s, wall_s)


def theirs(job: Job) -> Client:
    """The aiohttp client in a process of its own, so that its CPU can be told apart."""
    started = time.monotonic()
    done = subprocess.run(
        [sys.executable, __file__, "--aiohttp"],
        input=json.dumps(
            {
                "url": f"{job.base_url}{job.endpoint.path}",
                "due": job.scheduled_ns,
                "tokens": job.output_tokens[0],
                "model": job.model,
                "texts": [job.prompts.text(i, n) for i, n in zip(job.index, job.prompt_tokens, strict=True)],
            }
        ),
        capture_output=True,
        text=True,
        check=True,
    )
    answer = json.loads(done.stdout)
    seen = [Seen(*row) for row in answer["seen"]]
    return Client("aiohttp", seen, answer["cpu_s"], time.monotonic() - started)


async def aiohttp_client(asked: dict[str, Any]) -> dict[str, Any]:
    """What a careful person would write: sleep to the instant, post, stamp each event line."""
    import aiohttp

    t0 = time.monotonic_ns() + 200_000_000
    timeout = aiohttp.ClientTimeout(total=120)

    async def one(session: aiohttp.ClientSession, i: int) -> Seen:
        scheduled = t0 + asked["due"][i]
        await asyncio.sleep((scheduled - time.monotonic_ns()) / 1e9)
        body = {"model": asked["model"], "prompt": asked["texts"][i], "max_tokens": asked["tokens"], "stream": True}
        stamps: list[int] = []
        sent = time.monotonic_ns()
        async with session.post(asked["url"], json=body, headers={"X-Request-Id": f"aio-{i}"}) as response:
            async for line in response.content:
                now = time.monotonic_ns()
                if line.startswith(b"data: {") and json.loads(line[6:])["choices"]:
                    stamps.append(now)
        return Seen(f"aio-{i}", scheduled, sent, stamps)

    connector = aiohttp.TCPConnector(limit=0)
    async with aiohttp.ClientSession(connector=connector, timeout=timeout) as session:
        seen = await asyncio.gather(*(one(session, i) for i in range(len(asked["due"]))))
    return {"seen": seen, "cpu_s": time.process_time()}


def judge(client: Client, log: dict[str, dict[str, Any]]) -> dict[str, Any]:
    """Errors against the server's log, microseconds."""
    stamp, ttft, tbt = [], [], []
    for request in client.seen:
        written = log[request.request_id]["write_ns"]
        assert len(written) == len(request.chunk_ns)
        stamp += [a - b for a, b in zip(request.chunk_ns, written, strict=True)]
        ttft.append(request.chunk_ns[0] - written[0])
        gaps = [b - a for a, b in pairwise(request.chunk_ns)]
        tbt += [abs(g - (b - a)) for g, (a, b) in zip(gaps, pairwise(written), strict=True)]
    tokens = sum(len(request.chunk_ns) for request in client.seen)
    return {
        "client": client.name,
        "dispatch_lag_us": percentiles_us([r.sent_ns - r.scheduled_ns for r in client.seen]),
        "receive_error_us": percentiles_us(stamp),
        "ttft_error_us": percentiles_us(ttft),
        "tbt_error_us": percentiles_us(tbt),
        "to_server_us": percentiles_us([log[r.request_id]["received_ns"] - r.sent_ns for r in client.seen]),
        "cpu_s": round(client.cpu_s, 3),
        "cpu_us_per_event": round(client.cpu_s / tokens * 1e6, 1),
        "wall_s": round(client.wall_s, 2),
    }


def show(rows: list[dict[str, Any]]) -> None:
    keys = [key for key in rows[0] if key.endswith("_us")]
    print(f"{'P50 / P90 / P99, us':24}" + "".join(f"{key.removesuffix('_us'):>24}" for key in keys) + f"{'CPU s':>8}")
    for row in rows:
        cells = ["/".join(f"{row[key][f'p{q}']:.0f}" for q in QUANTILES) for key in keys]
        print(f"{row['client']:24}" + "".join(f"{cell:>24}" for cell in cells) + f"{row['cpu_s']:8.2f}")


def bench(options: argparse.Namespace) -> list[dict[str, Any]]:
    rows = []
    with tempfile.TemporaryDirectory() as name:
        directory = Path(name)
        port_file = directory / "port.json"
        with subprocess.Popen(
            [sys.executable, str(HERE / "truth_server.py"), "--port-file", str(port_file)],
            stdin=subprocess.PIPE,
        ):
            while not port_file.exists():
                time.sleep(0.01)
            url = f"http://127.0.0.1:{json.loads(port_file.read_text())['port']}"
            for clock in ("kernel", "user", "aiohttp"):
                requests.get(f"{url}/clear", timeout=10)
                job = make_job(url, options, "user" if clock == "aiohttp" else clock, directory)
                client = theirs(job) if clock == "aiohttp" else ours(job)
                entries = requests.get(f"{url}/log", timeout=30).json()["requests"]
                rows.append(judge(client, {entry["request_id"]: entry for entry in entries}))
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rate", type=float, default=100.0)
    parser.add_argument("--requests", type=int, default=500)
    parser.add_argument("--tokens", type=int, default=64)
    parser.add_argument("--prompt", type=int, default=512)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--aligned", action="store_true")
    parser.add_argument("--json", type=Path)
    parser.add_argument("--aiohttp", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.aiohttp:
        print(json.dumps(asyncio.run(aiohttp_client(json.load(sys.stdin)))))
        return
    rows = bench(options)
    show(rows)
    if options.json:
        options.json.write_text(json.dumps(rows, indent=1) + "\n")


if __name__ == "__main__":
    main()
