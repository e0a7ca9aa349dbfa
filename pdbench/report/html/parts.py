"""What the page is made of: sections of paragraphs, charts, tables, and placeholders for what is not there.

A section says *what* is shown; the template alone says how it looks, and escapes every text on its way in.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, ClassVar

if TYPE_CHECKING:
    from pdbench.report.charts import Figure


@dataclass(frozen=True, slots=True)
class Cell:
    """A table's cell. ``tone``: good, bad, warn, strong or soft; ``below``: a second, quieter line."""

    text: str
    tone: str = ""
    below: str = ""


@dataclass(frozen=True, slots=True)
class Table:
    """``align``: a letter a column, ``l`` or ``r``; its last letter holds for the rest. The first column heads its row.
    A ``folded`` table is shown when asked for."""

    kind: ClassVar[str] = "table"
    caption: str
    columns: Sequence[str]
    rows: Sequence[Sequence[Cell | str]]
    align: str = "lr"
    folded: bool = False

    def cells(self) -> list[list[Cell]]:
        return [[one if isinstance(one, Cell) else Cell(str(one)) for one in row] for row in self.rows]

    def side(self, column: int) -> str:
        return "num" if self.align[min(column, len(self.align) - 1)] == "r" else ""


@dataclass(frozen=True, slots=True)
class Key:
    """One entry of a chart's legend. ``shape``: line, band, dot, triangle, box or pale. ``arm``: where a click on the
    entry hides an arm in every chart, its number."""

    label: str
    colour: str
    dash: str = "solid"
    shape: str = "line"
    arm: int | None = None


@dataclass(frozen=True, slots=True)
class Chart:
    """A figure with its heading, one sentence on how to read it, its legend, and the table that says the same."""

    kind: ClassVar[str] = "chart"
    id: str
    title: str
    how: str
    figure: Figure
    table: Table | None
    keys: Sequence[Key] = ()
    says: str = ""


@dataclass(frozen=True, slots=True)
class Text:
    """A paragraph. ``tone``: lead, note, warn, bad or nothing."""

    kind: ClassVar[str] = "text"
    text: str
    tone: str = ""


@dataclass(frozen=True, slots=True)
class Points:
    """A list of sentences, each with a quieter second part (a remedy)."""

    kind: ClassVar[str] = "points"
    items: Sequence[tuple[str, str]]
    tone: str = ""


@dataclass(frozen=True, slots=True)
class Missing:
    """What is not there, why, and the command that gets it."""

    kind: ClassVar[str] = "missing"
    what: str
    why: str
    command: str = ""


@dataclass(frozen=True, slots=True)
class Code:
    kind: ClassVar[str] = "code"
    text: str
    label: str = ""


@dataclass(frozen=True, slots=True)
class Heading:
    """A heading inside a section, with an arm's colour where it is about one."""

    kind: ClassVar[str] = "heading"
    text: str
    colour: str = ""


Block = Table | Chart | Text | Points | Missing | Code | Heading


@dataclass(frozen=True, slots=True)
class Section:
    """``id``: the anchor, and the prefix of its charts' ids."""

    id: str
    title: str
    blocks: Sequence[Block] = field(default_factory=tuple)

    @property
    def charts(self) -> list[Chart]:
        return [block for block in self.blocks if isinstance(block, Chart)]
