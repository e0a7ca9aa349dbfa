"""What a pdserve says of its queues and devices while it serves, once a second, from a thread of its own.

Only a server of ours tells (``/admin/state``); of any other nothing is known, and the page says so.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping
from typing import Any

from pdbench.target.http import NoAnswer, Refused, fetch_json

EVERY_S = 1.0
_TIMEOUT_S = 2.0
_KINDS = {"prefill": "prefill", "mixed": "prefill", "decode": "decode"}
"""Of a role: in which column it is shown. A worker that does both is shown with prefill; there is no other then."""


def reading(state: Mapping[str, Any], before: Mapping[str, Any] | None, elapsed_ns: int) -> dict[str, float]:
    """``queue_prefill``, ``queue_decode``: requests that wait for a phase or are in it; and, with an earlier state,
    ``busy_prefill``, ``busy_decode`` in 0..1: the mean over the role's workers since then. What the state does not tell
    is left out."""
    found = _queues(state)
    old = (before or {}).get("roles") or {}
    for role, now in (state.get("roles") or {}).items():
        kind, then = _KINDS.get(role), old.get(role)
        spent = now.get("busy_ns", 0) - then.get("busy_ns", 0) if then else -1
        if kind and spent >= 0 and elapsed_ns > 0 and now.get("workers"):
            found[f"busy_{kind}"] = round(min(1.0, spent / (elapsed_ns * now["workers"])), 4)
    return found


def _queues(state: Mapping[str, Any]) -> dict[str, float]:
    """The router's queues, and what its workers have taken."""
    queues, found = state.get("queues") or {}, dict[str, float]()
    for row in state.get("workers") or []:
        kind, live = _KINDS.get(row.get("role")), row.get("live")
        if kind and isinstance(live, int | float):
            found[f"queue_{kind}"] = found.get(f"queue_{kind}", 0.0) + live
    for name, column in (("prefill", "queue_prefill"), ("handoff", "queue_decode")):
        if column in found and isinstance(queues.get(name), int | float):
            found[column] += queues[name]
    return found


class Sampler:
    """Asks until it is stopped; ``take`` gets each reading, in the sampler's thread."""

    def __init__(self, base_url: str, take: Callable[[dict[str, float]], None]) -> None:
        self._url = f"{base_url}/admin/state"
        self._take = take
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._ask, name="pdbench-sampler", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        self._over.set()
        self._thread.join(_TIMEOUT_S)

    def _ask(self) -> None:
        before, then_ns = None, 0
        while not self._over.is_set():
            try:
                state = fetch_json(self._url, timeout_s=_TIMEOUT_S)
            except (NoAnswer, Refused):
                self._over.wait(EVERY_S)
                continue
            now_ns = time.monotonic_ns()
            self._take(reading(state, before, now_ns - then_ns))
            before, then_ns = state, now_ns
            self._over.wait(EVERY_S)
