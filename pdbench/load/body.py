"""The bytes of one request, made before its instant: head and JSON body in one piece, one write.

Everything that does not change between requests is encoded once. Making a prompt takes a fraction of a
millisecond, which is far too long for the send path, so ``sender.py`` makes bodies in idle moments.
"""

from __future__ import annotations

import os
from typing import Any

import msgspec

from pdbench.errors import UsageError
from pdbench.load.job import Job

_encode = msgspec.json.Encoder().encode


def api_key(variable: str | None) -> str:
    """The key in environment variable ``variable``; ``""`` without a variable. UsageError if it is unset."""
    if variable is None:
        return ""
    key = os.environ.get(variable, "").strip()
    if not key or not key.isprintable() or not key.isascii():
        raise UsageError(
            f"the environment variable {variable} is not set, or is not a usable API key",
            where="--api-key-env",
            remedy=f"export {variable}=...",
        )
    return key


class BodyMaker:
    """``make(position)`` gives the request bytes of one entry of the job."""

    def __init__(self, job: Job, key: str = "") -> None:
        self._job = job
        head = [
            f"POST {job.endpoint.path} HTTP/1.1",
            f"Host: {job.endpoint.authority}",
            "Content-Type: application/json",
            "Accept: text/event-stream",
            "Accept-Encoding: identity",
            "User-Agent: pdbench",
        ]
        if key:
            head.append(f"Authorization: Bearer {key}")
        self._head = "\r\n".join(head) + "\r\nX-Request-Id: "
        self._fixed = self._fixed_fields()

    def _fixed_fields(self) -> dict[str, Any]:
        job = self._job
        options: dict[str, Any] = {"include_usage": True}
        if job.continuous_usage:
            options["continuous_usage_stats"] = True
        fields: dict[str, Any] = {
            "model": job.model,
            "temperature": job.temperature,
            "stream": True,
            "stream_options": options,
        }
        if job.ignore_eos:
            fields["ignore_eos"] = True
        return fields

    def request_id(self, position: int) -> str:
        return f"{self._job.run_id}-{self._job.index[position]}"

    def _text(self, position: int) -> str:
        job = self._job
        if job.texts:
            return job.texts[position]
        shared = job.segments[position] if job.segments else ()
        return job.prompts.text(job.index[position], job.prompt_tokens[position], shared)

    def make(self, position: int) -> bytes:
        job = self._job
        fields = dict(self._fixed, max_tokens=job.output_tokens[position])
        if job.prompt_ids:
            fields["prompt"] = job.prompt_ids[position]
        elif job.api == "chat":
            fields["messages"] = [{"role": "user", "content": self._text(position)}]
        else:
            fields["prompt"] = self._text(position)
        fields.update(job.extra_body)
        body = _encode(fields)
        head = f"{self._head}{self.request_id(position)}\r\nContent-Length: {len(body)}\r\n\r\n"
        return head.encode("ascii") + body
