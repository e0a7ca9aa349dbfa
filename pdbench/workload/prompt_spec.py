"""What prompts are made of: the keys ``prefix``, ``sessions`` and ``prompts`` of a workload file."""

from __future__ import annotations

import msgspec

from pdbench.workload.checks import length, positive, seconds

SESSION_TURNS_MAX = 1000


class Prefix(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """A ``share`` of the requests begins with one of ``groups`` texts of ``tokens`` tokens, as under a system prompt.
    These tokens count among ``prompt_tokens``; a shorter prompt is wholly shared."""

    tokens: int
    groups: int = 1
    share: float = 1.0

    def __post_init__(self) -> None:
        length("tokens", self.tokens)
        length("groups", self.groups)
        positive("share", self.share)
        if self.share > 1:
            raise ValueError(f"share must be at most 1, got {self.share:g}")


class Sessions(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Conversations of ``turns`` requests. A turn's prompt is the one before it, as many tokens more as that one's
    answer had, and ``prompt_tokens`` new ones; it is due ``think`` after the one before it was due."""

    turns: int
    think: str

    def __post_init__(self) -> None:
        positive("turns", self.turns)
        if self.turns > SESSION_TURNS_MAX:
            raise ValueError(f"turns must be at most {SESSION_TURNS_MAX}, got {self.turns}")
        seconds("think", self.think)

    @property
    def think_s(self) -> float:
        return seconds("think", self.think)


class Prompts(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Real text from the lines of a JSONL ``file``; a ``tokenizer`` (a ``tokenizer.json``, a folder with one, or a
    name on the Hugging Face hub) for exact counts; ``ids``: send the prompt as token ids, not as text."""

    file: str | None = None
    tokenizer: str | None = None
    ids: bool = False

    def __post_init__(self) -> None:
        if self.ids and self.tokenizer is None:
            raise ValueError("ids needs a tokenizer")
