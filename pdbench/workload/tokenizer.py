"""A tokenizer from a file, for whoever wants exact counts: the optional package ``tokenizers``.

A path needs no network; a name is looked up on the Hugging Face hub by that package.
"""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path
from typing import Any

from pdbench.errors import UsageError

_WHERE = "--tokenizer"
_FILLERS = ("a", "the", "of", "I", "1", ".", "to", ",", "x", "it", "0", "no")
_TRIES = 64


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
        """``text`` with words taken from its end, or added there, until it has ``n_tokens``; as near as words allow
        (most vocabularies allow it exactly, from two tokens on)."""
        words = text.split(" ")
        have = self.count(text)
        for _ in range(_TRIES):
            if have == n_tokens:
                return text
            if have > n_tokens and len(words) > 1:
                del words[max(1, len(words) - (have - n_tokens)) :]
            elif have < n_tokens:
                words += _FILLERS[:1] * max(1, (n_tokens - have) // 2)
            else:
                break
            text = " ".join(words)
            have = self.count(text)
        return self._nudged(words, n_tokens)

    def _nudged(self, words: list[str], n_tokens: int) -> str:
        """The last word exchanged for a filler that makes the count right, else as it is."""
        for cut in range(1, min(4, len(words)) + 1):
            for filler in _FILLERS:
                text = " ".join([*words[:-cut], filler])
                if self.count(text) == n_tokens:
                    return text
        return " ".join(words)


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
