"""Tables whose figures stay whole: a cell breaks only where it may, and columns that find no room go below.

A terminal is 80 columns wide, or 60, or 200, and a comparison has two arms or eight. A table that squeezes them all
into the width breaks ``[+101, +566]`` in the middle, or names into letters. Here a cell says itself where it may be
broken (``100 % | [97, 100]``), the widest cells are broken first and only as far as needed, and what still finds no
room goes into a second block under the first, with its labels again.

    grid = Grid("latencies in ms", ["one", "two"])
    grid.add("TTFT P90", ["153", line("+266 %", "[+101, +566]")])
    console.print(Blocks(names, build))         # build(some of the names) -> Grid
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar

from rich.cells import cell_len, chop_cells
from rich.console import Console, ConsoleOptions
from rich.text import Text

T = TypeVar("T")
_NAME_PIECE = 14  # a name without any separator is broken after so many cells
_NAME_WIDE = 24  # beyond this a name is folded rather than its column made wider
_LABEL_LEAST = 16
_SPACE = re.compile(r" (?!(?:%|pt|ms|s|req/s)(?:[\s,.;:)]|$))")
_WORDS = re.compile(r"[^\s\-_/.:]*[\s\-_/.:]?")


@dataclass(frozen=True, slots=True)
class Line:
    """One line of a cell: parts that stay whole, joined by ``joint`` where they stand side by side."""

    parts: tuple[Text, ...]
    joint: str = " "

    @property
    def width(self) -> int:
        return sum(part.cell_len for part in self.parts) + len(self.joint) * max(len(self.parts) - 1, 0)

    @property
    def least(self) -> int:
        return max((part.cell_len for part in self.parts), default=0)

    def within(self, width: int) -> list[Text]:
        """As few lines as the width allows."""
        lines: list[Text] = []
        for part in self.parts:
            if lines and lines[-1].cell_len + len(self.joint) + part.cell_len <= width:
                lines[-1] = Text.assemble(lines[-1], self.joint, part)
            else:
                lines.append(part)
        return lines


Cell = str | Text | Line | Sequence[Line]


def line(*parts: str | Text) -> Line:
    """Parts between which the line may be broken; empty ones are left out."""
    return Line(tuple(part if isinstance(part, Text) else Text(part) for part in parts if len(part)))


def folded(text: str, width: int, style: str = "") -> list[Text]:
    """Words in lines of at most ``width`` cells; a number stays with its unit."""
    words = [piece for word in _SPACE.split(text) for piece in chop_cells(word, max(width, 2)) or [""]]
    return Line(tuple(Text(word, style=style) for word in words)).within(width)


class Prose:
    """A paragraph. Its lines stand as deep as the first one."""

    def __init__(self, text: str, style: str = "") -> None:
        self._text = text
        self._style = style

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> Iterator[Text]:
        bare = self._text.lstrip(" ")
        deep = " " * (len(self._text) - len(bare))
        for one in folded(bare, max(options.max_width - len(deep), 2), self._style):
            yield Text.assemble(deep, one)


def _name(text: str) -> Line:
    """A name, which may be broken after its separators."""
    pieces = [piece for word in _WORDS.findall(text) for piece in chop_cells(word, _NAME_PIECE)]
    return Line(tuple(map(Text, pieces)), joint="")


def _lines(cell: Cell) -> tuple[Line, ...]:
    if isinstance(cell, Line):
        return (cell,)
    return (line(cell),) if isinstance(cell, str | Text) else tuple(cell)


@dataclass(frozen=True, slots=True)
class _Row:
    label: str
    cells: tuple[tuple[Line, ...], ...]
    style: str


class Grid:
    """Labels on the left, a column a name, figures on the right of their columns."""

    def __init__(self, corner: str, names: Sequence[str], *, gap: int = 2) -> None:
        self._gap = gap
        self._names = [_name(name) for name in names]
        self._rows = [_Row(corner, tuple((name,) for name in self._names), "bold")]
        self._heads: dict[int, Text] = {}

    def add(self, label: str, cells: Sequence[Cell], style: str = "") -> None:
        """A row. ``label``: several lines where it holds line breaks."""
        if len(cells) != len(self._names):
            raise ValueError(f"{label}: {len(cells)} cells for {len(self._names)} columns")
        self._rows.append(_Row(label, tuple(map(_lines, cells)), style))

    def heading(self, text: str) -> None:
        """A line over the whole width, told only if a row follows it."""
        self._heads[len(self._rows)] = Text(text, style="italic")

    # ---- widths

    def _width(self, column: int, limit: int) -> int:
        """What a column takes when nothing in it may be wider than ``limit``, if that can be."""
        found = 0
        for row in self._rows:
            for one in row.cells[column]:
                found = max(found, one.width if one.width <= limit else max(x.cell_len for x in one.within(limit)))
        return found

    def _natural(self, column: int) -> int:
        figures = max((one.width for row in self._rows[1:] for one in row.cells[column]), default=0)
        return self._width(column, max(figures, _NAME_WIDE))

    def _least(self, column: int) -> int:
        return max(one.least for row in self._rows for one in row.cells[column])

    def _label(self) -> int:
        return max(cell_len(part) for row in self._rows for part in row.label.split("\n"))

    def fits(self, width: int) -> bool:
        """Whether all columns find room side by side, whatever must be broken for it."""
        least = sum(self._gap + self._least(i) for i in range(len(self._names)))
        return min(self._label(), max(_LABEL_LEAST, width // 2)) + least <= width

    def widths(self, width: int) -> tuple[int, list[int]]:
        """(label, columns): broken no further than the width asks for, the widest first."""
        label, columns = self._label(), [self._natural(i) for i in range(len(self._names))]
        least = [self._least(i) for i in range(len(self._names))]

        def excess() -> int:
            return label + sum(columns) + self._gap * len(columns) - width

        label = max(label - max(excess(), 0), min(label, max(_LABEL_LEAST, width // 2)))
        while excess() > 0 and (broad := [i for i, least_i in enumerate(least) if columns[i] > least_i]):
            widest = max(broad, key=columns.__getitem__)
            columns[widest] = self._width(widest, columns[widest] - 1)
        return max(label - max(excess(), 0), min(label, _LABEL_LEAST)), columns

    # ---- drawing

    def draw(self, width: int) -> Iterator[Text]:
        """Its lines, each of them within the width (but for terminals too narrow for a label and one figure)."""
        label, columns = self.widths(width)
        for number, row in enumerate(self._rows):
            if number in self._heads:
                yield self._heads[number]
            yield from self._drawn(row, label, columns)

    def _drawn(self, row: _Row, label: int, columns: Sequence[int]) -> Iterator[Text]:
        labels = [text for part in row.label.split("\n") for text in _label_lines(part, label)]
        cells = [
            [text for one in cell for text in one.within(width)] for cell, width in zip(row.cells, columns, strict=True)
        ]
        for i in range(max(len(labels), *map(len, cells), 0) if cells else len(labels)):
            parts: list[Text | str] = [_padded(labels, i, label, right=False)]
            for cell, width in zip(cells, columns, strict=True):
                parts += [" " * self._gap, _padded(cell, i, width, right=True)]
            text = Text.assemble(*parts, style=row.style)
            text.rstrip()
            yield text


def _label_lines(text: str, width: int) -> list[Text]:
    """A label's lines; what follows the first stands as deep as it and two further."""
    if cell_len(text) <= width:
        return [Text(text)]
    deep = " " * (len(text) - len(text.lstrip(" ")))
    first, *rest = folded(text.strip(" "), max(width - len(deep) - 2, 4))
    return [Text.assemble(deep, first), *(Text.assemble(deep, "  ", more) for more in rest)]


def _padded(lines: Sequence[Text], i: int, width: int, *, right: bool) -> Text:
    text = lines[i] if i < len(lines) else Text("")
    room = " " * max(width - text.cell_len, 0)
    return Text.assemble(room, text) if right else Text.assemble(text, room)


class Blocks(Generic[T]):
    """A table as wide as the terminal and no wider: ``build`` makes a grid of some of the columns."""

    def __init__(self, columns: Sequence[T], build: Callable[[Sequence[T]], Grid], title: Text | None = None) -> None:
        self._columns = columns
        self._build = build
        self._title = title

    def grids(self, width: int) -> list[Grid]:
        """As few blocks as there must be, as even as can be."""
        for count in range(1, len(self._columns) + 1):
            found = [self._build(part) for part in _parts(self._columns, count)]
            if count == len(self._columns) or all(grid.fits(width) for grid in found):
                return found
        return [self._build(self._columns)]

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> Iterator[Text]:
        if self._title is not None:
            yield self._title
        for number, grid in enumerate(self.grids(options.max_width)):
            if number:
                yield Text("")
            yield from grid.draw(options.max_width)


def _parts(items: Sequence[T], count: int) -> Iterator[Sequence[T]]:
    """``count`` runs of neighbours whose sizes differ by one at most, the larger first."""
    size, more = divmod(len(items), count)
    start = 0
    for number in range(count):
        end = start + size + (number < more)
        yield items[start:end]
        start = end
