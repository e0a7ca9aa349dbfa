"""What a server's own stamps and counters say about one arm, for its entry in the summary document.

Three accounts: whether the phases were separated (``separation``), where the time to the second token went
(``handoff_split``), what prompts cost the streams beside them (``interference``). Pure; an account that the
server's stamps do not allow is absent.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd

from pdbench.measure.handoff import handoff_parts, handoff_summary
from pdbench.measure.interference import interference
from pdbench.measure.lifecycles import server_frame
from pdbench.measure.separation import Separation, over_runs, separation
from pdbench.serverside import ServerSide


def judge_separation(
    runs: Mapping[int, ServerSide], devices: Sequence[str], kv_bytes_per_token: int | None
) -> Separation:
    """One judgement over an arm's runs (``{pair: what its server said}``)."""
    return over_runs([separation(run, devices, kv_bytes_per_token=kv_bytes_per_token) for run in runs.values()])


def server_account(
    arm: str,
    runs: Mapping[int, ServerSide],
    requests: pd.DataFrame,
    tokens: pd.DataFrame,
    *,
    devices: Sequence[str] = (),
    kv_bytes_per_token: int | None = None,
) -> dict[str, Any]:
    """``{"separation", "handoff_split", "interference"}`` of one arm: its runs by pair, and its client's rows."""
    found: dict[str, Any] = {"separation": judge_separation(runs, devices, kv_bytes_per_token).document()}
    rows = [{"pair": pair, **row} for pair, run in runs.items() for row in run.lifecycles]
    log = [{"pair": pair, **row} for pair, run in runs.items() for row in run.steps]
    if not rows:
        return found
    server, steps = server_frame(rows, arm), server_frame(log, arm)
    if split := handoff_summary(handoff_parts(server, requests, tokens)):
        found["handoff_split"] = split
    if account := interference(server, steps, requests):
        found["interference"] = account
    return found
