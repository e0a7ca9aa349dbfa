"""A stored document as markdown, for the summary page of a CI job or a comment on a pull request.

A gate's verdict is drawn here; runs, comparisons and searches in ``report.summarymd``.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pdbench.report.junit import line
from pdbench.report.summarymd import summary

Document = Mapping[str, Any]

_SIGNS = {"PASS": "✅", "FAIL": "❌", "INCONCLUSIVE": "➖", "INVALID": "⚠️"}


def document_markdown(document: Document) -> str:
    """The text of a stored document of any kind."""
    return markdown(document) if document.get("kind") == "gate" else summary(document)


def markdown(document: Document) -> str:
    """The text of a ``verdict.json`` document."""
    status = str(document["status"])
    lines = [f"### {_SIGNS.get(status, '')} pdbench gate: {status}", "", _escape(str(document["sentence"])), ""]
    lines += _metrics(document)
    lines += _checks(document)
    for reason in document["validity"]["reasons"]:
        lines.append(f"- {_escape(reason['message'])}  \n  {_escape(reason['remedy'])}")
    for again in document["set_aside"]:
        lines.append(f"- pair {again['pair'] + 1} was run again: {_escape('; '.join(again['reasons']))}")
    sides = ", ".join(f"{role} `{side['asked']}`" for role, side in document["sides"].items())
    tail = f"workload `{document['workload']['name']}`, {document['pairs']} pairs, run `{document['run']}`"
    lines += ["", f"<sub>{tail}{', ' + sides if sides else ''}</sub>", ""]
    return "\n".join(lines)


def _metrics(document: Document) -> list[str]:
    if not document["metrics"]:
        return []
    rows = ["| metric | verdict | change | pairs |", "|---|---|---|---:|"]
    for name, metric in document["metrics"].items():
        star = " (primary)" if metric["primary"] else ""
        text = _escape(line(metric))
        rows.append(
            f"| {name}{star} | {_SIGNS.get(metric['status'], '')} {metric['status']} | {text} | {metric['pairs']} |"
        )
    return [*rows, ""]


def _checks(document: Document) -> list[str]:
    checks = document.get("slo_check", {})
    if not checks:
        return []
    rows = [f"| SLO of {document['head']} | outcome | share | bounds |", "|---|---|---:|---|"]
    for text, check in checks.items():
        bounds = "-" if check["bounds"] is None else " to ".join(f"{bound:.1%}" for bound in check["bounds"])
        rows.append(f"| {_escape(text)} | {check['outcome']} | {check['share']:.1%} | {bounds} |")
    return [*rows, ""]


def _escape(text: str) -> str:
    return text.replace("|", "\\|").replace("<", "&lt;").replace("\n", " ")
