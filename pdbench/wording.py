"""The words of a run's prompts: what the engine makes by itself, and what must be made beforehand.

The engine makes synthetic prompts from a salt and what they share. A tokenizer is too heavy for it, so with one the
prompts are fitted here to their planned count, or turned into token ids, before the run.
"""

from __future__ import annotations

from typing import Any

from msgspec.structs import replace

from pdbench.errors import PdbenchError, UsageError
from pdbench.target.arm import Arm
from pdbench.workload.plan import Plan
from pdbench.workload.prompts import PromptMaker
from pdbench.workload.spec import Workload
from pdbench.workload.tokenizer import Tokenizer, load_tokenizer

_SLOPE = 0.02
"""A tokenizer whose count of the same words differs by more than this from the server's is another model's."""


def wording_of(arm: Arm, plan: Plan, workload: Workload, maker: PromptMaker) -> dict[str, Any]:
    """The job's ``segments``, ``texts`` or ``prompt_ids``. Raises ``UsageError`` for a tokenizer or an API that does
    not fit the server."""
    prompts = workload.prompts
    if prompts is None or prompts.tokenizer is None:
        return {"segments": [list(pieces) for pieces in plan.segments], "texts": list(plan.texts)}
    tokenizer = load_tokenizer(prompts.tokenizer)
    around = tokens_around(arm, tokenizer)
    if prompts.ids:
        return {"prompt_ids": _ids(arm, plan, maker, tokenizer)}
    if plan.texts:
        return {"texts": list(plan.texts)}
    return {
        "texts": [
            tokenizer.fitted(maker.text(index, int(tokens), _pieces(plan, index)), max(1, int(tokens) - around))
            for index, tokens in enumerate(plan.prompt_tokens)
        ]
    }


def tokens_around(arm: Arm, tokenizer: Tokenizer) -> int:
    """Tokens that the server adds to a prompt (its template, a start token), by the two prompts it counted; where it
    counted none, what the tokenizer itself would add. Raises ``UsageError`` where the counts cannot be one
    tokenizer's."""
    probes = arm.facts.probes if arm.facts is not None else ()
    if len(probes) < 2:
        return tokenizer.special if arm.backend.api == "completions" else 0
    ours = [tokenizer.count(text) for text, _ in probes]
    theirs = [count for _, count in probes]
    grown = theirs[1] - theirs[0]
    if abs((ours[1] - ours[0]) - grown) > max(1.0, _SLOPE * grown) or theirs[0] < ours[0]:
        raise UsageError(
            f"counts {ours[0]} and {ours[1]} tokens where {arm.name} counts {theirs[0]} and {theirs[1]}",
            where="--tokenizer",
            remedy="name the tokenizer of the model that is served",
        )
    return theirs[0] - ours[0]


def _ids(arm: Arm, plan: Plan, maker: PromptMaker, tokenizer: Tokenizer) -> list[list[int]]:
    if arm.facts is None:
        raise PdbenchError("the arm was not started", where=arm.name)
    if arm.backend.api != "completions":
        raise UsageError("the chat API takes no token ids", where="--prompt-ids", remedy="use --api completions")
    arm.check_takes_ids(tokenizer.ids("the first words of a prompt"))
    if plan.texts:
        return [tokenizer.ids(text) for text in plan.texts]
    plain = replace(maker, words_per_token=1.0, overhead_tokens=0)  # a word is one token or more: cut what is over
    return [
        tokenizer.ids(plain.text(index, int(tokens), _pieces(plan, index)))[: int(tokens)]
        for index, tokens in enumerate(plan.prompt_tokens)
    ]


def _pieces(plan: Plan, index: int) -> tuple[tuple[int, int], ...]:
    return plan.segments[index] if plan.segments else ()
