"""What is made of a plan's prompts before the run: texts, token ids, or nothing."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, cast

import pytest

from pdbench import wording
from pdbench.errors import UsageError
from pdbench.target.arm import Arm
from pdbench.target.backend import Backend, url_backend
from pdbench.target.inspect import Facts
from pdbench.wording import tokens_around, wording_of
from pdbench.workload.plan import make_plan
from pdbench.workload.prompts import PromptMaker
from pdbench.workload.tokenizer import Tokenizer
from tests.unit.workload.helpers import workload


class Letters:
    """A tokenizer that counts letters; its special tokens are two."""

    def encode(self, text: str, add_special_tokens: bool = True) -> Any:
        ids = [ord(letter) for letter in text if letter != " "]
        return type("Encoding", (), {"ids": [1, *ids, 2] if add_special_tokens else ids})


class FakeArm:
    name = "x"

    def __init__(self, *, api: str = "completions", probes: tuple[tuple[str, int], ...] = ()) -> None:
        self.backend: Backend = replace(url_backend("x", "http://h:1"), api=cast(Any, api))
        self.facts = Facts("m", 4096, 1.0, 0, "assumed", True, True, probes=probes)
        self.asked: list[list[int]] = []

    def check_takes_ids(self, ids: list[int]) -> None:
        self.asked.append(ids)


@pytest.fixture
def letters(monkeypatch: pytest.MonkeyPatch) -> Tokenizer:
    found = Tokenizer(Letters())
    monkeypatch.setattr(wording, "load_tokenizer", lambda name: found)
    return found


def made(arm: FakeArm, **prompts: Any) -> dict[str, Any]:
    w = workload(num_requests=4, warmup=1, **({"prompts": prompts} if prompts else {}), prefix={"tokens": 30})
    return wording_of(cast(Arm, arm), make_plan(w, seed=1), w, PromptMaker(salt="s"))


def test_without_a_tokenizer_the_engine_makes_the_prompts() -> None:
    assert made(FakeArm()) == {"segments": [[(0, 30)]] * 5, "texts": []}


def test_prompts_are_fitted_less_what_the_server_adds(letters: Tokenizer) -> None:
    arm = FakeArm(probes=(("ab cd", 4 + 7), ("ab cd ef gh ij", 10 + 7)))
    texts = made(arm, tokenizer="t")["texts"]
    assert [letters.count(text) for text in texts] == [512 - 7] * 5
    assert len(set(texts)) == 5
    assert len({text[:60] for text in texts}) == 1, "their prefix stays the same"
    silent = made(FakeArm(), tokenizer="t")["texts"]
    assert letters.count(silent[0]) == 512 - 2


def test_token_ids(letters: Tokenizer) -> None:
    arm = FakeArm()
    ids = made(arm, tokenizer="t", ids=True)["prompt_ids"]
    assert [len(one) for one in ids] == [512] * 5
    assert len(arm.asked) == 1
    with pytest.raises(UsageError, match="chat API takes no token ids"):
        made(FakeArm(api="chat"), tokenizer="t", ids=True)


@pytest.mark.parametrize("counts", [(4, 30), (3, 9)])
def test_another_model_s_tokenizer_is_refused(letters: Tokenizer, counts: tuple[int, int]) -> None:
    arm = FakeArm(probes=(("ab cd", counts[0]), ("ab cd ef gh ij", counts[1])))
    with pytest.raises(UsageError, match="counts 4 and 10 tokens where x counts"):
        tokens_around(cast(Arm, arm), letters)
