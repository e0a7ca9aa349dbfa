"""Nothing from a server or a file steers the terminal."""

from __future__ import annotations

import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pdbench.report.clean import clean, clean_lines, cleaned


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("plain", "plain"),
        ("", ""),
        ("日本語 – ünïcode ✓", "日本語 – ünïcode ✓"),
        ("[red]x[/red] :smile:", "[red]x[/red] :smile:"),
        ("\x1b[31mred\x1b[0m", "red"),
        ("\x1b]0;title\x07", "\\x1b]0;title\\x07"),
        ("\x1b[2J\x1b[H", "\\x1b[2J\\x1b[H"),
        ("\x9b2J", "\\x9b2J"),
        ("a\rb\nc\td", "a b c d"),
        ("safe\u202egpj.exe", "safe\\u202egpj.exe"),
        ("a\u2028b\u200bc", "a\\u2028b\\u200bc"),
        ("\ud800", "\\ud800"),
        ("\U000e0041", "\\U000e0041"),
        ("\x7f\x00", "\\x7f\\x00"),
    ],
)
def test_a_line(text: str, shown: str) -> None:
    assert clean(text) == shown


def test_lines_stay_lines() -> None:
    assert clean_lines("one\x1b[1m\n  two\r\nthree\x08") == "one\n  two \nthree\\x08"


@given(st.text())
def test_what_comes_out_is_visible_and_one_line(text: str) -> None:
    shown = clean(text)
    assert not any(unicodedata.category(one) in {"Cc", "Cf", "Cs", "Zl", "Zp"} for one in shown)
    assert clean(shown) == shown
    shown.encode()


def test_a_document_is_cleaned_throughout() -> None:
    document = {"a\x1b": [{"name": "b\x07", "value": 1.5, "none": None}, ("c\n",)], "ok": True}
    assert cleaned(document) == {"a\\x1b": [{"name": "b\\x07", "value": 1.5, "none": None}, ["c "]], "ok": True}
