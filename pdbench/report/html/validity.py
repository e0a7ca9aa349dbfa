"""May these numbers be believed? Validity with reasons and remedies, warnings, the client's account, the machine."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pdbench.report import words
from pdbench.report.html.context import Page, Shown, reasons_of
from pdbench.report.html.parts import Block, Cell, Missing, Points, Section, Table, Text
from pdbench.units import format_bytes

Document = dict[str, Any]


def section(page: Page) -> Section:
    blocks: list[Block] = [_verdict(page)]
    if reasons := _reasons(page):
        blocks.append(Points(reasons, "bad"))
    several = len(page.runs) > 1
    notes = [(f"{run.name}: {note}" if several else str(note), "") for run in page.runs for note in run.notes]
    notes += [(note, "") for note in page.notes]
    notes += [(text, "") for text in warnings_of(page)]
    if notes:
        blocks.append(Points(notes, "warn"))
    blocks += _died(page)
    if any("requests" in arm.entry for arm in page.arms):
        blocks.append(_client(page))
    blocks.append(_fingerprint(page))
    return Section("validity", "Is it valid?", blocks)


def _verdict(page: Page) -> Text:
    if not page.document:
        return Text("The run is unfinished: nobody judged whether it measured what it meant to.", "bad")
    if page.invalid:
        others = {id(arm.run) for arm in page.arms} - {id(run) for run in page.invalid}
        who = f"INVALID ({', '.join(run.name for run in page.invalid)})" if others else "INVALID"
        return Text(f"{who}: the measurement itself went wrong. What to do stands below each reason.", "bad")
    if page.simulated:
        return Text("VALID: every request is accounted for. It is simulated: nothing here ran in real time.")
    text = "VALID: every request is accounted for, and the load client kept its time."
    if simulated := [arm.label for arm in page.arms if arm.simulated]:
        text += f" Nothing of this ran in real time: {', '.join(simulated)}."
    return Text(text)


def _reasons(page: Page) -> list[tuple[str, str]]:
    """Of every run of the page, by its name where there are several."""
    several = len(page.runs) > 1
    return [
        (f"{run.name}: {message}" if several else message, remedy)
        for run in page.runs
        for message, remedy in reasons_of(run.document)
    ]


def warnings_of(page: Page) -> list[str]:
    """The run's, then every arm's with its name."""
    found = [str(text) for text in page.document.get("warnings") or []]
    for arm in page.arms:
        found += [f"{arm.label}: {text}" for text in arm.entry.get("warnings") or []]
        found += [
            f"{arm.label}: saturation: {text}" for text in (arm.entry.get("saturation") or {}).get("warnings", [])
        ]
    return found


def _died(page: Page) -> list[Block]:
    found: list[Block] = []
    for arm in page.arms:
        died = arm.entry.get("server_died")
        if died:
            pairs = ", ".join(str(pair + 1) for pair in died.get("pairs", []))
            lines = "\n".join(str(line) for line in died.get("last_lines", []))
            found.append(Missing(f"{arm.label}: the server died in pair {pairs}.", "Its last lines:", lines))
    return found


def _client(page: Page) -> Table:
    """What the client says of itself, a row an arm."""
    rows = [[arm.label, *_own_account(arm)] for arm in page.arms]
    columns = (
        "arm", "status", "ok", "failed", "warm-up", "dispatch lag P99", "receive lag P99",
        "client's CPU P99", "waited for CPU"
    )  # fmt: skip
    return Table(f"The load client, as it measured itself{page.mark}", columns, rows, "llr")


def _own_account(arm: Shown) -> list[Cell | str]:
    entry = arm.entry
    status = str((entry.get("validity") or {}).get("status", words.NOTHING))
    counts = entry.get("requests") or {}
    audit = entry.get("audit") or {}
    busy = (audit.get("cpu_share") or {}).get("p99")
    waited = audit.get("cpu_wait_share")
    return [
        Cell(status, words.tone(status), "" if arm.valid or status != "VALID" else "its run is INVALID"),
        *(words.number(counts.get(key)) for key in ("ok", "failed", "warmup")),
        words.spread(entry, "dispatch_lag_ms", "p99", unit=True),
        words.spread(entry, "client_lag_ms", "p99", unit=True),
        words.NOTHING if busy is None else words.share(busy),
        words.NOTHING if waited is None else words.share(waited),
    ]


def _fingerprint(page: Page) -> Block:
    found = page.document.get("fingerprint") or (page.main.manifest or {}).get("fingerprint") or {}
    if not found:
        return Missing("No fingerprint.", "The run was not sealed, so machine and versions were not written.")
    rows: list[list[Cell | str]] = [[_name(key), _said(key, value)] for key, value in found.items() if key != "arms"]
    for arm in page.arms:
        facts = (found.get("arms") or {}).get(arm.name) or {}
        rows += [[f"{arm.label}: {_name(key)}", _said(key, value)] for key, value in facts.items()]
    return Table("Fingerprint: machine, versions, and what each arm served", ("what", "value"), rows, "ll", folded=True)


def _name(key: object) -> str:
    return str(key).replace("_", " ")


def _said(key: str, value: Any) -> str:
    if isinstance(value, Mapping):
        return ", ".join(f"{name} {_said(str(name), one)}" for name, one in value.items())
    if isinstance(value, list | tuple):
        return ", ".join(_said(key, one) for one in value)
    if key.endswith("bytes") and isinstance(value, int | float):
        return format_bytes(value)
    return words.NOTHING if value is None else str(value)
