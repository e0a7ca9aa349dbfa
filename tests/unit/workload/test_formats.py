from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pdbench.errors import UsageError
from pdbench.settings import load_workload
from pdbench.workload.arrival_spec import Arrivals
from pdbench.workload.notes import notes_of
from pdbench.workload.plan import Plan, make_plan
from pdbench.workload.traces import count_rows, detect, jitter_ns, read_slice
from pdbench.workload.traces.jitter import jittered, quantum_ns
from tests.unit.workload.helpers import workload

MOONCAKE = Path(__file__).parents[4] / "shared" / "traces" / "mooncake" / "conversation_trace.jsonl"
AZURE_2024 = "TIMESTAMP,ContextTokens,GeneratedTokens\n2024-05-10 00:00:00.009930+00:00,2162,5\n"
BURST = "Timestamp,Model,Request tokens,Response tokens,Log Type\n5,ChatGPT,472,18,log\n45.5,GPT-4,1,2,log\n"


def written(tmp_path: Path, name: str, text: str) -> str:
    (tmp_path / name).write_text(text)
    return str(tmp_path / name)


def lines(*rows: dict[str, Any]) -> str:
    return "".join(json.dumps(row) + "\n" for row in rows)


def cake(t: int, tokens: int, *ids: int) -> dict[str, Any]:
    return {"timestamp": t, "input_length": tokens, "output_length": 7, "hash_ids": list(ids)}


def trace_plan(file: str, *, n: int = 1000, seed: int = 1, warmup: int = 0, **keys: Any) -> Plan:
    arrivals = {"process": "trace", "file": file, **keys}
    w = workload(arrivals=arrivals, prompt_tokens=None, output_tokens=None, num_requests=n, warmup=warmup)
    return make_plan(w, seed=seed)


@pytest.mark.parametrize(
    ("name", "text", "format_", "rows"),
    [
        ("a.csv", AZURE_2024, "azure", [(0, 2162, 5)]),
        ("b.csv", BURST, "burstgpt", [(0, 472, 18), (40_500_000_000, 1, 2)]),
        ("m.jsonl", lines(cake(500, 600, 1, 2), cake(501, 3)), "mooncake", [(0, 600, 7), (1_000_000, 3, 7)]),
        ("q.jsonl", lines(cake(1, 5, 9) | {"chat_id": 3}), "bailian", [(0, 5, 7)]),
        ("p.jsonl", lines({"t_s": 0.25, "prompt_tokens": 4, "output_tokens": 2}), "jsonl", [(0, 4, 2)]),
        ("p.txt", lines({"timestamp": 3, "prompt_tokens": 4, "output_tokens": 0}), "jsonl", [(0, 4, 1)]),
    ],
)
def test_formats_are_told_apart(tmp_path: Path, name: str, text: str, format_: str, rows: list[Any]) -> None:
    file = written(tmp_path, name, text)
    assert detect(Path(file)) == format_
    assert [row[:3] for row in read_slice(Arrivals(process="trace", file=file))] == rows


@pytest.mark.parametrize(
    ("text", "where", "message"),
    [
        ('{"timestamp": 0, "input_length": 5}\n', ":1", "the key 'output_length' is missing"),
        (lines(cake(5, 1), cake(4, 1)), ":2: column 'timestamp'", "goes backwards"),
        (lines(cake(0, 1)) + "{nope\n", ":2", "not JSON"),
        (lines(cake(0, 1)) + "[1]\n", ":2", "not a JSON object"),
        (lines(cake(0, -1)), ":1: column 'input_length'", "-1 is outside"),
        (lines(cake(0, 1) | {"input_length": "9"}), ":1: column 'input_length'", "'9' is not a whole number"),
        (lines(cake(0, 1) | {"timestamp": "now"}), ":1: column 'timestamp'", "'now' is not a time"),
        (lines(cake(0, 1), cake(0, 1) | {"timestamp": 1e20}), ":2: column 'timestamp'", "a hundred years"),
        (lines(cake(0, 1), cake(0, 1) | {"timestamp": 10**400}), ":2: column 'timestamp'", "a hundred years"),
        (lines(cake(0, 1) | {"hash_ids": ["a"]}), ":1: column 'hash_ids'", "list of whole numbers"),
        ("\n", "", "the wanted slice of the trace is empty"),
    ],
)
def test_bad_lines_name_line_and_key(tmp_path: Path, text: str, where: str, message: str) -> None:
    file = written(tmp_path, "t.jsonl", text)
    with pytest.raises(UsageError) as caught:
        list(read_slice(Arrivals(process="trace", file=file, format="mooncake")))
    assert caught.value.where == file + where
    assert message in str(caught.value)


def test_a_stamp_out_of_all_bounds(tmp_path: Path) -> None:
    file = written(tmp_path, "b.csv", BURST + "999999999999,ChatGPT,1,2,log\n")
    with pytest.raises(UsageError, match=r"b.csv:4: column 'Timestamp': .*hundred years"):
        trace_plan(file)


def test_format_overrides_what_the_file_looks_like(tmp_path: Path) -> None:
    file = written(tmp_path, "t.csv", AZURE_2024)
    with pytest.raises(UsageError, match="column 'Timestamp' is missing"):
        count_rows(Arrivals(process="trace", file=file, format="burstgpt"))


def grid(tmp_path: Path) -> str:
    return written(tmp_path, "g.jsonl", lines(*(cake(3000 * (i // 5), 10 + i) for i in range(200))))


def test_a_grid_is_seen_and_spread_by_a_seed(tmp_path: Path) -> None:
    file = grid(tmp_path)
    assert jitter_ns(Arrivals(process="trace", file=file)) == 3_000_000_000
    one, two, raw = trace_plan(file), trace_plan(file), trace_plan(file, jitter="off")
    assert one.hash == two.hash != raw.hash
    assert trace_plan(file, seed=2).hash != one.hash
    assert len(np.unique(raw.scheduled_ns)) == 40
    assert len(np.unique(one.scheduled_ns)) == 200
    assert (np.diff(one.scheduled_ns) >= 0).all()
    moved = one.scheduled_ns - 3_000_000_000 * ((one.prompt_tokens.astype(np.int64) - 10) // 5)
    assert moved.min() >= 0
    assert moved.max() < 3_000_000_000
    assert moved.mean() == pytest.approx(1.5e9, rel=0.15)


def test_no_grid_no_jitter() -> None:
    assert quantum_ns(np.arange(50, dtype=np.int64)) == 0
    assert quantum_ns(np.zeros(50, dtype=np.int64)) == 0
    bursts = np.cumsum([0, 1000, 700, 1300, 901]) * 1_000_000 + np.array([0, 0, 100, 0, 7])
    assert quantum_ns(np.repeat(bursts, 9).astype(np.int64)) == 0, "stamps to 100 ns: that many came at once"
    stamps = np.array([0, 5], dtype=np.int64)
    assert jittered(stamps, 1_000_000, np.array([0.0, 0.9999])).tolist() == [0, 999_005]


def test_a_grid_with_gaps_keeps_its_cell() -> None:
    """Where few cells are taken, the step in the middle is a multiple of the cell."""
    seconds = np.repeat(np.array([0, 2, 4, 7, 9, 11]), 4) * 1_000_000_000
    assert quantum_ns(seconds.astype(np.int64)) == 1_000_000_000
    assert quantum_ns(seconds + np.repeat([0, 1, -1, 0, 2, 0], 4) * 1_000_000) == pytest.approx(1e9, rel=0.01)


def test_lengths_of_ones_own_go_on_past_a_row_that_does_not_fit(tmp_path: Path) -> None:
    file = written(tmp_path, "t.jsonl", lines(*(cake(i, 5) for i in range(200))))
    law = {"distribution": "uniform", "low": 1, "high": 100}
    w = workload(arrivals={"process": "trace", "file": file}, prompt_tokens=law, num_requests=200, warmup=0)
    free, tight = make_plan(w, seed=1), make_plan(w, seed=1, max_model_len=64 + 90)
    assert tight.prompt_tokens.tolist() == [n for n in free.prompt_tokens.tolist() if n <= 90]
    assert 5 < tight.dropped == 200 - len(tight) < 50


def test_the_configuration_says_what_jitter_was_used(tmp_path: Path) -> None:
    text = "name: w\narrivals: {process: trace, file: g.jsonl%s}\nnum_requests: 5\n"
    grid(tmp_path)
    for written_as, resolved in (
        ("", "3s"),
        (", jitter: auto", "3s"),
        (", jitter: off", "off"),
        (", jitter: 1s", "1s"),
    ):
        found = load_workload(written(tmp_path, "w.yaml", text % written_as))
        assert found.arrivals.jitter == resolved
        assert any("jitter" in note for note in notes_of(found)) == (resolved != "off")


def test_blocks_become_shared_pieces(tmp_path: Path) -> None:
    rows = [cake(0, 1500, 70, 71, 72), cake(5, 1300, 70, 71, 99), cake(9, 600, 70, 50), cake(12, 100, 8)]
    file = written(tmp_path, "m.jsonl", lines(*rows))
    assert trace_plan(file).segments == (((0, 512), (1, 512)), ((0, 512), (1, 512)), ((0, 512),), ())
    half = trace_plan(file, length_scale=0.3).segments
    assert half == (((0, 154), (1, 153)), ((0, 154), (1, 153)), ((0, 154),), ())
    assert trace_plan(file, warmup=2).segments[:2] == ((), ())
    unshared = written(tmp_path, "n.jsonl", lines(*(row | {"hash_ids": []} for row in rows)))
    assert trace_plan(unshared).segments == ()
    assert trace_plan(unshared).hash != trace_plan(file).hash


def test_real_prompts_in_a_trace(tmp_path: Path) -> None:
    rows = [{"t_s": i, "prompt_tokens": 3, "output_tokens": 2, "prompt": f"text {i}"} for i in range(3)]
    plan = trace_plan(written(tmp_path, "t.jsonl", lines(*rows)), warmup=1)
    assert plan.texts == ("Warm-up 0. text 0", "text 0", "text 1", "text 2")
    with pytest.raises(UsageError, match="holds the prompts themselves"):
        trace_plan(str(tmp_path / "t.jsonl"), length_scale=0.5)
    rows[1]["prompt"] = ""
    with pytest.raises(UsageError, match="some rows have a prompt and some have none"):
        trace_plan(written(tmp_path, "u.jsonl", lines(*rows)))


@pytest.mark.skipif(not MOONCAKE.is_file(), reason="the public trace is not beside the checkout")
def test_the_published_trace() -> None:
    arrivals = Arrivals(process="trace", file=str(MOONCAKE))
    assert count_rows(arrivals) == 12_031
    assert jitter_ns(arrivals) == 3_000_000_000
    plan = trace_plan(str(MOONCAKE), n=300)
    assert len(np.unique(plan.scheduled_ns)) == 300
    assert all(pieces[0] == (0, 512) for pieces in plan.segments if pieces)
