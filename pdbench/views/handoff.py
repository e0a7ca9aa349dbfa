"""Where a request's time goes inside the server: the parts of TTFT and of the hand-off, as curves and as a table."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import pandas as pd

from pdbench.measure.handoff import server_parts
from pdbench.measure.latency import Floats, percentile
from pdbench.measure.lifecycles import Flags
from pdbench.units import NS_PER_MS

PARTS = ("prefill_queue", "prefill", "staging_wait", "transfer", "decode_queue", "first_decode_step")
LABELS = {
    "prefill_queue": "wait for prefill",
    "prefill": "prefill",
    "staging_wait": "wait for the link",
    "transfer": "KV transfer",
    "decode_queue": "wait for a decode place",
    "first_decode_step": "first decode step",
}


@dataclass(frozen=True, slots=True)
class Handoff:
    """One arm. ``parts_ms``: by part, one value a request to which it applies; ``table``: by part P50 and P90 in ms.
    ``note`` says what is missing ("" when nothing is)."""

    parts_ms: Mapping[str, Floats]
    table: Mapping[str, tuple[float, float]]
    requests: int
    transfers: int
    note: str = ""


def handoff(lifecycles: pd.DataFrame) -> Handoff:
    """The parts of the requests that ended well, warm-up left out where it is known. Parts that no request has are
    absent; P50s of parts do not add up to the P50 of the sum."""
    if not len(lifecycles):
        note = "no server data: only pdserve tells where a request's time went"
        return Handoff({}, {}, 0, 0, note)
    kept: Flags = np.ones(len(lifecycles), dtype=bool)
    if "status" in lifecycles:
        kept &= lifecycles["status"].to_numpy(dtype=object) == "ok"
    if "warmup" in lifecycles:
        kept &= ~lifecycles["warmup"].to_numpy(dtype=bool)
    found = {name: values / NS_PER_MS for name, values in server_parts(lifecycles.loc[kept]).items()}
    parts = {name: found[name][~np.isnan(found[name])] for name in PARTS}
    parts = {name: values for name, values in parts.items() if len(values)}
    crossed = len(parts.get("transfer", ()))
    note = "" if crossed else "no request was handed over: prefill and decode ran on one worker"
    table = {name: (percentile(values, 50), percentile(values, 90)) for name, values in parts.items()}
    return Handoff(parts, table, int(kept.sum()), crossed, note if parts else "no request ended well")
