"""Fixtures that end-to-end tests know by name."""

from __future__ import annotations

from tests.e2e.browser import browser, open_page, page_errors, page_requests, screenshot

__all__ = ["browser", "open_page", "page_errors", "page_requests", "screenshot"]
