"""A few small requests to a server under test: readiness, models, admin. The load goes another way.

The standard library is enough, proxies are left out on purpose (a proxy between client and server is not what
anyone wants to measure), and every failure is one of two: no answer, or an answer that is not 2xx.
"""

from __future__ import annotations

import http.client
import json
import urllib.error
import urllib.request
from typing import Any


class NoAnswer(Exception):  # noqa: N818 - a state of the server, not a fault of ours
    """Nothing listens there, or it does not speak HTTP, or it took too long."""


class Refused(Exception):  # noqa: N818 - as above
    """An answer that is not 2xx."""

    def __init__(self, status: int, body: str) -> None:
        super().__init__(f"HTTP {status}: {body[:300]}")
        self.status = status
        self.body = body


def fetch(
    url: str,
    *,
    body: dict[str, Any] | None = None,
    post: bool = False,
    api_key: str | None = None,
    timeout_s: float = 10.0,
) -> bytes:
    """GET, or POST when there is a ``body`` or ``post``. Raises ``NoAnswer`` or ``Refused``."""
    headers = {"Accept": "application/json"}
    data = None
    if body is not None or post:
        data = json.dumps(body if body is not None else {}).encode()
        headers["Content-Type"] = "application/json"
    if api_key:
        headers["Authorization"] = f"Bearer {api_key}"
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        request = urllib.request.Request(url, data=data, headers=headers)
        with opener.open(request, timeout=timeout_s) as answer:
            content: bytes = answer.read()
            return content
    except urllib.error.HTTPError as error:
        with error:
            raise Refused(error.code, error.read().decode("utf-8", "replace")) from error
    except (OSError, http.client.HTTPException, ValueError) as error:
        reason = getattr(error, "reason", None) or error
        raise NoAnswer(f"{url}: {reason}") from error


def fetch_json(
    url: str,
    *,
    body: dict[str, Any] | None = None,
    post: bool = False,
    api_key: str | None = None,
    timeout_s: float = 10.0,
) -> dict[str, Any]:
    """As ``fetch``; the answer must be a JSON object, else ``NoAnswer``."""
    content = fetch(url, body=body, post=post, api_key=api_key, timeout_s=timeout_s)
    try:
        value = json.loads(content)
    except ValueError as error:
        raise NoAnswer(f"{url}: not JSON: {content[:80]!r}") from error
    if not isinstance(value, dict):
        raise NoAnswer(f"{url}: expected a JSON object")
    return value


def answers(url: str, *, api_key: str | None = None, timeout_s: float = 2.0) -> bool:
    """Whether a GET ends in 2xx."""
    try:
        fetch(url, api_key=api_key, timeout_s=timeout_s)
    except (NoAnswer, Refused):
        return False
    return True
