"""The OpenAI dialect without a socket: what is parsed, what fits, what text and events come out."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pdserve.answer import DONE, Answer, Shape, StopFilter
from pdserve.api import is_loopback
from pdserve.openai import ApiError, Ask, check_prompt, parse_chat, parse_completion, room
from pdserve.service import Output


def completion(**fields: Any) -> Ask:
    return parse_completion(json.dumps({"prompt": "a"} | fields).encode(), "m")


def chat(*messages: dict[str, Any], **fields: Any) -> Ask:
    return parse_chat(json.dumps({"messages": messages} | fields).encode(), "m")


@pytest.mark.parametrize(
    ("prompt", "parsed"),
    [
        ("a b", "a b"),
        (["a b"], "a b"),
        ([1, 2], (1, 2)),
        ([[1, 2]], (1, 2)),
        ("", ""),
    ],
)
def test_prompt_forms(prompt: Any, parsed: Any) -> None:
    assert completion(prompt=prompt).prompt == parsed


@pytest.mark.parametrize("prompt", [["a", "b"], [[1], [2]], ["a", [1]]])
def test_several_prompts_are_refused_by_name(prompt: Any) -> None:
    with pytest.raises(ApiError, match="One prompt per request: this one has 2"):
        completion(prompt=prompt)


def test_messages_become_role_and_content() -> None:
    ask = chat(
        {"role": "system", "content": "be brief", "name": "ops"},
        {"role": "user", "content": [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]},
    )
    assert ask.messages == ({"role": "system", "content": "be brief"}, {"role": "user", "content": "ab"})
    assert ask.chat
    assert ask.prompt_param == "messages"


NEUTRAL = {
    "n": 1,
    "top_p": 1.0,
    "top_k": -1,
    "presence_penalty": 0.0,
    "repetition_penalty": 1,
    "logit_bias": {},
    "response_format": {"type": "text"},
    "logprobs": None,
    "echo": False,
    "best_of": 1,
    "user": "u",
    "metadata": {"a": [1]},
    "from_the_future": [{}],
    "max_tokens": None,
    "temperature": None,
    "stop": None,
    "stream": None,
    "seed": None,
}


def test_neutral_null_and_unknown_fields_change_nothing() -> None:
    assert completion(**NEUTRAL) == completion()


@pytest.mark.parametrize(
    ("name", "value"),
    [("n", True), ("echo", 0), ("top_p", 0.999), ("best_of", 2), ("prompt_logprobs", 1), ("min_p", 0.1)],
)
def test_what_would_change_the_result_is_never_ignored(name: str, value: Any) -> None:
    with pytest.raises(ApiError, match=f"{name} is not supported") as caught:
        completion(**{name: value})
    assert (caught.value.status, caught.value.param) == (400, name)


@pytest.mark.parametrize(
    ("fields", "prompt_len", "max_new"),
    [
        ({}, 10, 16),
        ({}, 90, 10),
        ({"max_tokens": 90}, 10, 90),
        ({"max_tokens": 7, "max_completion_tokens": 9}, 10, 9),
        ({"max_tokens": 4, "min_tokens": 4}, 10, 4),
        ({"max_tokens": 91}, 10, None),
        ({}, 100, None),
        ({}, 101, None),
        ({"min_tokens": 17}, 10, None),
        ({"max_tokens": 4, "min_tokens": 5}, 10, None),
    ],
)
def test_room_in_a_context_of_100(fields: dict[str, Any], prompt_len: int, max_new: int | None) -> None:
    ask = completion(**fields)
    if max_new is None:
        with pytest.raises(ApiError):
            room(ask, prompt_len, 100)
    else:
        assert room(ask, prompt_len, 100) == max_new


def test_chat_may_use_the_whole_context() -> None:
    assert room(chat({"role": "user", "content": "a"}), 10, 100) == 90


@pytest.mark.parametrize(
    ("tokens", "good"), [([0], True), ([7, 9], True), ([], False), ([10], False), ([3, -1], False)]
)
def test_token_ids_must_be_in_the_vocabulary(tokens: list[int], good: bool) -> None:
    if good:
        check_prompt(tokens, 10, "prompt")
    else:
        with pytest.raises(ApiError):
            check_prompt(tokens, 10, "prompt")


# --- stop strings ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("stops", "pieces", "shown"),
    [
        (("<end>",), ["a", "<", "en", "d>", "b"], ["a", "", "", ""]),
        (("<end>",), ["a<e", "x<en", "d>"], ["a", "<ex", ""]),
        (("aab",), ["a", "a", "a", "b"], ["", "", "a", ""]),
        (("b", "abc"), ["a", "bc"], ["", "a"]),
        (("x",), ["hello", "x"], ["hello", ""]),
        ((), ["a", "b"], ["a", "b"]),
    ],
)
def test_stop_strings_are_held_back_and_cut(stops: tuple[str, ...], pieces: list[str], shown: list[str]) -> None:
    cutter = StopFilter(stops)
    seen = []
    for piece in pieces:
        text, met = cutter.push(piece)
        seen.append(text)
        if met:
            break
    assert seen == shown


ab = st.text(alphabet="ab", max_size=5)


@given(st.lists(ab, max_size=12), st.lists(ab.filter(bool), min_size=1, max_size=3))
def test_cutting_does_not_depend_on_how_the_text_was_split(pieces: list[str], stops: list[str]) -> None:
    text = "".join(pieces)
    ends = [(at + len(stop), at) for stop in stops if (at := text.find(stop)) >= 0]
    expected = text[: min(ends)[1]] if ends else text
    cutter = StopFilter(tuple(stops))
    shown = ""
    for piece in pieces:
        part, met = cutter.push(piece)
        shown += part
        if met:
            break
    else:
        assert not ends
        shown += cutter.flush()
    assert shown == expected


class Pieces:
    """A detokenizer whose token 0 is an incomplete character that only ``flush`` or the next token shows."""

    def __init__(self, *texts: str) -> None:
        self.texts = texts
        self.kept = ""

    def push(self, token: int) -> str:
        text, self.kept = self.kept + self.texts[token], ""
        if token == 0:
            text, self.kept = "", text
        return text

    def flush(self) -> str:
        kept, self.kept = self.kept, ""
        return kept


def fold(answer: Answer, *outputs: Output) -> list[str]:
    return [answer.push(output) for output in outputs]


def test_what_is_held_comes_out_at_the_end() -> None:
    answer = Answer(Pieces("é", "<e"), ("<end>",), 0)
    assert fold(answer, Output(1), Output(1), Output(0, "length")) == ["", "<e", "<eé"]
    assert (answer.tokens, answer.finish) == (3, "length")


def test_an_incomplete_character_may_complete_a_stop_string() -> None:
    answer = Answer(Pieces(">", "a<"), ("<>",), 0)
    assert fold(answer, Output(1), Output(0, "length")) == ["a", ""]
    assert answer.finish == "stop"


def test_an_end_token_is_counted_not_shown() -> None:
    answer = Answer(Pieces("", "a", "</s>"), (), 0)
    assert fold(answer, Output(1), Output(2, "stop")) == ["a", ""]
    assert (answer.tokens, answer.finish) == (2, "stop")


def test_stop_strings_wait_for_min_tokens() -> None:
    answer = Answer(Pieces("", "x"), ("x",), 2)
    assert fold(answer, Output(1), Output(1)) == ["x", "x"]
    assert (answer.tokens, answer.finish) == (2, None)
    assert fold(answer, Output(1)) == [""]
    assert (answer.tokens, answer.finish) == (3, "stop")


def test_an_error_shows_nothing_more() -> None:
    answer = Answer(Pieces("", "<"), ("<end>",), 0)
    assert fold(answer, Output(1), Output(None, "error", "died")) == ["", ""]
    assert (answer.finish, answer.error) == ("error", "died")


# --- events ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("is_chat", [False, True])
@pytest.mark.parametrize("include_usage", [False, True])
@pytest.mark.parametrize("continuous", [False, True])
@pytest.mark.parametrize("finish", [None, "length", "stop"])
@pytest.mark.parametrize("text", ["w1 ", "", 'é"\n\u2028\\', "data: [DONE]\n\n"])
def test_prebuilt_events_are_the_json_they_should_be(
    is_chat: bool, include_usage: bool, continuous: bool, finish: str | None, text: str
) -> None:
    shape = Shape('r"1', "m/é", 5, chat=is_chat, prompt_tokens=3, include_usage=include_usage, continuous=continuous)
    raw = shape.chunk(text, 4, finish)
    assert raw.startswith(b"data: ")
    assert raw.endswith(b"}\n\n")
    assert raw.count(b"\n") == 2
    body: dict[str, Any] = {"delta": {"content": text}} if is_chat else {"text": text}
    choice = {"index": 0, **body, "logprobs": None, "finish_reason": finish}
    expected: dict[str, Any] = {
        "id": 'chatcmpl-r"1' if is_chat else 'cmpl-r"1',
        "object": "chat.completion.chunk" if is_chat else "text_completion",
        "created": 5,
        "model": "m/é",
        "choices": [choice],
    }
    usage = {"prompt_tokens": 3, "total_tokens": 7, "completion_tokens": 4}
    if continuous or include_usage:
        expected["usage"] = usage if continuous else None
    assert json.loads(raw[6:]) == expected
    end = shape.closing(4)
    assert end.endswith(DONE)
    if include_usage:
        assert json.loads(end[6 : -len(DONE)]) == expected | {"choices": [], "usage": usage}
    else:
        assert end == DONE


@pytest.mark.parametrize(
    ("host", "local"),
    [
        ("127.0.0.1", True),
        ("127.8.0.9", True),
        ("::1", True),
        ("::ffff:127.0.0.1", True),
        ("::ffff:10.0.0.1", False),
        ("10.0.0.1", False),
        ("fe80::1%eth0", False),
        ("0.0.0.0", False),
        ("localhost.example", False),
        ("", False),
    ],
)
def test_loopback(host: str, local: bool) -> None:
    assert is_loopback(host) == local
