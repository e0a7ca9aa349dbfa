"""The one place that parses and formats units.

Inside, everything is integer nanoseconds and plain numbers; units exist only where a person types or reads.
A bare number is refused where a duration is asked for: "400" could be seconds or milliseconds, and the
mistake is a factor of a thousand in an SLO.
"""

from __future__ import annotations

import math
import re
from decimal import Decimal

from pdbench.errors import UsageError

NS_PER_US = 1_000
NS_PER_MS = 1_000_000
NS_PER_S = 1_000_000_000

# One table both parses and documents. Longest names first is not needed: the pattern is anchored.
_DURATION_NS = {
    "ns": 1,
    "us": NS_PER_US,
    "µs": NS_PER_US,
    "ms": NS_PER_MS,
    "s": NS_PER_S,
    "m": 60 * NS_PER_S,
    "min": 60 * NS_PER_S,
    "h": 3600 * NS_PER_S,
}
_QUANTITY = re.compile(r"\s*([0-9]+(?:\.[0-9]*)?|\.[0-9]+)\s*([a-zµ%]*)\s*", re.IGNORECASE)
_BYTE_UNITS = ("B", "KiB", "MiB", "GiB", "TiB")


def parse_duration_ns(text: str, *, where: str = "") -> int:
    """``"400ms"``, ``"0.4s"``, ``"50us"``, ``"5m"``, ``"1h"`` as integer nanoseconds.

    Zero is allowed; a sign, a bare number and an unknown unit are a ``UsageError``. Decimal arithmetic, so
    that ``"0.4s"`` and ``"400ms"`` are the same integer.
    """
    match = _QUANTITY.fullmatch(text)
    if match is None:
        raise UsageError(f"'{text}' is not a duration", where=where, remedy="write it as 400ms, 0.4s, 50us, 5m or 1h")
    number, unit = match.group(1), match.group(2).lower()
    if not unit:
        raise UsageError(f"'{text}' has no unit", where=where, remedy=f"write {number}ms or {number}s")
    if unit not in _DURATION_NS:
        known = ", ".join(u for u in _DURATION_NS if u.isascii())
        raise UsageError(f"'{text}' has the unknown unit '{unit}'", where=where, remedy=f"known: {known}")
    return int((Decimal(number) * _DURATION_NS[unit]).to_integral_value())


def parse_share(text: str, *, where: str = "") -> float:
    """``"1%"`` or ``"0.01"`` as a share in [0, 1]. Raises ``UsageError`` outside it."""
    match = _QUANTITY.fullmatch(text)
    if match is None or match.group(2) not in ("", "%"):
        raise UsageError(f"'{text}' is not a share", where=where, remedy="write it as 1% or 0.01")
    share = Decimal(match.group(1)) / (100 if match.group(2) else 1)
    if share > 1:
        raise UsageError(f"the share '{text}' is more than 100%", where=where, remedy="write it as 1% or 0.01")
    return float(share)


def ms(ns: float) -> float:
    """Nanoseconds as float milliseconds; inf and nan pass through."""
    return ns / NS_PER_MS


def seconds(ns: float) -> float:
    """Nanoseconds as float seconds."""
    return ns / NS_PER_S


def format_duration(ns: int) -> str:
    """The shortest exact text that ``parse_duration_ns`` reads back: 400000000 -> ``"400ms"``."""
    for unit, size in (("s", NS_PER_S), ("ms", NS_PER_MS), ("us", NS_PER_US)):
        if ns >= size and ns % size == 0:
            return f"{ns // size}{unit}"
    return f"{ns}ns" if ns else "0ms"


def format_ms(ns: float) -> str:
    """Nanoseconds for a reader, about three digits: ``"0.34 ms"``, ``"25.3 ms"``, ``"1,234 ms"``.

    ``"inf"`` is a percentile that fell on a request that never completed, ``"n/a"`` a metric that does not
    apply.
    """
    if math.isnan(ns):
        return "n/a"
    if math.isinf(ns):
        return "inf" if ns > 0 else "-inf"
    value = ms(ns)
    decimals = 2 if abs(value) < 10 else 1 if abs(value) < 100 else 0
    return f"{value:,.{decimals}f} ms"


def format_bytes(count: float) -> str:
    """Bytes in binary units: ``"512 B"``, ``"1.5 MiB"``."""
    value = float(count)
    for unit in _BYTE_UNITS[:-1]:
        if abs(value) < 1024:
            return f"{value:.0f} {unit}" if unit == "B" else f"{value:.1f} {unit}"
        value /= 1024
    return f"{value:.1f} {_BYTE_UNITS[-1]}"


def format_percent(share: float, decimals: int = 0) -> str:
    """A share for a reader: 0.973 -> ``"97 %"``."""
    return f"{100 * share:.{decimals}f} %"
