"""The summary document: its keys, what it concludes, and the exit code that follows. Pure."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from pdbench.errors import EXIT_FAILED, EXIT_INTERRUPTED, EXIT_INVALID, EXIT_OK
from pdbench.measure.slo import Objective
from pdbench.measure.validity import Reason, Validity, of_reasons
from pdbench.sentence import compare_sentence, run_sentence
from pdbench.settings import Settings, workload_data
from pdbench.stats.paired import comparisons
from pdbench.workload.plan import Plan
from pdbench.workload.spec import Workload

SCHEMA_VERSION = 1
Document = dict[str, Any]


def assemble(
    *,
    kind: str,
    run: str,
    workload: Workload,
    objectives: Sequence[Objective],
    plans: Sequence[Plan],
    fingerprint: Document,
    validity: Validity,
    interrupted: bool,
    arms: Mapping[str, Document],
    per_pair: Mapping[str, Sequence[Document]],
    base: str,
    warnings: Sequence[str],
) -> Document:
    """The document of a comparison, or (``kind="run"``) of one arm. An INVALID one holds no verdict."""
    if interrupted and validity.valid:
        validity = of_reasons([Reason("the run was interrupted", "run it to its end, or ask for fewer pairs")])
    document: Document = {
        "schema_version": SCHEMA_VERSION,
        "kind": kind,
        "run": run,
        "workload": workload_data(workload),
        "slo": [objective.text for objective in objectives],
        "pairs": min(len(runs) for runs in per_pair.values()),
        "fingerprint": fingerprint,
        "validity": validity.document(),
        "arms": dict(arms),
    }
    rate = offered_rate(workload, plans)
    if kind == "compare":
        found = comparisons(per_pair, base, list(arms)) if base in arms else []
        if not validity.valid:
            found = [{**item, "verdict": "not resolved"} for item in found]
        document["comparisons"] = found
        document["sentence"] = compare_sentence(document, rate)
    else:
        document["sentence"] = run_sentence(document, rate)
    if warnings:
        document["warnings"] = list(warnings)
    return document


def offered_rate(workload: Workload, plans: Sequence[Plan]) -> float | None:
    """Requests/s: as the workload says, else as its plans measure; None when all are due at once."""
    if workload.arrivals.rate is not None:
        return workload.arrivals.rate
    rates = [plan.rate for plan in plans if math.isfinite(plan.rate)]
    return sum(rates) / len(rates) if rates else None


def manifest(document: Document, plans: Sequence[Plan], settings: Settings, nonce: str, base: str) -> Document:
    """How the run came about: enough to repeat it, and to see why a repetition differs."""
    arms = document["fingerprint"].get("arms", {})
    return {
        "schema_version": SCHEMA_VERSION,
        "kind": document["kind"],
        "run": document["run"],
        "argv": list(settings.argv),
        "config": {
            "workload": document["workload"],
            "pairs": settings.pairs,
            "seed": settings.seed,
            "clock": settings.clock,
            "max_concurrency": settings.max_concurrency,
            "drain_timeout_s": settings.drain_timeout_s,
            "request_timeout_s": settings.request_timeout_s,
            "base": base,
        },
        "fingerprint": document["fingerprint"],
        "plan_hashes": [plan.hash for plan in plans],
        "trace_rows_dropped": sum(plan.dropped for plan in plans),
        "salt_nonce": nonce,
        "prompt_token_source": {name: fields.get("prompt_token_source") for name, fields in arms.items()},
        "validity": document["validity"],
    }


def exit_code(document: Document, settings: Settings, interrupted: bool) -> int:
    """0 whatever the outcome, unless it was interrupted, is INVALID, or ``--fail-on`` asks for more."""
    if interrupted:
        return EXIT_INTERRUPTED
    if document["validity"]["status"] != "VALID":
        return EXIT_INVALID
    missed = any(not met for arm in document["arms"].values() for met in arm.get("slo_met", {}).values())
    worse = any(item["verdict"] == "worse" for item in document.get("comparisons", []) if item["primary"])
    if ("slo" in settings.fail_on and missed) or ("worse" in settings.fail_on and worse):
        return EXIT_FAILED
    return EXIT_OK
