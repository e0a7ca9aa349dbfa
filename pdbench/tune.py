"""``pdbench tune BACKEND``: which token budget and batch caps suit a workload, measured on the real engine.

A chunked baseline with an arbitrary budget flatters whatever it is compared to, so it is tuned before it is
compared. Each candidate is the backend with other numbers, run under the same plans in turn. The seed is the
sweep's own: tuning on the plans of the test would fit them, not the workload.

The rule: the highest joint attainment; among candidates within one request of it, the lowest P90 TTFT.

    pdbench tune colocated-chunked --workload chat --budgets 64,128,256 -o mine.yaml
"""

from __future__ import annotations

import itertools
import math
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import yaml

from pdbench import __version__
from pdbench.compare import Outcome
from pdbench.document import manifest
from pdbench.errors import Interrupted, UsageError
from pdbench.live import Progress
from pdbench.measure.metrics import summarise
from pdbench.measure.validity import Reason, of_reasons
from pdbench.order import order_of
from pdbench.search import at_rate, check_workload, drain_s, own_rate, trial_of
from pdbench.searched import exit_code
from pdbench.seeker import Trial
from pdbench.sentence import first_reason, percent
from pdbench.settings import Settings, workload_data
from pdbench.stage import Stage
from pdbench.summary import pooled
from pdbench.target.arm import Arm
from pdbench.target.backend import Backend, load_backend
from pdbench.tuned import changed, rewritten
from pdbench.workload.plan import make_plan
from pdbench.workload.spec import Workload

Document = dict[str, Any]
Values = dict[str, int]

RULE = "highest joint attainment; within one request of it, the lowest P90 TTFT; then what the file had"
_BUDGETS = (32, 64, 128, 256)
_PREFILLS = (512, 1024, 2048, 4096)
# What an engine takes where the file says nothing (docs/files.md).
_DEFAULTS = {"token_budget": 256, "max_batch": 32, "max_batch_tokens": 2048}
_MOST = 24
# More candidates than this are started for their runs only: idle engines hold memory.
_RESIDENT = 4
_ATTEMPTS = 2


@dataclass(frozen=True, slots=True)
class Sweep:
    """What to try; ``None``: the usual values. ``max_batch``: by role, none by default. ``rates``: requests/s, none:
    the workload's. ``runs``: plans at each rate."""

    budgets: tuple[int, ...] | None = None
    prefills: tuple[int, ...] | None = None
    max_batch: Mapping[str, tuple[int, ...]] = field(default_factory=dict)
    rates: tuple[float, ...] = ()
    runs: int = 2


@dataclass(frozen=True, slots=True)
class Axis:
    """One number that is swept: the key, in which workers, the option that named its values."""

    label: str
    key: str
    places: tuple[int, ...]
    values: tuple[int, ...]
    option: str
    current: int


@dataclass(frozen=True, slots=True)
class Score:
    """What a candidate reached over its VALID runs. ``ttft_p90_ms``: ``None`` is +inf."""

    values: Values
    requests: int
    joint: float | None
    ttft_p90_ms: float | None
    used: int


def tune(
    backend: Backend, workload: Workload, sweep: Sweep, settings: Settings, progress: Progress, *, output: Path
) -> Outcome:
    """Run the sweep and write ``output``. Raises ``UsageError`` before anything starts, and
    ``BackendStartError``. Where nothing VALID was measured, or it was interrupted, no file is written."""
    objectives = check_workload(workload)
    rates = sweep.rates or (own_rate(workload, settings),)
    plans = [make_plan(at_rate(workload, rate), seed=settings.seed) for rate in rates]
    axes = axes_of(backend, sweep)
    longest = max(int(plan.output_tokens.max()) for plan in plans)
    settings = replace(settings, drain_timeout_s=drain_s(objectives, longest, settings))
    with tempfile.TemporaryDirectory(prefix="pdbench-tune-") as folder:
        candidates = candidates_of(backend, axes, Path(folder))
        with Stage("tune", [one for one, _ in candidates], workload, settings, progress) as stage:
            stage.resident = stage.resident and len(candidates) <= _RESIDENT
            stage.start()
            work = _Sweep(stage, rates, sweep.runs)
            interrupted = False
            try:
                work.go()
            except Interrupted:
                interrupted = True
            values = {arm.name: found for arm, (_, found) in zip(stage.arms, candidates, strict=True)}
            return work.conclude(backend, axes, values, output, interrupted=interrupted or stage.stop.requested)


class _Sweep:
    """Every candidate under the same plans, in turn."""

    def __init__(self, stage: Stage, rates: Sequence[float], runs: int) -> None:
        self.stage, self.rates, self.runs = stage, rates, runs
        self.trials: dict[str, list[Trial]] = {arm.name: [] for arm in stage.arms}

    def go(self) -> None:
        """All runs; an INVALID one is offered once more. Raises ``Interrupted``."""
        stage, pairs = self.stage, len(self.rates) * self.runs
        stage.with_settings(pairs=pairs)
        for turn, (draw, rate) in enumerate(itertools.product(range(self.runs), self.rates)):
            for place in order_of(len(stage.arms), turn):
                arm = stage.arms[place]
                for attempt in range(_ATTEMPTS):
                    if self._run(arm, rate, draw, number=turn + attempt * pairs).used:
                        break

    def _run(self, arm: Arm, rate: float, draw: int, *, number: int) -> Trial:
        stage = self.stage
        load = at_rate(stage.workload, rate)
        plan = stage.plans.get(number) or stage.plan(draw, workload=load, number=number)
        before_s = time.monotonic()
        result = stage.run(arm, plan, number, workload=load)
        trial = trial_of(result, arm, stage, rate=rate, seed=draw, seconds=time.monotonic() - before_s)
        self.trials[arm.name].append(trial)
        what = f"{percent(trial.joint)} in time" if trial.used else f"INVALID: {trial.validity.reasons[0].message}"
        stage.progress.event(f"{arm.name} at {rate:.3g} req/s, seed {draw}: {what}")
        return trial

    def score(self, arm: Arm, values: Values) -> Score:
        """Pooled over the candidate's VALID runs."""
        used = {trial.pair for trial in self.trials[arm.name] if trial.used}
        results = [result for result in self.stage.of(arm) if result.pair in used]
        if not results:
            return Score(values, 0, None, None, 0)
        entry = summarise(*pooled(results), self.stage.objectives, arm.backend.devices)
        ttft = entry.get("ttft_ms", {}).get("p90")
        return Score(values, entry["requests"]["scheduled"], entry["attainment"]["joint"], ttft, len(results))

    def conclude(
        self, backend: Backend, axes: Sequence[Axis], values: Mapping[str, Values], output: Path, *, interrupted: bool
    ) -> Outcome:
        """Choose, write the file, and seal what was measured."""
        stage = self.stage
        if not stage.results:
            raise Interrupted("interrupted before the first run ended")
        scores = {arm.name: self.score(arm, values[arm.name]) for arm in stage.arms}
        current = {axis.label: axis.current for axis in axes}
        best = None if interrupted else choose(scores, current)
        document = self._document(backend, scores, current, best, interrupted=interrupted)
        if best is not None:
            places = {(place, axis.key): scores[best].values[axis.label] for axis in axes for place in axis.places}
            text, kept = rewritten(_text(backend), places, note_of(document))
            output.write_text(text, encoding="utf-8")
            document |= {"file": str(output), "comments_kept": kept}
        document["sentence"] = sentence(document)
        stage.seal(manifest(document, list(stage.plans.values()), stage.settings, stage.nonce, backend.name), document)
        return Outcome(document, stage.run_dir, exit_code(document, interrupted))

    def _document(
        self, backend: Backend, scores: Mapping[str, Score], current: Values, best: str | None, *, interrupted: bool
    ) -> Document:
        stage, reasons = self.stage, []
        if interrupted:
            reasons.append(Reason("the sweep was interrupted", "run it to its end, or with fewer values"))
        elif best is None:
            bad = [r for runs in self.trials.values() for trial in runs for r in trial.validity.reasons]
            reasons.append(Reason(f"no candidate has a VALID run: {bad[0].message}", bad[0].remedy))
        return {
            "schema_version": 1,
            "kind": "tune",
            "run": stage.run_dir.name,
            "backend": backend.name,
            "workload": workload_data(stage.workload),
            "slo": [objective.text for objective in stage.objectives],
            "rates": list(self.rates),
            "seed": stage.settings.seed,
            "fingerprint": stage.fingerprint(),
            "validity": of_reasons(reasons).document(),
            "rule": RULE,
            "current": current,
            "arms": {name: self._entry(name, score, chosen=name == best) for name, score in scores.items()},
            "chosen": scores[best].values if best is not None else None,
            "file": None,
            "comments_kept": None,
        }

    def _entry(self, name: str, score: Score, *, chosen: bool) -> Document:
        runs = self.trials[name]
        joint = None if score.joint is None else round(score.joint, 6)
        return {
            "values": score.values, "requests": score.requests, "joint": joint, "ttft_p90_ms": score.ttft_p90_ms,
            "used": score.used, "left_out": len(runs) - score.used, "chosen": chosen,
            "runs": [trial.document() for trial in runs],
        }  # fmt: skip


# ---- what is tried


def axes_of(backend: Backend, sweep: Sweep) -> list[Axis]:
    """The numbers to sweep in this backend. Raises ``UsageError`` where an option has no worker to act on, and
    where nothing is left to sweep."""
    if backend.engine != "pdserve" or backend.path is None:
        raise UsageError(
            f"'{backend.name}' is not a pdserve backend: its knobs are its own",
            remedy="name a backend YAML of pdserve; pdbench backends list shows some",
        )
    workers: list[Mapping[str, Any]] = list(backend.checked["workers"])
    chunked = [i for i, worker in enumerate(workers) if worker["policy"] == "chunked"]
    whole = [i for i, worker in enumerate(workers) if worker["policy"] in ("prefill_only", "prefill_first")]
    axes = [
        _axis(backend, "token_budget", chunked, sweep.budgets, _BUDGETS, "--budgets"),
        _axis(backend, "max_batch_tokens", whole, sweep.prefills, _PREFILLS, "--max-batch-tokens"),
    ]
    for role, values in sweep.max_batch.items():
        # A prefill worker's batch is bounded by its tokens; its max_batch is swept only by name.
        named = (role,) if role else ("mixed", "decode")
        places = [i for i, worker in enumerate(workers) if worker["role"] in named]
        axes.append(_axis(backend, "max_batch", places, values, (), "--max-batch", role=role))
    found = [axis for axis in axes if axis is not None]
    number = math.prod(len(axis.values) for axis in found)
    if number < 2:
        raise UsageError("one candidate is no sweep", where="--budgets", remedy="give several values, e.g. 64,128,256")
    if number > _MOST:
        remedy = "give fewer values, or sweep one number after the other"
        raise UsageError(f"{number} candidates are more than {_MOST}", where="--budgets", remedy=remedy)
    return found


def _axis(
    backend: Backend, key: str, places: Sequence[int], asked: Sequence[int] | None, usual: Sequence[int], option: str,
    *, role: str = "",
) -> Axis | None:  # fmt: skip
    """One axis; ``None`` where nobody asked and no worker has the knob. The file's own value is always tried."""
    if not places:
        if asked is not None:
            who = f"{role} worker" if role else "worker that uses it"
            raise UsageError(f"'{backend.name}' has no {who}", where=option, remedy="leave the option out")
        return None
    workers = backend.data["workers"]
    current = int(workers[places[0]].get(key, _DEFAULTS[key]))
    caps = [int(workers[place].get("max_batch", _DEFAULTS["max_batch"])) for place in places]
    # The usual budgets are tried where the engine would take them; what was asked for is for it to refuse.
    values = asked if asked is not None else [v for v in usual if key != "token_budget" or v > max(caps)]
    label = f"{role}.{key}" if role else key
    return Axis(label, key, tuple(places), tuple(sorted({*values, current})), option, current)


def candidates_of(backend: Backend, axes: Sequence[Axis], folder: Path) -> list[tuple[Backend, Values]]:
    """Every combination as a backend of its own, checked by the engine. Raises ``UsageError`` with its words."""
    found = []
    data = {key: value for key, value in backend.data.items() if key not in ("tuned", "name")}
    for combination in itertools.product(*(axis.values for axis in axes)):
        values = {axis.label: value for axis, value in zip(axes, combination, strict=True)}
        places = {
            (place, axis.key): value for axis, value in zip(axes, combination, strict=True) for place in axis.places
        }
        name = "-".join(
            [backend.name, *(f"{axis.label}-{value}" for axis, value in zip(axes, combination, strict=True))]
        )
        path = folder / f"{name}.yaml"
        path.write_text(yaml.safe_dump({"name": name, **changed(data, places)}, sort_keys=False), encoding="utf-8")
        try:
            found.append((load_backend(path), values))
        except UsageError as error:
            options = ", ".join(dict.fromkeys(axis.option for axis in axes))
            shown = ", ".join(f"{label} {value}" for label, value in values.items())
            raise UsageError(f"{shown}: {error.message}", where=options, remedy=error.remedy) from error
    return found


# ---- what is chosen


def choose(scores: Mapping[str, Score], current: Values) -> str | None:
    """The candidate by ``RULE``, among those with the most VALID runs; ``None`` where there is none."""
    most = max((score.used for score in scores.values()), default=0)
    known = {name: score for name, score in scores.items() if score.used == most and score.joint is not None}
    if not most or not known:
        return None
    best = max(score.joint or 0.0 for score in known.values())
    near = [
        name for name, score in known.items() if (score.joint or 0.0) >= best - 1 / max(1, score.requests) - 1e-9
    ]  # fmt: skip

    def rank(name: str) -> tuple[float, bool, float]:
        score = known[name]
        ttft = math.inf if score.ttft_p90_ms is None else score.ttft_p90_ms
        return ttft, score.values != current, -(score.joint or 0.0)

    return min(near, key=rank)


def note_of(document: Document) -> Document:
    """The ``tuned`` note of the YAML: under what it was tuned, and the sweep's table."""
    return {
        "workload": document["workload"]["name"],
        "slo": document["slo"],
        "rates": document["rates"],
        "seed": document["seed"],
        "run": document["run"],
        "pdbench": __version__,
        "rule": RULE,
        "sweep": [
            {**arm["values"], "joint": arm["joint"], "ttft_p90_ms": arm["ttft_p90_ms"], "runs": arm["used"]}
            for arm in document["arms"].values()
        ],
    }


def sentence(document: Document) -> str:
    """What was chosen, and what it is worth against what the file had."""
    if document["chosen"] is None:
        return f"Nothing chosen: the sweep is INVALID ({first_reason(document['validity'])})."
    chosen = next(arm for arm in document["arms"].values() if arm["chosen"])
    before = next((arm for arm in document["arms"].values() if arm["values"] == document["current"]), chosen)
    shown = ", ".join(f"{label} {value}" for label, value in chosen["values"].items())
    if before is chosen:
        return f"{document['backend']} is best as it is: {shown} ({percent(chosen['joint'])} in time)."
    return (
        f"{document['backend']} is best with {shown}: {percent(chosen['joint'])} in time, P90 TTFT {_ttft(chosen)},"
        f" against {percent(before['joint'])} and {_ttft(before)} as it was."
    )


def _ttft(arm: Document) -> str:
    return "without end" if arm["ttft_p90_ms"] is None else f"{arm['ttft_p90_ms']:.0f} ms"


def _text(backend: Backend) -> str:
    if backend.path is None:
        raise UsageError(f"'{backend.name}' has no file")
    return backend.path.read_text(encoding="utf-8")
