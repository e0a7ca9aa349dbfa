"""What the page's benchmark judges: CPU time and size, not the clock on the wall of a machine that others use."""

from __future__ import annotations

import subprocess
import sys

import pytest

from benchmarks.report import judged, timed


@pytest.mark.parametrize(
    ("cpu", "took", "size", "kept"),
    [(4.9, 4.9, 4_999_999, True), (4.9, 60.0, 1, True), (5.0, 4.0, 1, False), (1.0, 1.0, 5_000_000, False)],
)
def test_a_busy_machine_is_not_judged(cpu: float, took: float, size: int, kept: bool) -> None:
    text, found = judged(cpu, took, size)
    assert found == kept
    assert text.endswith("kept" if kept else "MISSED")
    assert f"{cpu:.2f} s of CPU" in text
    assert f"{took:.2f} s on the wall" in text


def test_only_the_commands_own_work_counts() -> None:
    work = "import time\nuntil = time.process_time() + 0.2\nwhile time.process_time() < until: pass\ntime.sleep(0.5)"
    took, cpu = timed([sys.executable, "-S", "-c", work])
    assert 0.2 <= cpu < took - 0.3
    with pytest.raises(subprocess.CalledProcessError):
        timed([sys.executable, "-S", "-c", "raise SystemExit(3)"])
