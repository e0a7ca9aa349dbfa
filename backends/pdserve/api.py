"""The HTTP face: OpenAI's completions and chat over aiohttp, with health, metrics and the admin doors.

A token goes out the moment it is emitted, one event each, so that what a client times is the engine and not
a buffer. A client that leaves cancels its handler (``make_runner`` asks aiohttp for that), the handler closes
the service's iterator, and the slots are free on both sides. Whatever a client sends, the answer to bad
input is a 4xx in OpenAI's error shape; 5xx is for a server at fault: 503 not ready, 502 a worker died.

    curl -s localhost:8000/v1/completions -H 'content-type: application/json' \
        -d '{"model": "llama-30m", "prompt": "one two three", "max_tokens": 8, "stream": true}'
"""

from __future__ import annotations

import asyncio
import ipaddress
import logging
import re
import secrets
import time
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import contextmanager
from typing import TypeVar

import msgspec
from aiohttp import ClientConnectionError, ClientPayloadError, web

from pdserve.answer import Answer, Shape
from pdserve.metrics import CONTENT_TYPE, Meter, Metrics
from pdserve.openai import ApiError, Ask, check_prompt, parse_chat, parse_completion, room
from pdserve.sequence import Sampling
from pdserve.service import GenerateRequest, Output, Service, Unavailable

log = logging.getLogger(__name__)

REQUEST_ID = "X-Request-Id"
MAX_ID_CHARS = 128
RETRY_AFTER_S = 1
MIN_BODY_BYTES = 1 << 20  # aiohttp's default limit
BODY_BYTES_PER_TOKEN = 64  # a long word or a six-digit id with its comma is far below
THREAD_CHARS = 1 << 16  # a text beyond this is tokenised off the loop, so that nobody's token waits for it
_EVENT_STREAM = {"Content-Type": "text/event-stream; charset=utf-8", "Cache-Control": "no-cache"}
_ILLEGAL_IN_ID = re.compile(r"[^A-Za-z0-9._:/+=@-]")

_T = TypeVar("_T")
_Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


def build_app(service: Service, drop: Callable[[], bool] = lambda: False) -> web.Application:
    """The application for ``service``. Serve it with ``make_runner``, which makes disconnects cancel. ``drop`` is
    asked once for each request that carries an id; those it takes fail (``inject.Dropper``)."""
    limit = max(MIN_BODY_BYTES, BODY_BYTES_PER_TOKEN * service.max_len)
    face = Api(service, limit, drop)
    app = web.Application(client_max_size=limit, middlewares=[_in_error_shape])
    app.router.add_post("/v1/completions", face.completions)
    app.router.add_post("/v1/chat/completions", face.chat)
    app.router.add_get("/v1/models", face.models)
    app.router.add_get("/health", face.health)
    app.router.add_get("/ready", face.ready)
    app.router.add_get("/metrics", face.metrics_page)
    app.router.add_get("/admin/state", _local(face.state))
    app.router.add_get("/admin/requests", _local(face.requests))
    app.router.add_get("/admin/steps", _local(face.steps))
    app.router.add_post("/admin/clear", _local(face.clear))
    app.router.add_post("/admin/probe", _local(face.probe))
    return app


def make_runner(app: web.Application, *, shutdown_timeout_s: float = 1.0) -> web.AppRunner:
    """A runner under which a client that leaves cancels its handler at once. ``cleanup`` gives running
    requests ``shutdown_timeout_s`` to end, then cancels them."""
    return web.AppRunner(app, handler_cancellation=True, access_log=None, shutdown_timeout=shutdown_timeout_s)


class Api:
    """The handlers. Holds nothing of a request but the ids that are live."""

    def __init__(self, service: Service, max_body_bytes: int, drop: Callable[[], bool]) -> None:
        self._service = service
        self._drop = drop
        self._max_body_bytes = max_body_bytes
        self._metrics = Metrics(service)
        self._live: set[str] = set()
        self._started_s = int(time.time())

    async def completions(self, request: web.Request) -> web.StreamResponse:
        return await self._generate(request, parse_completion)

    async def chat(self, request: web.Request) -> web.StreamResponse:
        return await self._generate(request, parse_chat)

    async def models(self, _: web.Request) -> web.Response:
        model = {
            "id": self._service.model_name,
            "object": "model",
            "created": self._started_s,
            "owned_by": "pdserve",
            "max_model_len": self._service.max_len,
        }
        return _json({"object": "list", "data": [model]})

    async def health(self, _: web.Request) -> web.Response:
        return _json({"status": "ok"})

    async def ready(self, _: web.Request) -> web.Response:
        ready, reason = self._service.ready()
        return _json({"ready": ready, "reason": reason}, status=200 if ready else 503)

    async def metrics_page(self, _: web.Request) -> web.Response:
        return web.Response(body=self._metrics.render(), headers={"Content-Type": CONTENT_TYPE})

    async def state(self, _: web.Request) -> web.Response:
        return _json(self._service.state())

    async def requests(self, _: web.Request) -> web.Response:
        return _json({"requests": self._service.lifecycles()})

    async def steps(self, _: web.Request) -> web.Response:
        return _json({"steps": self._service.steps()})

    async def clear(self, _: web.Request) -> web.Response:
        self._service.clear()
        return _json({"ok": True})

    async def probe(self, _: web.Request) -> web.Response:
        return _json({"probes": await self._service.probe()})

    async def _generate(self, request: web.Request, parse: Callable[[bytes, str], Ask]) -> web.StreamResponse:
        arrive_ns = time.monotonic_ns()
        service = self._service
        ask = parse(await _read(request, self._max_body_bytes), service.model_name)
        tokens = await self._encode(ask)
        check_prompt(tokens, service.tokenizer.vocab_size, ask.prompt_param)
        max_new = room(ask, len(tokens), service.max_len)
        # A client that only asks what the server can do sends no id, and is to learn the truth.
        if REQUEST_ID in request.headers and self._drop():
            raise ApiError("Dropped on purpose (inject: drop).", status=500, type_="server_error")
        with self._claim(request.headers.get(REQUEST_ID, "")) as request_id:
            generate = GenerateRequest(
                id=request_id,
                tokens=tuple(tokens),
                max_new=max_new,
                sampling=Sampling(ask.temperature, secrets.randbits(63) if ask.seed is None else ask.seed),
                eos=frozenset() if ask.ignore_eos else service.tokenizer.eos,
                min_new=ask.min_tokens,
                arrive_ns=arrive_ns,
            )
            shape = Shape(
                request_id,
                service.model_name,
                int(time.time()),
                chat=ask.chat,
                prompt_tokens=len(tokens),
                include_usage=ask.include_usage,
                continuous=ask.continuous_usage,
            )
            outputs = service.submit(generate)
            meter = self._metrics.meter(arrive_ns, len(tokens))
            answer = Answer(service.tokenizer.stream(), ask.stop, ask.min_tokens)
            async with _Run(outputs, answer, meter) as run:
                respond = _stream if ask.stream else _plain
                return await respond(request, request_id, shape, run)

    async def _encode(self, ask: Ask) -> tuple[int, ...] | list[int]:
        tokenizer = self._service.tokenizer
        if isinstance(ask.prompt, str):
            return await _tokenise(tokenizer.encode, ask.prompt, len(ask.prompt))
        if not ask.messages:
            return ask.prompt
        chars = sum(len(message["content"]) for message in ask.messages)
        try:
            return await _tokenise(tokenizer.chat, ask.messages, chars)
        except Exception as error:  # a model's own template may refuse a conversation in any way it likes
            raise ApiError(f"The model's chat template refused it: {error}", param="messages") from error

    @contextmanager
    def _claim(self, header: str) -> Iterator[str]:
        """An id that no live request has: the client's, cleaned, with a suffix if taken; else a new one."""
        wanted = _ILLEGAL_IN_ID.sub("", header)[:MAX_ID_CHARS] or uuid.uuid4().hex
        request_id, copies = wanted, 1
        while request_id in self._live:
            copies += 1
            request_id = f"{wanted}-{copies}"
        self._live.add(request_id)
        try:
            yield request_id
        finally:
            self._live.discard(request_id)


class _Run:
    """An accepted request, token by token. Leaving it, however that comes, closes the service's iterator
    (which frees the request's slots) and reads off the meter."""

    def __init__(self, outputs: AsyncIterator[Output], answer: Answer, meter: Meter) -> None:
        self.answer = answer
        self._outputs = outputs
        self._meter = meter

    async def __aenter__(self) -> _Run:
        return self

    async def __aexit__(self, *_: object) -> None:
        self._meter.end(self.answer.finish or "abort", time.monotonic_ns())
        # In a task of its own: a client's leaving may cancel this handler again while it closes. A close cut
        # short would leave a slot stuck, and an id freed before its close is done could be given anew.
        closing = asyncio.ensure_future(self._close())
        cancelled = None
        while not closing.done():
            try:
                await asyncio.shield(closing)
            except asyncio.CancelledError as error:
                cancelled = error
        if cancelled is not None:
            raise cancelled

    async def _close(self) -> None:
        close = getattr(self._outputs, "aclose", None)
        if close is not None:
            await close()

    async def piece(self) -> str:
        """Wait for the next token; the text it completes. ``answer.finish`` is set with the last one."""
        try:
            output = await anext(self._outputs)
            if output.token is not None:
                self._meter.token(time.monotonic_ns())
            return self.answer.push(output)
        except StopAsyncIteration:
            error = "The engine ended the answer without a reason."
        except Unavailable as unavailable:
            error = str(unavailable)
        except Exception:
            log.exception("the engine failed")
            error = "The engine failed while answering."
        return self.answer.push(Output(None, "error", error))


async def _stream(request: web.Request, request_id: str, shape: Shape, run: _Run) -> web.StreamResponse:
    answer = run.answer
    response = web.StreamResponse(headers=_EVENT_STREAM | {REQUEST_ID: request_id})
    try:
        await response.prepare(request)  # the headers leave now, before the first token
        if opening := shape.opening():
            await response.write(opening)
        while answer.finish is None:
            text = await run.piece()
            if answer.finish != "error" and (text or answer.finish):
                await response.write(shape.chunk(text, answer.tokens, answer.finish))
        if answer.finish == "error":  # the status line is gone: say it in the stream, and send no [DONE]
            await response.write(b"data: " + _engine_error(answer).body() + b"\n\n")
        else:
            await response.write(shape.closing(answer.tokens))
        await response.write_eof()
    except ConnectionError:
        log.debug("request %s: the client left", request_id)
    return response


async def _plain(_: web.Request, request_id: str, shape: Shape, run: _Run) -> web.StreamResponse:
    answer = run.answer
    texts = []
    while answer.finish is None:
        texts.append(await run.piece())
    if answer.finish == "error":
        raise _engine_error(answer)
    body = shape.whole("".join(texts), answer.finish, answer.tokens)
    return web.Response(body=body, content_type="application/json", headers={REQUEST_ID: request_id})


def _engine_error(answer: Answer) -> ApiError:
    message = answer.error or "The engine failed while answering."
    return ApiError(message, status=502, type_="server_error", code="engine_error")


async def _read(request: web.Request, max_bytes: int) -> bytes:
    """The body, if it claims to be JSON. Raises ``ApiError`` (400, 413, 415)."""
    if "Content-Type" in request.headers and request.content_type != "application/json":
        raise ApiError(
            f"Content-Type must be application/json, not {request.content_type}.",
            status=415,
            code="unsupported_media_type",
        )
    if (request.charset or "utf-8").lower() not in ("utf-8", "utf8", "us-ascii"):
        raise ApiError("The request body must be UTF-8.", status=415, code="unsupported_media_type")
    try:
        return await request.read()
    except web.HTTPRequestEntityTooLarge:
        raise ApiError(
            f"The request body is larger than {max_bytes} bytes.", status=413, code="request_too_large"
        ) from None
    except (ClientConnectionError, ClientPayloadError, web.RequestPayloadError, ValueError) as error:
        raise ApiError(f"The request body could not be read: {error}.") from None


async def _tokenise(encode: Callable[[_T], list[int]], text: _T, chars: int) -> list[int]:
    return await asyncio.to_thread(encode, text) if chars > THREAD_CHARS else encode(text)


def _json(document: object, status: int = 200) -> web.Response:
    return web.Response(body=msgspec.json.encode(document), status=status, content_type="application/json")


def _local(handler: _Handler) -> _Handler:
    """Only for callers on this machine: the admin doors show request ids and can clear the records."""

    async def guarded(request: web.Request) -> web.StreamResponse:
        peer = request.transport.get_extra_info("peername") if request.transport else None
        if not (isinstance(peer, tuple) and is_loopback(peer[0])):
            raise ApiError("This path answers to the local machine only.", status=403, code="forbidden")
        return await handler(request)

    return guarded


def is_loopback(host: str) -> bool:
    """Whether a peer's address is this machine's own loopback, also in its IPv6 guise (::ffff:127.0.0.1)."""
    try:
        address = ipaddress.ip_address(host.partition("%")[0])
    except ValueError:
        return False
    mapped = address.ipv4_mapped if isinstance(address, ipaddress.IPv6Address) else None
    return (mapped or address).is_loopback


@web.middleware
async def _in_error_shape(request: web.Request, handler: _Handler) -> web.StreamResponse:
    """Every refusal as OpenAI's error object; an exception nobody foresaw is logged and becomes a 500."""
    headers = {}
    try:
        return await handler(request)
    except ApiError as error:
        fault = error
    except Unavailable as error:
        fault = ApiError(str(error) or "Not ready.", status=503, type_="server_error", code="service_unavailable")
        headers["Retry-After"] = str(RETRY_AFTER_S)
    except web.HTTPException as error:
        if error.status < 400:
            raise
        fault = _http_fault(request, error)
        if "Allow" in error.headers:
            headers["Allow"] = error.headers["Allow"]
    except Exception:
        log.exception("%s %s", request.method, request.path)
        fault = ApiError("Internal error; see the server's log.", status=500, type_="server_error")
    return web.Response(body=fault.body(), status=fault.status, content_type="application/json", headers=headers)


def _http_fault(request: web.Request, error: web.HTTPException) -> ApiError:
    path = request.path[:200]
    if error.status == 404:
        return ApiError(f"Unknown path: {request.method} {path}.", status=404, code="unknown_url")
    if error.status == 405:
        return ApiError(f"{request.method} is not allowed on {path}.", status=405, code="method_not_allowed")
    return ApiError(error.reason, status=error.status)
