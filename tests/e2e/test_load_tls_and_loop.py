"""The engine over TLS, with a key; and in a closed loop."""

from __future__ import annotations

import contextlib
import socket
import ssl
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
import trustme

from pdbench.load.job import Job
from pdbench.load.steer import run_load
from pdbench.measure.records import RequestRecord
from tests.e2e.test_load_engine import MS, Truth, job, statuses

pytestmark = pytest.mark.e2e

ANSWER = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nConnection: close\r\n\r\n" + (
    b'data: {"choices":[{"text":"a"}]}\n\n' * 4 + b"data: [DONE]\n\n"
)


class TlsServer:
    """Answers every request that carries the key; one thread a connection."""

    def __init__(self, context: ssl.SSLContext) -> None:
        self._context = context
        self._socket = socket.create_server(("127.0.0.1", 0))
        self.port = self._socket.getsockname()[1]
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                raw, _ = self._socket.accept()
                threading.Thread(target=self._serve, args=(raw,), daemon=True).start()

    def _serve(self, raw: socket.socket) -> None:
        with raw, contextlib.suppress(OSError), self._context.wrap_socket(raw, server_side=True) as tls:
            asked = b""
            while b"ignore_eos" not in asked:
                if not (data := tls.recv(65536)):
                    return
                asked += data
            with_key = b"\r\nAuthorization: Bearer s3cret\r\n" in asked
            tls.sendall(ANSWER if with_key else b"HTTP/1.1 401 No\r\nContent-Length: 0\r\n\r\n")

    def close(self) -> None:
        self._socket.shutdown(socket.SHUT_RDWR)
        self._socket.close()


@pytest.fixture
def tls(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[TlsServer]:
    authority = trustme.CA()
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    authority.issue_cert("localhost").configure_cert(context)
    authority.cert_pem.write_to_path(tmp_path / "ca.pem")
    monkeypatch.setenv("PD_TEST_KEY", "s3cret")
    monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "ca.pem"))
    server = TlsServer(context)
    yield server
    server.close()


def tls_job(tmp_path: Path, server: TlsServer) -> Job:
    url = f"https://localhost:{server.port}"
    return job(tmp_path, url, n=5, clock="auto", api_key_env="PD_TEST_KEY")


def test_tls_with_a_certificate_of_ones_own_and_a_key(tmp_path: Path, tls: TlsServer) -> None:
    outcome = run_load(tls_job(tmp_path, tls))
    assert statuses(outcome) == ["ok"] * 5
    assert outcome.clock == "user"
    assert all(len(record.chunk_ns) == 4 and record.user_lag_ns == [] for record in outcome.records)
    assert outcome.facts is not None
    assert outcome.facts.wake_lag.count > 0


def test_a_certificate_nobody_vouches_for_fails_every_request(
    tmp_path: Path, tls: TlsServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    trustme.CA().cert_pem.write_to_path(tmp_path / "other.pem")
    monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "other.pem"))
    outcome = run_load(tls_job(tmp_path, tls))
    assert statuses(outcome) == ["error"] * 5
    assert all("certificate" in record.error.lower() for record in outcome.records)


def open_at(records: list[RequestRecord], at_ns: int) -> int:
    return sum(r.scheduled_ns <= at_ns < (r.end_ns or 0) for r in records)


def test_a_closed_loop_follows_its_curve(tmp_path: Path) -> None:
    """Two streams, then five, then none; each request takes some 20 ms of the server's time."""
    server = Truth(tmp_path)
    curve = [(0, 2), (300 * MS, 5), (600 * MS, 0)]
    n = 2000
    try:
        outcome = run_load(job(tmp_path, server.url, n=n, gap_ms=0, concurrency=curve))
        used_up = run_load(job(tmp_path, server.url, n=9, gap_ms=0, concurrency=[(0, 3)]))
    finally:
        server.kill()
    records = outcome.records
    assert outcome.status == "complete"
    assert 10 < len(records) < n
    assert {record.status for record in records} == {"ok"}
    assert [record.index for record in records] == list(range(len(records)))
    ends = {record.end_ns for record in records}
    for record in records:
        assert record.sent_ns is not None
        assert record.sent_ns >= record.scheduled_ns
        assert record.scheduled_ns - outcome.t0_ns in (0, 300 * MS) or record.scheduled_ns in ends
        assert record.scheduled_ns - outcome.t0_ns <= 600 * MS
    for record in records:
        offset = record.scheduled_ns - outcome.t0_ns
        assert open_at(records, record.scheduled_ns) <= (2 if offset < 300 * MS else 5)
    assert open_at(records, outcome.t0_ns + 301 * MS) == 5
    facts = outcome.facts
    assert facts is not None
    assert facts.loop_lag.count > 10
    assert facts.peak_rss_bytes > 1 << 20
    audit = facts.audit()
    assert audit.cpu_share is not None
    assert 0 <= audit.cpu_share.p50 <= audit.cpu_share.max
    assert [record.status for record in used_up.records] == ["ok"] * 9
