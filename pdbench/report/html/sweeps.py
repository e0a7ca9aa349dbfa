"""What was no load test of one kind: a calibration (how still this machine is) and a sweep of a backend's numbers."""

from __future__ import annotations

from typing import Any

from pdbench.report import words
from pdbench.report.html.context import Page
from pdbench.report.html.parts import Block, Cell, Heading, Missing, Points, Section, Table, Text
from pdbench.sentence import percent

Document = dict[str, Any]


def section(page: Page) -> Section | None:
    """Of every calibration and sweep among the runs; ``None`` where there is none."""
    blocks: list[Block] = []
    kinds = set()
    for run in page.runs:
        if run.kind not in _KINDS:
            continue
        kinds.add(run.kind)
        if len(page.runs) > 1:
            blocks.append(Heading(run.name))
        blocks += _KINDS[run.kind](run.document)
    if not blocks:
        return None
    return Section("sweeps", "How still this machine is" if kinds == {"calibration"} else "What was tried", blocks)


def _calibration(document: Document) -> list[Block]:
    """The table that ``pdbench gate --calibrate`` prints."""
    metrics = document.get("metrics") or {}
    if not metrics:
        why = "Too few pairs were measured well, so nothing is known of this machine's noise."
        return [Missing("No noise.", why, "pdbench gate --calibrate ...")]
    pairs = list(next(iter(metrics.values()))["mde"])
    how = (
        "A server was compared to itself, so every difference is noise. The pair SD is how far two runs of one pair lie"
        " apart; beside it stands the smallest slowdown that a gate of so many pairs can see."
    )
    rows = [_noise(str(name), found, pairs) for name, found in metrics.items()]
    columns = ["metric", "pair SD", *(f"seen in {count} pairs" for count in pairs)]
    caption = f"Noise of {document.get('backend', 'the backend')} against itself, {document.get('pairs', 0)} pairs"
    blocks: list[Block] = [Text(how, "note"), Table(caption, columns, rows)]
    if left_out := document.get("left_out"):
        blocks.append(Points([(f"pair {one['pair'] + 1} was left out", "; ".join(one["reasons"])) for one in left_out]))
    if moved := document.get("probe_sd"):
        said = ", ".join(f"{kernel} {100 * sd:.1f} %" for kernel, sd in moved.items())
        blocks.append(Text(f"The devices themselves move inside a pair by {said} (SD).", "note"))
    return blocks


def _noise(name: str, found: Document, pairs: list[str]) -> list[Cell | str]:
    unit = "points" if found["scale"] == "difference" else "%"
    figures = [found["pair_sd"], *(found["mde"][count] for count in pairs)]
    return [words.metric_label(name), *(f"{100 * value:.1f} {unit}" for value in figures)]


def _sweep(document: Document) -> list[Block]:
    """One row a candidate, as ``pdbench tune`` prints it."""
    current = list(document.get("current") or {})
    rows = [_candidate(number, arm, current) for number, arm in enumerate((document.get("arms") or {}).values(), 1)]
    offered = ", ".join(words.number(rate) for rate in document.get("rates") or [])
    caption = f"Candidates for {document.get('backend', 'the backend')} at {offered} requests/s"
    columns = [
        "candidate",
        *(name.replace("_", " ") for name in current),
        "joint attainment",
        "TTFT P90",
        "runs",
        "INVALID",
    ]
    written = document.get("file")
    said = f"Chosen: {document.get('rule', '')}. Written: {written}." if written else "No file was written."
    return [Text(said, "note"), Table(caption, columns, rows)]


def _candidate(number: int, arm: Document, names: list[str]) -> list[Cell | str]:
    label = Cell(str(number), below="chosen" if arm.get("chosen") else "")
    values = arm.get("values") or {}
    joint, ttft = (percent(arm.get("joint")), words.milliseconds(arm.get("ttft_p90_ms")))
    if not arm.get("used"):
        joint, ttft = "INVALID", words.NOTHING
    shown = [str(values.get(name, words.NOTHING)) for name in names]
    outcome: list[Cell | str] = [Cell(joint, "strong" if arm.get("chosen") else ""), ttft]
    return [label, *shown, *outcome, str(arm.get("used", 0)), str(arm.get("left_out", 0))]


_KINDS = {"calibration": _calibration, "tune": _sweep}
