"""The cluster against workers that are only sockets: what it does when messages are late, foreign or nonsense."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest
import zmq
import zmq.asyncio

from pdserve.cluster import Cluster, StartError, Stream
from pdserve.config import parse
from pdserve.messages import Cancel, Command, Emitted, Event, Hello, Load, Prefill, Stepped, decode_command, encode
from pdserve.sequence import GREEDY
from pdserve.service import GenerateRequest, Output, Unavailable

BACKEND = {
    "name": "fake",
    "model": {"preset": "llama-10m"},
    "workers": [{"role": "mixed", "device": "cpu:0"}, {"role": "mixed", "device": "cpu:1"}],
}
PATIENCE_S = 10.0


class FakeWorker:
    """The socket of a worker, driven by the test."""

    def __init__(self, endpoint: str, identity: str) -> None:
        self._socket = zmq.asyncio.Context.instance().socket(zmq.DEALER)
        self._socket.setsockopt(zmq.IDENTITY, identity.encode())
        self._socket.setsockopt(zmq.LINGER, 0)
        self._socket.connect(endpoint)

    async def say(self, *events: Event) -> None:
        await self._socket.send(encode(list(events)))

    async def say_raw(self, *frames: bytes) -> None:
        await self._socket.send_multipart(list(frames))

    async def hear(self) -> Command:
        data: bytes = await asyncio.wait_for(self._socket.recv(), PATIENCE_S)
        command: Command = decode_command(data)
        return command

    def close(self) -> None:
        self._socket.close()


@asynccontextmanager
async def cluster(*extra: str) -> AsyncIterator[tuple[Cluster, list[FakeWorker]]]:
    """A cluster whose two workers, and one more for each of ``extra``, are sockets only."""
    it = Cluster(parse(BACKEND))
    endpoint = it._listen()
    peers = [FakeWorker(endpoint, identity) for identity in ("0", "1", *extra)]
    try:
        for peer in peers[:2]:
            await peer.say(Hello("cpu:0", 0, it.max_len, 1, None))
        while not it.ready()[0]:
            await asyncio.sleep(0)
        yield it, peers
    finally:
        for peer in peers:
            peer.close()
        await it.stop()


def ask(name: str) -> GenerateRequest:
    return GenerateRequest(name, (1, 2, 3), 2, GREEDY, frozenset(), 0, 0)


def token(id: str, value: int, finish: str = "") -> Stepped:
    return Stepped(10, 20, 3, 0, 3, 1, [], [], [Emitted(id, value, finish)])


async def prefill(worker: FakeWorker) -> Prefill:
    command = await worker.hear()
    assert isinstance(command, Prefill)
    return command


async def outputs(stream: Stream) -> list[Output]:
    async def collect() -> list[Output]:
        return [output async for output in stream]

    return await asyncio.wait_for(collect(), PATIENCE_S)


def test_a_request_id_used_again_never_gets_the_tokens_of_the_old_request() -> None:
    async def scene() -> None:
        async with cluster() as (it, (worker, _)):
            old = it.submit(ask("run-7"))
            first = await prefill(worker)
            await old.aclose()
            new = it.submit(ask("run-7"))
            assert isinstance(await worker.hear(), Cancel)
            second = await prefill(worker)
            # The worker was in a step when the cancel came: the old request's token arrives after the new request.
            await worker.say(token(first.id, 111))
            await worker.say(token(second.id, 5), token(second.id, 6, "length"))
            assert [output.token for output in await outputs(new)] == [5, 6]
            assert [(row["request_id"], row["status"]) for row in it.lifecycles()] == [
                ("run-7", "cancelled"),
                ("run-7", "ok"),
            ]

    asyncio.run(scene())


Talk = Callable[[FakeWorker], Awaitable[None]]


@pytest.mark.parametrize(
    ("identity", "talk"),
    [
        ("0x", lambda peer: peer.say(Load(1, 1, 1, 1, 0, 0))),
        ("2", lambda peer: peer.say(Load(1, 1, 1, 1, 0, 0))),
        ("-1", lambda peer: peer.say(Load(1, 1, 1, 1, 0, 0))),
        ("stranger", lambda peer: peer.say_raw(b"\xc1 not msgpack")),
        ("stranger", lambda peer: peer.say_raw(b"one", b"frame", b"too many")),
        (None, lambda peer: peer.say_raw(b"\xc1 not msgpack")),
        (None, lambda peer: peer.say_raw(encode(["NoSuchEvent", 1]))),
        (None, lambda peer: peer.say_raw(b"")),
    ],
)
def test_a_message_that_is_not_a_workers_is_dropped_and_the_service_lives_on(identity: str | None, talk: Talk) -> None:
    async def scene() -> None:
        async with cluster(*([identity] if identity else [])) as (it, peers):
            await talk(peers[-1] if identity else peers[0])
            stream = it.submit(ask("a"))
            work = await prefill(peers[0])
            await peers[0].say(token(work.id, 4, "length"))
            assert [output.token for output in await outputs(stream)] == [4]
            assert it.ready() == (True, "")

    asyncio.run(scene())


def test_a_fault_of_our_own_ends_every_request_and_the_readiness(monkeypatch: pytest.MonkeyPatch) -> None:
    def fault(*_: Any) -> Any:
        raise RuntimeError("a bug")

    async def scene() -> None:
        async with cluster() as (it, (worker, _)):
            stream = it.submit(ask("a"))
            work = await prefill(worker)
            monkeypatch.setattr(it.router, "on_event", fault)
            await worker.say(token(work.id, 4))
            (only,) = await outputs(stream)
            assert (only.finish, "a bug" in only.error) == ("error", True)
            ready, reason = it.ready()
            assert not ready
            assert "a bug" in reason
            with pytest.raises(Unavailable, match="a bug"):
                it.submit(ask("b"))
            monkeypatch.undo()

    asyncio.run(scene())


def test_stopping_ends_the_streams_and_removes_the_socket() -> None:
    async def scene() -> None:
        async with cluster() as (it, _):
            stream = it.submit(ask("a"))
            directory = it._directory
            assert directory.stat().st_mode & 0o077 == 0, "nobody else may talk to the router"
        assert [output.error for output in await outputs(stream)] == ["the server stopped"]
        assert not directory.exists()

    asyncio.run(scene())


def test_once_all_workers_are_connected_nothing_has_a_name_in_the_file_system(monkeypatch: pytest.MonkeyPatch) -> None:
    """Not even a server that is killed outright leaves its socket behind."""

    async def scene() -> None:
        it = Cluster(parse(BACKEND))
        peers: list[FakeWorker] = []

        async def spawn(index: int, endpoint: str) -> None:
            peers.append(FakeWorker(endpoint, str(index)))
            await peers[index].say(Hello("cpu:0", 0, it.max_len, 1, None))

        monkeypatch.setattr(it, "_spawn", spawn)
        await asyncio.wait_for(it.start(), PATIENCE_S)
        assert not it._directory.exists()
        stream = it.submit(ask("a"))
        work = await prefill(peers[0])
        await peers[0].say(token(work.id, 4, "length"))
        assert [output.token for output in await outputs(stream)] == [4]
        for peer in peers:
            peer.close()
        await it.stop()

    asyncio.run(scene())


def test_a_worker_that_is_still_starting_is_not_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pdserve.cluster._STOP_S", 3600)

    async def scene() -> None:
        it = Cluster(parse(BACKEND))

        async def spawn(index: int, endpoint: str) -> None:
            it._processes.append(await asyncio.create_subprocess_exec("sleep", "3600"))

        monkeypatch.setattr(it, "_spawn", spawn)
        starting = asyncio.create_task(it.start())
        while len(it._processes) < 2:
            await asyncio.sleep(0)
        starting.cancel()
        await asyncio.wait_for(it.stop(), PATIENCE_S)
        assert [process.returncode for process in it._processes] == [-9, -9]
        assert not it._directory.exists()

    asyncio.run(scene())


def test_a_worker_that_dies_at_once_is_a_start_error_with_its_code(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pdserve.cluster.sys.executable", "false")

    async def scene() -> None:
        it = Cluster(parse(BACKEND))
        with pytest.raises(StartError, match=r"worker \d \(mixed, cpu:\d\) ended with code 1"):
            await asyncio.wait_for(it.start(), PATIENCE_S)
        await it.stop()

    asyncio.run(scene())
