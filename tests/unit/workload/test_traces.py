from __future__ import annotations

from pathlib import Path

import pytest

from pdbench.errors import UsageError
from pdbench.workload.spec import Arrivals
from pdbench.workload.traces import count_rows, read_slice

HEADER = "TIMESTAMP,ContextTokens,GeneratedTokens\n"
GOOD = "2023-11-16 18:15:46.6805900,374,44\n"
AZURE = Path(__file__).parents[4] / "shared" / "traces" / "azure" / "AzureLLMInferenceTrace_conv.csv"


def rows(tmp_path: Path, text: str) -> list[tuple[int, int, int]]:
    file = tmp_path / "t.csv"
    file.write_text(text)
    return [row[:3] for row in read_slice(Arrivals(process="trace", file=str(file)))]


def test_stamps_keep_a_hundred_nanoseconds(tmp_path: Path) -> None:
    text = HEADER + GOOD + "2023-11-16 18:15:46.6805901,1,2\n2023-11-17 18:15:46.68059,3,0\n"
    assert rows(tmp_path, text) == [(0, 374, 44), (100, 1, 2), (86_400 * 10**9, 3, 1)]


def test_columns_in_any_order_zones_and_blank_lines(tmp_path: Path) -> None:
    text = (
        "GeneratedTokens,TIMESTAMP,Other,ContextTokens\n"
        "4,2024-05-10 00:00:00.009930+00:00,x,7\n\n"
        "5,2024-05-10T02:00:01.009930+02:00,x,8\n"
    )
    assert rows(tmp_path, text) == [(0, 7, 4), (10**9, 8, 5)]


@pytest.mark.parametrize(
    ("text", "where", "message"),
    [
        ("", ":1", "column 'TIMESTAMP' is missing"),
        ("TIMESTAMP,ContextTokens\n", ":1", "column 'GeneratedTokens' is missing"),
        ("TIMESTAMP,ContextToken,GeneratedTokens\n", ":1", "did you mean 'ContextToken'?"),
        (HEADER + GOOD + "yesterday,1,2\n", ":3: column 'TIMESTAMP'", "'yesterday' is not a time"),
        (HEADER + GOOD + "2023-13-16 18:15:46,1,2\n", ":3: column 'TIMESTAMP'", "is not a time"),
        (HEADER + GOOD + "2023-11-16 18:15:46.6,1,2\n", ":3: column 'TIMESTAMP'", "goes backwards"),
        (HEADER + GOOD + "2023-11-16 18:15:47.6,-1,2\n", ":3: column 'ContextTokens'", "-1 is outside"),
        (HEADER + "2023-11-16 18:15:47.6,1,2.5\n", ":2: column 'GeneratedTokens'", "not a whole number"),
        (HEADER + "2023-11-16 18:15:47.6,nan,2\n", ":2: column 'ContextTokens'", "not a whole number"),
        (HEADER + GOOD + "2023-11-16 18:15:47.6,1\n", ":3", "only 2 columns"),
        (HEADER, "", "the wanted slice of the trace is empty"),
    ],
)
def test_bad_files_name_line_and_column(tmp_path: Path, text: str, where: str, message: str) -> None:
    with pytest.raises(UsageError) as caught:
        rows(tmp_path, text)
    assert caught.value.where == str(tmp_path / "t.csv") + where
    assert message in str(caught.value)


def test_a_missing_file(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="No such file"):
        list(read_slice(Arrivals(process="trace", file=str(tmp_path / "none.csv"))))


def test_a_binary_file(tmp_path: Path) -> None:
    file = tmp_path / "t.csv"
    file.write_bytes(HEADER.encode() + b"\xff\xfe\x00\x01")
    with pytest.raises(UsageError, match="not a CSV file"):
        list(read_slice(Arrivals(process="trace", file=str(file))))


@pytest.mark.skipif(not AZURE.is_file(), reason="the public trace is not beside the checkout")
def test_the_published_trace() -> None:
    assert count_rows(Arrivals(process="trace", file=str(AZURE))) == 19_366
    head = next(iter(read_slice(Arrivals(process="trace", file=str(AZURE), start_row=1))))
    assert head[:3] == (4_314_579_000, 396, 109)
