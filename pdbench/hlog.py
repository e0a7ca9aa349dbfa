"""``latency.hlog``: the latencies as an HdrHistogram log, which the HdrHistogram tools read and plot.

One line an arm and metric, marked with a tag (``Tag=disaggregated.ttft``), values in microseconds. It is a
copy for other people's tools; every number that pdbench prints comes from the raw rows.
"""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pandas as pd
from hdrh.histogram import HdrHistogram
from hdrh.log import HistogramLogWriter

from pdbench.measure.latency import gaps_ns, measured, request_metrics
from pdbench.units import NS_PER_S, NS_PER_US

_LONGEST_US = 3_600_000_000
_DIGITS = 3
_SHOWN = {"ttft": "ttft_ns", "e2e": "e2e_ns", "worst_gap": "worst_gap_ns"}


def write_hlog(path: Path, requests: pd.DataFrame, tokens: pd.DataFrame) -> None:
    """Write TTFT, E2E, worst gap and pooled gaps of every arm. Requests that did not complete have no finite
    latency and are left out; a comment counts them."""
    text = io.StringIO()
    log = HistogramLogWriter(text)
    log.output_comment("[Logged by pdbench; values in microseconds; measured requests only]")
    log.output_log_format_version()
    log.output_legend()
    kept, chunks = measured(requests, tokens)
    for arm in sorted(kept["arm"].unique()):
        mine = kept.loc[kept["arm"] == arm]
        own = chunks.loc[chunks["arm"] == arm]
        derived = request_metrics(mine, own)
        log.output_comment(f"[{arm}: {int((~derived['completed']).sum())} requests did not complete]")
        span_ns = int(own["t_ns"].max() - mine["scheduled_ns"].min()) if len(own) else 0
        figures = {name: derived[column].to_numpy(dtype=np.float64) for name, column in _SHOWN.items()}
        for name, values in {**figures, "tbt": gaps_ns(own)}.items():
            text.write(f"Tag={arm.replace(',', '_')}.{name},")
            # A start stamp of 0 would mean "take the histogram's own".
            log.output_interval_histogram(_histogram(values), 1e-9, max(span_ns, 1) / NS_PER_S + 1e-9, 1000.0)
    path.write_text(text.getvalue(), encoding="utf-8")


def _histogram(values_ns: np.ndarray[tuple[int], np.dtype[np.float64]]) -> HdrHistogram:
    histogram = HdrHistogram(1, _LONGEST_US, _DIGITS)
    finite = values_ns[np.isfinite(values_ns)]
    micros = np.clip(np.rint(finite / NS_PER_US), 1, _LONGEST_US).astype(np.int64)
    for value, count in zip(*np.unique(micros, return_counts=True), strict=True):
        histogram.record_value(int(value), int(count))
    return histogram
