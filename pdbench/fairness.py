"""Is the comparison fair? What arms must share, what they may differ in, and what a reader must be told.

    refusal      the arms differ in *configuration* (devices, model, number format, maximum length, forced
                 output lengths, KV memory): whatever comes out is not about the thing compared
    report       the arms differ in an *outcome* (tokens a chunk, cache hits, prompt tokens as the server counts
                 them): it may explain a difference, and is part of the result
    warning      a choice that favours one arm (a chunked baseline whose token budget nobody tuned)
    not checked  a fact that an arm does not tell (somebody else's server): neither equal nor different

Pure: facts in, findings out. ``--unfair-ok`` turns refusals into loud warnings.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from pdbench.errors import UsageError

Kind = Literal["refusal", "report", "warning", "not checked"]

_TOLERANCE = 0.01
"""Outcomes closer than 1 % are alike: a chunk more or less at the end of a stream is no difference."""


@dataclass(frozen=True, slots=True)
class ArmFacts:
    """What is known of one arm before it runs. ``None``: it does not say.

    ``device_kinds``: without their numbers, sorted, e.g. ``("cpu", "cpu")``; ``kv_bytes``: KV memory over all
    workers; ``forced_output``: whether output lengths are forced; ``untuned_chunked``: it has a chunked worker
    and its YAML holds no ``tuned:`` note.
    """

    name: str
    devices: int | None = None
    device_kinds: tuple[str, ...] | None = None
    model_hash: str | None = None
    dtype: str | None = None
    max_model_len: int | None = None
    forced_output: bool | None = None
    kv_bytes: int | None = None
    shared_devices: bool = False
    untuned_chunked: bool = False


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing found, in words; ``key`` is what it is about."""

    kind: Kind
    key: str
    message: str
    remedy: str = ""


@dataclass(frozen=True, slots=True)
class Fairness:
    """All findings of a comparison."""

    findings: tuple[Finding, ...] = ()

    @property
    def refused(self) -> bool:
        return any(one.kind == "refusal" for one in self.findings)

    def of(self, kind: Kind) -> list[Finding]:
        return [one for one in self.findings if one.kind == kind]

    def lines(self) -> list[str]:
        """One line a finding, gravest first, for the document's ``warnings``; a warning with its remedy."""
        marks: dict[Kind, str] = {"refusal": "UNFAIR: ", "warning": "", "report": "", "not checked": "not checked: "}
        return [marks[kind] + _line(one) for kind in marks for one in self.of(kind)]

    def check(self, *, unfair_ok: bool) -> None:
        """Raise ``UsageError`` on the refusals, all of them in one message, unless ``unfair_ok``."""
        refusals = self.of("refusal")
        if not refusals or unfair_ok:
            return
        remedies = dict.fromkeys(one.remedy for one in refusals if one.remedy)
        raise UsageError(
            "unfair comparison: " + "; ".join(one.message for one in refusals),
            remedy="\n  ".join([*remedies, "or say --unfair-ok, and the result will be marked"]),
        )


def _line(found: Finding) -> str:
    return f"{found.message} ({found.remedy})" if found.kind == "warning" and found.remedy else found.message


@dataclass(frozen=True, slots=True)
class _Rule:
    """One fact that arms must share."""

    key: str
    what: str
    remedy: str


_RULES = (
    _Rule("devices", "number of devices", "give every arm the same number of devices"),
    _Rule("device_kinds", "kind of device", "run every arm on the same kind of device"),
    _Rule("model_hash", "model", "give every arm the same model, with the same weights"),
    _Rule("dtype", "number format", "give every arm the same dtype"),
    _Rule("max_model_len", "maximum length", "give every arm the same maximum length"),
    _Rule("forced_output", "forced output lengths", "set ignore_eos: false in the workload, or leave out that arm"),
    _Rule("kv_bytes", "KV memory", "give every arm the same slots in all (slots: per worker)"),
)


def preflight(arms: Sequence[ArmFacts]) -> Fairness:
    """Compare the arms' configurations. One arm alone is always fair."""
    if len(arms) < 2:
        return Fairness()
    found: list[Finding] = []
    for rule in _RULES:
        found += _compare(rule, {arm.name: getattr(arm, rule.key) for arm in arms})
    found += [_untuned(arm.name) for arm in arms if arm.untuned_chunked]
    shared = [arm.name for arm in arms if arm.shared_devices]
    found += [
        Finding("warning", "shared_devices", f"{name}: several workers share a device; it isolates nothing")
        for name in shared
    ]
    return Fairness(tuple(found))


def _compare(rule: _Rule, values: Mapping[str, Any]) -> list[Finding]:
    known = {name: value for name, value in values.items() if value is not None}
    found = []
    if len(set(known.values())) > 1:
        shown = ", ".join(f"{name}: {_shown(value)}" for name, value in known.items())
        found.append(Finding("refusal", rule.key, f"the arms differ in their {rule.what} ({shown})", rule.remedy))
    missing = [name for name in values if name not in known]
    if missing and known:
        found.append(Finding("not checked", rule.key, f"{rule.what} of {', '.join(missing)}"))
    if missing and not known:
        found.append(Finding("not checked", rule.key, f"{rule.what}: no arm says"))
    return found


def _untuned(name: str) -> Finding:
    return Finding(
        "warning",
        "tuned",
        f"{name}: its token budget was not tuned for this workload; a weak baseline flatters the other arm",
        f"pdbench tune {name}",
    )


def outcomes(arms: Mapping[str, Mapping[str, Any]]) -> Fairness:
    """Compare what came out: ``arms`` as in the summary document (entry by name). Reports only.

    Looks at ``tokens_per_chunk``, ``cache_hit_rate`` and ``prompt_tokens_reported`` (mean prompt tokens by the
    server's own count), each where at least two arms have it.
    """
    found = []
    for key, what in (
        ("tokens_per_chunk", "tokens a chunk: gaps between chunks are not gaps between tokens"),
        ("cache_hit_rate", "cache-hit rate"),
        ("prompt_tokens_reported", "prompt tokens as the server counts them"),
    ):
        known = {name: float(entry[key]) for name, entry in arms.items() if entry.get(key) is not None}
        if known and max(known.values()) - min(known.values()) > _TOLERANCE * max(map(abs, known.values())):
            shown = ", ".join(f"{name}: {value:.4g}" for name, value in known.items())
            found.append(Finding("report", key, f"the arms differ in {what} ({shown})"))
    return Fairness(tuple(found))


def together(*parts: Fairness) -> Fairness:
    """The findings of several checks in one."""
    return Fairness(tuple(one for part in parts for one in part.findings))


def facts_of(
    name: str,
    fingerprint: Mapping[str, Any],
    *,
    checked: Mapping[str, Any] | None = None,
    data: Mapping[str, Any] | None = None,
    forced_output: bool | None = None,
) -> ArmFacts:
    """An arm's facts from its fingerprint (``target.fingerprint.arm``), ``Backend.checked`` (what ``pdserve
    check`` said), ``Backend.data`` (the YAML) and whether its server takes forced lengths. A server that is not
    ours has as many devices as its YAML says; where it says nothing, one is assumed, and nobody knows."""
    guessed = fingerprint.get("engine") == "openai" and "devices" not in (data or {})
    workers: Sequence[Mapping[str, Any]] = (checked or {}).get("workers") or ()
    sizes = [int(worker["kv_bytes"]) for worker in workers if worker.get("kv_bytes") is not None]
    names = fingerprint.get("device_names") or None
    chunked = any(worker.get("policy") == "chunked" for worker in workers)
    return ArmFacts(
        name=name,
        devices=None if guessed else fingerprint.get("devices"),
        device_kinds=device_kinds(names) if names else None,
        model_hash=fingerprint.get("model_hash"),
        dtype=fingerprint.get("dtype"),
        max_model_len=fingerprint.get("max_model_len"),
        forced_output=forced_output,
        kv_bytes=sum(sizes) if sizes and len(sizes) == len(workers) else None,
        shared_devices=bool((checked or {}).get("shared_devices")),
        untuned_chunked=chunked and not (data or {}).get("tuned"),
    )


def device_kinds(names: Iterable[str]) -> tuple[str, ...]:
    """``["cpu:1", "cpu:0"]`` -> ``("cpu", "cpu")``: numbers do not matter, what is emulated does."""
    return tuple(sorted(_kind(str(name)) for name in names))


def _kind(name: str) -> str:
    head, _, tail = name.partition(":")
    return head if tail.isdecimal() else name


def _shown(value: Any) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, tuple):
        return "+".join(value)
    text = str(value)
    return text[:12] if len(text) >= 40 else text
