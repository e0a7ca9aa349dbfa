"""Hours of points: small enough for one answer, and with every stall still in it."""

from __future__ import annotations

import json
import math

from pdbench.livestate import COLUMNS, Point
from pdbench.web.course import MOST, RECENT, Course, columns


def point(second: int, **changes: float) -> Point:
    found: Point = dict.fromkeys(COLUMNS, float(second % 50))
    return {**found, "t": float(second), **changes}


def test_a_long_call_stays_small_and_keeps_its_extremes() -> None:
    course = Course(2)
    for second in range(20_000):
        if second % 500 == 0:
            course.add(0, {**dict.fromkeys(COLUMNS), "t": float(second)})
        course.add(0, point(second, **({"ttft90": 9_000.0} if second == 777 else {})))
        course.add(1, point(second, ttft50=math.inf))
    first, second_arm = course.after(0)
    assert max(len(first), len(second_arm)) <= MOST
    found = columns(first)
    assert found["t"] == sorted(one for one in found["t"] if one is not None), "in order"
    assert found["t"][found["ttft90"].index(9_000.0)] == 777.0
    assert found["ttft90"].count(None) == 40, "runs stay apart"
    assert [row.number for row in first[-9:]] == [row.number for row in course.after(first[-10].number)[0]]
    assert columns(second_arm)["ttft50"] == [None] * len(second_arm)
    assert len(json.dumps([columns(first), columns(second_arm)], allow_nan=False)) < 500_000
    assert course.after(course.last) == [[], []]
    assert columns([]) == {}


def test_the_last_minutes_are_there_in_full() -> None:
    course = Course(1)
    for second in range(3 * MOST):
        course.add(0, point(second))
    assert columns(course.after(0)[0])["t"][-RECENT:] == [
        float(second) for second in range(3 * MOST - RECENT, 3 * MOST)
    ]
