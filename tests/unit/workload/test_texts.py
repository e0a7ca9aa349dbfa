from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pdbench.errors import UsageError
from pdbench.load.body import BodyMaker
from pdbench.load.job import Job
from pdbench.workload.columns import read_column
from pdbench.workload.lengths import draw_lengths, longest
from pdbench.workload.notes import notes_of, planned_prompt_tokens
from pdbench.workload.overrides import with_overrides
from pdbench.workload.plan import make_plan
from pdbench.workload.prompts import PromptMaker
from pdbench.workload.spec import Lengths
from pdbench.workload.texts import load_texts
from pdbench.workload.tokenizer import Tokenizer, load_tokenizer
from tests.unit.workload.helpers import workload

LINES = [
    {"prompt": "one two three"},
    {"text": "four"},
    {"conversations": [{"from": "gpt", "value": "hm"}, {"from": "human", "value": "five six"}]},
    {"conversations": []},
    {
        "messages": [
            {"role": "system", "content": "be"},
            {"role": "user", "content": [{"type": "text", "text": "seven"}]},
        ]
    },
]


def jsonl(tmp_path: Path, *rows: Any) -> Path:
    path = tmp_path / "p.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def test_prompts_of_every_kind(tmp_path: Path) -> None:
    assert load_texts(jsonl(tmp_path, *LINES)) == ("one two three", "four", "five six", "be\n\nseven")


@pytest.mark.parametrize(
    ("text", "where", "message"),
    [
        ('{"prompt": "a"}\n{"prompt"\n', ":2", "not JSON"),
        ('{"prompt": "a"}\n{"promt": "b"}\n', ":2", "no prompt in it"),
        ('["a"]\n', ":1", "no prompt in it"),
        ("\n", "", "holds no prompt"),
    ],
)
def test_bad_prompts(tmp_path: Path, text: str, where: str, message: str) -> None:
    path = tmp_path / "p.jsonl"
    path.write_text(text)
    with pytest.raises(UsageError) as caught:
        load_texts(path)
    assert caught.value.where == str(path) + where
    assert message in str(caught.value)
    with pytest.raises(UsageError, match="cannot read the prompts"):
        load_texts(tmp_path / "none.jsonl")


def test_real_prompts_are_shuffled_by_the_seed_and_counted(tmp_path: Path) -> None:
    path = jsonl(tmp_path, *({"prompt": "w " * (i + 1)} for i in range(40)))
    w = with_overrides(workload(), prompts=str(path), num_requests=30)
    plan = make_plan(w, seed=1)
    assert w.prompt_tokens is None
    assert len(set(plan.texts)) == 40
    assert plan.prompt_tokens[10:].tolist() == [len(text.split()) for text in plan.texts[10:]]
    assert plan.hash == make_plan(w, seed=1).hash != make_plan(w, seed=2).hash
    assert make_plan(w, seed=1, max_model_len=64 + 20).prompt_tokens[10:].max() <= 20
    assert make_plan(w, seed=1, max_model_len=64 + 20).dropped > 0
    assert planned_prompt_tokens(w) == "words"
    assert "counts of words" in notes_of(w)[0]
    assert "they repeat" in notes_of(with_overrides(w, num_requests=41))[1]
    with pytest.raises(UsageError, match="none of the prompts fits"):
        make_plan(w, seed=1, max_model_len=64)


def job(**changes: Any) -> Job:
    columns: dict[str, Any] = {
        "index": [0, 1],
        "scheduled_ns": [0, 0],
        "prompt_tokens": [9, 9],
        "output_tokens": [1, 1],
    }
    fixed: dict[str, Any] = {"base_url": "http://h:1", "model": "m", "journal": "j", "run_id": "r"}
    return Job(**{**fixed, **columns, "warmup": [False, False], "prompts": PromptMaker(salt="s"), **changes})


def test_bodies_carry_what_the_job_has() -> None:
    def prompt(one: Job, position: int) -> Any:
        return json.loads(BodyMaker(one).make(position).partition(b"\r\n\r\n")[2])["prompt"]

    shared = job(segments=[[(3, 5)], [(3, 5)]])
    assert prompt(shared, 0).split()[:5] == prompt(shared, 1).split()[:5]
    assert prompt(shared, 0) != prompt(shared, 1)
    assert prompt(job(texts=["a", "b"]), 1) == "b"
    assert prompt(job(prompt_ids=[[1], [2, 3]]), 1) == [2, 3]
    with pytest.raises(ValueError, match="prompt_ids has 1 entries"):
        job(prompt_ids=[[1]])
    with pytest.raises(UsageError, match="the chat API takes no token ids"):
        job(prompt_ids=[[1], [2]], api="chat")


def tokenizer(tmp_path: Path) -> Tokenizer:
    tokenizers = pytest.importorskip("tokenizers")
    letters = "abcdefghijklmnopqrstuvwxyz"
    vocab = {word: i for i, word in enumerate(["[U]", "the", *letters, *(f"##{letter}" for letter in letters)])}
    model = tokenizers.models.WordPiece(vocab, unk_token="[U]")
    made = tokenizers.Tokenizer(model)
    made.pre_tokenizer = tokenizers.pre_tokenizers.Whitespace()
    made.save(str(tmp_path / "tokenizer.json"))
    return load_tokenizer(str(tmp_path))


@pytest.mark.parametrize("n", [1, 2, 3, 17, 64, 300])
def test_prompts_are_fitted_to_their_count(tmp_path: Path, n: int) -> None:
    """A token a letter: the words of the maker are several tokens each, as in a small vocabulary."""
    mine = tokenizer(tmp_path)
    text = PromptMaker(salt="x").text(5, n)
    assert mine.count(mine.fitted(text, n)) == n
    assert mine.count(mine.fitted("the", n)) == n
    assert mine.special == 0


def test_a_tokenizer_that_cannot_be_loaded(tmp_path: Path) -> None:
    pytest.importorskip("tokenizers")
    with pytest.raises(UsageError, match="no such file"):
        load_tokenizer(str(tmp_path / "none.json"))
    with pytest.raises(UsageError, match="no such file"):
        load_tokenizer(str(tmp_path))
    (tmp_path / "tokenizer.json").write_text("{}")
    with pytest.raises(UsageError, match="cannot load"):
        load_tokenizer(str(tmp_path))


def test_empirical_lengths(tmp_path: Path) -> None:
    u = np.array([0.0, 0.249, 0.25, 0.74, 0.75, 0.999])
    law = Lengths(distribution="empirical", values=(30, 10, 20, 99), weights=(1, 1, 2, 0))
    assert draw_lengths(law, u).tolist() == [10, 10, 20, 20, 30, 30]
    assert longest(law) == 30
    assert draw_lengths(Lengths(distribution="empirical", values=(5, 5, 9)), u).tolist() == [5, 5, 5, 9, 9, 9]
    (tmp_path / "l.csv").write_text("a,b\n1,7\n2,8\n")
    assert longest(Lengths(distribution="empirical", file=str(tmp_path / "l.csv"), column="b")) == 8
    (tmp_path / "l.txt").write_text("4\n\n5\n")
    assert read_column(tmp_path / "l.txt", None) == [4, 5]
    assert read_column(jsonl(tmp_path, {"n": 3}), "n") == [3]


@pytest.mark.parametrize(
    ("name", "text", "column", "message"),
    [
        ("l.csv", "a,b\n1,x\n", "b", ":2: column 'b': 'x' is not a whole number"),
        ("l.csv", "alpha,b\n1,0\n", "alhpa", "did you mean 'alpha'?"),
        ("l.csv", "a\n0\n", "a", ":2: column 'a': 0 is outside"),
        ("l.txt", "", None, "holds no length"),
        ("l.jsonl", '{"m": 3}\n', "n", ":1: the key 'n' is missing"),
        ("l.jsonl", '{"m": 3}\n', None, "add column: KEY"),
    ],
)
def test_bad_columns(tmp_path: Path, name: str, text: str, column: str | None, message: str) -> None:
    (tmp_path / name).write_text(text)
    with pytest.raises(UsageError) as caught:
        read_column(tmp_path / name, column)
    assert message in str(caught.value)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({}, "values is required for 'empirical'"),
        ({"values": (1,), "file": "x"}, "never both"),
        ({"values": (1, 2), "weights": (1,)}, "weights has 1 entries, values has 2"),
        ({"values": (1,), "weights": (0,)}, "weights must not all be 0"),
        ({"values": (1,), "weights": (-1,)}, "weights must not be negative"),
        ({"values": (1,), "column": "a"}, "column needs a file"),
        ({"values": (0,)}, "values must be greater than 0"),
    ],
)
def test_bad_empirical(fields: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Lengths(distribution="empirical", **fields)
