"""In which order the arms of a pair run: a Latin square and its mirror, so that drift favours nobody.

A machine that warms up, throttles or is shared drifts while a comparison runs. Two arms alternate AB BA; with
more, every arm takes every place equally often, and after a square and its mirror every arm has also followed
each of its neighbours as often as it went before them. Three arms use all six orders in six pairs.
"""

from __future__ import annotations


def order_of(arms: int, pair: int) -> list[int]:
    """The indices of the arms in the order in which pair ``pair`` (from 0) runs them."""
    if arms < 1 or pair < 0:
        raise ValueError(f"at least one arm and a pair from 0, got {arms} and {pair}")
    row = pair % arms
    square = [(row + place) % arms for place in range(arms)]
    # Of two arms the mirror is the square again, so two arms need no second half.
    return square if arms < 3 or (pair // arms) % 2 == 0 else square[::-1]
