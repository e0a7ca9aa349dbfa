"""What ``pdbench gate`` prints: the verdict metric by metric, the machine's noise, and the self-test."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from rich.console import Console
from rich.text import Text

from pdbench.report.clean import cleaned
from pdbench.report.grid import Blocks, Cell, Grid, Prose
from pdbench.report.text import notes_of, table_of

Document = dict[str, Any]
Row = tuple[str, Sequence[Cell]]

_STYLES = {"PASS": "green", "FAIL": "bold red", "INCONCLUSIVE": "yellow", "INVALID": "bold yellow"}


def print_gate(document: Document, console: Console) -> None:
    """Figures of both arms, the verdicts, reasons, and the sentence."""
    document = cleaned(document)
    if document["arms"]:
        console.print(table_of(document))
        console.print()
    if document["metrics"]:
        console.print(verdicts(document))
    if checks := document.get("slo_check"):
        console.print(slo_table(str(document["head"]), checks))
    for text in notes_of(document):
        console.print(Prose(text, style="yellow"))
    for again in document["set_aside"]:
        console.print(Text(f"pair {again['pair'] + 1} was run again: {'; '.join(again['reasons'])}", style="yellow"))
    console.print()
    console.print(Prose(str(document["sentence"]), style=_STYLES.get(str(document["status"]), "")))


def verdicts(document: Document) -> Blocks[int]:
    """One row a metric; positive change: the head is worse, but for attainment, where up is good."""
    title = f"gate: {document['head']} against {document['base']}, {document['pairs']} pairs"
    rows: list[Row] = []
    for name, metric in document["metrics"].items():
        bounds = [_shown(metric[key], metric["scale"]) for key in ("lower", "upper")]
        if metric["scale"] == "difference":
            bounds.reverse()
        margin = f"{100 * metric['margin']:g} {'pt' if metric['scale'] == 'difference' else '%'}"
        verdict = Text(str(metric["status"]), style=_STYLES.get(str(metric["status"]), ""))
        label = f"{name} *" if metric["primary"] else name
        rows.append((label, (_shown(metric["effect"], metric["scale"]), *bounds, margin, verdict)))
    return _table(title, "metric (* decides)", ("change", "at least", "at most", "margin", "verdict"), rows)


def slo_table(head: str, checks: Mapping[str, Any]) -> Blocks[int]:
    rows: list[Row] = []
    for text, check in checks.items():
        bounds = [f"{bound:.1%}" for bound in check["bounds"]] if check["bounds"] else ["n/a", "n/a"]
        rows.append((text, (f"{check['share']:.1%}", *bounds, f"{check['target']:.0%}", str(check["outcome"]))))
    columns = ("share", "at least", "at most", "asked for", "outcome")
    return _table(f"SLO of {head}, over runs", "objective", columns, rows)


def print_calibration(document: Document, console: Console) -> None:
    """This machine's noise, and what 6, 10 and 16 pairs can see of a slowdown."""
    document = cleaned(document)
    metrics: Mapping[str, Any] = document["metrics"]
    pairs = list(next(iter(metrics.values()))["mde"]) if metrics else []
    title = f"noise of {document['backend']} against itself, {document['pairs']} pairs"
    rows: list[Row] = []
    for name, found in metrics.items():
        unit = "pt" if found["scale"] == "difference" else "%"
        seen = [f"{100 * found['mde'][k]:.1f} {unit}" for k in pairs]
        rows.append((name, (f"{100 * found['pair_sd']:.1f} {unit}", *seen)))
    if metrics:
        console.print(_table(title, "metric", ("pair SD", *(f"seen in {k} pairs" for k in pairs)), rows))
    if document["probe_sd"]:
        moved = ", ".join(f"{kernel} {100 * sd:.1f} %" for kernel, sd in document["probe_sd"].items())
        console.print(Text(f"the devices move inside a pair by: {moved} (SD)"))
    for text in notes_of({**document, "arms": {}}):
        console.print(Prose(text, style="yellow"))
    console.print(Prose(calibration_sentence(document), style="bold"))


def calibration_sentence(document: Document) -> str:
    """What the table means, in words; the worst latency decides what a gate may hope for."""
    if document["validity"]["status"] != "VALID":
        return "INVALID: nothing is stored."
    latencies = {name: found for name, found in document["metrics"].items() if found["scale"] == "log_ratio"}
    if not latencies:
        return "No latency applies to every pair."
    best = min(latencies, key=lambda name: float(latencies[name]["pair_sd"]))
    worst = max(latencies, key=lambda name: float(latencies[name]["pair_sd"]))
    few, *_, many = latencies[best]["mde"]
    return (
        f"Here a gate sees a slowdown of {100 * latencies[best]['mde'][few]:.0f} % of {best} in {few} pairs and "
        f"{100 * latencies[best]['mde'][many]:.0f} % in {many}; of {worst} only "
        f"{100 * latencies[worst]['mde'][few]:.0f} % and {100 * latencies[worst]['mde'][many]:.0f} %."
    )


def print_self_test(document: Document, console: Console) -> None:
    """The promises, and whether each is kept."""
    rows: list[Row] = []
    for promise in document["promises"]:
        found = promise["found"]
        shown = ", ".join(f"{rate:.1%}" for rate in found) if isinstance(found, list) else f"{found:g}"
        rows.append((promise["what"], (promise["promised"], shown, "yes" if promise["kept"] else "NO")))
    console.print(_table("gate self-test, simulated", "promise", ("promised", "found", "kept"), rows))


def _table(title: str, corner: str, columns: Sequence[str], rows: Sequence[Row]) -> Blocks[int]:
    """A label and a figure a column; columns that find no room go below."""

    def build(shown: Sequence[int]) -> Grid:
        grid = Grid(corner, [columns[i] for i in shown])
        for label, cells in rows:
            grid.add(label, [cells[i] for i in shown])
        return grid

    return Blocks(range(len(columns)), build, Text(title, style="bold"))


def _shown(value: float | None, scale: str) -> str:
    if value is None:
        return "infinite" if scale == "log_ratio" else "n/a"
    if scale == "difference":
        return f"{0.0 - 100 * value:+.1f} pt"
    return f"{100 * math.expm1(min(value, 700.0)):+.1f} %"
