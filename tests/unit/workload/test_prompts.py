from __future__ import annotations

import subprocess
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pdbench.workload.prompts import WORDS, PromptMaker


def test_the_vocabulary() -> None:
    assert len(WORDS) == len(set(WORDS)) == 512
    assert all(word.isascii() and word.isalpha() and word.islower() for word in WORDS)


def test_known_answer() -> None:
    assert PromptMaker(salt="abc").text(0, 8) == "walk walk walk point check room much up"


@given(st.text(max_size=20), st.integers(0, 10**9), st.integers(1, 300))
def test_one_word_a_token(salt: str, index: int, n: int) -> None:
    text = PromptMaker(salt=salt).text(index, n)
    assert len(text.split(" ")) == n
    assert text == PromptMaker(salt=salt).text(index, n)


@pytest.mark.parametrize(("n", "indexes"), [(1, 512), (2, 20_000), (3, 20_000), (8, 5_000)])
def test_never_the_same_twice(n: int, indexes: int) -> None:
    maker = PromptMaker(salt="run")
    assert len({maker.text(i, n) for i in range(indexes)}) == indexes


def test_neighbours_differ_from_the_first_word_and_runs_from_the_second() -> None:
    one, two = PromptMaker(salt="a"), PromptMaker(salt="b")
    assert one.text(0, 64).split()[0] != one.text(1, 64).split()[0]
    assert one.text(0, 64) != two.text(0, 64)


def test_calibration() -> None:
    maker = PromptMaker(salt="x", words_per_token=0.75, overhead_tokens=20)
    assert maker.words(100) == 60
    assert maker.words(5) == 1


@pytest.mark.parametrize("bad", [{"words_per_token": 0.0}, {"words_per_token": -1.0}, {"overhead_tokens": -1}])
def test_bad_calibration(bad: dict[str, float]) -> None:
    with pytest.raises(ValueError, match="must"):
        PromptMaker(salt="x", **bad)  # type: ignore[arg-type]


def test_the_engine_can_import_it_without_the_heavy_packages() -> None:
    code = (
        "import sys, pdbench.workload.prompts, pdbench.measure.records;"
        "sys.exit(bool({'pandas', 'scipy', 'pyarrow', 'numpy'} & set(sys.modules)))"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
