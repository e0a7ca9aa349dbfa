"""A stored document as markdown, for the summary page of a CI job or a comment on a pull request.

A gate's verdict, a calibration's and a sweep's table are drawn here; runs, comparisons and searches in
``report.summarymd``, where the words that are not ours are made safe.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pdbench.report.gate import calibration_sentence
from pdbench.report.junit import line
from pdbench.report.summarymd import code, listed, row, safe, summary
from pdbench.sentence import percent

Document = Mapping[str, Any]

_SIGNS = {"PASS": "✅", "FAIL": "❌", "INCONCLUSIVE": "➖", "INVALID": "⚠️"}


def document_markdown(document: Document) -> str:
    """The text of a stored document of any kind."""
    if document.get("kind") == "gate":
        return markdown(document)
    if document.get("kind") == "calibration":
        return summary({"sentence": calibration_sentence(dict(document)), **document}, calibration_table(document))
    return summary(document, sweep_table(document) if document.get("kind") == "tune" else None)


def markdown(document: Document) -> str:
    """The text of a ``verdict.json`` document."""
    status = str(document["status"])
    lines = [f"### {_sign(status)}pdbench gate: {safe(status)}", "", safe(document["sentence"]), ""]
    lines += _metrics(document)
    lines += _checks(document)
    lines += listed([f"{safe(reason['message'])}: {safe(reason['remedy'])}" for reason in _reasons(document)])
    for again in document["set_aside"]:
        lines.append(f"- pair {again['pair'] + 1} was run again: {safe('; '.join(map(str, again['reasons'])))}")
    sides = ", ".join(f"{safe(role)} {code(side['asked'])}" for role, side in document["sides"].items())
    tail = f"workload {code(document['workload']['name'])}, {document['pairs']} pairs, run {code(document['run'])}"
    lines += ["", f"<sub>{tail}{', ' + sides if sides else ''}</sub>", ""]
    return "\n".join(lines)


def calibration_table(document: Document) -> list[str]:
    """The noise of each metric, and the smallest slowdown that so many pairs show; nothing where nothing was stored."""
    metrics = document.get("metrics") or {}
    if not metrics:
        return []
    pairs = list(next(iter(metrics.values()))["mde"])
    rows = [row("metric", ["SD of a pair", *(f"seen in {count} pairs" for count in pairs)])]
    rows.append("|---|" + "---:|" * (len(pairs) + 1))
    for name, found in metrics.items():
        unit = "pt" if found["scale"] == "difference" else "%"
        figures = [found["pair_sd"], *(found["mde"][count] for count in pairs)]
        rows.append(row(str(name), [f"{100 * value:.1f} {unit}" for value in figures]))
    return [*rows, ""]


def sweep_table(document: Document) -> list[str]:
    """A row a candidate of ``pdbench tune``, the chosen one marked."""
    values = list(document.get("current") or {})
    rows = [row("", [*values, "joint attainment", "TTFT P90", "runs", "INVALID"])]
    rows.append("|---|" + "---:|" * (len(values) + 4))
    for number, arm in enumerate((document.get("arms") or {}).values(), 1):
        tried = [str((arm.get("values") or {}).get(name, "")) for name in values]
        ttft = "infinite" if arm.get("ttft_p90_ms") is None else f"{arm['ttft_p90_ms']:.0f} ms"
        found = [percent(arm.get("joint")), ttft] if arm.get("used") else ["n/a", "n/a"]
        counts = [str(arm.get("used", "")), str(arm.get("left_out", ""))]
        rows.append(row(f"{number}{' (chosen)' if arm.get('chosen') else ''}", [*tried, *found, *counts]))
    return [*rows, ""] if len(rows) > 2 else []


def _metrics(document: Document) -> list[str]:
    if not document["metrics"]:
        return []
    rows = ["| metric | verdict | change | pairs |", "|---|---|---|---:|"]
    for name, metric in document["metrics"].items():
        star = " (primary)" if metric["primary"] else ""
        status = str(metric["status"])
        rows.append(row(f"{name}{star}", [f"{_sign(status)}{status}", line(metric), str(metric["pairs"])]))
    return [*rows, ""]


def _checks(document: Document) -> list[str]:
    checks = document.get("slo_check", {})
    if not checks:
        return []
    rows = [row(f"SLO of {document['head']}", ["outcome", "share", "bounds"]), "|---|---|---:|---|"]
    for text, check in checks.items():
        bounds = "-" if check["bounds"] is None else " to ".join(f"{bound:.1%}" for bound in check["bounds"])
        rows.append(row(str(text), [str(check["outcome"]), f"{check['share']:.1%}", bounds]))
    return [*rows, ""]


def _reasons(document: Document) -> list[Document]:
    return list(document["validity"]["reasons"])


def _sign(status: str) -> str:
    sign = _SIGNS.get(status)
    return f"{sign} " if sign else ""
