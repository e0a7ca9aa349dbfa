"""The table reads in 80 columns, without colour, and says met and missed in words."""

from __future__ import annotations

import io
from typing import Any

import pytest
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
    assert "change (* primary)" in text


@pytest.mark.parametrize(("effect", "shown"), [(0.0, " 0.0 pt"), (-0.25, "+25 pt"), (-20.0, ">+999 pt")])
def test_attainment_shows_up_as_better(effect: float, shown: str) -> None:
    document = compare_document(
        {"base": arm(0.5), "split": arm(0.5)}, [change("split", "joint_attainment", "equivalent", effect)]
    )
    assert shown in drawn(document)


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
