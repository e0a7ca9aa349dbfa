"""The whole cluster on the virtual clock: the teaching example to the nanosecond, and invariants under chaos."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from pdserve.config import ConfigError, parse
from pdserve.executors.virtual import step_ns
from pdserve.messages import Prefill
from pdserve.router import End
from pdserve.sequence import Chunk, Sequence, Step
from pdserve.simulate import Simulation, simulate

BACKENDS = Path(__file__).parents[3] / "backends"
COST = {"step_ms": 1.0, "prefill_ms_per_token": 0.4, "decode_ms_per_step": 5.0, "transfer_ms": 1.5}


def backend(layout: str, slots: int = 4) -> dict[str, Any]:
    common = {"max_batch": slots, "slots": slots, "max_batch_tokens": 64, "token_budget": slots + 16}
    rows = {
        "colocated": [{"role": "mixed"}] * 2,
        "chunked": [{"role": "mixed", "policy": "chunked"}] * 2,
        "1p1d": [{"role": "prefill"}, {"role": "decode"}],
        "2p1d": [{"role": "prefill"}, {"role": "prefill"}, {"role": "decode"}],
        "1p2d": [{"role": "prefill"}, {"role": "decode"}, {"role": "decode"}],
    }[layout]
    workers = [{**row, **common, "device": i} for i, row in enumerate(rows)]
    return {"name": layout, "workers": workers, "cost_model": COST, "transfer": {"staging": 2}}


LAYOUTS = ["colocated", "chunked", "1p1d", "2p1d", "1p2d"]


def test_two_queues_gives_the_textbook_times_exactly() -> None:
    config = parse(yaml.safe_load((BACKENDS / "two-queues.yaml").read_text()))
    result = simulate(
        config, {"scheduled_ns": [0, 0, 0], "prompt_tokens": [200, 500, 300], "output_tokens": [11, 11, 11]}
    )
    assert [r["prefill_end_ns"] for r in result["requests"]] == [1_000_000_000, 3_500_000_000, 5_000_000_000]
    assert [r["token_ns"][-1] for r in result["requests"]] == [1_200_000_000, 3_700_000_000, 5_200_000_000]
    assert [len(r["token_ns"]) for r in result["requests"]] == [11, 11, 11]
    assert result["simulated"] is True


def test_a_request_longer_than_the_model_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"plan\[0\].*4096"):
        simulate(parse(backend("1p1d")), {"scheduled_ns": [0], "prompt_tokens": [4000], "output_tokens": [97]})


def test_step_time_follows_the_formula() -> None:
    cost = parse(backend("1p1d")).cost_model
    assert cost is not None
    prompt = Chunk(Sequence("p", 100, 5), 0, 100)
    decode = Chunk(Sequence("d", 10, 5, computed=10, emitted=1), 10, 1)
    assert step_ns(cost, Step((prompt,))) == 41_000_000
    assert step_ns(cost, Step((decode,))) == 6_000_000
    assert step_ns(cost, Step((prompt, decode))) == 46_000_000


@pytest.mark.parametrize(
    ("inject", "ttft_ms", "gap_ms", "handoff_ms"),
    [
        ({}, 21, 6, 7.5),
        ({"prefill": 1.5}, 31.5, 6, 7.5),
        ({"decode": 1.5}, 21, 9, 10.5),
        ({"transfer": 2}, 21, 6, 9),
        ({"stall": "100%@50ms"}, 71, 56, 57.5),
    ],
)
def test_an_injected_slowdown_hits_its_own_phase(
    inject: dict[str, Any], ttft_ms: float, gap_ms: float, handoff_ms: float
) -> None:
    config = parse({**backend("1p1d"), "inject": inject})
    result = simulate(config, {"scheduled_ns": [0], "prompt_tokens": [50], "output_tokens": [4]})
    tokens = [ns / 1e6 for ns in result["requests"][0]["token_ns"]]
    assert tokens[0] == pytest.approx(ttft_ms)
    assert tokens[1] - tokens[0] == pytest.approx(handoff_ms)
    assert tokens[2] - tokens[1] == pytest.approx(gap_ms)


PLANS = st.lists(
    st.tuples(st.integers(0, 40_000_000), st.integers(1, 200), st.integers(1, 12)), min_size=1, max_size=25
)


@settings(max_examples=80, deadline=None)
@given(layout=st.sampled_from(LAYOUTS), rows=PLANS, slots=st.integers(1, 4))
def test_every_request_ends_once_in_order_and_nothing_leaks(
    layout: str, rows: list[tuple[int, int, int]], slots: int
) -> None:
    arrivals = [sum(gap for gap, _, _ in rows[: i + 1]) for i in range(len(rows))]
    config = parse(backend(layout, slots))
    plan = {
        "scheduled_ns": arrivals,
        "prompt_tokens": [p for _, p, _ in rows],
        "output_tokens": [o for _, _, o in rows],
    }
    result = simulate(config, plan)
    for request, arrival, (_, prompt, output) in zip(result["requests"], arrivals, rows, strict=True):
        assert request["status"] == "ok"
        tokens = request["token_ns"]
        assert len(tokens) == output
        assert tokens == sorted(tokens)
        assert arrival <= request["prefill_start_ns"] < request["prefill_end_ns"] == tokens[0]
        if layout[0].isdigit() and output > 1:
            assert request["prefill_end_ns"] <= request["transfer_start_ns"] < request["transfer_end_ns"]
            assert request["transfer_end_ns"] <= request["decode_admit_ns"] < tokens[1]
            assert request["kv_bytes"] == prompt * 4096
    starts = [r["prefill_start_ns"] for r in result["requests"]]
    if layout in ("1p1d", "1p2d"):
        assert starts == sorted(starts), "one prefill queue, first come, first served"
    check_books(result, rows, layout)
    assert result == simulate(config, plan), "the virtual clock is deterministic"


def check_books(result: dict[str, Any], rows: list[tuple[int, int, int]], layout: str) -> None:
    """The counters prove where the work ran."""
    roles, transfers = result["state"]["roles"], result["state"]["transfers"]
    prompts, outputs = sum(p for _, p, _ in rows), sum(o for _, _, o in rows)
    if layout in ("colocated", "chunked"):
        assert roles["mixed"]["prefill_tokens"] == prompts
        assert roles["mixed"]["decode_tokens"] == outputs - len(rows)
        assert transfers["count"] == 0
        return
    assert roles["prefill"]["prefill_tokens"] == prompts
    assert roles["prefill"]["decode_tokens"] == roles["decode"]["prefill_tokens"] == 0
    assert roles["decode"]["decode_tokens"] == outputs - len(rows)
    assert transfers["count"] == transfers["released"] == sum(o > 1 for _, _, o in rows)
    assert transfers["bytes"] == 4096 * sum(p for _, p, o in rows if o > 1)


class Chaos(Simulation):
    """A simulation that counts how often each request ends, and whose workers can die."""

    def __init__(self, layout: str, slots: int) -> None:
        super().__init__(parse(backend(layout, slots)))
        self.ends: dict[str, list[str]] = {}
        self.dead: set[int] = set()

    def _done(self, worker: Any, step: Step, start: int) -> None:
        if worker.index not in self.dead:
            super()._done(worker, step, start)

    def _act(self, actions: list[Any]) -> None:
        for action in actions:
            if isinstance(action, End):
                self.ends.setdefault(action.id, []).append(action.status)
        super()._act(actions)

    def leaks(self) -> list[str]:
        """What live workers still hold when nothing is left to do."""
        found = []
        for worker in self.workers:
            if not self.router.workers[worker.index].alive:
                continue
            engine = worker.engine
            if engine.live or engine.cache.used or engine.running or engine.waiting:
                found.append(f"worker {worker.index} holds {engine.live} requests, {engine.cache.used} slots")
            if engine.sender is not None and engine.sender.staged:
                found.append(f"worker {worker.index} holds {engine.sender.staged} staging places")
            if self.router.workers[worker.index].live or self.router.workers[worker.index].queued_tokens:
                found.append(f"the router still books load on worker {worker.index}")
        return found


@settings(max_examples=120, deadline=None)
@given(
    layout=st.sampled_from(LAYOUTS),
    rows=PLANS,
    slots=st.integers(1, 3),
    cancels=st.lists(st.tuples(st.integers(0, 24), st.integers(0, 900_000_000)), max_size=12),
    death=st.none() | st.tuples(st.integers(0, 2), st.integers(0, 600_000_000)),
    timeouts=st.lists(st.integers(0, 900_000_000), max_size=3),
)
def test_cancels_deaths_and_timeouts_end_each_request_once_and_free_everything(
    layout: str,
    rows: list[tuple[int, int, int]],
    slots: int,
    cancels: list[tuple[int, int]],
    death: tuple[int, int] | None,
    timeouts: list[int],
) -> None:
    chaos = Chaos(layout, slots)
    router = chaos.router
    for n, at in cancels:
        chaos._at(at, 0, lambda n=n: chaos._act(router.cancel(f"{n}", chaos.now)))  # type: ignore[misc]
    for at in timeouts:
        # Far in the future of every deadline: whatever is on the link now is given up.
        chaos._at(at, 0, lambda: chaos._act(router.tick(chaos.now + 10**12)))
    if death is not None and death[0] < len(chaos.workers):
        index, at = death
        chaos._at(at, 0, lambda: kill(chaos, index))
    handoff = router.disaggregated
    requests = [Prefill(f"{i}", [], p, o, 0, [], 0.0, 0, handoff) for i, (_, p, o) in enumerate(rows)]
    arrivals = [sum(gap for gap, _, _ in rows[: i + 1]) for i in range(len(rows))]
    for request, at in zip(requests, arrivals, strict=True):
        chaos._at(at, 0, lambda r=request: offer(chaos, r))  # type: ignore[misc]
    chaos.run([], [])
    assert set(chaos.ends) == {r.id for r in requests}
    assert all(len(statuses) == 1 for statuses in chaos.ends.values()), chaos.ends
    assert chaos.leaks() == []


def offer(chaos: Chaos, request: Prefill) -> None:
    """What the cluster does: refuse at the door when a role has no live worker."""
    if chaos.router.available():
        chaos.ends.setdefault(request.id, []).append("refused")
    else:
        chaos._act(chaos.router.submit(request, chaos.now))


def kill(chaos: Chaos, index: int) -> None:
    """The worker stops answering at once: its commands and events vanish."""
    worker = chaos.workers[index]
    chaos._act(chaos.router.worker_died(index, chaos.now))
    worker.busy = worker.awake = True
    chaos.dead.add(index)
