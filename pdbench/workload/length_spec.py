"""How many tokens a prompt or an answer has: the laws a workload file may name."""

from __future__ import annotations

from typing import Literal

import msgspec

from pdbench.workload.checks import length, not_negative, only, positive, require

Distribution = Literal["fixed", "uniform", "lognormal", "list", "empirical"]
_KEYS: dict[str, frozenset[str]] = {
    "fixed": frozenset({"value"}),
    "uniform": frozenset({"low", "high"}),
    "lognormal": frozenset({"median", "sigma", "low", "high"}),
    "list": frozenset({"values"}),
    "empirical": frozenset({"values", "weights", "file", "column"}),
}
_REQUIRED: dict[str, tuple[str, ...]] = {
    "fixed": ("value",),
    "uniform": ("high", "low"),
    "lognormal": ("high", "median", "sigma"),
    "list": ("values",),
    "empirical": (),
}


class Lengths(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """How many tokens: ``fixed`` value; ``uniform`` low..high, both included; ``lognormal`` around
    ``median`` with ``sigma`` (of the natural log), clipped to low..high; ``list``: value i for request
    i; ``empirical``: one of ``values``, as likely as its weight, or one of a ``column`` of a ``file``."""

    distribution: Distribution
    value: int | None = None
    low: int | None = None
    high: int | None = None
    median: float | None = None
    sigma: float | None = None
    values: tuple[int, ...] | None = None
    weights: tuple[float, ...] | None = None
    file: str | None = None
    column: str | None = None

    def __post_init__(self) -> None:
        only(self, self.distribution, _KEYS)
        require(self, self.distribution, *_REQUIRED[self.distribution])
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
        if self.distribution == "empirical":
            self._check_empirical()

    def _check_empirical(self) -> None:
        if (self.values is None) == (self.file is None):
            raise ValueError("values is required for 'empirical' (or file, never both)")
        if self.column is not None and self.file is None:
            raise ValueError("column needs a file")
        if self.weights is None:
            return
        if len(self.weights) != len(self.values or ()):
            raise ValueError(f"weights has {len(self.weights)} entries, values has {len(self.values or ())}")
        for weight in self.weights:
            not_negative("weights", weight)
        if not sum(self.weights) > 0:
            raise ValueError("weights must not all be 0")
