"""The journal survives a kill: every complete entry is read, a torn one is left out."""

from __future__ import annotations

from pathlib import Path

import pytest

from pdbench.errors import PdbenchError
from pdbench.load.journal import MAGIC, Journal, read_journal
from pdbench.measure.records import RequestRecord


def record(index: int) -> RequestRecord:
    return RequestRecord(
        index=index,
        scheduled_ns=1 << 60,
        sent_ns=5,
        status="ok",
        planned_prompt_tokens=8,
        planned_output_tokens=2,
        chunk_ns=[1, 2],
        chunk_tokens=[1, 1],
        request_id=f"r-{index}",
    )


def test_what_is_written_is_read(tmp_path: Path) -> None:
    path = tmp_path / "j"
    journal = Journal(path)
    for index in range(3):
        journal.append(record(index))
    journal.flush()
    assert read_journal(path) == [record(0), record(1), record(2)]
    journal.append(record(3))
    journal.close()
    assert [r.index for r in read_journal(str(path))] == [0, 1, 2, 3]


def test_a_torn_last_entry_is_left_out_wherever_it_tore(tmp_path: Path) -> None:
    path = tmp_path / "j"
    journal = Journal(path)
    journal.append(record(0))
    journal.flush()
    first = path.stat().st_size
    journal.append(record(1))
    journal.close()
    whole = path.read_bytes()
    for cut in range(len(whole)):
        path.write_bytes(whole[:cut])
        assert read_journal(path) == ([record(0)] if cut >= first else [])


@pytest.mark.parametrize("data", [b"PAR1 something else", b"\x00" * 40])
def test_another_file_is_refused(tmp_path: Path, data: bytes) -> None:
    path = tmp_path / "j"
    path.write_bytes(data)
    with pytest.raises(PdbenchError, match="not a pdbench journal"):
        read_journal(path)


def test_a_damaged_entry_is_named(tmp_path: Path) -> None:
    path = tmp_path / "j"
    path.write_bytes(MAGIC + b"\x02\x00\x00\x00\xc1\xc1")
    with pytest.raises(PdbenchError, match="entry 0 is damaged"):
        read_journal(path)
