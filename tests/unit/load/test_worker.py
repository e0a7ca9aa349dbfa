"""A worker's side of a run, with an engine that is played: what the master is told when something goes wrong."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import gevent
import msgspec
import pytest
from click.testing import CliRunner

from pdbench.cli.worker import command
from pdbench.load import worker as workers
from pdbench.load.delta import Ready
from pdbench.load.messages import EngineReady, EngineRefused, JournalPart, RunDone
from pdbench.load.worker import _Play
from tests.unit.load.test_fleet_parts import job


class Engine:
    """Stands for ``Drive``: it is ready, writes a journal, and then ``fails``."""

    def __init__(self, asked: Any, fails: Exception, journal: Path) -> None:
        self.job, self.fails, self.journal = asked, fails, journal
        self.over, self.stderr = False, ["last line"]

    def step(self) -> Iterator[Any]:
        self.journal.write_bytes(b"records")
        yield Ready("kernel", 1, 1)
        raise self.fails

    def end(self) -> None:
        self.over = True


def play(tmp_path: Path, data: bytes, keys: Collection[str] | None = ()) -> list[Any]:
    said: list[Any] = []
    runner = SimpleNamespace(stats=SimpleNamespace(clear_all=lambda: None))
    played: Any = None

    def send(message: Any) -> None:
        said.append(message)
        if isinstance(message, JournalPart):
            played._tail.acknowledge(len(message.data))

    played = _Play("r", data, runner, send, tmp_path / "journal", keys)
    gevent.joinall([played._greenlet], timeout=10, raise_error=True)
    return said


@pytest.mark.parametrize("error", [OSError(28, "No space left on device"), RuntimeError("odd"), ValueError("bad")])
def test_what_goes_wrong_on_the_way_is_a_failure_and_records_stay(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    make: Callable[[Any], Engine] = lambda asked: Engine(asked, error, tmp_path / "journal")  # noqa: E731
    monkeypatch.setattr(workers, "Drive", make)
    ready, part, done = play(tmp_path, msgspec.json.encode(job(3)))
    assert ready == EngineReady("r", "kernel")
    assert part == JournalPart("r", b"records")
    assert isinstance(done, RunDone)
    assert done.final is None
    assert str(error) in done.reason
    assert done.stderr == ["last line"]


def no_engine(asked: Any) -> Any:
    raise OSError(11, "no process left")


@pytest.mark.parametrize(
    ("data", "keys", "says"),
    [
        (b"{}", (), "cannot be run here"),
        (msgspec.json.encode(job(3)), (), "no process left"),
        (msgspec.json.encode(job(3, api_key_env="AWS_SECRET")), (), "was not told"),
        (msgspec.json.encode(job(3, api_key_env="AWS_SECRET")), {"MY_KEY"}, "AWS_SECRET"),
        (msgspec.json.encode(job(3, api_key_env="MY_KEY")), {"MY_KEY"}, "no process left"),
        (msgspec.json.encode(job(3, api_key_env="MY_KEY")), None, "no process left"),
    ],
)
def test_what_cannot_begin_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, data: bytes, keys: Collection[str] | None, says: str
) -> None:
    monkeypatch.setattr(workers, "Drive", no_engine)
    (refused,) = play(tmp_path, data, keys)
    assert isinstance(refused, EngineRefused)
    assert says in refused.error
    assert ("pdbench worker --api-key-env AWS_SECRET" in refused.remedy) == ("AWS_SECRET" in refused.error)


@pytest.mark.parametrize(
    ("typed", "env", "keys"),
    [
        ([], None, ()),
        (["--api-key-env", "A", "--api-key-env", "B"], None, ("A", "B")),
        ([], "A", ("A",)),
    ],
)
def test_keys_are_those_that_were_named_here(
    monkeypatch: pytest.MonkeyPatch, typed: list[str], env: str | None, keys: tuple[str, ...]
) -> None:
    found: dict[str, Any] = {}
    monkeypatch.setattr(workers, "serve", lambda *_, **given: found.update(given))
    done = CliRunner().invoke(command, ["--master", "h", *typed], env={"PDBENCH_API_KEY_ENV": env})
    assert done.exit_code == 0, done.output
    assert found["keys"] == keys
