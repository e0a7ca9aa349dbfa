"""HdrHistograms for the live view: recorded in the engine, merged where they are watched.

Range 1 us to 3600 s at three digits; the word size is the same everywhere, since merging histograms of
different word sizes is forty times slower. ``record_value`` is pure Python (2 us), so values are first
counted by bucket in a dict and each bucket is recorded once. Verdicts never come from here: they come from
the raw records.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable

from hdrh.histogram import HdrHistogram

from pdbench.load.lag import bucket

LOWEST_US = 1
HIGHEST_US = 3_600_000_000
DIGITS = 3
WORD_SIZE = 8


class LiveHistogram:
    """Latencies of an interval or of a run so far."""

    __slots__ = ("_pending", "hdr")

    def __init__(self) -> None:
        self.hdr = HdrHistogram(LOWEST_US, HIGHEST_US, DIGITS, word_size=WORD_SIZE)
        self._pending: list[int] = []

    def add_ns(self, values_ns: Iterable[int]) -> None:
        """Note latencies; values beyond an hour count as an hour rather than vanish."""
        self._pending.extend(values_ns)

    def _settle(self) -> None:
        if not self._pending:
            return
        for key, count in Counter(map(bucket, self._pending)).items():
            self.hdr.record_value(min(max(key // 1000, LOWEST_US), HIGHEST_US), count)
        self._pending.clear()

    @property
    def count(self) -> int:
        self._settle()
        return int(self.hdr.total_count)

    def encode(self) -> str:
        """The HdrHistogram V2 wire format in base64, ``""`` when empty. About 0.3 ms."""
        self._settle()
        return bytes(self.hdr.encode()).decode("ascii") if self.hdr.total_count else ""

    def merge(self, encoded: str) -> None:
        """Add what another process encoded."""
        self._settle()
        if encoded:
            self.hdr.decode_and_add(encoded.encode("ascii"))

    def share_within_ms(self, limit_ms: float) -> float | None:
        """The share of values up to a limit, as exact as the buckets are; None when empty. Walks all buckets."""
        self._settle()
        if not self.hdr.total_count:
            return None
        limit_us = limit_ms * 1e3
        kept = sum(
            item.count_added_in_this_iter_step
            for item in self.hdr.get_recorded_iterator()
            if self.hdr.get_lowest_equivalent_value(item.value_iterated_to) <= limit_us
        )
        return int(kept) / int(self.hdr.total_count)

    def percentiles_ms(self, *quantiles: float) -> list[float | None]:
        """Percentiles (0 to 100) in ms, ``None`` when empty. Walks all buckets: not for the engine."""
        self._settle()
        if not self.hdr.total_count:
            return [None for _ in quantiles]
        found = self.hdr.get_percentile_to_value_dict(list(quantiles))
        return [found[q] / 1e3 for q in quantiles]
