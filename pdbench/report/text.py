"""The table at the end of a comparison, drawn from the summary document alone.

One column an arm; arms that find no room side by side go below (``report.grid``). Whether an objective is met stands
as a word beside the sign, so that it reads without colour, in a log and aloud. ``pdbench report RUN`` draws the same
from a stored document; what an older or partial one lacks is left out or shown as ``n/a``.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from math import expm1
from typing import Any

from rich.console import Console
from rich.text import Text

from pdbench.report import words
from pdbench.report.clean import cleaned
from pdbench.report.grid import Blocks, Cell, Grid, Line, Prose, line
from pdbench.sentence import percent

Document = dict[str, Any]
_OBJECTIVE = re.compile(r"^(?P<metric>\w+) (?P<stat>p[\d.]+) <= (?P<limit>.+)$")
_COMPARED = re.compile(r"^(?P<metric>\w+)_(?P<stat>p\d+)$")
_LATENCIES = (
    ("TTFT", "ttft_ms", ("p50", "p90", "p99")),
    ("TPOT", "tpot_ms", ("p90",)),
    ("TBT", "tbt_ms", ("p90", "p99")),
    ("worst gap", "worst_gap_ms", ("p90",)),
)
_WAITED = 0.5  # a client that waits for its core half of the time it wants to run says so
_FINE = 5.0  # intervals narrower than this show a decimal
_OUTCOMES = {"met": ("✓ met", "green"), "missed": ("✗ missed", "red")}
_VERDICT_STYLE = {"better": "green", "worse": "red"}


def print_document(document: Document, console: Console) -> None:
    """The table, the reasons if it is invalid, warnings, and the sentence."""
    document = cleaned(document)
    console.print(table_of(document))
    if not document.get("arms"):
        console.print(Text("No arm was measured."))
    for text in notes_of(document):
        console.print(Prose(text, style="yellow"))
    if document.get("sentence"):
        console.print()
        console.print(Prose(str(document["sentence"]), style="bold"))


def table_of(document: Document) -> Blocks[str]:
    """The whole table; of a cleaned document (``report.clean``)."""
    return Blocks(list(document.get("arms", {})), lambda names: _grid(document, names), _title(document))


def notes_of(document: Document) -> list[str]:
    """Reasons of invalidity with their remedies, then warnings."""
    lines = []
    for reason in document.get("validity", {}).get("reasons", []):
        message, remedy = (reason.get("message"), reason.get("remedy")) if isinstance(reason, dict) else (reason, None)
        lines += [f"INVALID: {message}", *([f"  {remedy}"] if remedy else [])]
    lines += [f"warning: {text}" for text in document.get("warnings", [])]
    lines += _looked(document)
    for name, arm in document.get("arms", {}).items():
        saturation = arm.get("saturation") or {}
        lines += [f"warning: {name}: saturation: {text}" for text in saturation.get("warnings", [])]
        lines += [f"warning: {name}: {text}" for text in arm.get("warnings", [])]
        if died := arm.get("server_died"):
            pairs = ", ".join(str(pair + 1) for pair in died["pairs"])
            lines.append(f"warning: {name}: the server died in pair {pairs}; its last lines:")
            lines += [f"  {text}" for text in died["last_lines"]]
    return lines


def _looked(document: Document) -> list[str]:
    """Which planned look decided each head (``--pairs auto``)."""
    looks = document.get("looks")
    if not looks:
        return []
    lines = []
    for head, found in looks["decided"].items():
        if not found["look"]:
            lines.append(f"warning: {head}: no look was reached, the first comes after {looks['pairs'][0]} pairs")
            continue
        after = looks["pairs"][found["look"] - 1]
        lines.append(f"{head}: {found['status']} at look {found['look']} of {len(looks['pairs'])}, after {after} pairs")
    return lines


def _title(document: Document) -> Text:
    workload = document.get("workload", {})
    rate = workload.get("arrivals", {}).get("rate")
    parts = [f"{document.get('kind', 'run')}: workload {workload.get('name', 'unknown')}"]
    if rate is not None:
        parts.append(f"{rate:g} req/s")
    if document.get("comparisons"):
        parts.append(f"{document['pairs']} pair{'s' * (document['pairs'] != 1)}")
    title = Text(", ".join(parts), style="bold")
    if document.get("validity", {}).get("status") == "INVALID":
        title.append(": INVALID, no verdict", style="red")
    return title


# ---- rows


def _grid(document: Document, names: Sequence[str]) -> Grid:
    """The rows of some arms, side by side."""
    arms: dict[str, Document] = {name: document["arms"][name] for name in names}
    shown = [f"{name}{' (simulated)' if arm.get('simulated') else ''}" for name, arm in arms.items()]
    grid = Grid("latencies in ms", shown)
    grid.add("devices", [str(arm.get("devices", "n/a")) for arm in arms.values()])
    grid.add("requests ok / failed", [_counts(arm.get("requests")) for arm in arms.values()])
    if any("joint" in arm.get("attainment", {}) for arm in arms.values()):
        grid.add("joint attainment", [_share(arm, "joint") for arm in arms.values()], style="bold")
    for label, key, stats in _LATENCIES:
        for stat in stats:
            values = [_of(arm, key, stat) for arm in arms.values()]
            if any(value != "n/a" for value in values):
                grid.add(f"{label} {stat.upper()}", values)
    _objective_rows(grid, document, arms)
    _comparison_rows(grid, document, names)
    _tail_rows(grid, arms)
    return grid


def _objective_rows(grid: Grid, document: Document, arms: dict[str, Document]) -> None:
    """``ttft p90 <= 400ms | 310 ✓ met | 460 ✗ missed``, and below it the share of requests within the limit."""
    grid.heading("SLO")
    valid = words.is_valid(document)
    for text in document.get("slo", []):
        grid.add(text, [_judged(arm, text, valid=valid) for arm in arms.values()])


def _judged(arm: Document, text: str, *, valid: bool) -> tuple[Line, ...]:
    found = words.outcome(arm, text, valid=valid)
    if not found:
        return (line("n/a"),)
    match = _OBJECTIVE.match(text)
    value = _of(arm, f"{match['metric']}_ms", match["stat"]) if match else "n/a"
    word = Text(*_OUTCOMES.get(found, (found, "")))
    share = _share(arm, text)
    return (Line((*share.parts, word)),) if value == "n/a" else (line(value, word), share)


def _comparison_rows(grid: Grid, document: Document, names: Sequence[str]) -> None:
    """Change against the base, with interval and verdict, a row a metric; nothing of what is not VALID."""
    every = document.get("comparisons") or []
    if not every or not words.is_valid(document):
        return
    level = every[0].get("level", 0.95)  # planned looks have levels of their own
    grid.heading(f"change against {every[0]['base']} (* primary){'' if level == 0.95 else f', {100 * level:g} %'}")
    comparisons = [item for item in every if item["head"] in names]
    for metric in dict.fromkeys(item["metric"] for item in comparisons):
        of_metric = [c for c in comparisons if c["metric"] == metric]
        found = {c["head"]: c for c in of_metric}
        label = _label(metric) + (" *" if any(c["primary"] for c in of_metric) else "")
        grid.add(label + _detectable(of_metric), [_change(found[n]) if n in found else "" for n in names])


def _detectable(items: list[Document]) -> str:
    """Under the label, the smallest change that these pairs would have found, one figure a head."""
    if all(item.get("mde") is None for item in items):
        return ""
    unit = "pt" if items[0]["scale"] == "difference" else "%"
    shown = ["-" if item.get("mde") is None else _least(100 * item["mde"]) for item in items]
    return f"\n  mde {', '.join(shown)} {unit}"


def _least(value: float) -> str:
    return ">999" if value >= 1000 else f"{value:.2g}" if value < 10 else f"{value:.0f}"


def _label(metric: str) -> str:
    match = _COMPARED.match(metric)
    if match is None:
        return metric.replace("_", " ")
    name = match["metric"].replace("_", " ")
    return f"{name.upper() if len(name) <= 4 else name} {match['stat'].upper()}"


def _change(item: Document) -> tuple[Line, ...]:
    """``+42 % [+34, +51]`` and, below it, the verdict. Attainment in points, where up is better."""
    low, high = _bounds(item)
    if item["effect"] is None or item.get("percent") is None:
        shown = "infinite"
    elif item["scale"] == "log_ratio":
        shown = f"{_signed(item['percent'])} %"
    else:
        shown = f"{_signed(-100 * item['effect'])} pt"
    interval = (
        f"[{_bound(low, high - low)}, {_bound(high, high - low)}]" if low is not None and high is not None else ""
    )
    return line(shown, interval), line(Text(item["verdict"], style=_VERDICT_STYLE.get(item["verdict"], "")))


def _signed(value: float) -> str:
    """Two digits and a sign; an interval of two pairs can reach to the thousands, which nobody reads."""
    if abs(value) >= 1000:
        return ">+999" if value > 0 else "<-999"
    text = f"{value:+.0f}" if abs(value) >= 10 else f"{value:+.1f}"
    return "0.0" if text in ("+0.0", "-0.0") else text


def _bound(value: float, width: float) -> str:
    """A bound is no more exact than its interval is narrow; whole numbers also keep three arms in 80 columns."""
    if width < _FINE or abs(value) >= 1000:
        return _signed(value)
    text = f"{value:+.0f}"
    return "0" if text in ("+0", "-0") else text


def _bounds(item: Document) -> tuple[float | None, float | None]:
    """The interval in what is displayed: per cent, or points with the sign turned (up is good)."""
    if item.get("interval") is None:
        return None, None
    low, high = item["interval"]
    if low is None or high is None:
        return None, None
    if item["scale"] == "log_ratio":
        return 100 * expm1(min(low, 700.0)), 100 * expm1(min(high, 700.0))
    return -100 * high, -100 * low


def _tail_rows(grid: Grid, arms: dict[str, Document]) -> None:
    grid.heading("load and client")
    figures = [arm.get("throughput", {}) for arm in arms.values()]
    grid.add("requests/s", [_number(one.get("requests_per_s")) for one in figures])
    good = [_number(one.get("good_requests_per_s_per_device"), "") for one in figures]
    _add_known(grid, "good requests/s/device", good)
    grid.add("output tokens/s", [_number(one.get("output_tokens_per_s")) for one in figures])
    _server_rows(grid, arms)
    for label, key in (("dispatch lag P99", "dispatch_lag_ms"), ("client lag P99", "client_lag_ms")):
        if any(key in arm for arm in arms.values()):
            grid.add(label, [_number(arm.get(key, {}).get("p99")) for arm in arms.values()])
    _add_known(grid, "loop lag/CPU P99", [_audit(arm) for arm in arms.values()])
    _add_known(grid, "waited for CPU", [_waited(arm) for arm in arms.values()])
    _add_known(grid, "load workers", [_workers(arm) for arm in arms.values()])
    grid.add("validity", [_validity(arm) for arm in arms.values()])
    _saturation_rows(grid, arms)


def _workers(arm: Document) -> Line:
    """``2``, ``2, 1 lost``, ``2, clocks 0.31 ms apart``; nothing where one engine carried the load."""
    workers = arm.get("workers", [])
    if not workers:
        return line()
    lost = sum(one["lost"] for one in workers)
    apart = max(abs(one["clock_offset_ms"]) for one in workers)
    parts = [str(workers[0]["ranks"]), *([f"{lost} lost"] if lost else [])]
    parts += [f"clocks {apart:.3g} ms apart"] if apart else []
    return line(*", ".join(parts).split(" "))


def _server_rows(grid: Grid, arms: dict[str, Document]) -> None:
    """What the server's own stamps say; rows that no arm can fill are left out."""
    _add_known(grid, "device busy", [_busy(arm) for arm in arms.values()])
    _add_known(grid, "idle devices", [_idle(arm) for arm in arms.values()])
    if any("separation" in arm for arm in arms.values()):
        grid.add("separation", [_separation(arm) for arm in arms.values()])
    gaps = [_number(arm.get("handoff", {}).get("gap_ms", {}).get("p90"), "") for arm in arms.values()]
    _add_known(grid, "hand-off gap P90", gaps)
    _add_known(grid, "  queue/copy/queue P90", [_split(arm) for arm in arms.values()])
    stalls = [arm.get("interference", {}).get("stall_ms_per_1k_tokens") for arm in arms.values()]
    _add_known(grid, "stall ms/1k prefill", [_number(stall, "") for stall in stalls])


def _saturation_rows(grid: Grid, arms: dict[str, Document]) -> None:
    """The closed-loop run, where there was one."""
    runs = [arm.get("saturation") or {} for arm in arms.values()]
    if not any(runs):
        return
    grid.heading(f"saturated, {max(run.get('concurrency', 0) for run in runs)} streams")
    grid.add("output tokens/s/device", [_number(run.get("output_tokens_per_s_per_device")) for run in runs])
    _add_known(grid, "device busy", [_busy(run) for run in runs])


# ---- cells


def _add_known(grid: Grid, label: str, values: Sequence[Cell]) -> None:
    """A row only where at least one arm has something to show."""
    if any(value.parts if isinstance(value, Line) else len(value) for value in values):
        grid.add(label, values)


def _share(arm: Document, objective: str) -> Line:
    """``94 % [88, 97]``: attainment with its 95 % interval; without one where a short run gave none."""
    share = percent(arm.get("attainment", {}).get(objective))
    bounds = arm.get("attainment_interval", {}).get(objective)
    return line(share, f"[{_least_share(bounds[0])}, {_most_share(bounds[1])}]" if bounds else "")


def _least_share(share: float) -> str:
    """Whole per cent, but 100 only where it is: beside ``99.7 %`` a bound of 100 would be a lie."""
    return "99" if 0.995 <= share < 1 else f"{100 * share:.0f}"


def _most_share(share: float) -> str:
    return "1" if 0 < share <= 0.005 else f"{100 * share:.0f}"


def _busy(entry: Document) -> Line:
    return line(*(percent(share) for share in entry.get("device_busy", [])))


def _idle(arm: Document) -> Line:
    return line(*(Text(name, style="red") for name in arm.get("separation", {}).get("idle_devices", [])))


def _separation(arm: Document) -> Text:
    status = arm.get("separation", {}).get("status", "not available")
    return Text("n/a" if status == "not available" else status, style="red" if status == "violated" else "")


def _split(arm: Document) -> Line:
    """P90 of the wait before prefill, of the transfer, and of the wait before decode, of arms that hand over."""
    parts = arm.get("handoff_split", {}).get("parts_ms", {})
    if "transfer" not in parts:
        return line()
    first, second, third = (_number(parts.get(n, {}).get("p90")) for n in ("prefill_queue", "transfer", "decode_queue"))
    return Line((Text(f"{first}/"), Text(f"{second}/"), Text(third)), joint="")


def _audit(arm: Document) -> Line:
    """``0.42/31 %``: how late the client's event loop was, and how busy it kept its core in the worst 100 ms."""
    audit = arm.get("audit", {})
    if "loop_lag_ms" not in audit:
        return line()
    busy = percent(audit["cpu_share"]["p99"]) if "cpu_share" in audit else "n/a"
    return line(f"{_number(audit['loop_lag_ms']['p99'])}/{busy}")


def _waited(arm: Document) -> str:
    """Of the time in which the client wanted to run, where it was much."""
    share = arm.get("audit", {}).get("cpu_wait_share", 0.0)
    return percent(share) if share >= _WAITED else ""


def _validity(arm: Document) -> Text:
    status = arm.get("validity", {}).get("status", "n/a")
    return Text(status, style="red" if status == "INVALID" else "")


def _counts(requests: Document | None) -> str:
    return f"{requests['ok']} / {requests['failed']}" if requests else "n/a"


def _of(arm: Document, key: str, stat: str) -> str:
    """A percentile in ms; ``inf`` where the document has null, ``n/a`` where it has nothing."""
    spread = arm.get(key)
    if spread is None or stat not in spread:
        return "n/a"
    return _number(spread[stat], "inf")


def _number(value: float | None, missing: str = "n/a") -> str:
    if value is None:
        return missing
    return f"{value:.0f}" if abs(value) >= 100 else f"{value:.3g}"
