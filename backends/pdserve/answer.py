"""From emitted tokens to what the client sees: text with its stop strings cut, and the response objects.

Counting follows vLLM and OpenAI: ``completion_tokens`` counts every token the model emitted, also the
end-of-sequence token and the tokens of a stop string, though neither is ever shown.

A stop string may begin in one token and end in another. So text that could be the beginning of one is held
back until it cannot be, and a chunk may then carry more than one token (its usage says how many). As in
vLLM, text of the first ``min_tokens`` tokens is not searched.

The bytes around a token's text never change within a stream, so they are encoded once: an event then costs
one small ``encode`` and one concatenation.
"""

from __future__ import annotations

from typing import Any

import msgspec

from pdserve.model.tokenizer import Detokenizer
from pdserve.service import Output

DONE = b"data: [DONE]\n\n"
_encode = msgspec.json.encode


class StopFilter:
    """Cuts a stream of text at the stop string that is complete first; that string is never emitted."""

    def __init__(self, stops: tuple[str, ...]) -> None:
        self._stops = stops
        self._held = ""

    def push(self, text: str) -> tuple[str, bool]:
        """Text now safe to show, and whether a stop string was met (then the stream is over)."""
        if not self._stops:
            return text, False
        text = self._held + text
        found = [(at + len(stop), at) for stop in self._stops if (at := text.find(stop)) >= 0]
        if found:
            self._held = ""
            return text[: min(found)[1]], True
        keep = max(_overlap(text, stop) for stop in self._stops)
        self._held = text[len(text) - keep :]
        return text[: len(text) - keep], False

    def flush(self) -> str:
        """What was held back, once it is known that nothing follows."""
        held, self._held = self._held, ""
        return held


def _overlap(text: str, stop: str) -> int:
    """The length of the longest end of ``text`` that is a beginning of ``stop`` (and not all of it)."""
    for size in range(min(len(text), len(stop) - 1), 0, -1):
        if text.endswith(stop[:size]):
            return size
    return 0


class Answer:
    """One request's outputs, folded: the text so far, the tokens counted, and how it ended."""

    def __init__(self, detokenizer: Detokenizer, stops: tuple[str, ...], min_tokens: int) -> None:
        self._detokenizer = detokenizer
        self._filter = StopFilter(stops)
        self._min_tokens = min_tokens if stops else 0
        self.tokens = 0
        self.finish: str | None = None
        self.error = ""

    def push(self, output: Output) -> str:
        """Text now safe to show. Sets ``finish`` (``"length" | "stop" | "error"``) on the last one."""
        text = ""
        if output.token is not None:
            self.tokens += 1
            if output.finish != "stop":
                text = self._cut(self._detokenizer.push(output.token))
        if output.finish is not None and self.finish is None:
            if output.finish != "error":
                text += self._rest()
            self.finish = self.finish or output.finish
            self.error = output.error
        return text

    def _cut(self, text: str) -> str:
        if self.tokens <= self._min_tokens:
            return text
        shown, met = self._filter.push(text)
        if met:
            self.finish = "stop"
        return shown

    def _rest(self) -> str:
        """The end of the text: an incomplete character may still complete a stop string."""
        shown = self._cut(self._detokenizer.flush())
        return shown if self.finish else shown + self._filter.flush()


def usage(prompt_tokens: int, completion_tokens: int) -> dict[str, int]:
    return {
        "prompt_tokens": prompt_tokens,
        "total_tokens": prompt_tokens + completion_tokens,
        "completion_tokens": completion_tokens,
    }


class Shape:
    """The response objects of one request: whole, or as the events of a stream.

    ``include_usage`` adds ``"usage": null`` to each chunk and a last chunk without choices that carries it
    (OpenAI); ``continuous`` puts the running usage into every chunk (vLLM).
    """

    def __init__(
        self,
        request_id: str,
        model: str,
        created_s: int,
        *,
        chat: bool,
        prompt_tokens: int,
        include_usage: bool = False,
        continuous: bool = False,
    ) -> None:
        self.id = f"{'chatcmpl' if chat else 'cmpl'}-{request_id}"
        self._chat = chat
        self._model = model
        self._created_s = created_s
        self._prompt_tokens = prompt_tokens
        self._include_usage = include_usage
        self._continuous = continuous
        head = b"data: " + _encode(self._header("chat.completion.chunk"))[:-1]
        self._choices = head + b',"choices":['
        opening = b'"delta":{"content":' if chat else b'"text":'
        closing = b"}" if chat else b""
        self._open = self._choices + b'{"index":0,' + opening
        self._close = closing + b',"logprobs":null,"finish_reason":'
        self._plain_end = self._close + b"null}]" + self._usage_field(0) + b"}\n\n"

    def whole(self, text: str, finish: str, completion_tokens: int) -> bytes:
        """The body of a plain (not streamed) response."""
        choice: dict[str, Any] = {"index": 0}
        if self._chat:
            choice["message"] = {"role": "assistant", "content": text}
        else:
            choice["text"] = text
        choice |= {"logprobs": None, "finish_reason": finish}
        body = self._header("chat.completion") | {"choices": [choice]}
        return _encode(body | {"usage": usage(self._prompt_tokens, completion_tokens)})

    def opening(self) -> bytes:
        """A chat stream's first event: the role, no token. Completions have none (``b""``)."""
        if not self._chat:
            return b""
        delta = b'{"index":0,"delta":{"role":"assistant","content":""},"logprobs":null,"finish_reason":null}]'
        return self._choices + delta + self._usage_field(0) + b"}\n\n"

    def chunk(self, text: str, completion_tokens: int, finish: str | None) -> bytes:
        """One event: ``text``, and the usage so far where asked for. The hot path."""
        if finish is None and not self._continuous:
            return self._open + _encode(text) + self._plain_end
        reason = b"null}]" if finish is None else _encode(finish) + b"}]"
        end = self._usage_field(completion_tokens) + b"}\n\n"
        return self._open + _encode(text) + self._close + reason + end

    def closing(self, completion_tokens: int) -> bytes:
        """After the last chunk: the usage chunk if asked for, then ``[DONE]``."""
        if not self._include_usage:
            return DONE
        numbers = _encode(usage(self._prompt_tokens, completion_tokens))
        return self._choices + b'],"usage":' + numbers + b"}\n\n" + DONE

    def _header(self, chat_object: str) -> dict[str, Any]:
        kind = chat_object if self._chat else "text_completion"
        return {"id": self.id, "object": kind, "created": self._created_s, "model": self._model}

    def _usage_field(self, completion_tokens: int) -> bytes:
        if self._continuous:
            total = self._prompt_tokens + completion_tokens
            return b',"usage":{"prompt_tokens":%d,"total_tokens":%d,"completion_tokens":%d}' % (
                self._prompt_tokens,
                total,
                completion_tokens,
            )
        return b',"usage":null' if self._include_usage else b""
