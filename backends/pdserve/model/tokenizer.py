"""Tokenizers: a closed vocabulary of words for random presets, a Hugging Face tokenizer.json for real models.

Random presets answer in made-up words so that *one whitespace-separated word is one token*, in both
directions: a load generator that sends 512 words sends 512 tokens, and counts the answer by eye. No torch
here, so that the front end needs none.

    >>> words = WordTokenizer(8192)
    >>> words.decode([0, 1, 8191])
    'baba babe bahike'
    >>> words.encode("anything at all") == words.encode("anything  at\\nall")
    True
"""

from __future__ import annotations

import zlib
from collections.abc import Callable, Sequence
from functools import cache
from pathlib import Path
from typing import Any, Protocol

from pdserve.model.config import PRESETS, ModelError, read_json, resolve_shape, token_ids

_CONSONANTS = "bdfghjklmnprstvz"
_VOWELS = "aeiou"
_SYLLABLES = tuple(c + v for c in _CONSONANTS for v in _VOWELS)
# A UTF-8 character has at most 4 bytes and a token at least one; what is held longer is simply not UTF-8.
_MAX_HELD_TOKENS = 8


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


def load_tokenizer(*, preset: str | None, path: str | None) -> Tokenizer:
    """The tokenizer of a preset (``PRESETS``) or of a Hugging Face directory. Raises ``ModelError``."""
    if path is not None:
        return HfTokenizer(Path(path))
    shape = resolve_shape(preset=preset, path=None)
    return WordTokenizer(shape.vocab)


def word(token: int) -> str:
    """The word of a token: two syllables for the first 6,400 tokens, three or more after them.

    Words are numerals in base 80 whose digits are syllables. Each length holds every combination once, so
    no two tokens share a word.
    """
    syllables, first = 2, 0
    while token - first >= len(_SYLLABLES) ** syllables:
        first += len(_SYLLABLES) ** syllables
        syllables += 1
    rest, out = token - first, ""
    for _ in range(syllables):
        rest, digit = divmod(rest, len(_SYLLABLES))
        out = _SYLLABLES[digit] + out
    return out


@cache
def _vocabulary(size: int) -> tuple[tuple[str, ...], dict[str, int]]:
    words = tuple(word(token) for token in range(size))
    return words, {w: token for token, w in enumerate(words)}


class WordTokenizer:
    """Every whitespace-separated word is one token; unknown words are hashed into the vocabulary."""

    def __init__(self, vocab_size: int) -> None:
        if vocab_size < 1:
            raise ValueError(f"vocab_size: must be at least 1, got {vocab_size}")
        self.vocab_size = vocab_size
        self.eos: frozenset[int] = frozenset()
        self._words, self._ids = _vocabulary(vocab_size)

    def encode(self, text: str) -> list[int]:
        return [self._token(w) for w in text.split()]

    def decode(self, tokens: Sequence[int]) -> str:
        return " ".join(self._words[token] for token in tokens)

    def chat(self, messages: Sequence[dict[str, str]]) -> list[int]:
        """The contents only: roles mean nothing to random weights and would break the word count."""
        return self.encode(" ".join(message["content"] for message in messages))

    def stream(self) -> Detokenizer:
        return _WordStream(self._words)

    def _token(self, text: str) -> int:
        known = self._ids.get(text)
        # crc32 and not hash(): the latter is salted per process, and workers must agree.
        return known if known is not None else zlib.crc32(text.encode(errors="surrogatepass")) % self.vocab_size


class _WordStream:
    def __init__(self, words: tuple[str, ...]) -> None:
        self._words = words
        self._started = False

    def push(self, token: int) -> str:
        text = f" {self._words[token]}" if self._started else self._words[token]
        self._started = True
        return text

    def flush(self) -> str:
        return ""


class HfTokenizer:
    """A Hugging Face directory's ``tokenizer.json``, its end tokens and its chat template."""

    def __init__(self, directory: Path) -> None:
        import tokenizers

        file = directory / "tokenizer.json"
        if not file.is_file():
            raise ModelError(f"missing in {directory}", file.name)
        try:
            self._tokenizer: Any = tokenizers.Tokenizer.from_file(str(file))
        except Exception as error:  # the library raises bare Exception
            raise ModelError(f"cannot be read: {error}", file.name) from None
        self._config = _optional_json(directory / "tokenizer_config.json")
        self.vocab_size: int = self._tokenizer.get_vocab_size()
        self.eos = self._end_tokens(directory)
        self._template = self._compile_template(directory)

    def encode(self, text: str) -> list[int]:
        return self._ids(text, specials=True)

    def decode(self, tokens: Sequence[int]) -> str:
        return str(self._tokenizer.decode(list(tokens), skip_special_tokens=True))

    def chat(self, messages: Sequence[dict[str, str]]) -> list[int]:
        """The rendered template, tokenized without further special tokens (templates write their own).

        Raises ``ModelError`` when the template fails or refuses the conversation.
        """
        if self._template is None:
            plain = "".join(f"{m['role']}: {m['content']}\n" for m in messages)
            return self.encode(f"{plain}assistant:")
        specials = {name: self._special(name) for name in ("bos_token", "eos_token")}
        try:
            text = self._template(messages=list(messages), add_generation_prompt=True, **specials)
        except Exception as error:  # a template is a foreign program: whatever it raises is its own fault
            raise ModelError(f"the template failed: {error}", "chat_template") from error
        return self._ids(text, specials=False)

    def stream(self) -> Detokenizer:
        return _HfStream(self.decode)

    def _ids(self, text: str, *, specials: bool) -> list[int]:
        # JSON can carry half a surrogate pair, which is no character and which the library refuses.
        whole = text.encode(errors="replace").decode()
        return list(self._tokenizer.encode(whole, add_special_tokens=specials).ids)

    def _special(self, name: str) -> str:
        """``tokenizer_config.json`` holds special tokens as text or as ``{"content": text}``."""
        value = self._config.get(name) or ""
        return str(value["content"] if isinstance(value, dict) else value)

    def _end_tokens(self, directory: Path) -> frozenset[int]:
        ends: set[int] = set()
        for name in ("generation_config.json", "config.json"):
            ends.update(token_ids(_optional_json(directory / name).get("eos_token_id")))
            if ends:  # the generation config, when it names any, overrides the model's
                break
        named = self._tokenizer.token_to_id(self._special("eos_token"))
        return frozenset(ends if named is None else ends | {named})

    def _compile_template(self, directory: Path) -> Callable[..., str] | None:
        file = directory / "chat_template.jinja"
        source = file.read_text(encoding="utf-8") if file.exists() else self._config.get("chat_template")
        if isinstance(source, list):  # several named templates; "default" is the one for chat
            source = next((entry["template"] for entry in source if entry.get("name") == "default"), None)
        return None if not source else _compile(str(source))


class _HfStream:
    """Text pieces of a token stream.

    What a token adds depends on the tokens before it (spaces, half characters), so a window of tokens is
    decoded with and without the new ones, and the difference is the piece.
    """

    def __init__(self, decode: Callable[[Sequence[int]], str]) -> None:
        self._decode = decode
        self._window: list[int] = []
        self._shown = 0  # tokens of the window whose text is out already

    def push(self, token: int) -> str:
        self._window.append(token)
        before, after = self._decode(self._window[: self._shown]), self._decode(self._window)
        held = len(self._window) - self._shown
        if after.endswith("\ufffd") and held < _MAX_HELD_TOKENS:
            return ""
        return self._emit(before, after)

    def flush(self) -> str:
        return self._emit(self._decode(self._window[: self._shown]), self._decode(self._window))

    def _emit(self, before: str, after: str) -> str:
        self._window = self._window[self._shown :]
        self._shown = len(self._window)
        return after[len(before) :]


def _optional_json(file: Path) -> dict[str, Any]:
    return read_json(file) if file.exists() else {}


def _compile(source: str) -> Callable[..., str]:
    """A chat template in a sandbox: it comes from a download, and may neither reach out nor change
    its input."""
    import jinja2
    from jinja2.sandbox import ImmutableSandboxedEnvironment

    def raise_exception(message: str) -> None:
        raise jinja2.TemplateError(message)

    # The settings under which Hugging Face templates are written.
    environment = ImmutableSandboxedEnvironment(trim_blocks=True, lstrip_blocks=True)
    environment.globals["raise_exception"] = raise_exception
    try:
        return environment.from_string(source).render
    except jinja2.TemplateError as error:
        raise ModelError(f"does not compile: {error}", "chat_template") from error


__all__ = ["PRESETS", "Detokenizer", "HfTokenizer", "Tokenizer", "WordTokenizer", "load_tokenizer", "word"]
