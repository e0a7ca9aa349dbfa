"""Tokenizers: a closed vocabulary of words for random presets, a Hugging Face tokenizer.json for real models."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol


class Detokenizer(Protocol):
    """Turns a stream of tokens into text pieces whose concatenation is the whole text."""

    def push(self, token: int) -> str:
        """The text this token completes; may be empty while a character is still incomplete."""
        ...

    def flush(self) -> str:
        """What is left at the end of the stream."""
        ...


class Tokenizer(Protocol):
    vocab_size: int
    eos: frozenset[int]

    def encode(self, text: str) -> list[int]: ...

    def decode(self, tokens: Sequence[int]) -> str: ...

    def chat(self, messages: Sequence[dict[str, str]]) -> list[int]:
        """The prompt tokens of a conversation (``role`` and ``content`` each), ready for the answer."""
        ...

    def stream(self) -> Detokenizer: ...
