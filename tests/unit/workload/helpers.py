from __future__ import annotations

from typing import Any

import msgspec

from pdbench.workload.spec import Workload

CHAT: dict[str, Any] = {
    "name": "chat",
    "arrivals": {"process": "poisson", "rate": 2.0},
    "prompt_tokens": {"distribution": "fixed", "value": 512},
    "output_tokens": {"distribution": "fixed", "value": 64},
    "num_requests": 60,
    "warmup": 10,
    "slo": ["ttft p90 <= 400ms"],
}


def workload(**changes: Any) -> Workload:
    return msgspec.convert({**CHAT, **changes}, Workload)
