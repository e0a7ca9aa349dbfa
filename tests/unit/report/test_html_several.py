"""A page of several runs: each keeps its own validity, is called simulated where it is, and none is left out."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

from pdbench.report import charts
from pdbench.report.html import stalls, surface
from pdbench.report.html.context import Page, page_of
from pdbench.report.html.page import SECTIONS, render
from pdbench.store import write_json
from pdbench.stored import open_run
from tests.unit.documents import INVALID, VALID
from tests.unit.report.runs import SLO, search_document, write_run
from tests.unit.report.test_html_page import Read, shown

SPOILT = "20260103T030405Z-chat-1a2b3c4"
LATE = "tokens were stamped late: receive error P99 107 ms exceeds 5 % of the tightest gap limit, 2.00 ms"


def edited(path: Path, **changes: Any) -> Path:
    """A run whose document was changed."""
    summary = path / "summary.json"
    write_json(summary, json.loads(summary.read_text()) | changes)
    return path


def simulated(path: Path) -> Path:
    arms = json.loads((path / "summary.json").read_text())["arms"]
    return edited(path, simulated=True, arms={name: {**arm, "simulated": True} for name, arm in arms.items()})


def search(folder: Path, name: str = "20260102T040000Z-chat-1a2b3c4", **changes: Any) -> Path:
    path = folder / name
    path.mkdir()
    write_json(path / "summary.json", search_document(name) | changes)
    return path


def test_an_invalid_run_beside_a_valid_one_keeps_its_status(tmp_path: Path) -> None:
    spoilt = write_run(tmp_path, arms=("spoilt",), name="20260101T030405Z-chat-1a2b3c4", pairs=1, validity=INVALID)
    good = write_run(tmp_path, arms=("good",), name=SPOILT, pairs=1)
    read = shown(spoilt, good)
    head = "".join(read.text[:60])
    assert "This holds for 20260101T030405Z-chat-1a2b3c4" in head
    assert f"{spoilt.name}: requests left late" in read.sections["validity"]
    slo = read.sections["slo"]
    first, second = slo.split("spoilt: objectives")[1].split("good: objectives")
    assert "no verdict" in first
    assert "met?" in first
    assert "✓ met" not in first
    assert "✓ met" in second
    assert "No comparison." in read.sections["surface"]
    assert re.search(r"spoilt\s*VALID\s*its run is INVALID", read.sections["validity"])


@pytest.mark.parametrize("alone", [True, False])
def test_an_invalid_search_has_no_goodput(tmp_path: Path, alone: bool) -> None:
    reason = {"message": "worker lost", "remedy": "start it again"}
    found = search(tmp_path, validity={"status": "INVALID", "reasons": [reason]}, sentence="They carry as much.")
    read = shown(found) if alone else shown(write_run(tmp_path, pairs=1), found)
    said = read.sections["rates"]
    assert "INVALID: worker lost" in said
    assert "Goodput" not in said
    assert "They carry as much." not in said
    assert "start it again" in read.sections["validity"]


def test_a_search_names_its_run_its_load_and_where_it_differs(tmp_path: Path) -> None:
    run = write_run(tmp_path, pairs=1)
    other = {"name": "long", "arrivals": {"process": "poisson", "rate": 9.0}, "num_requests": 9, "warmup": 2}
    found = search(
        tmp_path, workload=other, slo=["ttft p90 <= 9000ms"], fingerprint={"cpu_model": "another", "cores": 2}
    )
    said = shown(run, found).sections["rates"]
    assert f"Search {found.name}: workload long, SLO ttft p90 ≤ 9000ms; VALID." in said
    assert "differ in workload, SLO, fingerprint (cpu model): do not" in said
    same = search(
        tmp_path,
        "20260102T050000Z-chat-1a2b3c4",
        fingerprint=json.loads((run / "summary.json").read_text())["fingerprint"],
    )
    assert "differ in" not in shown(run, same).sections["rates"]


def test_older_searches_are_listed(tmp_path: Path) -> None:
    first = search(tmp_path, "20260102T040000Z-chat-1a2b3c4", validity=INVALID)
    second, third = (search(tmp_path, f"2026010{day}T040000Z-chat-1a2b3c4") for day in (3, 4))
    said = shown(first, second, third).sections["rates"]
    table = said.split("Goodput of every search")[1]
    assert all(path.name in table for path in (first, second, third))
    assert table.count("no verdict") == 2
    assert "3.1" in table


def test_simulated_runs_are_marked_one_by_one(tmp_path: Path) -> None:
    made = simulated(write_run(tmp_path, pairs=1))
    real = write_run(tmp_path, name=SPOILT, pairs=1)
    for runs in ((made, real), (real, made)):
        text = render([open_run(str(one)) for one in runs])
        read = Read(text)
        trend = read.sections["trend"]
        assert "A cross marks what was simulated" in trend
        assert trend.count("simulated") >= 4
        assert "over time (simulated)" not in trend
        assert "2 Jan 03:04 (simulated)" in text
        assert "3 Jan 03:04 (simulated)" not in text
        assert "simulated" not in read.sections["slo"]
    assert "over time (simulated)" in shown(made, simulated(real)).sections["trend"]


def test_a_simulated_arm_beside_a_real_one_is_called_so(tmp_path: Path) -> None:
    made = simulated(write_run(tmp_path, arms=("model",), pairs=1))
    real = write_run(tmp_path, arms=("metal",), name=SPOILT, pairs=1)
    read = shown(made, real)
    assert "model (simulated): objectives" in read.sections["slo"]
    assert "metal: objectives" in read.sections["slo"]
    assert "metal (simulated)" not in "".join(read.text)
    assert "real time: model (simulated)." in read.sections["validity"]


def said_of_stalls(tmp_path: Path, **changes: Any) -> str:
    return shown(write_run(tmp_path, pairs=1, **changes)).sections["stalls"]


def test_nothing_is_said_of_the_limit_of_an_slo_where_there_is_no_stall(tmp_path: Path) -> None:
    said = said_of_stalls(tmp_path, arms=("colocated", "disaggregated"))
    assert "disaggregated, above 100 ms" not in said
    assert "Of what is beyond" not in said
    assert said.count("there is no stall to explain") == 1  # the handed-over arm; no second sentence on it
    assert "Of those beyond the SLO's limit of 100 ms: " in said or "None is longer than the SLO's limit" in said


@pytest.mark.parametrize("where", ["arm", "run"])
def test_gaps_whose_stamps_were_late_are_not_explained(tmp_path: Path, where: str) -> None:
    spoilt = {"status": "INVALID", "reasons": [{"message": LATE, "remedy": "free a core"}]}
    path = write_run(tmp_path, arms=("alone",), pairs=1, validity=spoilt)
    entry = json.loads((path / "summary.json").read_text())["arms"]["alone"]
    entry = {key: value for key, value in entry.items() if key != "validity"}
    edited(path, arms={"alone": {**entry, "validity": spoilt} if where == "arm" else entry})
    said = shown(path).sections["stalls"]
    assert f"INVALID: {LATE}. Gaps may be off by that much" in said
    assert "Gaps may be off" not in said_of_stalls(tmp_path / "good", arms=("alone",))


def test_a_torn_slo_costs_no_section(tmp_path: Path) -> None:
    path = edited(write_run(tmp_path, pairs=1), slo=[*SLO, "nonsense"])
    read = shown(path)
    text = "".join(read.text)
    assert "could not be made" not in text
    assert text.count("the stored SLO cannot be read") == 1
    assert {"latency", "stalls", "surface"} <= set(read.sections)


def calibration(name: str = "20260105T040000Z-chat-1a2b3c4") -> dict[str, Any]:
    mde = {"6": 0.357, "10": 0.228, "16": 0.164}
    return {
        "schema_version": 1, "kind": "calibration", "run": name, "backend": "colocated", "pairs": 9,
        "workload": {"name": "chat", "arrivals": {"rate": 3.0}}, "left_out": [{"pair": 4, "reasons": ["left late"]}],
        "metrics": {"ttft_p90": {"scale": "log_ratio", "pair_sd": 0.154, "mean": 0.0, "mde": mde}},
        "probe_sd": {"gemm": 0.13}, "validity": VALID, "fingerprint": {},
    }  # fmt: skip


def sweep(name: str = "20260106T040000Z-chat-1a2b3c4") -> dict[str, Any]:
    arm = {"joint": 0.9, "ttft_p90_ms": 321.0, "used": 2, "left_out": 0, "chosen": False, "runs": []}
    arms = {
        "budget-64": {**arm, "values": {"token_budget": 64}},
        "budget-128": {**arm, "values": {"token_budget": 128}, "joint": 0.95, "chosen": True},
        "budget-256": {**arm, "values": {"token_budget": 256}, "joint": None, "used": 0, "left_out": 2},
    }
    return {
        "schema_version": 1, "kind": "tune", "run": name, "backend": "colocated", "rates": [2.0, 3.0],
        "workload": {"name": "chat", "arrivals": {}}, "slo": SLO, "seed": 0, "current": {"token_budget": 64},
        "arms": arms, "rule": "most kept", "file": "tuned.yaml", "validity": VALID, "fingerprint": {},
        "sentence": "128 keeps most.",
    }  # fmt: skip


def stored(folder: Path, document: dict[str, Any]) -> Path:
    path = folder / str(document["run"])
    path.mkdir()
    write_json(path / "summary.json", document)
    return path


def test_a_calibration_and_a_sweep_have_their_tables(tmp_path: Path) -> None:
    noise, tried = stored(tmp_path, calibration()), stored(tmp_path, sweep())
    alone = shown(noise)
    assert "Here a gate sees a slowdown of 36 % of ttft_p90 in 6 pairs" in "".join(alone.text[:40])
    assert "15.4 %" in alone.sections["sweeps"]
    assert "pair 5 was left out" in alone.sections["sweeps"]
    other = shown(tried).sections["sweeps"]
    assert all(figure in other for figure in ("95 %", "chosen", "321 ms", "INVALID", "Written: tuned.yaml."))
    beside = shown(write_run(tmp_path, pairs=1), noise, tried)
    assert "✓ met" in beside.sections["slo"]
    assert "15.4 %" in beside.sections["sweeps"]
    assert "128" in beside.sections["sweeps"]
    assert "could not be made" not in "".join([*alone.text, *beside.text])


def test_two_arms_of_one_colour_are_told_apart_where_they_are_held_against_each_other(tmp_path: Path) -> None:
    page = page_of([open_run(str(write_run(tmp_path, arms=[f"arm-{i}" for i in range(8)], pairs=1)))])
    section = surface.section(page)
    assert section is not None
    colours = [key.colour for key in section.charts[-1].keys]
    assert colours[0] == page.arms[0].colour
    assert colours[1] == charts.SPARE
    assert len(set(colours)) == 3


def test_the_same_run_gives_the_same_page(tmp_path: Path) -> None:
    path = str(write_run(tmp_path, pairs=1))
    assert render([open_run(path)]) == render([open_run(path)])


def test_every_section_of_many_loads_is_made(tmp_path: Path) -> None:
    page: Page = page_of([open_run(str(stored(tmp_path, sweep())))])
    assert page.objectives
    assert [build(page) is None for build in SECTIONS.values()].count(False) == 3


def test_a_long_limit_is_written_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stalls, "stall_limit_ms", lambda _arms: 1000.0)
    text = render([open_run(str(write_run(tmp_path, pairs=1)))])
    assert "stall: 1,000 ms" in text
    assert "1e+03" not in text
