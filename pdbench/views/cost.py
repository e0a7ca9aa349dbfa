"""What a good request costs: seconds of device for each request that kept the whole SLO, idle devices included.

devices / (good requests per second)        times the price of a device-hour: money for a thousand of them
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from pdbench.errors import UsageError

_S_PER_HOUR = 3600


@dataclass(frozen=True, slots=True)
class Cost:
    """``per_thousand``: in the currency of the price, ``None`` without a price. ``devices`` are all of the arm."""

    devices: int
    good_per_s: float
    device_seconds: float
    price_per_device_hour: float | None = None
    per_thousand: float | None = None


def cost(arm_entry: Mapping[str, Any], price_per_device_hour: float | None = None) -> Cost | None:
    """Of one entry of a document's ``arms``; ``None`` where no request was good, or the entry does not tell.

    Raises ``UsageError`` for a price below 0.
    """
    if price_per_device_hour is not None and not 0 <= price_per_device_hour < float("inf"):
        raise UsageError(
            f"a price of {price_per_device_hour:g} is not one", where="--price-per-device-hour", remedy="e.g. 2.5"
        )
    good = arm_entry.get("throughput", {}).get("good_requests_per_s")
    devices = arm_entry.get("devices")
    if not good or not devices:
        return None
    seconds = float(devices) / float(good)
    money = None if price_per_device_hour is None else 1000 * seconds / _S_PER_HOUR * price_per_device_hour
    return Cost(int(devices), float(good), seconds, price_per_device_hour, money)
