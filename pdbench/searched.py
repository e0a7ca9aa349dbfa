"""The document of a search: goodput by arm and by device, every run behind it, ratios, and the sentence. Pure.

Intervals are those of ``stats.goodput``: a bootstrap over seeds. The ratio of two arms is taken on the seeds both
ran, so that an easy or a hard plan cancels; with several heads their levels share the 5 % (Bonferroni).
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from pdbench.errors import EXIT_INTERRUPTED, EXIT_INVALID, EXIT_OK
from pdbench.measure.slo import parse_objectives
from pdbench.measure.validity import Reason, Validity, of_reasons
from pdbench.seeker import Trial, rounded
from pdbench.sentence import first_reason, percent
from pdbench.settings import workload_data
from pdbench.stats.goodput import Goodput, fit_goodput, goodput_ratio, same_rate
from pdbench.units import NS_PER_S
from pdbench.workload.spec import Workload

Document = dict[str, Any]
Trials = Sequence[Trial]

SCHEMA_VERSION = 1
_ALPHA = 0.05
# Offered 10 % more than a server carries, its queue is as long as the TTFT limit after ten such limits.
_SUSTAINED = 10
_OPEN = "not resolved"


def assemble(
    *,
    run: str,
    workload: Workload,
    slo: Sequence[str],
    asked: Document,
    spent_s: float,
    fingerprint: Document,
    devices: Mapping[str, int],
    trials: Mapping[str, Trials],
    stops: Mapping[str, str],
    base: str,
    interrupted: bool,
    warnings: Sequence[str],
) -> Document:
    """The whole document but its ``surface``, which needs the stored records."""
    share, certify = float(asked["share"]), bool(asked["certify"])
    arms = {name: _arm(runs, devices[name], stops[name], share=share, certify=certify) for name, runs in trials.items()}
    document: Document = {
        "schema_version": SCHEMA_VERSION,
        "kind": "search",
        "run": run,
        "workload": workload_data(workload),
        "slo": list(slo),
        **asked,
        "spent": {"runs": sum(len(runs) for runs in trials.values()), "seconds": round(spent_s, 3)},
        "fingerprint": fingerprint,
        "validity": _validity(trials, interrupted).document(),
        "base": base,
        "arms": arms,
        "ratios": ratios(trials, devices, base, share=share),
    }
    told = [*warnings, *_left_out(trials), *_bursts(arms, workload.num_requests, slo)]
    if workload.arrivals.process == "trace":
        told.append("every seed replays one trace: intervals cover this machine's noise, not other traffic")
    if told:
        document["warnings"] = told
    document["sentence"] = sentence(document)
    return document


def exit_code(document: Document, interrupted: bool) -> int:
    """0 whatever the outcome, unless it was interrupted or is INVALID."""
    if interrupted:
        return EXIT_INTERRUPTED
    return EXIT_OK if document["validity"]["status"] == "VALID" else EXIT_INVALID


def ratios(trials: Mapping[str, Trials], devices: Mapping[str, int], base: str, *, share: float) -> list[Document]:
    """Goodput per device of every other arm over the base's. An entry without a ratio says why (``reason``)."""
    heads = [name for name in trials if name != base]
    level = 1 - _ALPHA / max(1, len(heads))
    found = []
    for head in heads:
        entry: Document = {"base": base, "head": head, "per_device": True, "level": round(level, 6)}
        ours, theirs = ([t.rate_run for t in trials[name] if t.used] for name in (base, head))
        try:
            one = goodput_ratio(
                ours, theirs, base_devices=devices[base], head_devices=devices[head], share=share, level=level
            )
        except ValueError:
            found.append({**entry, **dict.fromkeys(("ratio", "interval", "effect")), "seeds": 0, "verdict": _OPEN})
            continue
        interval = None if one.low is None and one.high is None else [rounded(one.low), rounded(one.high)]
        found.append(
            {
                **entry, "ratio": rounded(one.ratio), "interval": interval, "effect": rounded(one.effect),
                "seeds": one.seeds, "verdict": _verdict(one.low, one.high),
            }
        )  # fmt: skip
    return found


def shared_rate(trials: Sequence[Trials], start_rate: float, share: float) -> tuple[float, list[int]] | None:
    """The rate nearest the arms' crossings (their geometric mean) at which all have used runs of the same plans,
    and those plans' numbers; ``None`` where there is none."""
    common = set.intersection(*[{t.pair for t in runs if t.used} for runs in trials]) if trials else set()
    if not common:
        return None
    rates: dict[float, list[int]] = {}
    for trial in trials[0]:
        if trial.pair in common:
            rates.setdefault(same_rate(trial.rate), []).append(trial.pair)
    known = [fit_goodput([t.rate_run for t in runs if t.used], share=share).rate for runs in trials]
    middle = sum(math.log(rate) for rate in known) / len(known) if known else math.log(start_rate)
    best = min(rates, key=lambda rate: (round(abs(math.log(rate) - middle), 6), -len(rates[rate])))
    return best, sorted(rates[best])


def sentence(document: Document) -> str:
    """Who carries how much, and by how much more, from the document's numbers alone."""
    if document["validity"]["status"] != "VALID":
        return f"No verdict: the search is INVALID ({first_reason(document['validity'])})."
    carried = ", ".join(f"{name} {_carries(arm)}" for name, arm in document["arms"].items())
    text = f"Within the SLO for {percent(document['share'])} of the requests, in req/s per device: {carried}"
    clauses = [_ratio_clause(item) for item in document["ratios"]]
    return "; ".join([text, *clauses]) + "."


def _arm(runs: Trials, devices: int, stop: str, *, share: float, certify: bool) -> Document:
    used = [trial.rate_run for trial in runs if trial.used]
    found = fit_goodput(used, share=share, certify=certify) if used else None
    return {
        "devices": devices,
        "goodput": _goodput(found, devices) if found else None,
        "stop": stop,
        "used": len(used),
        "left_out": len(runs) - len(used),
        "runs": [trial.document() for trial in runs],
    }


def _goodput(found: Goodput, devices: int) -> Document:
    whole: Document = found.document()
    whole |= {key: rounded(value) for key, value in whole.items() if isinstance(value, float)}
    whole["interval"] = [rounded(end) for end in whole["interval"]]
    per = {key: None if whole[key] is None else rounded(whole[key] / devices) for key in ("rate", "claimed")}
    ends = [None if end is None else rounded(end / devices) for end in whole["interval"]]
    return {**whole, "per_device": {**per, "interval": ends}}


def _validity(trials: Mapping[str, Trials], interrupted: bool) -> Validity:
    reasons = []
    if interrupted:
        reasons.append(Reason("the search was interrupted", "run it to its end, or give a smaller budget"))
    for name, runs in trials.items():
        if any(trial.used for trial in runs):
            continue
        bad = [reason for trial in runs for reason in trial.validity.reasons]
        why = f": {bad[0].message}" if bad else ""
        reasons.append(Reason(f"{name} has no VALID run{why}", bad[0].remedy if bad else "give a larger budget"))
    return of_reasons(reasons)


def _left_out(trials: Mapping[str, Trials]) -> list[str]:
    found = []
    for name, runs in trials.items():
        bad = [trial for trial in runs if not trial.used]
        if bad and bad[0].validity.reasons:
            first = bad[0].validity.reasons[0].message
            found.append(f"{name}: {len(bad)} of {len(runs)} runs are INVALID and left out (the first: {first})")
    return found


def _bursts(arms: Mapping[str, Document], requests: int, slo: Sequence[str]) -> list[str]:
    """A run that is over within a few TTFT limits has no time to queue up: its rate was never sustained."""
    limits = [one.limit_ns for one in parse_objectives(slo) if one.metric == "ttft" and one.limit_ns]
    found = []
    for name, arm in arms.items():
        rate = arm["goodput"] and arm["goodput"]["rate"]
        if rate and limits and requests / rate < _SUSTAINED * min(limits) / NS_PER_S:
            found.append(
                f"{name}: at {rate:.3g} req/s a run of {requests} requests lasts {requests / rate:.2g} s, less than"
                f" {_SUSTAINED} TTFT limits: a burst, not a rate it sustains; raise --num-requests"
            )
    return found


def _verdict(low: float | None, high: float | None) -> str:
    """By the interval of the ratio head / base: more goodput is better."""
    if low is not None and low > 1:
        return "better"
    return "worse" if high is not None and high < 1 else _OPEN


def _carries(arm: Document) -> str:
    found = arm["goodput"]
    per = found["per_device"]
    if found["certified"]:
        return "nothing certified" if per["claimed"] is None else f"at least {per['claimed']:.3g}"
    if found["where"] != "resolved":
        return f"{'more' if found['where'] == 'above' else 'less'} than {per['rate']:.3g}"
    low, high = per["interval"]
    if low is None and high is None:
        return f"{per['rate']:.3g} (interval not resolved)"
    return f"{per['rate']:.3g} ({_end(low, 'less')} to {_end(high, 'more')})"


def _ratio_clause(item: Document) -> str:
    base, head, ratio = item["base"], item["head"], item["ratio"]
    if ratio is None:
        return f"how {head} compares to {base} is not resolved"
    low, high = item["interval"] or (None, None)
    between = f"{_end(low, 'less')} to {_end(high, 'more')} times" if item["interval"] else "no interval yet"
    if item["verdict"] == _OPEN:
        return f"whether {head} carries more than {base} is not resolved ({ratio:.3g} times; {between})"
    more = "more" if item["verdict"] == "better" else "less"
    return f"{head} carries {more} than {base}: {ratio:.3g} times as much ({between})"


def _end(value: float | None, word: str) -> str:
    return word if value is None else f"{value:.3g}"
