"""Files for other tools: cells that a spreadsheet cannot run, and markdown that a reader cannot be fooled by."""

from __future__ import annotations

import csv
import io
import math
from pathlib import Path
from typing import Any

import pytest

from pdbench.report.csvfile import REQUEST_COLUMNS, arms_csv, cell, requests_csv
from pdbench.report.markdown import document_markdown
from pdbench.report.summarymd import safe
from pdbench.stored import open_run
from tests.unit.documents import INVALID, SLO, arm, change, compare_document
from tests.unit.measure.helpers import request
from tests.unit.report.test_gate_reports import calibration
from tests.unit.report.test_gate_reports import document as gate
from tests.unit.storedhelp import write


def read(text: str) -> list[dict[str, str]]:
    assert "\r\n" in text
    return list(csv.DictReader(io.StringIO(text, newline="")))


def test_requests_as_csv(tmp_path: Path) -> None:
    records = [
        request(0, 10, [5, 7], request_id="r0", http_status=200),
        request(1, None, status="error", error='=cmd|"/c calc"!A1', sent_ns=None, end_ns=None, request_id="r,1"),
        request(2, 10, warmup=True, note="a\nb"),
    ]
    rows = read(requests_csv(open_run(str(write(tmp_path, [("@arm", 0, records, [], [])])))))
    assert tuple(rows[0]) == REQUEST_COLUMNS
    assert [row["arm"] for row in rows] == ["'@arm"] * 3
    first, failed, warm = rows
    assert (first["ttft_ms"], first["due_ms"], first["http_status"]) == ("10.0", "0.0", "200")
    assert (failed["ttft_ms"], failed["sent_ms"], failed["end_ms"], failed["http_status"]) == ("inf", "", "", "")
    assert failed["error"] == '\'=cmd|"/c calc"!A1'
    assert failed["request_id"] == "r,1"
    assert (warm["warmup"], warm["tpot_ms"], warm["note"]) == ("1", "", "a\nb")


def test_arms_as_csv(tmp_path: Path) -> None:
    run = open_run(str(write(tmp_path, [("a", 0, [request(0, None, status="error")], [], [])])))
    (row,) = read(arms_csv(run))
    assert row["ttft_p90_ms"] == "inf"
    assert row["requests_failed"] == "1"
    assert row[f"met {SLO[0]}"] == "0"
    found = {"where": "resolved", "rate": 2.0, "interval": [1.8, None]}
    run.document["arms"] = {
        "s": {"devices": 2, "goodput": {**found, "per_device": {"rate": 1.0, "interval": [0.9, None]}}}
    }
    (row,) = read(arms_csv(run))
    assert (row["goodput"], row["goodput_low"], row["goodput_high"]) == ("2.0", "1.8", "")
    assert row["goodput_per_device"] == "1.0"
    del run.document["arms"]
    assert arms_csv(run) == "arm\r\n"


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        ("=1+1", "'=1+1"), ("+1", "'+1"), ("-1", "'-1"), ("@x", "'@x"), ("\tx", "'\tx"), ("\r=x", "'\r=x"),
        ("  =x", "'  =x"), ("\u00a0=1", "'\u00a0=1"), ("\x0b=1", "'\x0b=1"), ("\u200b=1", "'\u200b=1"),
        ("\ufeff\u3000@x", "'\ufeff\u3000@x"), ("\uff1d1", "'\uff1d1"), ("\uff0b1", "'\uff0b1"),
        ("\uff0d1", "'\uff0d1"),
        (" \uff20x", "' \uff20x"), ("\u00a0x=1", "\u00a0x=1"), (" ", " "),
        ("plain", "plain"), ("a=b", "a=b"), ("", ""), (-1.5, -1.5), (None, ""), (math.nan, ""),
        (math.inf, math.inf), (0, 0), (False, False),
    ],
)  # fmt: skip
def test_cells(value: Any, shown: Any) -> None:
    assert cell(value) == shown


def compare(**changes: Any) -> dict[str, Any]:
    items = [change("head", "joint_attainment", "better", -0.1), change("head", "ttft_p90", "worse", None)]
    items.append(change("head", "tbt_p90", "not resolved", 0.1, pairs=1))
    return compare_document({"base": arm(0.8), "head": arm(0.95, ttft=None)}, items) | changes


def test_a_comparison_as_markdown() -> None:
    text = document_markdown(compare())
    lines = text.splitlines()
    assert lines[0] == "### pdbench compare: chat, 2 req/s"
    assert lines[2] == "**A sentence.**"
    assert "✅ VALID" in text
    assert "|  | base | head |" in text
    assert "| ttft p90 &lt;= 400ms | ❌ missed (300 ms, 80 %) | ✅ met (infinite, 95 %) |" in text
    assert "| head against base | joint\\_attainment (primary) | +10.0 pt | +5.0 pt to +15.0 pt | better |" in text
    assert "| head against base | ttft\\_p90 | infinite | none | worse |" in text
    assert "| head against base | tbt\\_p90 | +10.5 % | none | not resolved |" in text
    assert "6 pairs" in lines[-1]


def test_an_invalid_run_has_no_verdict() -> None:
    """Whatever its document says of single objectives and changes."""
    text = document_markdown(compare(validity=INVALID))
    assert "| ttft p90 &lt;= 400ms | no verdict (300 ms, 80 %) | no verdict (infinite, 95 %) |" in text
    for word in ("✅", "❌", "better", "worse"):
        assert word not in text


def test_invalid_and_hostile_words() -> None:
    nasty = "<script>alert(1)</script> ![x](http://evil/x.png) | @everyone `rm` *b*\nnext"
    found = compare(validity=INVALID, sentence=nasty, warnings=[nasty] * 30)
    found["arms"] = {nasty: arm(0.5)}
    text = document_markdown(found)
    assert "⚠️ INVALID" in text
    assert "- requests left late: free a core" in text
    assert "and 10 more" in text
    for bad in ("<script", "![x]", "http://", "@everyone", "\nnext"):
        assert bad not in text
    assert safe("a|b") == "a\\|b"
    widths = {line.replace("\\|", "").count("|") for line in text.splitlines() if line.startswith("| ")}
    assert 3 in widths


def search(goodput: dict[str, Any] | None) -> dict[str, Any]:
    entry: dict[str, Any] = {"devices": 2, "goodput": goodput, "used": 6, "stop": "x", "left_out": 0, "runs": []}
    ratio = {"base": "a", "head": "b", "ratio": 1.2, "interval": [1.1, None], "verdict": "better"}
    return {
        "kind": "search", "workload": {"name": "chat"}, "validity": {"status": "VALID", "reasons": []}, "run": "r",
        "sentence": "S.", "arms": {"a": entry}, "ratios": [ratio, {**ratio, "ratio": None}],
    }  # fmt: skip


def test_a_search_as_markdown() -> None:
    found = {"where": "above", "rate": 8.0, "interval": [None, None], "per_device": {"rate": 4.0}}
    text = document_markdown(search(found))
    assert "| a | 2 | &gt; 8 | not resolved | &gt; 4 | 6 |" in text
    assert text.count("per device: 1.2 times (1.1 to ...), better") == 1
    assert "| a | 2 | n/a | n/a | n/a | 6 |" in document_markdown(search(None))
    many = search(found) | {"workload": {"name": "chat", "arrivals": {"rate": 2.0}}}
    assert document_markdown(many).splitlines()[0] == "### pdbench search: chat", "it has no one rate"
    invalid = document_markdown(search(found) | {"validity": INVALID})
    assert "| a | 2 | n/a | n/a | n/a | 6 |" in invalid
    assert "better" not in invalid


def test_other_documents_as_markdown() -> None:
    assert document_markdown(gate()).startswith("### ❌ pdbench gate: FAIL")
    noise = document_markdown(calibration() | {"kind": "calibration", "run": "r", "workload": {"name": "chat"}})
    assert noise.splitlines()[2].startswith("**Here a gate sees a slowdown of 13 % of tpot\\_p90 in 6 pairs")
    assert "| joint\\_attainment | 6.0 pt | 13.0 pt | 9.0 pt | 6.5 pt |" in noise
    assert "| ttft\\_p90 | 20.0 % | 50.0 % | 40.0 % | 30.0 % |" in noise
    nothing = {"kind": "calibration", "metrics": {}, "validity": INVALID}
    assert "**INVALID: nothing is stored.**" in document_markdown(nothing)
    bare = {"kind": "tune", "sentence": "x is best.", "arms": {"x": {"requests": 60}}, "run": "r"}
    assert document_markdown(bare).splitlines()[2] == "**x is best.**"
    tried = {
        "values": {"token_budget": 64},
        "joint": 0.9,
        "ttft_p90_ms": 310.4,
        "used": 2,
        "left_out": 1,
        "chosen": True,
    }
    swept = document_markdown({**bare, "current": {"token_budget": 32}, "arms": {"x": tried, "y": {"used": 0}}})
    assert "|  | token\\_budget | joint attainment | TTFT P90 | runs | INVALID |" in swept
    assert "| 1 (chosen) | 64 | 90 % | 310 ms | 2 | 1 |" in swept
    assert "| 2 |  | n/a | n/a | 0 |  |" in swept
    assert "infinite" in document_markdown(compare(arms={"base": {"requests": {}, "ttft_ms": {"p90": None}}}, slo=[]))
