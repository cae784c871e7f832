"""A JACK server for a test, and a browser for a module."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from typing import Any

import pytest

from rtsep.console.live import Console
from rtsep.control.registry import Registry
from rtsep.engine import Engine
from tests.integration.browser import opened
from tests.integration.jack import JackServer, jack_server, need_tools


@pytest.fixture
def server() -> Iterator[JackServer]:
    """A JACK server for one test."""
    need_tools()
    with jack_server() as running:
        yield running


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    """Chromium without a window, for a module; pages and contexts are each test's own."""
    need_tools("chromium", packages="chromium")
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        running = playwright.chromium.launch(executable_path=shutil.which("chromium"), args=["--no-sandbox"])
        yield running
        running.close()


@pytest.fixture
def console(engine: Engine, registry: Registry) -> Iterator[Console]:
    """The console of a module's `engine` and a test's `registry`."""
    with Console(engine, registry) as running:
        yield running


@pytest.fixture
def page(browser: Any, console: Console) -> Iterator[Any]:
    """The console's page."""
    with opened(browser, console) as page:
        yield page
