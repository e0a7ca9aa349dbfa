"""The OpenAI dialect, as pure data: what a request may say, and what is refused.

A benchmark must not flatter a server that quietly ignores a field. So every field that would change the
result and that this engine does not implement is refused by name unless it is set to its neutral value;
fields that change nothing (``user``, ``metadata``) and fields nobody knows are accepted, as OpenAI does.

The order of checks is the order in which a user can act on them: JSON, object, model, fields, prompt, length.
Example::

    ask = parse_completion(b'{"model": "m", "prompt": "one two", "max_tokens": 4}', "m")
    room(ask, prompt_len=2, max_len=4096)   # -> 4
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import msgspec

DEFAULT_COMPLETION_TOKENS = 16  # OpenAI's default for /v1/completions; chat has no default limit
MAX_STOPS = 4  # OpenAI's limit
MAX_STOP_CHARS = 1000  # every token's text is searched for every stop: keep that bounded
ROLES = ("system", "developer", "user", "assistant")
_INT64 = 2**63

# Known fields that change the result and are not implemented, with the values that ask for nothing.
_NEUTRAL_BOTH: dict[str, tuple[Any, ...]] = {
    "n": (1,),
    "top_p": (1,),
    "top_k": (-1, 0),
    "min_p": (0,),
    "presence_penalty": (0,),
    "frequency_penalty": (0,),
    "repetition_penalty": (1,),
    "length_penalty": (1,),
    "logit_bias": ({},),
    "use_beam_search": (False,),
    "stop_token_ids": ([],),
    "bad_words": ([],),
    "allowed_token_ids": (),
    "include_stop_str_in_output": (False,),
    "prompt_logprobs": (),
    "truncate_prompt_tokens": (-1,),
    "response_format": ({"type": "text"},),
    "structured_outputs": (),
    "guided_json": (),
    "guided_regex": (),
    "guided_choice": (),
    "guided_grammar": (),
    "logits_processors": ([],),
}
_NEUTRAL_COMPLETION: dict[str, tuple[Any, ...]] = {
    "logprobs": (),
    "best_of": (1,),
    "echo": (False,),
    "suffix": ("",),
    "prompt_embeds": (),
}
_NEUTRAL_CHAT: dict[str, tuple[Any, ...]] = {
    "logprobs": (False,),
    "top_logprobs": (0,),
    "tools": ([],),
    "tool_choice": ("none", "auto"),
    "functions": ([],),
    "function_call": ("none", "auto"),
    "modalities": (["text"],),
    "audio": (),
    "prediction": (),
    "web_search_options": (),
    "chat_template": (),
    "chat_template_kwargs": ({},),
    "echo": (False,),
    "add_generation_prompt": (True,),
    "continue_final_message": (False,),
    "documents": ([],),
}


class ApiError(Exception):
    """An answer in OpenAI's error shape: ``status`` is HTTP's, ``param`` names the field at fault."""

    def __init__(
        self,
        message: str,
        *,
        status: int = 400,
        param: str | None = None,
        code: str | None = None,
        type_: str = "invalid_request_error",
    ) -> None:
        super().__init__(message)
        self.message = message
        self.status = status
        self.param = param
        self.code = code
        self.type_ = type_

    def body(self) -> bytes:
        error = {"message": self.message, "type": self.type_, "param": self.param, "code": self.code}
        return msgspec.json.encode({"error": error})


@dataclass(frozen=True, slots=True)
class Ask:
    """A validated request: for completions a ``prompt`` (text or token ids), for chat ``messages`` (``role``
    and ``content`` each)."""

    prompt: str | tuple[int, ...]
    messages: tuple[dict[str, str], ...]
    max_tokens: int | None
    min_tokens: int
    ignore_eos: bool
    temperature: float
    seed: int | None
    stop: tuple[str, ...]
    stream: bool
    include_usage: bool
    continuous_usage: bool

    @property
    def chat(self) -> bool:
        return bool(self.messages)

    @property
    def prompt_param(self) -> str:
        return "messages" if self.messages else "prompt"


def parse_completion(raw: bytes, model_name: str) -> Ask:
    """The body of ``POST /v1/completions``. Raises ``ApiError`` (400, or 404 for an unknown model)."""
    body = _Body.read(raw, model_name)
    body.refuse_unsupported(_NEUTRAL_BOTH | _NEUTRAL_COMPLETION)
    return _ask(body, prompt=_prompt(body.data.get("prompt")))


def parse_chat(raw: bytes, model_name: str) -> Ask:
    """The body of ``POST /v1/chat/completions``. Raises ``ApiError`` (400, or 404 for an unknown model)."""
    body = _Body.read(raw, model_name)
    body.refuse_unsupported(_NEUTRAL_BOTH | _NEUTRAL_CHAT)
    return _ask(body, messages=_messages(body.data.get("messages")))


def check_prompt(tokens: Sequence[int], vocab_size: int, param: str) -> None:
    """Raise ``ApiError`` unless there is a token and every id lies in ``[0, vocab_size)``."""
    if not tokens:
        raise ApiError("The prompt has no tokens: send at least one.", param=param)
    worst = min(tokens) if min(tokens) < 0 else max(tokens)
    if not 0 <= worst < vocab_size:
        raise ApiError(f"Token id {worst} is not in this model's vocabulary (0 to {vocab_size - 1}).", param=param)


def room(ask: Ask, prompt_len: int, max_len: int) -> int:
    """How many tokens may be generated: what was asked for, else the endpoint's default, which yields to
    the context. Raises ``ApiError`` (``context_length_exceeded``) if prompt and answer do not fit."""
    param = ask.prompt_param
    free = max_len - prompt_len
    if free < 1:
        raise ApiError(
            f"This model's maximum context length is {max_len} tokens, and your {param} has {prompt_len} "
            "tokens, which leaves no room for an answer. Please shorten it.",
            param=param,
            code="context_length_exceeded",
        )
    if ask.max_tokens is not None and ask.max_tokens > free:
        raise ApiError(
            f"This model's maximum context length is {max_len} tokens, but you asked for "
            f"{prompt_len + ask.max_tokens} tokens ({prompt_len} in the {param}, {ask.max_tokens} for the "
            "answer). Please shorten either.",
            param=param,
            code="context_length_exceeded",
        )
    default = free if ask.chat else min(DEFAULT_COMPLETION_TOKENS, free)
    max_new = default if ask.max_tokens is None else ask.max_tokens
    if ask.min_tokens > max_new:
        raise ApiError(
            f"min_tokens is {ask.min_tokens}, more than the {max_new} tokens that may be generated.",
            param="min_tokens",
        )
    return max_new


class _Body:
    """Typed reads from the request's JSON object. ``null`` means "not given", as in OpenAI's own API."""

    def __init__(self, data: dict[str, Any], prefix: str = "") -> None:
        self.data = data
        self._prefix = prefix  # names a nested object in messages: "stream_options."

    @classmethod
    def read(cls, raw: bytes, model_name: str) -> _Body:
        try:
            data = msgspec.json.decode(raw)
        except RecursionError:
            raise ApiError("The request body is nested too deeply.") from None
        except (msgspec.MsgspecError, UnicodeDecodeError) as error:
            raise ApiError(f"The request body is not valid JSON: {error}.") from None
        if not isinstance(data, dict):
            raise ApiError(f"The request body must be a JSON object, not {_kind(data)}.")
        model = data.get("model")
        if model is not None and not isinstance(model, str):
            raise ApiError(f"model must be a string, not {_kind(model)}.", param="model")
        if model is not None and model != model_name:
            raise ApiError(
                f"The model {model[:200]!r} does not exist; this server has {model_name!r}.",
                status=404,
                param="model",
                code="model_not_found",
            )
        return cls(data)

    def refuse_unsupported(self, neutral: dict[str, tuple[Any, ...]]) -> None:
        for name in neutral.keys() & self.data.keys():
            value = self.data[name]
            if value is None or any(_same(value, allowed) for allowed in neutral[name]):
                continue
            remedy = f"only {_json(neutral[name][0])} is accepted" if neutral[name] else "leave it out"
            raise ApiError(
                f"{name} is not supported by this server: {remedy}.", param=name, code="unsupported_parameter"
            )

    def integer(self, name: str, low: int, high: int = _INT64 - 1) -> int | None:
        value = self.data.get(name)
        if value is None:
            return None
        if type(value) is not int:
            raise ApiError(f"{name} must be an integer, not {_kind(value)}.", param=name)
        if value < low:
            raise ApiError(f"{name} must be at least {low}, not {value}.", param=name)
        if value > high:
            raise ApiError(f"{name} must be at most {high}, not {value}.", param=name)
        return value

    def number(self, name: str, low: float, high: float, default: float) -> float:
        value = self.data.get(name)
        if value is None:
            return default
        if isinstance(value, bool) or not isinstance(value, (int, float)):
            raise ApiError(f"{name} must be a number, not {_kind(value)}.", param=name)
        if not low <= value <= high:
            raise ApiError(f"{name} must be between {low:g} and {high:g}, not {value}.", param=name)
        return float(value)

    def flag(self, name: str) -> bool:
        value = self.data.get(name)
        if value is None:
            return False
        if not isinstance(value, bool):
            name = self._prefix + name
            raise ApiError(f"{name} must be true or false, not {_kind(value)}.", param=name)
        return value


def _ask(body: _Body, *, prompt: str | tuple[int, ...] = (), messages: tuple[dict[str, str], ...] = ()) -> Ask:
    stream = body.flag("stream")
    options = body.data.get("stream_options")
    if options is not None and not isinstance(options, dict):
        raise ApiError(f"stream_options must be an object, not {_kind(options)}.", param="stream_options")
    if options is not None and not stream:
        raise ApiError("stream_options is only allowed when stream is true.", param="stream_options")
    wants = _Body(options or {}, prefix="stream_options.")
    max_tokens = body.integer("max_tokens", 1)
    max_completion_tokens = body.integer("max_completion_tokens", 1)  # the newer name wins, as in vLLM
    return Ask(
        prompt=prompt,
        messages=messages,
        max_tokens=max_tokens if max_completion_tokens is None else max_completion_tokens,
        min_tokens=body.integer("min_tokens", 0) or 0,
        ignore_eos=body.flag("ignore_eos"),
        temperature=body.number("temperature", 0.0, 2.0, default=1.0),
        seed=body.integer("seed", -_INT64),
        stop=_stops(body.data.get("stop")),
        stream=stream,
        include_usage=wants.flag("include_usage"),
        continuous_usage=wants.flag("continuous_usage_stats"),
    )


def _stops(value: Any) -> tuple[str, ...]:
    stops = [] if value is None else [value] if isinstance(value, str) else value
    if not isinstance(stops, list) or not all(isinstance(stop, str) for stop in stops):
        raise ApiError("stop must be a string or a list of strings.", param="stop")
    if len(stops) > MAX_STOPS:
        raise ApiError(f"stop takes at most {MAX_STOPS} strings, not {len(stops)}.", param="stop")
    if any(not 0 < len(stop) <= MAX_STOP_CHARS for stop in stops):
        raise ApiError(f"A stop string must have 1 to {MAX_STOP_CHARS} characters.", param="stop")
    return tuple(stops)


def _prompt(value: Any) -> str | tuple[int, ...]:
    if isinstance(value, str):
        return value
    if value is None:
        raise ApiError("prompt is missing.", param="prompt")
    if not isinstance(value, list):
        raise ApiError(f"prompt must be a string or a list of token ids, not {_kind(value)}.", param="prompt")
    if not value:
        raise ApiError("prompt is empty: send at least one token.", param="prompt")
    if all(type(token) is int for token in value):
        return tuple(value)
    if not all(isinstance(item, (str, list)) for item in value):
        raise ApiError("prompt must be a string or a list of token ids (integers).", param="prompt")
    if len(value) > 1:
        raise ApiError(f"One prompt per request: this one has {len(value)}. Send them apart.", param="prompt")
    (only,) = value
    if isinstance(only, list) and not all(type(token) is int for token in only):
        raise ApiError("prompt: token ids must be integers.", param="prompt")
    return only if isinstance(only, str) else tuple(only)


def _messages(value: Any) -> tuple[dict[str, str], ...]:
    if value is None:
        raise ApiError("messages is missing.", param="messages")
    if not isinstance(value, list):
        raise ApiError(f"messages must be a list, not {_kind(value)}.", param="messages")
    if not value:
        raise ApiError("messages is empty: send at least one message.", param="messages")
    return tuple(_message(message, f"messages[{index}]") for index, message in enumerate(value))


def _message(message: Any, where: str) -> dict[str, str]:
    if not isinstance(message, dict):
        raise ApiError(f"{where} must be an object, not {_kind(message)}.", param=where)
    role = message.get("role")
    if not isinstance(role, str):
        raise ApiError(f"{where}.role must be a string, not {_kind(role)}.", param=f"{where}.role")
    if role not in ROLES:
        raise ApiError(f"{where}.role must be one of {', '.join(ROLES)}.", param=f"{where}.role")
    for name in ("tool_calls", "function_call", "audio"):
        if message.get(name):
            raise ApiError(f"{where}.{name} is not supported by this server.", param=f"{where}.{name}")
    return {"role": role, "content": _content(message.get("content"), f"{where}.content")}


def _content(content: Any, where: str) -> str:
    if isinstance(content, str):
        return content
    if not isinstance(content, list):
        raise ApiError(f"{where} must be a string or a list of text parts.", param=where)
    texts = []
    for index, part in enumerate(content):
        if not isinstance(part, dict) or part.get("type") != "text":
            raise ApiError(f"{where}[{index}]: only parts of type 'text' are supported.", param=where)
        if not isinstance(part.get("text"), str):
            raise ApiError(f"{where}[{index}].text must be a string.", param=where)
        texts.append(part["text"])
    return "".join(texts)


def _same(a: Any, b: Any) -> bool:
    """Equality in JSON's sense: ``0`` is not ``false``."""
    return isinstance(a, bool) == isinstance(b, bool) and bool(a == b)


def _json(value: Any) -> str:
    return msgspec.json.encode(value).decode()


def _kind(value: Any) -> str:
    if value is None:
        return "null"
    names = {bool: "a boolean", int: "an integer", float: "a number", str: "a string", list: "a list"}
    return names.get(type(value), "an object")
