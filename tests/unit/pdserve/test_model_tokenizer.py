"""Words and tokens agree both ways; real tokenizers stream whole characters."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pdserve.model.config import ModelError
from pdserve.model.tokenizer import HfTokenizer, WordTokenizer, load_tokenizer, word

WORDS = WordTokenizer(8192)


def test_one_distinct_pronounceable_word_per_id() -> None:
    words = [WORDS.decode([i]) for i in range(WORDS.vocab_size)]
    assert len(set(words)) == WORDS.vocab_size
    assert all(w.isalpha() and w.isascii() and len(w) >= 4 and not w.split()[1:] for w in words)
    assert all(set(w[1::2]) <= set("aeiou") for w in words)
    assert WORDS.encode(" ".join(words)) == list(range(WORDS.vocab_size))
    assert WORDS.eos == frozenset()


def test_words_stay_distinct_past_every_length() -> None:
    edges = [0, 6399, 6400, 6400 + 512_000 - 1, 6400 + 512_000]
    assert [len(word(i)) for i in edges] == [4, 4, 6, 6, 8]


@given(st.lists(st.integers(0, 8191)))
def test_tokens_survive_the_round_trip(tokens: list[int]) -> None:
    text = WORDS.decode(tokens)
    assert WORDS.encode(text) == tokens
    stream = WORDS.stream()
    assert "".join([*(stream.push(t) for t in tokens), stream.flush()]) == text


@given(st.text())
def test_any_text_has_as_many_tokens_as_words(text: str) -> None:
    tokens = WORDS.encode(text)
    assert len(tokens) == len(text.split())
    assert all(0 <= t < WORDS.vocab_size for t in tokens)
    assert WORDS.chat([{"role": "user", "content": text}]) == tokens


def test_unknown_words_hash_to_fixed_tokens() -> None:
    # The check value of CRC-32: another process or version cannot disagree unseen.
    assert WORDS.encode("123456789 baba") == [0xCBF43926 % 8192, 0]
    assert len(WORDS.encode("half a pair \ud800")) == 4  # JSON can carry a lone surrogate


def test_the_stream_separates_words_and_bad_sizes_are_refused() -> None:
    stream = WORDS.stream()
    assert [stream.push(0), stream.push(1), stream.flush()] == ["baba", " babe", ""]
    with pytest.raises(ValueError, match="vocab_size"):
        WordTokenizer(0)
    with pytest.raises(IndexError):
        WORDS.decode([8192])


TEXT = "the cat sat on the mat, naïve 日本語 emoji 🙂🙂 and the cat"
TEMPLATE = (
    "{{ bos_token }}{% for m in messages %}<{{ m.role }}>{{ m.content }}{% endfor %}"
    "{% if add_generation_prompt %}<assistant>{% endif %}"
)


@pytest.fixture(scope="module")
def bpe_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A byte-level BPE so small that most characters beyond ASCII are split into bytes."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=300,
        special_tokens=["<s>", "</s>", "<end>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(["the cat sat on the mat"] * 4, trainer)
    file = tmp_path_factory.mktemp("bpe") / "tokenizer.json"
    tokenizer.save(str(file))
    return file


@pytest.fixture
def directory(bpe_file: Path, tmp_path: Path) -> Path:
    (tmp_path / "tokenizer.json").write_bytes(bpe_file.read_bytes())
    return tmp_path


def configure(directory: Path, **config: Any) -> HfTokenizer:
    (directory / "tokenizer_config.json").write_text(json.dumps(config))
    return HfTokenizer(directory)


def pieces(tokenizer: HfTokenizer, tokens: list[int]) -> list[str]:
    stream = tokenizer.stream()
    return [*(stream.push(t) for t in tokens), stream.flush()]


def test_hf_round_trip_and_streaming_of_whole_characters(directory: Path) -> None:
    tokenizer = HfTokenizer(directory)
    tokens = tokenizer.encode(TEXT)
    assert tokenizer.decode(tokens) == TEXT
    out = pieces(tokenizer, tokens)
    assert "".join(out) == TEXT
    assert "\ufffd" not in "".join(out)
    assert out.count("") > 10  # held back while a character was incomplete
    assert tokenizer.vocab_size >= 256
    assert tokenizer.decode(tokenizer.encode("\ud800")) == "?"  # JSON can carry a lone surrogate


@settings(max_examples=60, deadline=None)
@given(text=st.text(max_size=40))
def test_hf_streams_any_text(bpe_file: Path, text: str) -> None:
    tokenizer = HfTokenizer(bpe_file.parent)
    out = pieces(tokenizer, tokenizer.encode(text))
    assert "".join(out) == text
    if "\ufffd" not in text:
        assert not any("\ufffd" in piece for piece in out)


def test_a_cut_character_comes_out_only_at_the_end(directory: Path) -> None:
    tokenizer = HfTokenizer(directory)
    smile = tokenizer.encode("a🙂")
    out = pieces(tokenizer, smile[:-1])
    assert out[0] == "a"
    assert set(out[1:-1]) == {""}
    assert set(out[-1]) == {"\ufffd"}
    assert "".join(pieces(tokenizer, [smile[1]] * 30)).count("\ufffd") == 30  # and junk does not pile up


def test_load_tokenizer_picks_by_model(directory: Path) -> None:
    assert isinstance(load_tokenizer(preset=None, path=str(directory)), HfTokenizer)
    assert load_tokenizer(preset="llama-10m", path=None).vocab_size == 8192
    with pytest.raises(ModelError, match="unknown preset"):
        load_tokenizer(preset="gpt", path=None)


def test_end_tokens_come_from_wherever_they_are_named(directory: Path) -> None:
    assert HfTokenizer(directory).eos == frozenset()
    tokenizer = configure(directory, eos_token={"content": "</s>"})
    assert tokenizer.eos == {1}
    (directory / "config.json").write_text('{"eos_token_id": 5}')
    assert configure(directory, eos_token="</s>").eos == {1, 5}
    (directory / "generation_config.json").write_text('{"eos_token_id": [2, 7]}')
    assert HfTokenizer(directory).eos == {1, 2, 7}


CHAT = [{"role": "user", "content": "the cat"}]


def test_chat_without_a_template_is_plain(directory: Path) -> None:
    tokenizer = HfTokenizer(directory)
    assert tokenizer.decode(tokenizer.chat(CHAT)) == "user: the cat\nassistant:"


@pytest.mark.parametrize("form", ["text", "named", "file"])
def test_chat_templates(directory: Path, form: str) -> None:
    config: dict[str, Any] = {"bos_token": "<s>"}
    if form == "text":
        config["chat_template"] = TEMPLATE
    elif form == "named":
        config["chat_template"] = [{"name": "tool", "template": "no"}, {"name": "default", "template": TEMPLATE}]
    else:
        config["chat_template"] = "overridden by the file"
        (directory / "chat_template.jinja").write_text(TEMPLATE)
    tokens = configure(directory, **config).chat(CHAT)
    assert tokens[0] == 0
    assert HfTokenizer(directory).decode(tokens) == "<user>the cat<assistant>"


@pytest.mark.parametrize(
    ("template", "says"),
    [
        ("{{ raise_exception('roles must alternate') }}", "roles must alternate"),
        ("{{ messages.append(1) }}", "failed"),
        ("{{ messages.__class__.__mro__[1].__subclasses__() }}", "failed"),
        ("{{ messages[7].content.x }}", "failed"),
    ],
)
def test_a_template_that_fails_or_reaches_out_is_a_model_error(directory: Path, template: str, says: str) -> None:
    tokenizer = configure(directory, chat_template=template)
    with pytest.raises(ModelError, match=says) as caught:
        tokenizer.chat(CHAT)
    assert caught.value.key == "chat_template"


def test_broken_tokenizer_directories(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"tokenizer\.json: missing"):
        HfTokenizer(tmp_path)
    (tmp_path / "tokenizer.json").write_text("{}")
    with pytest.raises(ModelError, match="cannot be read"):
        HfTokenizer(tmp_path)


def test_a_template_that_does_not_compile(directory: Path) -> None:
    with pytest.raises(ModelError, match="does not compile"):
        configure(directory, chat_template="{% for %}")
