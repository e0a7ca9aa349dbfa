"""``pdbench baseline accept|show``: the one way a stored reference may change, with a reason that is kept.

``results/baselines/<workload>/<fingerprint>.json`` holds the figures of one arm of one run, what they were measured
on, and why they were accepted. A hash over the content refuses a file that was edited by hand; figures of another
schema, plan or fingerprint are refused with the reason. Wall-clock figures are records: a machine is not the one of
last week, so a gate compares two live arms. Only runs on the virtual clock are exact enough to be compared with a file.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import msgspec

from pdbench.errors import UsageError, did_you_mean
from pdbench.measure.validity import Reason
from pdbench.store import Run, write_json
from pdbench.target import fingerprint

Document = dict[str, Any]
SCHEMA_VERSION = 1
FOLDER = Path("results") / "baselines"
_HASH = "sha256"
_FIGURES = (
    "requests", "ttft_ms", "service_ttft_ms", "tpot_ms", "tbt_ms", "worst_gap_ms", "e2e_ms", "attainment", "throughput",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Baseline:
    """A stored baseline whose hash was found right."""

    path: Path
    document: Document

    @property
    def key(self) -> str:
        return str(self.document["key"])


def accept(run: Run, *, reason: str, now: datetime, arm: str | None = None, folder: Path = FOLDER) -> Path:
    """Store one arm of a sealed, VALID run as the baseline of its workload and fingerprint; where it lies.

    Raises ``UsageError`` for an empty reason, a run that is unfinished or INVALID, and an arm it does not have.
    """
    if not reason.strip():
        raise UsageError("a baseline needs a reason", where="--reason", remedy='e.g. --reason "new scheduler, see #12"')
    if run.manifest is None or run.summary is None:
        raise UsageError("the run is unfinished", where=str(run.path), remedy="accept a run that ended")
    if run.summary.get("validity", {}).get("status") != "VALID":
        raise UsageError(
            "the run is INVALID", where=str(run.path), remedy="accept a VALID run: pdbench report RUN says why"
        )
    name = _arm_of(run.summary.get("arms", {}), arm, run.path)
    machine = run.summary.get("fingerprint", {})
    fields = machine.get("arms", {}).get(name, {})
    document: Document = {
        "schema_version": SCHEMA_VERSION,
        "kind": "baseline",
        "workload": run.summary["workload"],
        "arm": name,
        "run": run.path.name,
        "reason": reason.strip(),
        "accepted": now.strftime("%Y-%m-%dT%H:%M:%SZ"),
        "plan_hashes": list(run.manifest.get("plan_hashes", [])),
        "key": fingerprint.key(machine, fields, "model_hash"),
        "fingerprint": {**{k: v for k, v in machine.items() if k != "arms"}, "arm": fields},
        "figures": {key: value for key, value in run.summary["arms"][name].items() if key in _FIGURES},
    }
    document[_HASH] = digest(document)
    path = folder / str(document["workload"]["name"]) / f"{document['key']}.json"
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_json(path, document)
    except OSError as error:
        raise UsageError(f"cannot write: {error.strerror}", where=str(path)) from error
    return path


def _arm_of(arms: Document, asked: str | None, path: Path) -> str:
    if asked is not None and asked not in arms:
        raise UsageError(f"the run has no arm '{asked}'", where="--arm", remedy=did_you_mean(asked, list(arms)))
    if asked is None and len(arms) != 1:
        raise UsageError("the run has several arms", where=str(path), remedy=f"choose with --arm: {', '.join(arms)}")
    return asked or next(iter(arms))


def digest(document: Document) -> str:
    """SHA-256 of the content in one canonical form; the hash's own key is left out."""
    plain = msgspec.json.decode(msgspec.json.encode({k: v for k, v in document.items() if k != _HASH}))
    return hashlib.sha256(msgspec.json.encode(plain, order="sorted")).hexdigest()


def load(path: Path) -> Baseline:
    """Read and check one file. Raises ``UsageError``: absent, edited by hand, or of another version."""
    again = "accept a run again: pdbench baseline accept RUN --reason TEXT"
    try:
        found = msgspec.json.decode(path.read_bytes())
    except OSError as error:
        raise UsageError(f"no baseline: {error.strerror}", where=str(path), remedy=again) from None
    except msgspec.DecodeError as error:
        raise UsageError(f"is not JSON: {error}", where=str(path), remedy=again) from None
    if not isinstance(found, dict) or found.get("kind") != "baseline":
        raise UsageError("is not a baseline", where=str(path), remedy=again)
    if found.get("schema_version") != SCHEMA_VERSION:
        what = f"its schema_version is {found.get('schema_version')}, expected {SCHEMA_VERSION}"
        raise UsageError(what, where=str(path), remedy=again)
    if found.get(_HASH) != digest(found):
        what = "was edited by hand: its content does not match its hash"
        raise UsageError(what, where=str(path), remedy=f"restore it from version control, or {again}")
    return Baseline(path, found)


def stored(folder: Path = FOLDER, workload: str | None = None) -> list[Path]:
    """Paths of all baselines, or of one workload's, sorted."""
    return sorted(folder.glob(f"{workload or '*'}/*.json"))


def comparable(base: Baseline, *, plan_hashes: Sequence[str], key: str) -> list[Reason]:
    """Why runs of these plans on a system of this key must not be compared with the baseline; empty when they may.

    The seam for gates on the virtual clock (tier 0): INVALID with these reasons.
    """
    found = []
    if key != base.key:
        message = f"the baseline belongs to another machine, device or model ({base.key}, here {key})"
        found.append(Reason(message, "compare on the same machine and model, or accept a baseline here"))
    known = list(base.document["plan_hashes"])
    if list(plan_hashes) != known[: len(plan_hashes)] or not plan_hashes:
        message = "the baseline was measured under other plans"
        found.append(Reason(message, "use its workload and --seed, or accept a run of the new workload"))
    return found
