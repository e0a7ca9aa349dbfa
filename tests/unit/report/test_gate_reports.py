"""A verdict as JUnit XML, as markdown and as a table."""

from __future__ import annotations

import copy
import io
import re
import xml.etree.ElementTree as ET
from pathlib import Path
from typing import Any

import pytest
import xmlschema
from rich.console import Console

from pdbench.report.gate import calibration_sentence, print_calibration, print_gate, print_self_test
from pdbench.report.junit import cases, junit
from pdbench.report.markdown import markdown

SCHEMA = xmlschema.XMLSchema10(str(Path(__file__).with_name("junit.xsd")))


def metric(status: str, percent: float | None = 12.34, *, primary: bool = False) -> dict[str, Any]:
    effect = None if percent is None else percent / 100
    return {
        "primary": primary, "margin": 0.05, "status": status, "effect": effect, "percent": percent, "lower": effect,
        "upper": effect, "p_worse": 0.001, "pairs": 6, "next_pairs": 0, "alpha": 0.002,
        "scale": "difference" if primary else "log_ratio", "reason": "because a < b | c",
    }  # fmt: skip


def document(status: str = "FAIL", **changes: Any) -> dict[str, Any]:
    metrics = {
        "joint_attainment": metric("PASS", 0.0, primary=True),
        "ttft_p90": metric("FAIL"),
        "tpot_p90": metric("INCONCLUSIVE"),
        "e2e_p90": metric("FAIL", None),
    }
    reasons: list[dict[str, str]] = []
    if status == "INVALID":
        metrics, reasons = {}, [{"message": "the clock jumped\x07 & <ran>", "remedy": "let it settle"}]
    found = {
        "status": status, "exit_code": 10, "run": "r", "base": "old", "head": "new", "primary": "joint_attainment",
        "pairs": 6, "workload": {"name": "chat", "arrivals": {"rate": 2.0}}, "slo": [], "kind": "gate",
        "metrics": metrics, "arms": {}, "set_aside": [{"pair": 2, "reasons": ["the probe moved"]}],
        "validity": {"status": "INVALID" if reasons else "VALID", "reasons": reasons},
        "sides": {"base": {"arm": "old", "asked": "main"}, "head": {"arm": "new", "asked": "HEAD"}},
        "sentence": f"{status}: new \x1b and <old>.",
        "slo_check": {
            "ttft p90 <= 400ms": {
                "outcome": "missed", "share": 0.8, "target": 0.9, "bounds": [0.75, 0.85], "level": 0.95, "runs": 6
            },
            "tpot p90 <= 40ms": {
                "outcome": "not certain", "share": 0.9, "target": 0.9, "bounds": None, "level": 0.95, "runs": 1
            },
        },
    }  # fmt: skip
    return {**found, **changes}


@pytest.mark.parametrize("status", ["PASS", "FAIL", "INCONCLUSIVE", "INVALID"])
def test_junit_is_what_ci_systems_read(status: str) -> None:
    SCHEMA.validate(junit(document(status)))


@pytest.mark.parametrize(
    "spoil",
    [
        lambda text: text.replace('failures="3"', 'failures="three"'),
        lambda text: text.replace("<testcase name", "<testcase title", 1),
        lambda text: text.replace("<skipped", "<pending").replace("</skipped", "</pending"),
    ],
)
def test_the_schema_can_refuse(spoil: Any) -> None:
    good = junit(document())
    bad = spoil(good)
    assert bad != good
    with pytest.raises(xmlschema.XMLSchemaException):
        SCHEMA.validate(bad)


def test_a_testcase_a_metric() -> None:
    suite = ET.fromstring(junit(document())).find("testsuite")
    assert suite is not None
    assert {key: suite.get(key) for key in ("tests", "failures", "errors", "skipped")} == {
        "tests": "6", "failures": "3", "errors": "0", "skipped": "2"
    }  # fmt: skip
    by_name = {str(case.get("name")): [child.tag for child in case] for case in suite.findall("testcase")}
    assert by_name == {
        "joint_attainment": [], "ttft_p90": ["failure"], "tpot_p90": ["skipped"], "e2e_p90": ["failure"],
        "slo: ttft p90 <= 400ms": ["failure"], "slo: tpot p90 <= 40ms": ["skipped"],
    }  # fmt: skip
    assert {case.get("classname") for case in suite.findall("testcase")} == {"pdbench.gate.chat"}


def test_invalid_is_an_error() -> None:
    found = cases({**document("INVALID"), "slo_check": {}})
    assert found == [("joint_attainment", "INVALID", "the clock jumped\x07 & <ran>: let it settle")]
    error = ET.fromstring(junit(document("INVALID"))).find(".//error")
    assert error is not None
    assert error.get("message") == "the clock jumped & <ran>: let it settle", "control characters are no XML"


def test_markdown() -> None:
    text = markdown(document())
    assert text.startswith("### ❌ pdbench gate: FAIL\n")
    assert "| ttft\\_p90 | ❌ FAIL | +12.3 %, margin 5 %: because a &lt; b \\| c | 6 |" in text
    assert "| joint\\_attainment (primary) | ✅ PASS | +0.0 pt, margin 5 pt" in text
    assert "pair 3 was run again: the probe moved" in text
    assert "| ttft p90 &lt;= 400ms | missed | 80.0% | 75.0% to 85.0% |" in text
    assert "base `main`, head `HEAD`" in text
    rows = [line for line in text.splitlines() if line.startswith("| ")]
    assert {line.replace("\\|", "").count("|") for line in rows} == {5}
    assert "let it settle" in markdown(document("INVALID"))


def spoilt(value: Any) -> Any:
    """Every text of a document, keys but those of its own shape as well, with markup in it."""
    nasty = "\n# x <img src=x> ![i](http://evil/i.png) @everyone www.evil.com `` ` | **b** "
    if isinstance(value, str):
        return f"{value}{nasty}"
    if isinstance(value, list):
        return [spoilt(one) for one in value]
    return {key: spoilt(item) for key, item in value.items()} if isinstance(value, dict) else value


def test_markdown_lets_nobody_draw_or_call() -> None:
    found = {**spoilt(document("FAIL", validity={"status": "INVALID", "reasons": [{"message": "m", "remedy": "r"}]}))}
    found["metrics"] = {spoilt(name): item | {"scale": "log_ratio"} for name, item in found["metrics"].items()}
    found["slo_check"] = {spoilt(name): item for name, item in found["slo_check"].items()}
    text = markdown(found)
    spans = re.sub("`[^`\n]+`", "", text)  # in a span of code nothing is markup
    for bad in ("<img", "![i]", "http://", "@everyone", "www.evil", "\n# x", "**b", "`"):
        assert bad not in spans.replace("\\`", ""), bad
    widths = {line.replace("\\|", "").count("|") for line in text.splitlines() if line.startswith("| ")}
    assert widths == {5}
    assert "run `-`" in markdown(document(run="``"))


def shown(draw: Any, found: dict[str, Any]) -> str:
    out = io.StringIO()
    draw(found, Console(file=out, width=120, no_color=True))
    return out.getvalue()


def test_the_table() -> None:
    text = shown(print_gate, document())
    for words in ("gate: new against old, 6 pairs", "joint_attainment *", "infinite", "FAIL", "missed", "run again"):
        assert words in text
    assert "let it settle" in shown(print_gate, document("INVALID"))


def calibration(**changes: Any) -> dict[str, Any]:
    noise = {"pair_sd": 0.06, "mean": 0.0, "mde": {"6": 0.13, "10": 0.09, "16": 0.065}}
    found = {
        "backend": "x", "pairs": 10, "probe_sd": {"gemm": 0.04}, "validity": {"status": "VALID", "reasons": []},
        "metrics": {
            "joint_attainment": {**noise, "scale": "difference"}, "tpot_p90": {**noise, "scale": "log_ratio"},
            "ttft_p90": {"scale": "log_ratio", "pair_sd": 0.2, "mde": {"6": 0.5, "10": 0.4, "16": 0.3}, "mean": 0.0},
        },
    }  # fmt: skip
    return {**found, **changes}


def test_calibration() -> None:
    text = shown(print_calibration, calibration())
    for words in ("seen in 16 pairs", "13.0 pt", "6.5 %", "gemm 4.0 % (SD)"):
        assert words in text.replace("\n", " ")
    assert "13 % of tpot_p90 in 6 pairs" in calibration_sentence(calibration())
    nothing = calibration(metrics={}, validity={"status": "INVALID", "reasons": [{"message": "m", "remedy": "r"}]})
    assert "nothing is stored" in shown(print_calibration, nothing)


def test_self_test() -> None:
    promises = [
        {"what": "false alarms", "found": 0.0085, "promised": "<= 0.012", "kept": True},
        {"what": "monotone", "found": [0.1, 0.2], "promised": "monotone", "kept": False},
    ]
    text = shown(print_self_test, copy.deepcopy({"promises": promises}))
    assert "0.0085" in text
    assert "NO" in text
