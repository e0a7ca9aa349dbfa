"""The table reads in 80 columns, without colour, and says met and missed in words."""

from __future__ import annotations

import io
from typing import Any

import pytest
from rich.cells import cell_len
from rich.console import Console

from pdbench.report.text import notes_of, print_document
from tests.unit.documents import INVALID, SLO, arm, change, compare_document


def drawn(document: dict[str, Any], *, width: int = 80) -> str:
    stream = io.StringIO()
    print_document(document, Console(file=stream, width=width, no_color=True, highlight=False))
    return stream.getvalue()


def row(text: str, label: str) -> str:
    return next(line for line in text.splitlines() if line.startswith(label))


DOCUMENT = compare_document(
    {"base": arm(0.95), "split": arm(0.61, ttft=None)},
    [change("split", "joint_attainment", "worse", 0.34), change("split", "ttft_p90", "worse", None)],
)


def test_three_default_arms_fit_80_columns() -> None:
    arms = {name: arm(0.9) for name in ("colocated-chunked", "colocated", "disaggregated")}
    found = change("disaggregated", "joint_attainment", "not resolved") | {"base": "colocated-chunked"}
    text = drawn(compare_document(arms, [found]))
    assert all(len(line) <= 80 for line in text.splitlines())
    assert "disaggregated" in text
    assert "not resolved" in text
    assert "-30 pt [-35, -25]" in text, "no cell of an ordinary comparison is wrapped"
    assert "worst_gap p90 <= 100ms" in text


def test_words_and_signs() -> None:
    text = drawn(DOCUMENT)
    assert "✓ met" in row(text, SLO[0])
    assert "✗ missed" in row(text, SLO[0])
    assert "\x1b" not in text


def test_infinite_and_absent_values() -> None:
    document = compare_document({"base": arm(0.95), "split": arm(0.2, ttft=None)}, [])
    del document["arms"]["base"]["ttft_ms"]
    line = row(drawn(document), "TTFT P90")
    assert "n/a" in line
    assert "inf" in line


def test_changes_against_the_base() -> None:
    text = drawn(DOCUMENT)
    assert "-34 pt [-39, -29]" in row(text, "joint attainment *")
    assert "infinite" in text
    assert "change against base (* primary)" in text


@pytest.mark.parametrize(("effect", "shown"), [(0.0, " 0.0 pt"), (-0.25, "+25 pt"), (-20.0, ">+999 pt")])
def test_attainment_shows_up_as_better(effect: float, shown: str) -> None:
    document = compare_document(
        {"base": arm(0.5), "split": arm(0.5)}, [change("split", "joint_attainment", "equivalent", effect)]
    )
    assert shown in drawn(document)


SPLIT = {
    "separation": {"status": "proven", "reasons": [], "idle_devices": ["cpu:1"]},
    "handoff_split": {
        "requests": 40, "transfers": 40, "bytes": 9,
        "parts_ms": {k: {"p50": 1.0, "p90": v} for k, v in
                     {"prefill_queue": 61.5, "transfer": 6.86, "decode_queue": 0.4}.items()},
    },
    "interference": {"gaps": 9, "disturbed_share": 0.0, "prefill_tokens": 0, "stall_ms_per_1k_tokens": 0.0},
    "attainment_interval": {"joint": [0.82, 0.97], SLO[1]: [0.98, 1.0]},
    "saturation": {
        "concurrency": 64, "requests": {"scheduled": 256, "ok": 256, "failed": 0, "warmup": 0},
        "output_tokens_per_s_per_device": 405.8, "device_busy": [0.99, 0.31], "warnings": ["odd"],
    },
}  # fmt: skip


def test_what_the_server_says() -> None:
    arms = {"colocated-chunked": arm(0.9), "colocated": arm(0.9), "disaggregated": arm(0.9) | SPLIT}
    violated = {"status": "violated", "reasons": ["local prefill"], "idle_devices": []}
    arms["colocated"]["separation"] = violated
    text = drawn(compare_document(arms, []))
    assert row(text, "separation").split() == ["separation", "n/a", "violated", "proven"]
    assert row(text, "idle devices").split() == ["idle", "devices", "cpu:1"]
    assert "61.5/6.86/0.4" in row(text, "  queue/copy/queue P90")
    assert row(text, "stall ms/1k prefill").endswith("0")
    assert "90 % [82, 97]" in row(text, "joint attainment")
    assert "100 % [98, 100]" in text
    assert "saturated, 64 streams" in text
    assert "406" in row(text, "output tokens/s/device")
    assert "99 % 31 %" in text
    assert "warning: disaggregated: saturation: odd" in text
    assert all(len(line) <= 80 for line in text.splitlines())


def test_older_documents_have_none_of_these_rows() -> None:
    text = drawn(DOCUMENT)
    for label in ("separation", "idle", "queue/copy", "stall", "saturated", "% ["):
        assert label not in text


def test_the_least_detectable_change_stands_below_its_metric() -> None:
    arms = {"base": arm(0.9), "one": arm(0.9), "two": arm(0.9)}
    found = [change("one", "ttft_p90", "worse"), change("two", "ttft_p90", "worse") | {"mde": 13.0}]
    text = drawn(compare_document(arms, [*found, change("one", "tpot_p90", "worse") | {"mde": None}]))
    assert row(text, "  mde").split()[:4] == ["mde", "4,", ">999", "%"]
    assert text.count("mde") == 1


@pytest.mark.parametrize(
    ("interval", "shown"), [([0.01, 0.02], "[-2.0, -1.0]"), ([-0.002, 0.06], "[-6, 0]"), ([0.1, 0.2], "[-20, -10]")]
)
def test_bounds_are_no_more_exact_than_their_interval(interval: list[float], shown: str) -> None:
    item = change("split", "joint_attainment", "worse", 0.015) | {"interval": interval}
    assert shown in drawn(compare_document({"base": arm(0.9), "split": arm(0.9)}, [item]))


def test_a_level_of_its_own_is_told() -> None:
    item = change("split", "ttft_p90", "worse") | {"level": 0.996}
    assert "change against base (* primary), 99.6 %" in drawn(
        compare_document({"base": arm(0.9), "split": arm(0.9)}, [item])
    )


def test_which_look_decided() -> None:
    decided = {"one": {"look": 2, "status": "worse"}, "two": {"look": 0, "status": "not resolved"}}
    document = compare_document({"base": arm(0.9)}, [])
    document["looks"] = {"pairs": [6, 10, 16], "alphas": [0.002, 0.003, 0.005], "decided": decided}
    lines = notes_of(document)
    assert "one: worse at look 2 of 3, after 10 pairs" in lines
    assert "warning: two: no look was reached, the first comes after 6 pairs" in lines


def test_reasons_and_warnings() -> None:
    document = compare_document({"base": arm(0.5)}, [], INVALID)
    document["warnings"] = ["the arms differ in their model"]
    document["arms"]["base"]["server_died"] = {"pairs": [0, 2], "last_lines": ["out of memory"]}
    lines = notes_of(document)
    assert lines[:2] == ["INVALID: requests left late", "  free a core"]
    assert "warning: the arms differ in their model" in lines
    assert "warning: base: the server died in pair 1, 3; its last lines:" in lines
    assert lines[-1] == "  out of memory"


def test_ends_in_the_sentence() -> None:
    assert drawn(DOCUMENT).rstrip().endswith("A sentence.")


def test_square_brackets_in_a_name_are_not_markup() -> None:
    document = compare_document({"base": arm(0.5)}, [])
    document["arms"]["base"]["warnings"] = ["[red]odd[/red]"]
    assert "[red]odd[/red]" in drawn(document)


def test_the_audit_of_the_client_is_a_line_and_a_second_one_when_it_starved() -> None:
    lag = {"p50": 0.1, "p99": 0.42, "max": 3.0}
    audit = {"loop_lag_ms": lag, "cpu_share": {"p50": 0.2, "p99": 0.31, "max": 0.4}, "cpu_wait_share": 0.2}
    text = drawn(compare_document({"base": arm(0.9) | {"audit": audit}, "split": arm(0.9)}, []))
    assert row(text, "loop lag/CPU P99").split()[3:5] == ["0.42/31", "%"]
    assert "waited" not in text
    starved = audit | {"cpu_wait_share": 0.83}
    assert "83 %" in row(drawn(compare_document({"base": arm(0.9) | {"audit": starved}}, [])), "waited for CPU")


NAMES = ("colocated-chunked", "colocated", "disaggregated")


def compared(names: tuple[str, ...]) -> dict[str, Any]:
    """As wide as a real comparison gets: shares by gap, and a change that nobody could resolve."""
    arms = {name: arm(0.95) | {"attainment_interval": {"joint": [0.9, 0.99], SLO[1]: [0.9985, 1.0]}} for name in names}
    for one in arms.values():
        one["attainment"][SLO[1]] = 0.9997
    wide = {"effect": 1.3, "percent": 266.0, "interval": [0.7, 1.9], "base": names[0]}
    found = [change(name, metric, "worse") | wide for metric in ("ttft_p90", "worst_gap_p90") for name in names[1:]]
    return compare_document(arms, found)


@pytest.mark.parametrize("width", [40, 60, 80, 100, 200])
@pytest.mark.parametrize("count", [1, 2, 3, 5, 8])
def test_intervals_stay_whole_at_every_width(count: int, width: int) -> None:
    names = tuple(f"{name}{i}" for i, name in enumerate((NAMES * 3)[:count]))
    text = drawn(compared(names), width=width)
    assert all(cell_len(one) <= width for one in text.splitlines())
    assert text.count("[99, 100]") == count
    assert text.count(">99.9 %") == count
    assert text.count("[+101, +569]") == 2 * (count - 1)
    assert text.count("✓ met") == 2 * count
    for name in names:
        assert all(part in text for part in name.split("-")), "in one line or folded after a dash"


def test_three_default_arms_stand_side_by_side_with_wide_changes() -> None:
    text = drawn(compared(NAMES))
    assert "colocated-chunked" in text.splitlines()[1]
    assert "disaggregated" in text.splitlines()[1]
    assert text.count("latencies in ms") == 1


def test_other_blocks_tell_the_base_again() -> None:
    text = drawn(compared(NAMES), width=50)
    assert text.count("latencies in ms") == 2
    assert "change against colocated-chunked (* primary)" in text


@pytest.mark.parametrize(
    ("name", "shown"),
    [
        ("[red]x[/red]", "[red]x[/red]"),
        (":smile:", ":smile:"),
        ("日本語", "日本語"),
        ("\x1b[31mred\x1b[0m\x1b]0;owned\x07", "red\\x1b]0;owned\\x07"),
        ("\u202eevil", "\\u202eevil"),
    ],
)
def test_names_steer_nothing(name: str, shown: str) -> None:
    document = compare_document({name: arm(0.5), "b": arm(0.5)}, [change("b", "ttft_p90", "worse") | {"base": name}])
    document |= {"sentence": f"{name} wins.", "warnings": [name]}
    document["arms"][name]["server_died"] = {"pairs": [0], "last_lines": [f"{name}\x9b2J"]}
    stream = io.StringIO()
    console = Console(file=stream, width=100, force_terminal=True, color_system="truecolor", legacy_windows=False)
    print_document(document, console)
    sent = stream.getvalue()
    assert "\x1b]" not in sent
    assert "\x9b" not in sent
    assert "\x1b[2J" not in sent
    assert "".join(shown.split("\n")) in drawn(document, width=100).replace("\n", "")


def test_invalid_is_said_first() -> None:
    text = drawn(compare_document({"base": arm(0.5)}, [], INVALID))
    assert text.splitlines()[0].endswith(": INVALID, no verdict")


@pytest.mark.parametrize("validity", [INVALID, {}, {"status": "odd"}])
def test_only_a_valid_run_meets_or_misses(validity: dict[str, Any]) -> None:
    arms = {"base": arm(0.95), "split": arm(0.61)}
    text = drawn(compare_document(arms, [change("split", "ttft_p90", "worse")], validity))
    assert row(text, SLO[0]).count("no verdict") == 2
    for word in ("met", "missed", "worse", "change against"):
        assert word not in text.replace("metric", "")


@pytest.mark.parametrize(
    "document",
    [
        {},
        {"kind": "compare", "arms": {}, "validity": INVALID},
        {"arms": {"one": {}}},
        {"arms": {"one": {"ttft_ms": {"p90": None}, "slo_met": {}, "attainment": {}}}, "slo": SLO},
        compare_document({"one": arm(0.5)}, [], {"status": "INVALID", "reasons": ["an old reason"]}),
    ],
)
def test_older_and_partial_documents_are_shown(document: dict[str, Any]) -> None:
    text = drawn(document)
    assert "workload" in text
    assert ("No arm was measured." in text) == (not document.get("arms"))
