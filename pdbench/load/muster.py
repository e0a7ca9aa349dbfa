"""Who is there: the workers that said hello to a master, those that were refused, and whether each still lives.

``runner`` is Locust's MasterRunner, of ours or of ``locust --master``. Everything here runs in its greenlets.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import gevent
import msgspec

from pdbench.errors import WorkersMissingError
from pdbench.load.messages import (
    HELLO,
    PROTOCOL,
    REFUSED,
    TALK,
    WELCOME,
    WHO,
    Halt,
    Hello,
    ToMaster,
    boot_id,
    our_hello,
    pack,
    refusal,
    unpack_to_master,
)  # fmt: skip

_ASK_AGAIN_S = 1.0
_POLL_S = 0.05


class Member:
    """One worker that may take part."""

    def __init__(self, node: str, hello: Hello) -> None:
        self.node = node
        self.hello = hello

    @property
    def name(self) -> str:
        return self.hello.name

    @property
    def on_this_host(self) -> bool:
        return bool(self.hello.boot) and self.hello.boot == boot_id()


class Muster:
    """``say`` is told who comes and who is refused; ``listener`` gets what members say."""

    def __init__(self, runner: Any, say: Callable[[str], None]) -> None:
        self.runner = runner
        self.say = say
        self.members: dict[str, Member] = {}
        self.refused: list[str] = []
        self._abandoned: dict[str, str] = {}
        self.gone: Callable[[Member], str] = lambda _: ""
        """May know earlier than a heartbeat that a member's process has ended, and how."""
        self.listener: Callable[[Member, ToMaster], None] | None = None
        runner.register_message(HELLO, self._hello)
        runner.register_message(TALK, self._talk)

    # ---- messages

    def _hello(self, msg: Any, **_: Any) -> None:
        node = msg.node_id
        self._halt_abandoned(node)
        try:
            hello = msgspec.convert(msg.data, Hello)
        except msgspec.MsgspecError as error:
            self._refuse(node, f"a worker said hello in a way that is not understood: {error}")
            return
        if reason := refusal(hello):
            self._refuse(node, reason)
            return
        ours = our_hello()
        self.runner.send_message(WELCOME, {"version": ours.version, "protocol": PROTOCOL}, node)
        if node not in self.members:
            self.members[node] = Member(node, hello)
            self.say(f"worker {hello.name} is there")

    def _refuse(self, node: str, reason: str) -> None:
        self.runner.send_message(REFUSED, {"reason": reason}, node)
        if reason not in self.refused:
            self.refused.append(reason)
            self.say(f"refused: {reason}")

    def _talk(self, msg: Any, **_: Any) -> None:
        member = self.members.get(msg.node_id)
        if member is None:
            self._halt_abandoned(msg.node_id)
        if member is None or self.listener is None:
            return
        try:
            message = unpack_to_master(msg.data)
        except msgspec.MsgspecError as error:
            self.say(f"worker {member.name} sent what is not understood: {error}")
            return
        self.listener(member, message)

    def send(self, member: Member, message: Any) -> None:
        self.runner.send_message(TALK, pack(message), member.node)

    # ---- who lives

    def how_gone(self, member: Member) -> str:
        """Why it is not there any more; ``""`` if it is. Locust counts missed heartbeats (one a second): after three
        it says missing, about 5 s after the last; one that said farewell is gone from its list at once."""
        if how := self.gone(member):
            return how
        node = self.runner.clients.get(member.node)
        if node is None:
            return "it said farewell"
        return "no heartbeat for 5 s" if node.state == "missing" else ""

    def forget(self, member: Member, run: str) -> None:
        """One that was lost in ``run`` is no member, until it says hello again. At its next word it is told to stop
        that run: it may have been cut off, and know nothing of its loss."""
        self.members.pop(member.node, None)
        self._abandoned[member.node] = run

    def _halt_abandoned(self, node: str) -> None:
        if run := self._abandoned.pop(node, ""):
            self.runner.send_message(TALK, pack(Halt(run)), node)

    def alive(self, member: Member) -> bool:
        return not self.how_gone(member)

    def present(self) -> list[Member]:
        """Living members in the order in which they came."""
        return [member for member in self.members.values() if self.alive(member)]

    def gather(self, count: int, limit_s: float, given_up: Callable[[], str] = lambda: "") -> list[Member]:
        """The first ``count`` members, once they are there. ``given_up`` may say why to wait no longer.

        Raises ``WorkersMissingError``, with who is there and who was refused.
        """
        limit = time.monotonic() + limit_s
        asked = 0.0
        while len(self.present()) < count:
            now = time.monotonic()
            if now > asked + _ASK_AGAIN_S:
                for node in self.runner.clients:
                    if node not in self.members:
                        self.runner.send_message(WHO, None, node)
                asked = now
            why = given_up()
            if why or now > limit:
                raise self._missing(count, why or f"after {limit_s:g} s")
            gevent.sleep(_POLL_S)
        for gone in [node for node, member in self.members.items() if not self.alive(member)]:
            del self.members[gone]
        return self.present()[:count]

    def _missing(self, count: int, why: str) -> WorkersMissingError:
        there = [member.name for member in self.present()]
        strangers = len(self.runner.clients) - len(there) - len(self.refused)
        said = [f"{len(there)} of {count} workers are there {why}"]
        said.append(f"there: {', '.join(there)}" if there else "none is there")
        if strangers > 0:
            said.append(f"{strangers} speak Locust but not pdbench")
        said += [f"refused: {reason}" for reason in self.refused]
        remedy = f"start pdbench worker --master HOST:{self.runner.server.port} on {count} hosts or cores"
        return WorkersMissingError("; ".join(said), where="--expect-workers", remedy=remedy)
