"""Where an export goes: a file is made anew, what is no file is written to."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from pdbench.errors import UsageError
from pdbench.report.formats import write_files
from pdbench.stored import StoredRun, open_run
from tests.unit.storedhelp import write


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> StoredRun:
    return open_run(str(write(tmp_path_factory.mktemp("formats"), [])))


def test_a_link_is_followed(tmp_path: Path, run: StoredRun) -> None:
    goal, link, new = tmp_path / "goal.txt", tmp_path / "link", tmp_path / "new"
    goal.write_text("old")
    link.symlink_to(goal)
    new.symlink_to(tmp_path / "not yet.txt")
    for path in (link, new):
        assert write_files({"a.txt": "text"}, [run], path) == [path]
        assert path.is_symlink()
        assert path.read_text() == "text"
    assert sorted(one.name for one in tmp_path.iterdir()) == ["goal.txt", "link", "new", "not yet.txt"]


def test_a_pipe_stays_a_pipe(tmp_path: Path, run: StoredRun) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    reader = os.open(pipe, os.O_RDONLY | os.O_NONBLOCK)
    try:
        write_files({"a.txt": "text"}, [run], pipe)
        assert os.read(reader, 100) == b"text"
    finally:
        os.close(reader)
    assert pipe.is_fifo()
    assert write_files({"a.txt": "text"}, [run], Path(os.devnull)) == [Path(os.devnull)]
    assert Path(os.devnull).is_char_device()


def test_what_cannot_be_written_names_the_option(tmp_path: Path, run: StoredRun) -> None:
    circle = tmp_path / "circle"
    circle.symlink_to(circle)
    for path in (circle, tmp_path / "no" / "folder" / "a.txt"):
        with pytest.raises(UsageError, match="cannot write") as told:
            write_files({"a.txt": "text"}, [run], path)
        assert told.value.where == "-o"
