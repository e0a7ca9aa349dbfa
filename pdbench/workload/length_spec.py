"""How many tokens a prompt or an answer has: the laws a workload file may name."""

from __future__ import annotations

from typing import Literal

import msgspec

from pdbench.workload.checks import length, not_negative, only, positive, require

Distribution = Literal["fixed", "uniform", "lognormal", "list"]
_KEYS: dict[str, frozenset[str]] = {
    "fixed": frozenset({"value"}),
    "uniform": frozenset({"low", "high"}),
    "lognormal": frozenset({"median", "sigma", "low", "high"}),
    "list": frozenset({"values"}),
}


class Lengths(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """How many tokens: ``fixed`` value; ``uniform`` low..high, both included; ``lognormal`` around
    ``median`` with ``sigma`` (of the natural log), clipped to low..high; ``list``: value i for request
    i."""

    distribution: Distribution
    value: int | None = None
    low: int | None = None
    high: int | None = None
    median: float | None = None
    sigma: float | None = None
    values: tuple[int, ...] | None = None

    def __post_init__(self) -> None:
        only(self, self.distribution, _KEYS)
        required = _KEYS[self.distribution] - ({"low"} if self.distribution == "lognormal" else set())
        require(self, self.distribution, *sorted(required))
        for name in ("value", "low", "high"):
            length(name, getattr(self, name))
        positive("median", self.median)
        not_negative("sigma", self.sigma)
        if self.low is not None and self.high is not None and self.low > self.high:
            raise ValueError(f"low must not be greater than high, got {self.low} and {self.high}")
        if self.values is not None and not self.values:
            raise ValueError("values must not be empty")
        for value in self.values or ():
            length("values", value)

    @property
    def longest(self) -> int:
        """The longest length this law can give."""
        return max(self.values) if self.values else int(self.value or self.high or 1)
