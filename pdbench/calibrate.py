"""``pdbench gate --calibrate``: the same backend as base and head, to learn what this machine can tell apart.

On a small shared machine a run differs from its twin by 25 %; whoever gates there for 5 % waits for luck. So the noise
is measured first: the pair SD of each metric, what 6, 10 and 16 pairs can see of it, and how far the calibration probe
moves inside a pair when nothing is wrong. The file is kept per machine, ``results/calibration/<fingerprint>.json``;
later gates on that machine read the probe's part from it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import msgspec

from pdbench.document import SCHEMA_VERSION, manifest
from pdbench.errors import EXIT_INTERRUPTED, EXIT_INVALID, EXIT_OK, Interrupted, UsageError
from pdbench.live import Progress
from pdbench.measure.validity import Reason
from pdbench.pairs import Both, run_pair, take_pair
from pdbench.settings import Settings, workload_data
from pdbench.stage import Stage
from pdbench.stats.gate import entries
from pdbench.stats.noise import LEAST_PAIRS, pair_noise, probe_noise
from pdbench.store import write_json
from pdbench.target import fingerprint
from pdbench.target.backend import Backend
from pdbench.workload.spec import Workload

Document = dict[str, Any]
DEFAULT_PAIRS = 10
_ANY_PROBE = 1e9
"""A relative SD under which no probe is ever at fault: while its noise is measured it is not judged."""


@dataclass(frozen=True, slots=True)
class Outcome:
    document: Document
    run_dir: Path
    path: Path | None
    exit_code: int


def calibrate(
    backend: Backend,
    workload: Workload,
    settings: Settings,
    progress: Progress,
    *,
    pairs: int = DEFAULT_PAIRS,
    redo: int = 1,
) -> Outcome:
    """Run A/A pairs and store what they show. Raises ``UsageError`` and ``BackendStartError``.

    A pair whose measurement went wrong is run again ``redo`` times at most, then left out; fewer than four good ones
    make the calibration INVALID, and nothing is stored.
    """
    if pairs < LEAST_PAIRS:
        what = f"{pairs} pairs do not show a spread"
        raise UsageError(
            what, where="--max-pairs", remedy=f"give {LEAST_PAIRS} or more; {DEFAULT_PAIRS} is the default"
        )
    twins = [replace(backend, name=f"{backend.name}-{role}") for role in ("base", "head")]
    with Stage("calibrate", twins, workload, settings, progress) as stage:
        stage.start()
        good, bad = _take(stage, pairs, redo, progress.event)
        stopped = stage.stop.requested
        if stopped and not stage.results:
            raise Interrupted("interrupted before the first run began")
        document = _document(stage, backend, good, bad, interrupted=stopped)
        plans = list(stage.plans.values())
        stage.seal(manifest({**document, "kind": "gate"}, plans, stage.settings, stage.nonce, twins[0].name), document)
        if document["validity"]["status"] == "INVALID":
            return Outcome(document, stage.run_dir, None, EXIT_INTERRUPTED if stopped else EXIT_INVALID)
        path = path_of(settings.out_dir, str(document["key"]))
        path.parent.mkdir(parents=True, exist_ok=True)
        write_json(path, document)
        return Outcome(document, stage.run_dir, path, EXIT_OK)


def _take(
    stage: Stage, pairs: int, redo: int, say: Callable[[str], None]
) -> tuple[list[Both], list[tuple[int, list[Reason]]]]:
    """Good pairs, and those whose measurement went wrong with their reasons."""
    kernels = dict.fromkeys(("gemm", "copy", "transfer"), _ANY_PROBE)
    good: list[Both] = []
    bad: list[tuple[int, list[Reason]]] = []
    try:
        number = 0
        for pair in range(pairs):
            taken = take_pair(
                lambda at, turn: run_pair(stage, at, turn), number, pair, stage.objectives, kernels, redo=redo
            )
            number = taken.next_number
            bad += [(tried, list(why)) for tried, why in taken.set_aside]
            if taken.reasons:
                bad.append((taken.both[0].pair, list(taken.reasons)))
                say(f"pair {pair + 1}/{pairs} left out: {taken.reasons[0].message}")
            else:
                good.append(taken.both)
                say(f"pair {pair + 1}/{pairs} done")
    except Interrupted:
        pass
    return good, bad


def _document(
    stage: Stage, backend: Backend, good: list[Both], bad: list[tuple[int, list[Reason]]], *, interrupted: bool
) -> Document:
    base, head = [one for one, _ in good], [other for _, other in good]
    reasons = [Reason("the calibration was interrupted", "run it to its end")] if interrupted else []
    if not reasons and len(good) < LEAST_PAIRS:
        remedies = sorted({reason.remedy for _, why in bad for reason in why})
        reasons = [Reason(f"only {len(good)} pairs were measured well", "; ".join(remedies))]
    enough = len(good) >= LEAST_PAIRS
    fields = stage.fingerprint()
    return {
        "schema_version": SCHEMA_VERSION,
        "kind": "calibration",
        "run": stage.run_dir.name,
        "key": key_of(backend),
        "made": datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
        "backend": backend.name,
        "workload": workload_data(stage.workload),
        "pairs": len(good),
        "left_out": [{"pair": pair, "reasons": [r.message for r in why]} for pair, why in bad],
        "metrics": pair_noise(entries(base, stage.objectives), entries(head, stage.objectives)) if enough else {},
        "probe_sd": probe_noise(base, head),
        "validity": {
            "status": "INVALID" if reasons else "VALID",
            "reasons": [{"message": r.message, "remedy": r.remedy} for r in reasons],
        },
        "fingerprint": fields,
    }


# ---- stored calibrations


def key_of(backend: Backend) -> str:
    """What a calibration belongs to: the machine, and the devices and number format of the backend."""
    return fingerprint.key(fingerprint.machine(), fingerprint.arm(backend, None, {}))


def path_of(out_dir: Path, key: str) -> Path:
    return out_dir / "calibration" / f"{key}.json"


def load(out_dir: Path, backend: Backend) -> Document | None:
    """The calibration of this machine for this kind of backend, or ``None``. Raises ``UsageError`` for a file that
    cannot be used."""
    path = path_of(out_dir, key_of(backend))
    if not path.is_file():
        return None
    remedy = "remove it, or calibrate again: pdbench gate --calibrate"
    try:
        found = msgspec.json.decode(path.read_bytes())
    except (OSError, msgspec.DecodeError) as error:
        raise UsageError(f"cannot be read: {error}", where=str(path), remedy=remedy) from None
    if not isinstance(found, dict) or found.get("schema_version") != SCHEMA_VERSION or "probe_sd" not in found:
        raise UsageError("is not a calibration of this version of pdbench", where=str(path), remedy=remedy)
    return found
