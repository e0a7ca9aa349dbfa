"""What prompts share: for each request the pieces (id, tokens) at its prompt's start.

Whoever names the same id has the same text there, word for word, so a prefix cache sees what the workload had. Pieces
come from a trace's hash ids, from a synthetic ``prefix``, or from the earlier turns of a session.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from pdbench.workload.prompt_spec import Prefix, Sessions
from pdbench.workload.traces import TraceRow

Pieces = tuple[tuple[int, int], ...]
Floats = npt.NDArray[np.float64]
Counts = npt.NDArray[np.int32]
# Ids of different origin never meet: prefix groups first, then the pieces of sessions.
_SESSIONS_FROM = 1 << 32


def of_trace(rows: Sequence[TraceRow], prompt_tokens: Sequence[int], length_scale: float) -> tuple[Pieces, ...]:
    """The shared leading blocks of every row; ``()`` where no row has a block that another one has as well.

    Only blocks that occur twice among ``rows`` can be hit, so a row's pieces end with its last such block; what
    follows is text of its own. Ids are numbered as they come, and block ends are rounded from the prompt's start, so
    that rows which share blocks cut them alike.
    """
    times = Counter(block for row in rows for block in row.blocks)
    numbers: dict[int, int] = {}
    found = []
    for row, tokens in zip(rows, prompt_tokens, strict=True):
        shared = max((place for place, block in enumerate(row.blocks, 1) if times[block] > 1), default=0)
        pieces, begin = [], 0
        for place, block in enumerate(row.blocks[:shared], 1):
            end = min(int(tokens), round(place * row.block_tokens * length_scale))
            if end > begin:
                pieces.append((numbers.setdefault(block, len(numbers)), end - begin))
            begin = end
        found.append(tuple(pieces))
    return tuple(found) if any(found) else ()


def repeated_tokens(segments: Sequence[Pieces]) -> int:
    """Prompt tokens that an earlier request had at its start as well: what a perfect prefix cache could save."""
    places: dict[tuple[int, int], int] = {}  # a tree: the number of the place that a piece leads to from another
    longest: dict[int, int] = {}
    total = 0
    for pieces in segments:
        place = 0
        for name, tokens in pieces:
            place = places.setdefault((place, name), len(places) + 1)
            known = longest.get(place, 0)
            total += min(known, tokens)
            longest[place] = max(known, tokens)
    return total


def of_prefix(prefix: Prefix, prompt_tokens: Sequence[int], chosen: Floats, grouped: Floats) -> tuple[Pieces, ...]:
    """One piece for the share of the requests that has a prefix; float64[n] draws say which, and which group."""
    groups = np.floor(grouped * prefix.groups).astype(np.int64)
    return tuple(
        ((int(group), min(prefix.tokens, int(tokens))),) if has else ()
        for tokens, has, group in zip(prompt_tokens, chosen < prefix.share, groups, strict=True)
    )


def of_sessions(
    sessions: Sessions, new_tokens: Counts, output_tokens: Counts, prefixes: Sequence[Pieces]
) -> tuple[tuple[Pieces, ...], Counts]:
    """Pieces and prompt lengths of every turn, session by session: ``n = sessions x turns`` rows of each.

    A turn's piece has its new tokens; in later turns it is longer by the answer's. A session's prefix (``prefixes``,
    one a session, or none) takes its tokens from the first turn.
    """
    turns, pieces, totals = sessions.turns, [], []
    for first in range(0, len(new_tokens), turns):
        history = list(prefixes[first // turns]) if prefixes else []
        before = sum(tokens for _, tokens in history)
        for row in range(first, first + turns):
            fresh = int(new_tokens[row]) - (before if row == first else 0)
            name = _SESSIONS_FROM + row
            pieces.append((*history, *(((name, fresh),) if fresh else ())))
            totals.append(sum(tokens for _, tokens in pieces[-1]))
            history.append((name, fresh + int(output_tokens[row])))
    return tuple(pieces), np.asarray(totals, dtype=np.int32)
