"""Who may talk to the page. Pure: headers in, a decision out.

A page can be reached by every site that a browser near it has open: by a form sent to it, or by a name of that site
that points here (DNS rebinding). So the name in ``Host`` must be one of ours, and whatever changes something must come
from the page itself. An address is no name and cannot be rebound. A page with a login may be known by any name: the
cookie that opens it is sent to the name under which somebody logged in, and to no other.
"""

from __future__ import annotations

import hmac
import ipaddress
import os
import socket
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from urllib.parse import urlsplit

from pdbench.errors import UsageError

SAFE = frozenset({"GET", "HEAD", "OPTIONS"})
USER, PASSWORD = "PDBENCH_WEB_USER", "PDBENCH_WEB_PASSWORD"
_OURS = frozenset({"same-origin", "none"})

_SOURCES = (
    "default-src 'self'", "script-src 'self' 'unsafe-inline'", "style-src 'self' 'unsafe-inline'",
    "img-src 'self' data:", "font-src 'self' data:", "frame-ancestors 'none'", "form-action 'self'", "base-uri 'self'",
)  # fmt: skip
HEADERS = {
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "same-origin",  # with no-referrer a form is sent with Origin: null
    "Cross-Origin-Resource-Policy": "same-origin",
    "Content-Security-Policy": "; ".join(_SOURCES),
}
"""Of every answer. Nobody may put the page into a frame, and it loads nothing from elsewhere."""


def is_loopback(host: str) -> bool:
    """Whether only this machine reaches what is bound there."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return False


def own_names(bound: str) -> frozenset[str]:
    """Under which names of this machine a page that is bound to ``bound`` is asked for, besides addresses."""
    found = {bound, "localhost"}
    if not is_loopback(bound):  # the full name may take a look-up
        found |= {socket.gethostname(), socket.getfqdn()}
    return frozenset(_name(name) or name.lower() for name in found)


@dataclass(frozen=True, slots=True)
class Door:
    """By what the page may be asked for. ``bound``: the host it listens on; ``names``: in lower case; ``any_name``:
    it has a login, and listens elsewhere than on 127.0.0.1."""

    bound: str = "127.0.0.1"
    names: frozenset[str] = frozenset({"localhost"})
    any_name: bool = False

    @classmethod
    def of(cls, bound: str, extra: Sequence[str] = (), *, login: bool = False) -> Door:
        """``extra``: of ``--web-name``. Raises ``UsageError`` where one is no name."""
        for name in extra:
            if not name or _name(name) != name.lower():
                remedy = "give a host name without scheme and port, e.g. bench.example"
                raise UsageError(f"'{name}' is no host name", where="--web-name", remedy=remedy)
        names = own_names(bound) | {name.lower() for name in extra}
        return cls(bound, names, login and not is_loopback(bound))

    def admits(self, name: str) -> bool:
        """Whether ``name`` is an address that reaches us, or one of our names."""
        if name in self.names or self.any_name:
            return bool(name)
        try:
            address = ipaddress.ip_address(name)
        except ValueError:
            return False
        return address.is_loopback if is_loopback(self.bound) else True


def refusal(method: str, headers: Mapping[str, str], door: Door) -> str:
    """Why a request is not answered; ``""`` if it is."""
    host = headers.get("Host", "")
    name = _name(host)
    if not door.admits(name):
        at = "an address of this machine" if door.bound in ("0.0.0.0", "::") else f"http://{door.bound}"
        return f"this page is not known as '{name or 'nothing'}': use {at}, or start it with --web-name"
    if method in SAFE:
        return ""
    origin, site = headers.get("Origin"), headers.get("Sec-Fetch-Site")
    if origin is not None and _authority(origin) != host.lower():
        return "this request comes from another site"
    if site is not None and site not in _OURS:
        return "this request comes from another site"
    return ""


def _name(host: str) -> str:
    try:
        return (urlsplit(f"//{host}").hostname or "").lower()
    except ValueError:
        return ""


def _authority(origin: str) -> str:
    try:
        return urlsplit(origin).netloc.lower()
    except ValueError:
        return ""


@dataclass(frozen=True, slots=True)
class Account:
    """The one account of ``--web-login``."""

    user: str
    password: str = field(repr=False)

    @classmethod
    def from_environment(cls) -> Account:
        """Raises ``UsageError`` where the variables are missing: a login that everybody knows is none."""
        user, password = os.environ.get(USER, ""), os.environ.get(PASSWORD, "")
        if not user or not password:
            remedy = f"export {USER} and {PASSWORD}"
            raise UsageError("needs a user and a password", where="--web-login", remedy=remedy)
        return cls(user, password)

    def admits(self, user: str, password: str) -> bool:
        """In constant time, of both."""
        known = hmac.compare_digest(user.encode(), self.user.encode())
        return hmac.compare_digest(password.encode(), self.password.encode()) and known
