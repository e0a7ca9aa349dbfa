"""Which arms a comparison has, and which of them is the base; settled before anything heavy is imported."""

from __future__ import annotations

from collections.abc import Sequence

from pdbench.errors import UsageError
from pdbench.target.backend import Backend

DEFAULT_ARMS = ("colocated-chunked", "colocated", "disaggregated")
DEFAULT_BASE = "colocated-chunked"
"""The strongest common practice; a weaker base would flatter what is compared to it."""


def base_of(backends: Sequence[Backend], base: str | None) -> str:
    """The base arm: as asked, else the strongest common practice if it takes part, else the first."""
    names = [backend.name for backend in backends]
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice is not None:
        raise UsageError(f"two arms are named '{twice}'", remedy="name a URL arm NAME=URL, or change a YAML's name")
    simulated = next((b.name for b in backends if b.simulated), None)
    if simulated is not None:
        raise UsageError(
            f"'{simulated}' has a cost model and runs on the virtual clock only", remedy="use pdbench simulate"
        )
    if base is not None and base not in names:
        raise UsageError(f"'{base}' is not an arm", where="--base", remedy=f"arms: {', '.join(names)}")
    return base or (DEFAULT_BASE if DEFAULT_BASE in names else names[0])
