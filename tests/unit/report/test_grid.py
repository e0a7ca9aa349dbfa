"""Figures stay whole and lines stay inside the width, however many columns there are."""

from __future__ import annotations

import io

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rich.cells import cell_len
from rich.console import Console
from rich.text import Text

from pdbench.report.grid import Blocks, Grid, Prose, folded, line


def drawn(grid: Grid, width: int) -> list[str]:
    return [text.plain for text in grid.draw(width)]


def grid_of(names: list[str], value: str = "100 %", interval: str = "[97, 100]") -> Grid:
    grid = Grid("corner", names)
    grid.add("a label", [line(value, interval) for _ in names])
    return grid


@pytest.mark.parametrize(
    ("width", "lines"),
    [
        (80, ["corner               one              two", "a label  100 % [97, 100]  100 % [97, 100]"]),
        # one column too wide: only one cell is broken, and between its parts
        (40, ["corner         one              two", "a label      100 %  100 % [97, 100]", "         [97, 100]"]),
        (31, ["corner         one        two", "a label      100 %      100 %", "         [97, 100]  [97, 100]"]),
    ],
)
def test_cells_break_between_their_parts_and_no_further_than_needed(width: int, lines: list[str]) -> None:
    assert drawn(grid_of(["one", "two"]), width) == lines


@pytest.mark.parametrize(
    ("name", "width", "head"),
    [
        ("colocated-chunked", 80, ["colocated-chunked"]),
        ("colocated-chunked", 22, ["colocated-", "chunked"]),
        ("x" * 30, 40, ["x" * 14, "x" * 16]),
        ("日本語サーバー" * 3, 40, ["日本語サーバー", "日本語サーバー", "日本語サーバー"]),
    ],
)
def test_names_are_folded_after_their_separators(name: str, width: int, head: list[str]) -> None:
    lines = drawn(grid_of([name], "1", ""), width)
    assert [text.removeprefix("corner").strip() for text in lines[: len(head)]] == head


def test_a_heading_spans_the_table_and_needs_a_row_below() -> None:
    grid = Grid("", ["one"])
    grid.heading("a long heading over all of it")
    grid.add("row", ["1"])
    grid.heading("nothing follows")
    assert drawn(grid, 80) == ["     one", "a long heading over all of it", "row    1"]


def test_a_long_label_is_folded_before_figures_are() -> None:
    grid = Grid("", ["one"])
    grid.add("  a label of several words, far too long", [line("100 %", "[97, 100]")])
    assert drawn(grid, 40)[1:] == [
        "  a label of several     100 % [97, 100]",
        "    words, far too long",
    ]


def test_a_row_has_a_cell_a_column() -> None:
    with pytest.raises(ValueError, match="1 cells for 2 columns"):
        Grid("", ["one", "two"]).add("row", ["1"])


@pytest.mark.parametrize(
    ("count", "width", "blocks"),
    [(1, 80, [1]), (2, 80, [2]), (3, 80, [3]), (5, 70, [3, 2]), (8, 70, [3, 3, 2]), (8, 200, [8]), (3, 10, [1, 1, 1])],
)
def test_what_finds_no_room_goes_below_evenly(count: int, width: int, blocks: list[int]) -> None:
    names = [f"arm-{i}" for i in range(count)]
    sizes: list[int] = []

    def build(some: object) -> Grid:
        assert isinstance(some, list)
        sizes.append(len(some))
        return grid_of(some, "100.0 %", "[+101.5, +1002.5]")

    grids = Blocks(names, build).grids(width)
    assert sizes[-len(blocks) :] == blocks
    assert len(grids) == len(blocks)


def test_blocks_repeat_the_labels_under_one_title() -> None:
    stream = io.StringIO()
    table = Blocks(["one", "two"], lambda names: grid_of(list(names), "1" * 12), Text("Title"))
    Console(file=stream, width=30).print(table)
    assert stream.getvalue().splitlines() == [
        "Title", "corner            one", "a label  111111111111", "            [97, 100]", "",
        "corner            two", "a label  111111111111", "            [97, 100]",
    ]  # fmt: skip


TEXT = st.text(st.sampled_from("ab-é日 "), max_size=25)


@settings(max_examples=60, deadline=None)
@given(
    names=st.lists(TEXT, min_size=1, max_size=8),
    rows=st.lists(st.tuples(TEXT, st.lists(st.sampled_from(["100 %", "[97, 100]", "-12"]), max_size=4)), max_size=5),
    width=st.integers(40, 200),
)
def test_no_line_is_wider_and_no_part_is_broken(
    names: list[str], rows: list[tuple[str, list[str]]], width: int
) -> None:
    def build(some: object) -> Grid:
        assert isinstance(some, list)
        grid = Grid("corner", some)
        for label, parts in rows:
            grid.add(label, [line(*parts) for _ in some])
        return grid

    lines = [text.plain for grid in Blocks(names, build).grids(width) for text in grid.draw(width)]
    assert all(cell_len(text) <= width for text in lines)
    shown = " ".join(lines)
    for part in ("100 %", "[97, 100]", "-12"):
        assert shown.count(part) >= sum(parts.count(part) for _, parts in rows) * len(names)


@pytest.mark.parametrize(("text", "width", "lines"), [("a bc def", 4, ["a bc", "def"]), ("abcdef", 3, ["abc", "def"])])
def test_words_are_folded(text: str, width: int, lines: list[str]) -> None:
    assert [one.plain for one in folded(text, width)] == lines


@pytest.mark.parametrize(
    ("text", "lines"),
    [
        ("it is 62 % of all", ["it is", "62 % of", "all"]),
        ("in 153 ms, not 3 s", ["in", "153 ms,", "not 3 s"]),
        ("  deep text here", ["  deep", "  text", "  here"]),
    ],
)
def test_prose_keeps_a_number_with_its_unit(text: str, lines: list[str]) -> None:
    stream = io.StringIO()
    Console(file=stream, width=8).print(Prose(text))
    assert [one.rstrip() for one in stream.getvalue().splitlines()] == lines
