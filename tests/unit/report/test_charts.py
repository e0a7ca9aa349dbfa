"""Charts as such: every arm can be told from every other, on light and on dark, and the same is drawn the same."""

from __future__ import annotations

from itertools import combinations

import pytest

from pdbench.report import charts

PAGES = {"light": "#ffffff", "dark": "#0f1318"}


def light_of(colour: str) -> float:
    """Relative luminance, WCAG 2.1."""
    shares = [int(colour[at : at + 2], 16) / 255 for at in (1, 3, 5)]
    red, green, blue = (one / 12.92 if one <= 0.04045 else ((one + 0.055) / 1.055) ** 2.4 for one in shares)
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue


def contrast(one: str, other: str) -> float:
    low, high = sorted((light_of(one), light_of(other)))
    return (high + 0.05) / (low + 0.05)


@pytest.mark.parametrize("page", PAGES)
def test_every_colour_stands_out_from_the_page(page: str) -> None:
    colours = [*charts.PALETTE, charts.SPARE, *(charts.device_colour(i) for i in range(6))]
    assert {one: round(contrast(one, PAGES[page]), 2) for one in colours if contrast(one, PAGES[page]) < 3} == {}


def test_no_two_of_thirty_arms_look_alike() -> None:
    looks = [(charts.colour_of(i), charts.dash_of(i)) for i in range(30)]
    marks = [(charts.colour_of(i), charts.marker_of(i)) for i in range(30)]
    alike = [(i, j) for i, j in combinations(range(30), 2) if looks[i] == looks[j] or marks[i] == marks[j]]
    assert alike == []


@pytest.mark.parametrize("text", ["$$x$$", "$$$x$$$", "$$$$", "\\(x\\)", "\\\\[x\\]", "\\(\\["])
def test_no_text_is_a_formula(text: str) -> None:
    shown = charts.plain(text)
    assert not any(mark in shown for mark in ("$$", "\\(", "\\["))
    assert shown.replace(" ", "") == text


def drawn() -> dict[str, charts.Figure]:
    one = charts.figure("", x_label="x", y_label="y")
    one.line([1, 2], [3, 4])
    other = charts.figure("", x_label="x", y_label="y", x_range=one.x_range)
    other.scatter([1, 2], [3, 4])
    return {"one": one, "other": other}


def test_the_same_figures_give_the_same_bytes() -> None:
    figures = drawn()
    assert charts.embed(figures) == charts.embed(drawn()) == charts.embed(figures)
