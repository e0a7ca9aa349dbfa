"""One run at a time, from form to result, with a load that is played."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from pdbench.errors import Interrupted, PdbenchError, UsageError
from pdbench.live import ArmView
from pdbench.web import runs as runs_module
from pdbench.web import tab, table
from pdbench.web.fields import Asked
from pdbench.web.runs import Runs
from pdbench.web.screen import Ending, Screen
from tests.unit.test_livestate import delta, done
from tests.unit.web.played import Carrier, a_job, asked, outcome


class Verb:
    """Stands for ``compare``: shows the arm, has one run carried, ends as ``fails`` says."""

    def __init__(self) -> None:
        self.fails: BaseException | None = None
        self.job: Any = a_job()

    def __call__(
        self, arms: Any, workload: Any, settings: Any, progress: Screen, *, base: Any, kind: str, crew: Any, stop: Any
    ) -> Any:
        progress.event("it starts")
        progress.show(ArmView(arms[0].name, "running", total=len(self.job)))
        crew.run(self.job, None, stop)
        progress.show(ArmView(arms[0].name, "complete", total=len(self.job), done=len(self.job)))
        if self.fails is not None:
            raise self.fails
        return SimpleNamespace(document={"arms": {}}, run_dir=Path("x"))


@pytest.fixture
def verb(monkeypatch: pytest.MonkeyPatch) -> Verb:
    found = Verb()
    monkeypatch.setattr(runs_module, "compare", found)
    return found


@pytest.fixture
def carrier() -> Iterator[Carrier]:
    found = Carrier()
    yield found
    found.go.set()


def begun(carrier: Carrier, what: Asked | None = None) -> tuple[Runs, Screen]:
    runs = Runs(carrier, lambda text: None)
    screen = runs.start({"rate": "3"}, lambda: what or asked())
    assert carrier.brought.wait(10)
    return runs, screen


def ended(runs: Runs) -> Ending:
    assert runs._thread is not None
    runs._thread.join(10)
    assert not runs.busy
    assert runs.screen is not None
    assert runs.screen.ending is not None
    return runs.screen.ending


def test_a_run_from_start_to_end(verb: Verb, carrier: Carrier) -> None:
    runs, screen = begun(carrier)
    assert (runs.state, runs.form) == ("running", {"rate": "3"})
    with pytest.raises(UsageError, match="a run is in progress"):
        runs.start({}, lambda: asked())
    news = screen.news(0)
    json.dumps(news, allow_nan=False)
    (card,) = news["arms"]
    assert (card["state"], card["total"], card["in_flight"], card["joint"]["share"]) == ("running", 11, 3, 0.5)
    assert (list(news["points"]), news["points"]["0"]["done"], news["next"]) == (["0"], [None, 4.0, 4.0], 3)
    assert screen.news(2)["points"]["0"] == {name: values[2:] for name, values in news["points"]["0"].items()}
    assert screen.news(3)["points"] == {}
    assert news["rate"] == {"now": 10.0, "editable": True}
    assert news["events"][0]["text"] == "it starts"
    carrier.go.set()
    assert ended(runs) == Ending({"arms": {}}, Path("x"))
    assert (runs.state, screen.news(0)["rate"]) == ("stopped", {"now": None, "editable": False})
    assert runs.start({}, lambda: asked("two")).number == 2


@pytest.mark.parametrize(
    ("error", "says"),
    [
        (UsageError("no such model", where="x"), "x: no such model"),
        (UsageError("too slow", where="--rate", remedy="raise\n --rate"), "Rate: too slow. raise Rate"),
        (Interrupted("interrupted"), "stopped before anything was measured"),
        (ValueError("odd"), "ValueError: odd"),
    ],
)
def test_a_run_that_fails_says_why(verb: Verb, carrier: Carrier, error: Exception, says: str) -> None:
    verb.fails = error
    runs, _ = begun(carrier)
    carrier.go.set()
    assert ended(runs).error == says
    assert runs.state == "stopped"


def test_a_form_that_is_refused_starts_nothing(verb: Verb, carrier: Carrier) -> None:
    runs = Runs(carrier, lambda text: None)

    def refuse() -> Asked:
        with pytest.raises(UsageError, match="another form is being checked"):
            runs.start({}, lambda: asked())
        raise PdbenchError("no")

    with pytest.raises(PdbenchError, match="no"):
        runs.start({"rate": "x"}, refuse)
    assert (runs.state, runs.form, runs.busy, runs.stop()) == ("ready", None, False, False)
    runs.close()
    with pytest.raises(UsageError, match="being closed"):
        runs.start({}, lambda: asked())


def test_nothing_starts_once_the_page_is_closed(verb: Verb, carrier: Carrier) -> None:
    runs = Runs(carrier, lambda text: None)

    def closes() -> Asked:
        assert runs.checking
        runs.close()
        return asked()

    with pytest.raises(UsageError, match="being closed"):
        runs.start({}, closes)
    assert (runs.busy, runs.checking, runs.screen) == (False, False, None)


def test_cards_do_not_go_on_when_a_call_has_ended() -> None:
    screen = Screen(1, asked("a", "b", "c", "d"), now=lambda: 5.0)
    for name, state in {"a": "complete", "b": "starting", "c": "running"}.items():
        screen.show(ArmView(name, state))
    screen.end(Ending(error="it did not start"))
    assert [arm["state"] for arm in screen.news(0)["arms"]] == ["complete", "not started", "cut short", "not run"]


def test_a_stop_is_passed_on(verb: Verb, carrier: Carrier) -> None:
    runs, screen = begun(carrier)
    assert runs.stop()
    assert (runs.state, screen.reasons()) == ("stopping", ["it is being stopped"])
    ended(runs)


def test_the_rate_is_edited(verb: Verb, carrier: Carrier) -> None:
    runs, screen = begun(carrier)
    runs.edit(20.0)
    runs.edit(5.0)
    assert carrier.factors == [2.0, 0.25]
    assert (screen.rate, screen.factor) == (5.0, 0.5)
    assert screen.reasons() == ["the rate was edited while it ran"]
    assert screen.lines()[-1].endswith("one: the rate was edited to 5 req/s")
    for wrong in (0.0, -1.0, float("nan"), float("inf"), 1001.0, 0.09):
        with pytest.raises(UsageError, match="out of range"):
            runs.edit(wrong)
    carrier.left = False
    with pytest.raises(UsageError, match="nothing is left"):
        runs.edit(9.0)
    assert screen.rate == 5.0
    carrier.go.set()
    ended(runs)
    with pytest.raises(UsageError, match="no run is going"):
        runs.edit(9.0)


def test_an_edit_before_the_first_request(verb: Verb, carrier: Carrier, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Screen, "take", lambda self, delta: None)
    carrier.left = False
    runs, screen = begun(carrier)
    assert screen.news(0)["rate"] == {"now": 10.0, "editable": False}
    with pytest.raises(UsageError, match="the run has not begun"):
        runs.edit(9.0)


def test_a_closed_loop_has_no_rate_to_edit(verb: Verb, carrier: Carrier) -> None:
    verb.job = a_job(concurrency=[(0, 2)], scheduled_ns=[0] * 11)
    runs, screen = begun(carrier)
    assert screen.news(0)["rate"] == {"now": None, "editable": False}
    with pytest.raises(UsageError, match="no run is going"):
        runs.edit(9.0)


def test_a_lost_worker_is_named_and_stays_named(verb: Verb, carrier: Carrier) -> None:
    runs, screen = begun(carrier)
    carrier.gone = ["host/7: killed by signal 9"]
    assert runs.look() is screen
    runs.look()
    assert screen.reasons() == ["worker lost: host/7: killed by signal 9"]
    rows = tab.rows(screen.news(0))
    assert rows[-1]["verdict"] == "INVALID: worker lost: host/7: killed by signal 9"
    carrier.go.set()
    ended(runs)
    assert screen.reasons() == ["worker lost: host/7: killed by signal 9"]


def test_a_loss_that_no_page_saw_is_told_with_its_reason_once() -> None:
    screen = Screen(1, asked(), now=lambda: 5.0)
    screen.show(ArmView("one", "running", total=11))
    screen.begin(a_job())
    screen.take(delta(in_flight=3))
    screen.over(outcome("vm/7", losses=["vm/7: killed by signal 9"]))
    screen.note_lost(["vm/7: it said farewell"])
    assert screen.lost == ["vm/7: killed by signal 9"]
    assert screen.news(0)["arms"][0]["in_flight"] == 0


def test_an_edit_counts_for_its_own_run_only() -> None:
    screen = Screen(1, asked(), now=lambda: 5.0)
    screen.show(ArmView("one", "running", total=11))
    screen.begin(a_job(run_id="next"))
    screen.faster("r", 0.1)
    assert (screen.rate, screen.edited) == (10.0, True)
    screen.faster("next", 0.1)
    assert screen.rate == 1.0


def test_the_tab() -> None:
    screen = Screen(1, asked("one", "two"), now=lambda: 5.0)
    screen.show(ArmView("two", "running", pair=1, pairs=3, total=11))
    screen.show(ArmView("unknown", "running", total=11))
    screen.begin(a_job())
    screen.take(delta(done(), done(300), gaps=(5, 30)))
    rows = tab.rows(screen.news(0))
    two = {row["figure"]: row for row in rows if row["arm"] == "two"}
    assert two["state"]["verdict"] == "running, pair 2/3, 4/11"
    assert two["ttft p90 <= 100ms"] | {"interval": ""} == {
        "arm": "two", "figure": "ttft p90 <= 100ms", "p50": "", "p90": "", "p99": "", "share": "50 %", "interval": "",
        "verdict": "undecided (2 requests)",
    }  # fmt: skip
    assert two["TTFT"]["p50"].endswith(" ms")
    assert two["validity"]["verdict"] == "VALID so far"
    assert {row["figure"] for row in rows if row["arm"] == "one"} >= {"state", "validity"}
    assert tab.stats(None) == [{"key": "slo", "data": []}]
    assert {key for row in rows for key in row} == {key for key, _ in tab.COLUMNS}
    screen.over(outcome("host/1"))
    assert screen.reasons() == ["worker lost: host/1: lost"]


def test_what_is_infinite_is_told_as_that() -> None:
    screen = Screen(1, asked(), now=lambda: 5.0)
    screen.show(ArmView("one", "running", total=11))
    screen.begin(a_job())
    screen.take(delta(done(), done(status="error"), done(status="timeout")))
    news = screen.news(0)
    json.dumps(news, allow_nan=False)
    assert news["arms"][0]["spreads"]["ttft"] == ["inf"] * 3
    assert news["points"]["0"]["ttft90"] == [None, None]
    (ttft,) = (row for row in tab.rows(news) if row["figure"] == "TTFT")
    assert (ttft["p50"], ttft["p99"]) == ("∞", "∞")


def test_the_table_of_a_result() -> None:
    from tests.unit.test_schema import document

    rows = {row.label: row.cells for row in table.rows(document())}
    assert [cell.text for cell in rows["requests ok / failed"]] == ["24 / 2", "24 / 2"]
    assert rows["ttft p90 <= 400ms"][0].text in ("✓ met", "✗ missed")
    assert rows["TTFT P99"][0].text == "∞"
    assert rows["change of joint attainment (primary)"][0].text == "base"
    assert rows["validity"][1].text == "VALID"
    assert table.reasons({"validity": {"reasons": [{"message": "late", "remedy": None}]}}) == [("late", "")]


def test_the_table_of_an_invalid_result_gives_no_verdict() -> None:
    from tests.unit.test_schema import document

    invalid = {**document(), "validity": {"status": "INVALID", "reasons": [{"message": "late"}]}}
    rows = {row.label: row.cells for row in table.rows(invalid)}
    assert rows["ttft p90 <= 400ms"][0].text == "no verdict"
    assert not any(label.startswith("change of") for label in rows)
