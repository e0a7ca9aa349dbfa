"""Fixtures that end-to-end tests know by name, and what becomes of them without a browser."""

from __future__ import annotations

from tests.e2e.browser import browser, open_page, page_errors, page_requests, pytest_runtest_setup, screenshot
from tests.e2e.transcript import type_here

__all__ = ["browser", "open_page", "page_errors", "page_requests", "pytest_runtest_setup", "screenshot", "type_here"]
