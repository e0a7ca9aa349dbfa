"""``pdbench simulate``: a plan through the reference engine's own scheduler on a virtual clock, without waiting.

The subprocess takes the backend and the plan as JSON and gives stamps back; they become the same records as
those of a real run, marked as simulated wherever they appear, and go through the same metrics. Same seed, same
bytes: nothing here is random, and every stamp counts from the plan's start.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from pdbench import resources
from pdbench.compare import Outcome
from pdbench.document import assemble, exit_code, manifest
from pdbench.errors import PdbenchError, UsageError
from pdbench.live import Progress
from pdbench.measure.metrics import handoff_gap_ms, summarise
from pdbench.measure.records import RequestRecord, to_frames
from pdbench.measure.slo import parse_objectives
from pdbench.measure.validity import judge
from pdbench.serverside import ServerSide, busy_shares, transfers
from pdbench.settings import Settings
from pdbench.store import RunStore, new_run_dir
from pdbench.target.backend import Backend
from pdbench.target.fingerprint import git_sha, machine
from pdbench.workload.plan import Plan, make_plan
from pdbench.workload.spec import Workload

SHOWN_REQUESTS = 1000
"""Up to this many requests are listed one by one in the document."""

_TIMEOUT_S = 3600.0
_SHOWN_STAMPS = (
    "arrive",
    "prefill_start",
    "prefill_end",
    "transfer_start",
    "transfer_end",
    "decode_admit",
)


def simulate(backend: Backend, workload: Workload, settings: Settings, progress: Progress) -> Outcome:
    """Simulate one plan. Raises ``UsageError`` for a backend without a cost model or a plan it cannot take."""
    if backend.engine != "pdserve" or not backend.simulated:
        raise UsageError(
            f"'{backend.name}' has no cost model", where=str(backend.path or backend.name), remedy="add cost_model:"
        )
    if workload.closed:
        raise UsageError(
            f"workload '{workload.name}' is a closed loop: on the virtual clock arrivals must be known beforehand",
            where="--workload",
            remedy="use one with a rate, or --arrivals poisson --rate 2",
        )
    objectives = parse_objectives(workload.slo)
    plan = make_plan(workload, seed=settings.seed, max_model_len=backend.max_model_len)
    run_dir = new_run_dir(settings.out_dir, workload.name, git_sha()[:7] or "nogit", datetime.now(UTC))
    progress.event(f"simulate: workload {workload.name} on {backend.name}, {len(plan)} requests")
    result = call_pdserve(backend, plan)
    records = to_records(result["requests"], plan)
    requests, tokens = to_frames(records, backend.name, 0)
    scheduled = int((~plan.warmup).sum())
    validity = judge(requests, objectives, "kernel", tokens=tokens, scheduled=scheduled)
    entry = summarise(requests, tokens, objectives, backend.devices, simulated=True, validity=validity)
    entry |= _server_figures(backend, result, records)
    if "handoff" in entry:
        entry["handoff"]["gap_ms"] = handoff_gap_ms(requests, tokens)
    document = assemble(
        kind="simulate",
        run=run_dir.name,
        workload=workload,
        objectives=objectives,
        plans=[plan],
        fingerprint={**machine(), "arms": {backend.name: _fingerprint(backend)}},
        validity=validity,
        interrupted=False,
        arms={backend.name: entry},
        per_pair={backend.name: [entry]},
        base=backend.name,
        warnings=[],
    )
    document["simulated"] = True
    if scheduled <= SHOWN_REQUESTS:
        document["requests"] = shown(result["requests"], plan)
    store = RunStore(run_dir)
    store.write_plan(plan)
    store.append_run(requests, tokens)
    store.write_server(result["requests"], result["steps"], arm=backend.name)
    store.seal(manifest(document, [plan], settings, "", backend.name), document)
    return Outcome(document, run_dir, exit_code(document, settings, False))


def call_pdserve(backend: Backend, plan: Plan) -> dict[str, Any]:
    """``python -m pdserve simulate``: versioned JSON in, versioned JSON out."""
    job = {
        "schema_version": 1,
        "backend": backend.data,
        "plan": {
            "scheduled_ns": plan.scheduled_ns.tolist(),
            "prompt_tokens": plan.prompt_tokens.tolist(),
            "output_tokens": plan.output_tokens.tolist(),
        },
    }
    with tempfile.TemporaryDirectory(prefix="pdbench-simulate-") as folder:
        asked, answer = Path(folder) / "job.json", Path(folder) / "result.json"
        asked.write_text(json.dumps(job), encoding="utf-8")
        done = subprocess.run(
            [sys.executable, "-m", "pdserve", "simulate", "--json-in", str(asked), "--out", str(answer)],
            capture_output=True,
            text=True,
            stdin=subprocess.DEVNULL,
            timeout=_TIMEOUT_S,
            env=resources.subprocess_env(),
            check=False,
        )
        if done.returncode != 0:
            said = "\n  ".join(done.stderr.strip().splitlines()[-20:])
            kind = UsageError if done.returncode == 2 else PdbenchError
            raise kind("the simulation failed", where=str(backend.path), remedy=said)
        result = json.loads(answer.read_text(encoding="utf-8"))
    if not isinstance(result, dict) or result.get("schema_version") != 1 or not result.get("simulated"):
        raise PdbenchError("the simulation answered in another version", where=str(backend.path))
    return result


def to_records(rows: Sequence[dict[str, Any]], plan: Plan) -> list[RequestRecord]:
    """Simulated lifecycles as records: a request is sent when it is due, each token is a chunk of its own."""
    return [_record(row, plan) for row in rows]


def _record(row: dict[str, Any], plan: Plan) -> RequestRecord:
    index = int(row["index"])
    stamps = [int(t) for t in row["token_ns"]]
    scheduled = int(plan.scheduled_ns[index])
    return RequestRecord(
        index=index,
        scheduled_ns=scheduled,
        sent_ns=scheduled,
        end_ns=stamps[-1] if stamps else None,
        status="ok" if row["status"] == "ok" else "error",
        error="" if row["status"] == "ok" else str(row["status"]),
        warmup=bool(plan.warmup[index]),
        planned_prompt_tokens=int(plan.prompt_tokens[index]),
        planned_output_tokens=int(plan.output_tokens[index]),
        prompt_tokens=int(plan.prompt_tokens[index]),
        output_tokens=len(stamps),
        chunk_ns=stamps,
        chunk_tokens=[1] * len(stamps),
        token_source="continuous_usage",
        reads=len(stamps),
        max_events_per_read=1,
        request_id=f"sim-{index}",
    )


def _server_figures(backend: Backend, result: dict[str, Any], records: list[RequestRecord]) -> dict[str, Any]:
    ends = [record.end_ns for record in records if record.end_ns is not None and not record.warmup]
    starts = [record.scheduled_ns for record in records if not record.warmup]
    names = [str(worker["device"]) for worker in backend.checked.get("workers", [])]
    state = dict(result["state"])
    state["workers"] = [{**row, "device": names[row["index"]]} for row in state.get("workers", [])]
    side = ServerSide(
        state=state,
        lifecycles=tuple(result["requests"]),
        steps=tuple(result["steps"]),
        window_ns=(min(starts), max(ends)) if ends else (0, 0),
    )
    figures: dict[str, Any] = {}
    if shares := busy_shares([side], [str(name) for name in backend.checked.get("devices", [])]):
        figures["device_busy"] = shares
    if (crossed := transfers([side])) is not None:
        figures["handoff"] = {"transfers": crossed[0], "bytes": crossed[1]}
    return figures


def _fingerprint(backend: Backend) -> dict[str, Any]:
    from pdbench.target import fingerprint

    return {**fingerprint.arm(backend, None, {}), "simulated": True}


def shown(rows: Sequence[dict[str, Any]], plan: Plan) -> list[dict[str, Any]]:
    """The measured requests one by one, in ms from the start of the plan."""
    listed = []
    for row in rows:
        index = int(row["index"])
        if plan.warmup[index]:
            continue
        entry: dict[str, Any] = {
            "index": index,
            "status": row["status"],
            "scheduled_ms": int(plan.scheduled_ns[index]) / 1e6,
            "prompt_tokens": int(plan.prompt_tokens[index]),
            "output_tokens": len(row["token_ns"]),
        }
        for name in _SHOWN_STAMPS:
            if row.get(f"{name}_ns") is not None:
                entry[f"{name}_ms"] = row[f"{name}_ns"] / 1e6
        if row["token_ns"]:
            entry["first_token_ms"] = row["token_ns"][0] / 1e6
            entry["last_token_ms"] = row["token_ns"][-1] / 1e6
        listed.append(entry)
    return listed
