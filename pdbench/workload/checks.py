"""Small checks that the workload's structs share. Every message starts with the name of the field."""

from __future__ import annotations

import math
from collections.abc import Mapping

import msgspec

from pdbench.errors import UsageError
from pdbench.units import NS_PER_S, parse_duration_ns

LENGTH_MAX = 10_000_000  # far above any model's context; keeps lengths well inside int32


def key(name: str) -> str:
    """The key of a field as it stands in the file: ``from_`` is ``from``."""
    return name.rstrip("_")


def positive(name: str, value: float | None) -> None:
    if value is not None and not (value > 0 and math.isfinite(value)):
        raise ValueError(f"{key(name)} must be greater than 0, got {value:g}")


def not_negative(name: str, value: float | None) -> None:
    if value is not None and not (value >= 0 and math.isfinite(value)):
        raise ValueError(f"{key(name)} must not be negative, got {value:g}")


def length(name: str, value: int | None) -> None:
    positive(name, value)
    if value is not None and value > LENGTH_MAX:
        raise ValueError(f"{key(name)} must be at most {LENGTH_MAX}, got {value}")


def only(item: msgspec.Struct, kind: str, allowed: Mapping[str, frozenset[str]]) -> None:
    """Refuse a key that another law would read: silence would mean a different workload than was written."""
    for name in sorted(frozenset().union(*allowed.values()) - allowed[kind]):
        if getattr(item, name) is not None:
            raise ValueError(f"{key(name)} does not apply to '{kind}'")


def require(item: msgspec.Struct, kind: str, *names: str) -> None:
    for name in names:
        if getattr(item, name) is None:
            raise ValueError(f"{key(name)} is required for '{kind}'")


def seconds(name: str, text: str | None) -> float:
    """A duration as written (``"60s"``), in seconds; above 0."""
    try:
        ns = parse_duration_ns(text or "")
    except UsageError as error:
        raise ValueError(f"{key(name)}: {error.message}; {error.remedy}") from None
    if ns == 0:
        raise ValueError(f"{key(name)} must be greater than 0, got {text}")
    return ns / NS_PER_S
