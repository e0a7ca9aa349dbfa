"""The summary document: its keys, what it concludes, and the exit code that follows. Pure."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import msgspec

from pdbench.auto import auto_comparisons
from pdbench.errors import EXIT_FAILED, EXIT_INTERRUPTED, EXIT_INVALID, EXIT_OK
from pdbench.measure.slo import Objective
from pdbench.measure.validity import Reason, Validity, of_reasons
from pdbench.sentence import compare_sentence, run_sentence
from pdbench.settings import Settings, workload_data
from pdbench.stats.paired import MARGINS, PRIMARY, comparisons
from pdbench.stats.sequential import Looks
from pdbench.workload.notes import notes_of, planned_prompt_tokens
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
    primary: str = PRIMARY,
    looks: Looks | None = None,
    declared: Document | None = None,
    turns: Sequence[Document] = (),
    edits: Sequence[Document] = (),
) -> Document:
    """The document of a comparison, or (``kind="run"``) of one arm. An INVALID one holds no verdict.

    ``looks``: those of ``--pairs auto``; None where the number of pairs was fixed beforehand. ``edits``: when the rate
    was changed while a run went.
    """
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
        document |= _conclusions(per_pair, base, list(arms), primary, looks, validity)
        if declared:
            document["declared"] = declared
        if turns and validity.valid:
            document["turns"] = list(turns)
        document["sentence"] = compare_sentence(document, rate)
    else:
        document["sentence"] = run_sentence(document, rate)
    if edits:
        document["edits"] = list(edits)
    if told := [*warnings, *map(_edit_line, edits)]:
        document["warnings"] = told
    return document


def _edit_line(edit: Document) -> str:
    to = f"to {edit['rate']:.3g} req/s" if "rate" in edit else f"by a factor of {edit['factor']:.3g}"
    return f"{edit['arm']}, pair {edit['pair'] + 1}: the rate was edited {to}, {edit['at_s']:.1f} s after the start"


def _conclusions(
    per_pair: Mapping[str, Sequence[Document]],
    base: str,
    arms: Sequence[str],
    primary: str,
    looks: Looks | None,
    validity: Validity,
) -> Document:
    """``comparisons``, and ``looks`` where the number of pairs was found by them. No verdict when INVALID."""
    if base not in arms:
        return {"comparisons": []}
    if looks is None:
        found: Document = {"comparisons": comparisons(per_pair, base, arms, primary)}
    else:
        items, said = auto_comparisons(per_pair, base, arms, primary, looks)
        found = {"comparisons": items, "looks": said}
    if not validity.valid:
        found["comparisons"] = [{**item, "verdict": "not resolved"} for item in found["comparisons"]]
        for decided in found.get("looks", {}).get("decided", {}).values():
            decided["status"] = "not resolved"
    return found


def declaration(
    base: str, heads: Sequence[str], settings: Settings, looks: Looks | None, hashes: Sequence[str]
) -> Document:
    """What is fixed before the first run: a rule chosen after seeing the numbers would prove anything."""
    found: Document = {
        "base": base,
        "heads": list(heads),
        "primary": settings.primary,
        "margins": dict(MARGINS),
        "level": 0.95,
        "seed": settings.seed,
        "pairs": settings.pairs if looks is None else "auto",
    }
    if looks is not None:
        found["looks"] = {"pairs": list(looks.pairs), "alphas": [round(alpha, 9) for alpha in looks.alphas]}
        found["budget"] = settings.budget.text if settings.budget else None
    if hashes:
        found["plan_hashes"] = list(hashes)
    return found


def declared_lines(declared: Document) -> list[str]:
    """The declaration in words, for the eyes of who waits."""
    margins = ", ".join(f"{name} {100 * share:g} {_unit(name)}" for name, share in declared["margins"].items())
    pairs = f"{declared['pairs']} pairs"
    if "looks" in declared:
        looks = ", ".join(map(str, declared["looks"]["pairs"]))
        pairs = f"looks after {looks} pairs, budget {declared['budget']}"
    heads = ", ".join(declared["heads"])
    return [
        f"declared: base {declared['base']}, against it {heads}; primary metric {declared['primary']}; {pairs}",
        f"declared: margins {margins}",
    ]


def _unit(metric: str) -> str:
    return "pt" if metric == PRIMARY else "%"


def offered_rate(workload: Workload, plans: Sequence[Plan]) -> float | None:
    """Requests/s: as the workload says, else as its plans measure (sessions take a while to get to their rate); None
    when all are due at once."""
    if workload.arrivals.mean_rate is not None and workload.sessions is None:
        return workload.arrivals.mean_rate
    rates = [plan.rate for plan in plans if math.isfinite(plan.rate)]
    return sum(rates) / len(rates) if rates else None


def manifest(document: Document, plans: Sequence[Plan], settings: Settings, nonce: str, base: str) -> Document:
    """How the run came about: enough to repeat it, and to see why a repetition differs."""
    arms = document["fingerprint"].get("arms", {})
    workload = msgspec.convert(document["workload"], Workload)
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
            "primary": settings.primary,
            "unfair_ok": settings.unfair_ok,
            "budget": settings.budget.text if settings.budget else None,
            "saturate": settings.saturate,
            **({"workers": settings.fleet.document()} if settings.fleet else {}),
        },
        **({"declared": document["declared"]} if "declared" in document else {}),
        **({"edits": document["edits"]} if "edits" in document else {}),
        "fingerprint": document["fingerprint"],
        "plan_hashes": [plan.hash for plan in plans],
        "trace_rows_dropped": sum(plan.dropped for plan in plans),
        "salt_nonce": nonce,
        "planned_prompt_tokens": planned_prompt_tokens(workload),
        "notes": notes_of(workload),
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
