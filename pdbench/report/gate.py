"""What ``pdbench gate`` prints: the verdict metric by metric, the machine's noise, and the self-test."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from pdbench.report.text import notes_of, table_of

Document = dict[str, Any]

_STYLES = {"PASS": "green", "FAIL": "bold red", "INCONCLUSIVE": "yellow", "INVALID": "bold yellow"}


def print_gate(document: Document, console: Console) -> None:
    """Figures of both arms, the verdicts, reasons, and the sentence."""
    if document["arms"]:
        console.print(table_of(document))
        console.print()
    if document["metrics"]:
        console.print(verdicts(document))
    if checks := document.get("slo_check"):
        console.print(slo_table(str(document["head"]), checks))
    for text in notes_of(document):
        console.print(Text(text, style="yellow"))
    for again in document["set_aside"]:
        console.print(f"pair {again['pair'] + 1} was run again: {'; '.join(again['reasons'])}", style="yellow")
    console.print()
    console.print(Text(str(document["sentence"]), style=_STYLES.get(str(document["status"]), "")))


def verdicts(document: Document) -> Table:
    """One row a metric; positive change: the head is worse, but for attainment, where up is good."""
    title = f"gate: {document['head']} against {document['base']}, {document['pairs']} pairs"
    table = _table(title, "metric (* decides)", "change", "at least", "at most", "margin", "verdict")
    for name, metric in document["metrics"].items():
        bounds = [_shown(metric[key], metric["scale"]) for key in ("lower", "upper")]
        if metric["scale"] == "difference":
            bounds.reverse()
        margin = f"{100 * metric['margin']:g} {'pt' if metric['scale'] == 'difference' else '%'}"
        verdict = Text(str(metric["status"]), style=_STYLES.get(str(metric["status"]), ""))
        label = f"{name} *" if metric["primary"] else name
        table.add_row(label, _shown(metric["effect"], metric["scale"]), *bounds, margin, verdict)
    return table


def slo_table(head: str, checks: Mapping[str, Any]) -> Table:
    table = _table(f"SLO of {head}, over runs", "objective", "share", "at least", "at most", "asked for", "outcome")
    for text, check in checks.items():
        bounds = [f"{bound:.1%}" for bound in check["bounds"]] if check["bounds"] else ["n/a", "n/a"]
        table.add_row(text, f"{check['share']:.1%}", *bounds, f"{check['target']:.0%}", str(check["outcome"]))
    return table


def print_calibration(document: Document, console: Console) -> None:
    """This machine's noise, and what 6, 10 and 16 pairs can see of a slowdown."""
    metrics: Mapping[str, Any] = document["metrics"]
    pairs = list(next(iter(metrics.values()))["mde"]) if metrics else []
    title = f"noise of {document['backend']} against itself, {document['pairs']} pairs"
    table = _table(title, "metric", "pair SD", *(f"seen in {k} pairs" for k in pairs))
    for name, found in metrics.items():
        unit = "pt" if found["scale"] == "difference" else "%"
        seen = [f"{100 * found['mde'][k]:.1f} {unit}" for k in pairs]
        table.add_row(name, f"{100 * found['pair_sd']:.1f} {unit}", *seen)
    if metrics:
        console.print(table)
    if document["probe_sd"]:
        moved = ", ".join(f"{kernel} {100 * sd:.1f} %" for kernel, sd in document["probe_sd"].items())
        console.print(f"the devices move inside a pair by: {moved} (SD)")
    for text in notes_of({**document, "arms": {}}):
        console.print(Text(text, style="yellow"))
    console.print(Text(calibration_sentence(document), style="bold"))


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
    table = _table("gate self-test, simulated", "promise", "promised", "found", "kept")
    for promise in document["promises"]:
        found = promise["found"]
        shown = ", ".join(f"{rate:.1%}" for rate in found) if isinstance(found, list) else f"{found:g}"
        table.add_row(promise["what"], promise["promised"], shown, "yes" if promise["kept"] else "NO")
    console.print(table)


def _table(title: str, first: str, *others: str) -> Table:
    table = Table(title=title, title_justify="left", title_style="bold", pad_edge=False, box=None)
    table.add_column(first, no_wrap=True)
    for name in others:
        table.add_column(name, justify="right")
    return table


def _shown(value: float | None, scale: str) -> str:
    if value is None:
        return "infinite" if scale == "log_ratio" else "n/a"
    if scale == "difference":
        return f"{0.0 - 100 * value:+.1f} pt"
    return f"{100 * math.expm1(min(value, 700.0)):+.1f} %"
