"""A gate's verdict as JUnit XML, the form that CI systems read: a testcase per workload and metric.

    worse -> failure      not certain -> skipped      no valid measurement -> error

The elements and attributes are those of Jenkins' JUnit schema, which GitLab, Azure and GitHub's reporters accept;
a test validates against it.
"""

from __future__ import annotations

import re
import xml.etree.ElementTree as ET
from collections.abc import Mapping
from typing import Any

Document = Mapping[str, Any]

_ILLEGAL = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
_CHECKS = {"met": "PASS", "missed": "FAIL", "not certain": "INCONCLUSIVE"}


def junit(document: Document) -> str:
    """The XML text of a ``verdict.json`` document."""
    workload = str(document["workload"]["name"])
    suite = ET.Element("testsuite", name=f"pdbench gate {workload}", package="pdbench", id="0")
    properties = ET.SubElement(suite, "properties")
    for key in ("run", "base", "head", "primary", "pairs", "status"):
        ET.SubElement(properties, "property", name=key, value=_clean(str(document[key])))
    for name, status, text in cases(document):
        case = ET.SubElement(suite, "testcase", name=name, classname=f"pdbench.gate.{workload}")
        _outcome(case, status, _clean(text))
    ET.SubElement(suite, "system-out").text = _clean(str(document["sentence"]))
    counts = {
        "tests": len(suite.findall("testcase")),
        "failures": len(suite.findall("testcase/failure")),
        "errors": len(suite.findall("testcase/error")),
        "skipped": len(suite.findall("testcase/skipped")),
    }
    for key, count in counts.items():
        suite.set(key, str(count))
    root = ET.Element("testsuites", name="pdbench gate")
    for key in ("tests", "failures", "errors"):
        root.set(key, str(counts[key]))
    root.append(suite)
    ET.indent(root)
    return f'<?xml version="1.0" encoding="UTF-8"?>\n{ET.tostring(root, encoding="unicode")}\n'


def cases(document: Document) -> list[tuple[str, str, str]]:
    """(name, status, text) of every testcase; an INVALID gate has one, of its primary metric."""
    found = [(name, str(metric["status"]), line(metric)) for name, metric in document["metrics"].items()]
    if document["status"] == "INVALID":
        reasons = document["validity"]["reasons"]
        found = [(str(document["primary"]), "INVALID", "\n".join(f"{r['message']}: {r['remedy']}" for r in reasons))]
    for text, check in document.get("slo_check", {}).items():
        share = f"{check['share']:.1%} of the requests, {check['target']:.0%} are asked for, {check['runs']} runs"
        found.append((f"slo: {text}", _CHECKS[check["outcome"]], share))
    return found


def line(metric: Mapping[str, Any]) -> str:
    """``+12.3 %, margin 5 %: worse beyond doubt, ...``; attainment in points, where up is good."""
    if metric["percent"] is None:
        return str(metric["reason"])
    points = metric["scale"] == "difference"
    shown = f"{0.0 - metric['percent'] if points else metric['percent']:+.1f}"
    unit = "pt" if points else "%"
    return f"{shown} {unit}, margin {100 * metric['margin']:g} {unit}: {metric['reason']}"


def _outcome(case: ET.Element, status: str, text: str) -> None:
    if status == "FAIL":
        ET.SubElement(case, "failure", message=text.splitlines()[0] if text else "", type="regression").text = text
    elif status == "INVALID":
        ET.SubElement(case, "error", message=text.splitlines()[0] if text else "", type="invalid").text = text
    elif status != "PASS":
        ET.SubElement(case, "skipped", message=text.splitlines()[0] if text else "inconclusive")


def _clean(text: str) -> str:
    """XML 1.0 has no control characters, and a server's last words may."""
    return _ILLEGAL.sub("", text)
