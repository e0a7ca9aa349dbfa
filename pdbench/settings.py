"""What a call was asked to do, resolved: the workload with its overrides, and how to run it.

Order of precedence: option > ``PDBENCH_*`` environment (click reads both) > YAML > default.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import msgspec

from pdbench import resources
from pdbench.errors import UsageError
from pdbench.fleetspec import FleetSpec
from pdbench.measure.slo import parse_goodput, parse_objective
from pdbench.units import NS_PER_S, parse_duration_ns
from pdbench.workload.overrides import only_one_count, with_overrides
from pdbench.workload.shapes import Shape, with_shape
from pdbench.workload.spec import Workload
from pdbench.yamlfile import convert, read

Clock = Literal["auto", "kernel", "user"]
FailOn = Literal["slo", "worse"]


_PAIRS = re.compile(r"(?P<count>\d+)\s*(pairs?)?")


@dataclass(frozen=True, slots=True)
class Budget:
    """What ``--pairs auto`` may spend at most: seconds, or pairs. With neither, what its looks need."""

    seconds: float | None = None
    pairs: int | None = None

    @classmethod
    def parse(cls, text: str, *, where: str = "--budget") -> Budget:
        """``"10m"``, ``"12"`` or ``"12 pairs"``. Raises ``UsageError``."""
        if match := _PAIRS.fullmatch(text.strip()):
            if int(match["count"]) < 1:
                raise UsageError("a budget must be above 0", where=where)
            return cls(pairs=int(match["count"]))
        return cls(seconds=parse_duration_ns(text, where=where) / NS_PER_S)

    @property
    def text(self) -> str:
        if self.pairs is not None:
            return f"{self.pairs} pairs"
        return f"{self.seconds:g} s" if self.seconds is not None else "all looks"


@dataclass(frozen=True, slots=True)
class Settings:
    """How to run, apart from the workload. ``fail_on``: which outcomes end in exit code 10.

    ``primary``: the metric that decides, declared before the run. ``budget``: set where the number of pairs is
    not fixed but found by planned looks (``--pairs auto``); ``pairs`` is then the most there can be.
    ``saturate_concurrency``: open streams of the closed-loop run; None: what the arms' batches hold.
    ``fleet``: the load workers that share each run; None: one engine beside this process.
    """

    out_dir: Path = Path("results")
    pairs: int = 1
    seed: int = 0
    clock: Clock = "auto"
    max_concurrency: int | None = None
    drain_timeout_s: float = 60.0
    request_timeout_s: float = 300.0
    fail_on: frozenset[FailOn] = frozenset()
    argv: tuple[str, ...] = ()
    primary: str = "joint_attainment"
    unfair_ok: bool = False
    budget: Budget | None = None
    saturate: bool = False
    saturate_concurrency: int | None = None
    fleet: FleetSpec | None = None


@dataclass(frozen=True, slots=True)
class Overrides:
    """The options that change a workload; None leaves the YAML's value."""

    rate: float | None = None
    burstiness: float | None = None
    arrivals: str | None = None
    concurrency: int | None = None
    num_requests: int | None = None
    duration_s: float | None = None
    warmup: int | None = None
    slo: tuple[str, ...] = ()
    goodput: str | None = None
    time_scale: float | None = None
    length_scale: float | None = None
    jitter: str | None = None
    prompt_tokens: int | None = None
    output_tokens: int | None = None
    prompts: str | None = None
    tokenizer: str | None = None
    prompt_ids: bool = False
    slice: str | None = None
    shape: Shape | None = None
    extra: dict[str, Any] = field(default_factory=dict)


def load_workload(text: str, overrides: Overrides | None = None) -> Workload:
    """A shipped name or a YAML file, with the options applied, every SLO parsed and a trace's jitter resolved.
    Raises ``UsageError``."""
    doc = read(resources.find("workload", text))
    workload = convert(doc, Workload)
    workload = _with_files_beside(workload, doc.path)
    for index, objective in enumerate(workload.slo):
        try:
            parse_objective(objective)
        except UsageError as error:
            raise UsageError(error.message, where=doc.where("slo", index), remedy=error.remedy) from error
    workload = _apply(workload, overrides, _duration_s(doc.data)) if overrides is not None else workload
    return _with_jitter(workload)


def _duration_s(data: dict[str, Any]) -> float | None:
    """The ``duration`` of a workload file, where it alone sets the number of requests: an open loop keeps only the
    number, which other arrivals would need anew."""
    if data.get("duration") is None or data.get("num_requests"):
        return None
    return parse_duration_ns(data["duration"]) / NS_PER_S


def _apply(workload: Workload, asked: Overrides, file_duration_s: float | None) -> Workload:
    start_row, rows = _slice(asked.slice)
    only_one_count(asked.duration_s, asked.num_requests)
    changed = with_overrides(
        workload,
        rate=asked.rate,
        burstiness=asked.burstiness,
        arrivals=asked.arrivals,
        concurrency=asked.concurrency,
        num_requests=asked.num_requests,
        duration_s=asked.duration_s if asked.shape is None else None,  # the shape was read until then
        warmup=asked.warmup,
        slo=_slo(asked),
        time_scale=asked.time_scale,
        length_scale=asked.length_scale,
        jitter=asked.jitter,
        prompt_tokens=asked.prompt_tokens,
        output_tokens=asked.output_tokens,
        prompts=asked.prompts,
        tokenizer=asked.tokenizer,
        prompt_ids=asked.prompt_ids or None,
        start_row=start_row,
        rows=rows,
        file_duration_s=file_duration_s,
        **asked.extra,
    )
    return changed if asked.shape is None else with_shape(changed, asked.shape, asked.num_requests)


def _slo(asked: Overrides) -> list[str] | None:
    """``--slo`` and ``--goodput`` replace the workload's list; canonical texts."""
    if not asked.slo and not asked.goodput:
        return None
    objectives = []
    for text in asked.slo:
        try:
            objectives.append(parse_objective(text))
        except UsageError as error:
            raise UsageError(error.message, where=error.where or "--slo", remedy=error.remedy) from error
    if asked.goodput:
        try:
            objectives += parse_goodput(asked.goodput)
        except UsageError as error:
            raise UsageError(error.message, where=error.where or "--goodput", remedy=error.remedy) from error
    return [objective.text for objective in objectives]


def _slice(text: str | None) -> tuple[int | None, int | None]:
    """``"100:160"`` -> (100, 60): rows of a trace, the end left out as in Python."""
    if text is None:
        return None, None
    first, colon, last = text.partition(":")
    if not colon or not first.isdecimal() or not last.isdecimal() or int(last) <= int(first):
        raise UsageError(
            f"'{text}' is not a slice", where="--slice", remedy="write FIRST:END, e.g. 100:160 for 60 rows"
        )
    return int(first), int(last) - int(first)


def _with_jitter(workload: Workload) -> Workload:
    """``auto`` as what it means for this trace, so that the configuration says what is done."""
    if workload.arrivals.process != "trace":
        return workload
    from pdbench.workload.traces import with_jitter_resolved

    return msgspec.structs.replace(workload, arrivals=with_jitter_resolved(workload.arrivals))


def _with_files_beside(workload: Workload, path: Path | None) -> Workload:
    """Files named in a YAML are looked for beside the YAML before the working directory."""
    if path is None:
        return workload
    changes = {}
    for part in ("arrivals", "prompt_tokens", "output_tokens", "prompts"):
        item = getattr(workload, part)
        for name in ("file", "tokenizer"):
            if (found := _beside(path, getattr(item, name, None))) is not None:
                changes[part] = item = msgspec.structs.replace(item, **{name: found})
    return msgspec.structs.replace(workload, **changes) if changes else workload


def _beside(path: Path, file: str | None) -> str | None:
    """The file beside ``path``, if there is one."""
    if file is None or Path(file).is_absolute() or not (path.parent / file).exists():
        return None
    return str(path.parent / file)


def workload_data(workload: Workload) -> dict[str, Any]:
    """The resolved workload as plain data, without keys that say nothing (None)."""
    data: dict[str, Any] = _without_none(msgspec.to_builtins(workload))
    return data


def _without_none(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _without_none(item) for key, item in value.items() if item is not None}
    if isinstance(value, list | tuple):
        return [_without_none(item) for item in value]
    return value
