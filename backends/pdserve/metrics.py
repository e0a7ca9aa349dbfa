"""``/metrics``: Prometheus' text format, under the names vLLM's dashboards know, prefixed ``pdserve:``.

Three sources, each read where it is exact: what the HTTP face sees of each token (TTFT, gaps, counts) is
recorded as it happens; gauges and per-role counters are read from ``service.state()`` when scraped; the
phases inside the server (queue, prefill, hand-off, decode) come from the finished requests' own stamps,
folded in at each scrape. A registry of our own keeps two servers in one process (tests) apart.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

from prometheus_client import CollectorRegistry, Counter, Histogram, generate_latest
from prometheus_client.metrics_core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from pdserve.service import Service

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
_NS_PER_S = 1e9

# Bounds in seconds: from a fast decode step on this machine (5 ms) to a minute, near-logarithmic.
_REQUEST_BOUNDS_S = (0.01, 0.02, 0.05, 0.1, 0.2, 0.3, 0.4, 0.5, 0.75, 1, 1.5, 2, 3, 5, 7.5, 10, 20, 30, 60)
_TOKEN_BOUNDS_S = (0.002, 0.005, 0.01, 0.015, 0.02, 0.03, 0.04, 0.05, 0.075, 0.1, 0.2, 0.3, 0.5, 1, 2.5)

# (phase, first stamp, last stamp) of a finished request's lifecycle
_PHASES = (
    ("queue", "arrive_ns", "prefill_start_ns"),
    ("prefill", "prefill_start_ns", "prefill_end_ns"),
    ("transfer", "transfer_start_ns", "transfer_end_ns"),
    ("decode", "prefill_end_ns", "end_ns"),
)

# (key in state()["roles"][role], metric, help, divisor)
_ROLE_COUNTERS = (
    ("prefill_tokens", "role_prefill_tokens", "Prompt tokens prefilled by the role's workers.", 1),
    ("decode_tokens", "role_decode_tokens", "Tokens decoded by the role's workers.", 1),
    ("decode_steps", "role_decode_steps", "Model steps that decoded.", 1),
    ("steps", "role_steps", "Model steps.", 1),
    ("busy_ns", "role_busy_seconds", "Time the role's workers spent in model steps.", _NS_PER_S),
)
_TRANSFER_COUNTERS = (
    ("count", "kv_transfers", "KV hand-offs completed."),
    ("bytes", "kv_transfer_bytes", "Bytes of KV handed off."),
    ("failed", "kv_transfers_failed", "KV hand-offs that failed or timed out."),
)


class Metrics:
    """The registry, and the meters of live requests."""

    def __init__(self, service: Service) -> None:
        self._service = service
        self.registry = CollectorRegistry()
        model = service.model_name

        def counter(name: str, text: str) -> Counter:
            return Counter(f"pdserve:{name}", text, ["model_name"], registry=self.registry).labels(model)

        def histogram(name: str, text: str, bounds: tuple[float, ...]) -> Histogram:
            full = f"pdserve:{name}"
            return Histogram(full, text, ["model_name"], registry=self.registry, buckets=bounds).labels(model)

        self.prompt_tokens = counter("prompt_tokens", "Prompt tokens of accepted requests.")
        self.generation_tokens = counter("generation_tokens", "Tokens emitted.")
        self._success = Counter(
            "pdserve:request_success",
            "Requests ended, by reason: length, stop, abort (the client left), error.",
            ["model_name", "finished_reason"],
            registry=self.registry,
        )
        self.ttft = histogram("time_to_first_token_seconds", "From arrival to token 1.", _REQUEST_BOUNDS_S)
        self.gap = histogram("inter_token_latency_seconds", "Gaps between tokens.", _TOKEN_BOUNDS_S)
        self.tpot = histogram("request_time_per_output_token_seconds", "Mean gap of a request.", _TOKEN_BOUNDS_S)
        self.e2e = histogram("e2e_request_latency_seconds", "From arrival to the end.", _REQUEST_BOUNDS_S)
        self._phases = []
        for phase, first, last in _PHASES:
            name, text = f"request_{phase}_time_seconds", f"From {first} to {last}."
            self._phases.append((histogram(name, text, _REQUEST_BOUNDS_S), first, last))
        self._folded_until_ns = -1
        self.registry.register(_StateCollector(service))

    def meter(self, arrive_ns: int, prompt_tokens: int) -> Meter:
        """Counts an accepted request and follows it to its end."""
        self.prompt_tokens.inc(prompt_tokens)
        return Meter(self, arrive_ns)

    def ended(self, reason: str) -> None:
        self._success.labels(self._service.model_name, reason).inc()

    def render(self) -> bytes:
        """The page. Folds in the lifecycles of the requests that ended since the last scrape; those that
        were cleared or pushed out of the kept window in between are missed by the phase histograms only."""
        self._fold(self._service.lifecycles())
        return generate_latest(self.registry)

    def _fold(self, lifecycles: Iterable[dict[str, Any]]) -> None:
        newest = self._folded_until_ns
        for stamps in lifecycles:
            end_ns = stamps.get("end_ns")
            if end_ns is None or end_ns <= self._folded_until_ns:
                continue
            newest = max(newest, end_ns)
            for phase, first, last in self._phases:
                start, stop = stamps.get(first), stamps.get(last)
                if start is not None and stop is not None:
                    phase.observe((stop - start) / _NS_PER_S)
        self._folded_until_ns = newest


class Meter:
    """One live request. ``token`` is called once per token: a few microseconds."""

    __slots__ = ("_arrive_ns", "_first_ns", "_last_ns", "_metrics", "_tokens")

    def __init__(self, metrics: Metrics, arrive_ns: int) -> None:
        self._metrics = metrics
        self._arrive_ns = arrive_ns
        self._first_ns = self._last_ns = 0
        self._tokens = 0

    def token(self, now_ns: int) -> None:
        if self._tokens:
            self._metrics.gap.observe((now_ns - self._last_ns) / _NS_PER_S)
        else:
            self._first_ns = now_ns
            self._metrics.ttft.observe((now_ns - self._arrive_ns) / _NS_PER_S)
        self._last_ns = now_ns
        self._tokens += 1
        self._metrics.generation_tokens.inc()

    def end(self, reason: str, now_ns: int) -> None:
        """``reason``: length, stop, abort or error. Latencies count completed requests only, as in vLLM."""
        self._metrics.ended(reason)
        if reason not in ("length", "stop"):
            return
        self._metrics.e2e.observe((now_ns - self._arrive_ns) / _NS_PER_S)
        if self._tokens > 1:
            mean_ns = (self._last_ns - self._first_ns) / (self._tokens - 1)
            self._metrics.tpot.observe(mean_ns / _NS_PER_S)


class _StateCollector(Collector):
    """Gauges and per-role counters, read from ``service.state()`` at each scrape."""

    def __init__(self, service: Service) -> None:
        self._service = service

    def describe(self) -> Iterable[Metric]:
        return []  # names are fixed above; asking the service while it is being built would be too early

    def collect(self) -> Iterator[Metric]:
        state = self._service.state()
        workers = state.get("workers", [])
        queued = sum(state.get("queues", {}).values())
        slots = sum(w.get("slots", 0) for w in workers)
        used = sum(w.get("slots_used", 0) for w in workers)
        gauges = (
            ("num_requests_running", "Requests in a worker's batch.", _total(workers, "running")),
            ("num_requests_waiting", "Requests queued anywhere.", queued + _total(workers, "waiting")),
            ("kv_cache_usage_perc", "Share of KV slots in use (1 = all).", used / slots if slots else 0.0),
        )
        for name, text, value in gauges:
            gauge = GaugeMetricFamily(f"pdserve:{name}", text, labels=["model_name"])
            gauge.add_metric([self._service.model_name], value)
            yield gauge
        yield from _by_role(state.get("roles", {}))
        transfers = state.get("transfers", {})
        for key, name, text in _TRANSFER_COUNTERS:
            yield CounterMetricFamily(f"pdserve:{name}", text, value=transfers.get(key, 0))


def _total(workers: list[dict[str, Any]], key: str) -> int:
    return sum(worker.get(key, 0) for worker in workers)


def _by_role(roles: dict[str, dict[str, Any]]) -> Iterator[Metric]:
    alive = GaugeMetricFamily("pdserve:role_workers", "Workers of the role.", labels=["role"])
    for role, counts in roles.items():
        alive.add_metric([role], counts.get("workers", 0))
    yield alive
    for key, name, text, divisor in _ROLE_COUNTERS:
        family = CounterMetricFamily(f"pdserve:{name}", text, labels=["role"])
        for role, counts in roles.items():
            family.add_metric([role], counts.get(key, 0) / divisor)
        yield family
