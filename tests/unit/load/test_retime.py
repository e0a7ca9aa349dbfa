"""An edit of the rate reaches the run it was meant for, or nothing: not one that is over, and no file of others."""

from __future__ import annotations

import subprocess
from types import SimpleNamespace
from typing import Any

import pytest

from pdbench.load import core, drive, steer
from pdbench.load.core import Core
from pdbench.load.delta import Final, Retime, Stop
from pdbench.load.drive import Drive
from pdbench.load.outcome import Edit
from pdbench.load.process import EngineProcess
from pdbench.load.steer import Local
from tests.unit.load.test_fleet_parts import job
from tests.unit.load.test_round import FACTS


class Going:
    """A run or a round that can always be edited, and asks ``meanwhile`` while it is played."""

    meanwhile: Any = None

    def __init__(self, *args: Any) -> None:
        self.id = next(one.run_id for one in args if hasattr(one, "run_id"))
        self.lost = ["host/1: killed"]

    def play(self, *_: Any) -> Any:
        return type(self).meanwhile()

    run = play

    def retime(self, factor: float) -> Edit:
        return Edit(1, factor)


def a_core() -> Core:
    return Core(SimpleNamespace(register_message=lambda *_: None), lambda text: None)


@pytest.mark.parametrize(("make", "where", "name"), [(a_core, core, "Round"), (Local, steer, "_Run")])
@pytest.mark.parametrize("fails", [False, True])
def test_a_run_that_is_over_is_not_edited(
    monkeypatch: pytest.MonkeyPatch, make: Any, where: Any, name: str, fails: bool
) -> None:
    carrier, seen = make(), []

    def meanwhile() -> None:
        seen.append((carrier.retime("r", 2.0), carrier.retime("another", 2.0)))
        if fails:
            raise ValueError

    monkeypatch.setattr(where, name, Going)
    monkeypatch.setattr(Going, "meanwhile", staticmethod(meanwhile))
    assert carrier.retime("r", 2.0) is None
    try:
        carrier.run(job(3), None, None)
    except ValueError:
        assert fails
    assert seen == [(Edit(1, 2.0), None)]
    assert carrier.retime("r", 2.0) is None
    if isinstance(carrier, Core):
        assert carrier.lost() == [], "nor is the next run blamed for its losses"


class Engine:
    """Takes what it is told."""

    def __init__(self, job: Any) -> None:
        del job
        self.eof = False
        self.told: list[Any] = []
        self.send = self.told.append

    def end(self, grace_s: float) -> int:
        del grace_s
        return 0

    def last_lines(self) -> list[str]:
        return []

    def close(self) -> None:
        pass


@pytest.mark.parametrize(
    ("ends", "taken"),
    [
        (lambda one, engine: None, True),
        (lambda one, engine: setattr(engine, "eof", True), False),
        (lambda one, engine: one.end(), False),
        (lambda one, engine: one.stop(), False),
    ],
)
def test_an_engine_that_is_over_is_told_nothing(monkeypatch: pytest.MonkeyPatch, ends: Any, taken: bool) -> None:
    monkeypatch.setattr(drive, "EngineProcess", Engine)
    one = Drive(job(3))
    assert not one.retime(1, 2.0), "before t0"
    one.go(1 << 62)
    engine: Any = one._engine
    ends(one, engine)
    assert one.retime(1, 2.0) is taken
    assert any(isinstance(told, Retime) for told in engine.told) is taken


def test_what_is_said_after_the_end_is_not_written_to_whoever_has_the_number_now(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    one: Any = EngineProcess.__new__(EngineProcess)
    one._process = subprocess.Popen(["cat"], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    one._in = one._process.stdin.fileno()
    one.end(5.0)
    written: list[int] = []
    monkeypatch.setattr("pdbench.load.process.os.write", lambda number, data: written.append(number))
    one.send(Stop())
    assert not written


def test_an_edit_is_told_with_the_instant_that_the_engine_took() -> None:
    run: Any = steer._Run.__new__(steer._Run)
    run._drive = SimpleNamespace(t0_ns=1000)
    run._edits = [Edit(50, 2.0), Edit(90, 0.5)]
    final = Final(stopped=False, offered=1, recorded=1, facts=FACTS, retimed=[(1050, 1060), (1090, 1090)])
    assert run._took(final) == [Edit(60, 2.0), Edit(90, 0.5)]
    assert run._took(None) == run._edits
