"""A tokenizer from a file, for whoever wants exact counts: the optional package ``tokenizers``.

A path needs no network; a name is looked up on the Hugging Face hub by that package.
"""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path
from typing import Any

from pdbench.errors import UsageError

_WHERE = "--tokenizer"
_FILLERS = ("a", "the", "of", "I", "1", "to", "x", "it", "0", "no")


class Tokenizer:
    """Counts and encodes text, without the special tokens that a server adds of its own."""

    def __init__(self, inner: Any) -> None:
        self._inner = inner

    def ids(self, text: str) -> list[int]:
        found: list[int] = self._inner.encode(text, add_special_tokens=False).ids
        return found

    def count(self, text: str) -> int:
        return len(self.ids(text))

    @property
    def special(self) -> int:
        """Tokens that this tokenizer would put around a text (as a server's completions API mostly does)."""
        return len(self._inner.encode("a").ids) - self.count("a")

    def fitted(self, text: str, n_tokens: int) -> str:
        """``text`` with words taken from its end, and short ones added there, until it has ``n_tokens``; as near as
        words allow, which for any vocabulary with a one-token word is exactly."""
        words = text.split(" ")
        while words and (have := self.count(" ".join(words))) > n_tokens:
            del words[-max(1, (have - n_tokens) * len(words) // have) :]
        missing = n_tokens - (self.count(" ".join(words)) if words else 0)
        if missing == 0:
            return " ".join(words)
        tried = [" ".join([*words, *[filler] * missing]) for filler in _FILLERS]
        return min(tried, key=lambda one: abs(self.count(one) - n_tokens))


@lru_cache(maxsize=4)
def load_tokenizer(name: str) -> Tokenizer:
    """From a ``tokenizer.json``, a folder that holds one, or a name on the hub. Raises ``UsageError``."""
    try:
        import tokenizers
    except ImportError:
        remedy = "pip install 'pdbench[tokenizer]'"
        raise UsageError("needs the package 'tokenizers'", where=_WHERE, remedy=remedy) from None
    path = Path(name).expanduser()
    file = path / "tokenizer.json" if path.is_dir() else path
    try:
        if file.is_file():
            return Tokenizer(tokenizers.Tokenizer.from_file(str(file)))
        if path.is_dir() or path.suffix == ".json" or name.startswith((".", "/", "~")):
            raise UsageError(f"no such file: {file}", where=_WHERE, remedy="name a tokenizer.json or its folder")
        return Tokenizer(tokenizers.Tokenizer.from_pretrained(name))
    except UsageError:
        raise
    except Exception as error:  # the package raises bare Exception for whatever is wrong
        remedy = "name a tokenizer.json, the folder that holds one, or a name on the Hugging Face hub"
        raise UsageError(f"cannot load '{name}': {error}", where=_WHERE, remedy=remedy) from None
