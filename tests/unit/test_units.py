from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pdbench import units
from pdbench.errors import UsageError


@pytest.mark.parametrize(
    ("text", "ns"),
    [
        ("400ms", 400_000_000),
        ("0.4s", 400_000_000),
        (".4 s", 400_000_000),
        ("50us", 50_000),
        ("50µs", 50_000),
        ("7ns", 7),
        ("10s", 10_000_000_000),
        ("5m", 300_000_000_000),
        ("5min", 300_000_000_000),
        ("1h", 3_600_000_000_000),
        ("0ms", 0),
        ("0.1ms", 100_000),
        ("400MS", 400_000_000),
    ],
)
def test_durations(text: str, ns: int) -> None:
    assert units.parse_duration_ns(text) == ns


@pytest.mark.parametrize("text", ["", "ms", "400", "-4ms", "4 parsecs", "1e3ms", "4ms 5", "nan s", "4%", "1,5s"])
def test_bad_durations(text: str) -> None:
    with pytest.raises(UsageError):
        units.parse_duration_ns(text)


def test_a_bare_number_says_what_to_write() -> None:
    with pytest.raises(UsageError, match="400ms or 400s") as caught:
        units.parse_duration_ns("400", where="--slo")
    assert str(caught.value).startswith("--slo: ")


@given(st.integers(0, 10**18))
def test_a_formatted_duration_reads_back(ns: int) -> None:
    assert units.parse_duration_ns(units.format_duration(ns)) == ns


@pytest.mark.parametrize(("text", "share"), [("1%", 0.01), ("0.01", 0.01), ("100 %", 1.0), ("0", 0.0), ("0.5%", 0.005)])
def test_shares(text: str, share: float) -> None:
    assert units.parse_share(text) == share


@pytest.mark.parametrize("text", ["101%", "1.5", "-1%", "1ms", "", "one"])
def test_bad_shares(text: str) -> None:
    with pytest.raises(UsageError):
        units.parse_share(text)


@pytest.mark.parametrize(
    ("ns", "text"),
    [
        (340_000, "0.34 ms"),
        (25_340_000, "25.3 ms"),
        (400_000_000, "400 ms"),
        (1_234_000_000, "1,234 ms"),
        (0, "0.00 ms"),
        (math.inf, "inf"),
        (-math.inf, "-inf"),
        (math.nan, "n/a"),
    ],
)
def test_format_ms(ns: float, text: str) -> None:
    assert units.format_ms(ns) == text


@pytest.mark.parametrize(
    ("count", "text"), [(512, "512 B"), (1536, "1.5 KiB"), (3 * 2**20, "3.0 MiB"), (2**50, "1024.0 TiB")]
)
def test_format_bytes(count: int, text: str) -> None:
    assert units.format_bytes(count) == text


def test_milliseconds_are_a_millionth() -> None:
    assert units.ms(1_500_000) == 1.5
    assert units.seconds(1_500_000_000) == 1.5
    assert units.format_percent(0.973) == "97 %"
