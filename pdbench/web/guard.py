"""Who may talk to the page. Pure: headers in, a decision out.

A page on 127.0.0.1 can be reached by every site that the same browser has open: by a form sent to it, or by a name that
points to 127.0.0.1 (DNS rebinding). So the name in ``Host`` must be one that the page is bound to, and whatever changes
something must come from the page itself.
"""

from __future__ import annotations

import hmac
import ipaddress
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from urllib.parse import urlsplit

from pdbench.errors import UsageError

SAFE = frozenset({"GET", "HEAD", "OPTIONS"})
USER, PASSWORD = "PDBENCH_WEB_USER", "PDBENCH_WEB_PASSWORD"
_LOCAL_NAMES = frozenset({"localhost", "127.0.0.1", "::1"})
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


def refusal(method: str, headers: Mapping[str, str], bound: str) -> str:
    """Why a request is not answered; ``""`` if it is. ``bound``: the host that the page listens on."""
    host = headers.get("Host", "")
    name = _name(host)
    if is_loopback(bound) and name not in _LOCAL_NAMES | {bound.strip("[]").lower()}:
        return f"this page is not known as '{name or 'nothing'}': use http://{bound}"
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
