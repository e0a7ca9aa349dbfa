"""The top of the page: what was measured, the one sentence, and the verdict of every arm in a word."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from pdbench.report import words
from pdbench.report.gate import calibration_sentence
from pdbench.report.html.context import Page, reasons_of, workload_of

Document = dict[str, Any]


def facts(page: Page) -> Document:
    """What the template's head needs."""
    document = page.document
    status = _status(page)
    return {
        "title": f"{page.kind}: {workload_of(document)}{page.mark} · pdbench",
        "kicker": _kicker(page),
        "simulated": page.simulated,
        "status": status,
        "status_tone": words.tone(status),
        "invalid": _invalid(page),
        "sentence": parted(sentence(page)),
        "verdicts": [] if page.invalid else _verdicts(page),
    }


def bare(page: Page, why: str) -> Document:
    """The same for a document whose head cannot be read."""
    text = f"{page.main.name}: its summary cannot be read ({why})."
    nothing = {"kicker": [], "simulated": False, "status": "", "status_tone": "", "invalid": "", "verdicts": []}
    return {"title": f"{page.main.name} · pdbench", "sentence": parted(text), **nothing}


def sentence(page: Page) -> str:
    """The document's own; a calibration has none and is given one."""
    if text := page.document.get("sentence"):
        return str(text)
    if page.kind == "calibration":
        return calibration_sentence(page.document)
    return f"{page.kind} {page.main.name}"


def parted(text: str) -> tuple[str, str]:
    """The first clause, which is what the page is about, and the others."""
    first, mark, rest = text.partition("; ")
    if not rest:
        return text, ""
    return f"{first}{mark.strip()}", rest


def _status(page: Page) -> str:
    """A gate says pass or fail, anything else whether it is valid; runs side by side are as valid as the worst."""
    if page.kind == "gate" and page.document.get("status"):
        return str(page.document["status"])
    run = page.invalid[0] if page.invalid else page.main
    return str((run.document.get("validity") or {}).get("status", "unfinished"))


def _invalid(page: Page) -> str:
    """The banner's words, only where a run has no verdict."""
    if not page.invalid:
        return ""
    if page.invalid != [page.main]:
        names, many = ", ".join(run.name for run in page.invalid), len(page.invalid) > 1
        kept = f"{'Their' if many else 'Its'} figures are kept, but they carry no verdict."
        return f"This holds for {names}: why, and what to do, stands below. {kept}"
    reasons = reasons_of(page.document)
    if not reasons:
        return "The run did not come to its end. The figures below are what it kept; they carry no verdict."
    text = reasons[0][0]
    said = "" if text and text.rstrip(".") in sentence(page) else f"{text}. "
    below = "What to do" if len(reasons) == 1 else f"All {len(reasons)} reasons, and what to do,"
    return f"{said}{below} stands below. The figures are kept, but they carry no verdict."


def _kicker(page: Page) -> list[str]:
    document = page.document
    workload = document.get("workload") or {}
    rate = (workload.get("arrivals") or {}).get("rate")
    said = [page.kind, f"workload {workload_of(document)}"]
    if rate is not None and page.kind != "search":
        said.append(f"{rate:g} req/s")
    if document.get("pairs") and document.get("comparisons"):
        said.append(words.plural(int(document["pairs"]), "pair"))
    if (requests := workload.get("num_requests")) is not None:
        said.append(f"{words.plural(int(requests), 'request')} a run")
    if len(page.runs) > 1:
        said.append(f"newest of {len(page.runs)} runs")
    if when := started(page.main.name):
        said.append(when)
    return said


def started(name: str) -> str:
    """When a run began, from its folder's name: ``20260102T030405Z-...`` -> ``2 January 2026, 03:04 UTC``."""
    try:
        at = datetime.strptime(name[:16], "%Y%m%dT%H%M%SZ").replace(tzinfo=UTC)
    except ValueError:
        return ""
    return f"{at.day} {at:%B %Y, %H:%M} UTC"


def _verdicts(page: Page) -> list[Document]:
    """One entry a head: who, better or worse, by how much in the primary metric."""
    if page.kind == "search":
        return _ratios(page)
    if page.kind == "gate":
        return _gate(page)
    colours = {arm.name: arm.colour for arm in page.arms}
    found = []
    for item in page.document.get("comparisons") or []:
        if not item.get("primary"):
            continue
        interval = words.change_interval(item)
        between = f" ({interval}, {100 * item.get('level', 0.95):g} % interval)" if interval != words.NOTHING else ""
        shown = f"{words.metric_label(item['metric'])} {words.change(item)}{between}"
        found.append(_entry(item["head"], item["base"], str(item["verdict"]), shown, colours))
    return found


def _ratios(page: Page) -> list[Document]:
    colours = {arm.name: arm.colour for arm in page.arms}
    found = []
    for item in page.document.get("ratios") or []:
        low, high = item.get("interval") or (None, None)
        ends = f" ({words.number(low, 'less')} to {words.number(high, 'more')})" if item.get("interval") else ""
        ratio = item.get("ratio")
        shown = "no ratio" if ratio is None else f"{words.number(ratio)} times the goodput per device{ends}"
        found.append(_entry(item["head"], item["base"], str(item["verdict"]), shown, colours))
    return found


def _gate(page: Page) -> list[Document]:
    document = page.document
    primary = next((m for m in (document.get("metrics") or {}).items() if m[1].get("primary")), None)
    shown = ""
    if primary is not None:
        name, metric = primary
        change = f" {words.change(metric)}" if metric.get("percent") is not None else ""
        shown = f"{words.metric_label(name)}{change}: {metric.get('reason', '')}"
    colours = {arm.name: arm.colour for arm in page.arms}
    head, base = str(document.get("head", "head")), str(document.get("base", "base"))
    return [_entry(head, base, str(document.get("status", "")), shown, colours)]


def _entry(head: str, base: str, verdict: str, detail: str, colours: Mapping[str, str]) -> Document:
    return {
        "head": head,
        "base": base,
        "verdict": verdict,
        "tone": words.tone(verdict),
        "sign": words.sign(verdict),
        "detail": detail,
        "colour": colours.get(head, "var(--line)"),
    }
