"""``rtsep run --console``: where the page is, who may open it, and what is said when it cannot be."""

from __future__ import annotations

import http.client
import importlib.util
import re
import signal
import socket
import subprocess
import time
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from tests.cli.conftest import Run, Spawn

ARGS = ("--backend", "dummy", "--provider", "cpu", "--midi-stems", "other")


def link_of(process: subprocess.Popen[str]) -> str:
    """Return the link that a command prints."""
    assert process.stderr is not None
    said = []
    for line in process.stderr:
        said.append(line)
        if line.startswith("Console"):
            return line.split()[1]
    raise AssertionError("".join(said))


def test_the_link_leads_to_the_page_until_the_command_ends(spawn: Spawn, model: Path) -> None:
    with spawn("run", model, *ARGS, "--console") as process:
        try:
            address = urlsplit(link_of(process))
            assert address.hostname == "127.0.0.1"
            assert not address.fragment
            connection = http.client.HTTPConnection(str(address.hostname), address.port, timeout=20)
            connection.request("GET", "/")
            assert b"rtsep console" in connection.getresponse().read()
            connection.close()
            process.send_signal(signal.SIGINT)
            out, err = process.communicate(timeout=30)
            assert process.returncode == 130, err
            assert out.startswith("Stopped after")
            with pytest.raises(ConnectionRefusedError):
                socket.create_connection((str(address.hostname), address.port or 0), timeout=5)
        finally:
            process.kill()


def test_a_killed_command_takes_its_console_along_and_leaves_no_memory(spawn: Spawn, model: Path) -> None:
    memory = Path("/dev/shm")
    before = set(memory.glob("rtsep-*"))
    with spawn("run", model, *ARGS, "--console") as process:
        try:
            address = urlsplit(link_of(process))
            mine = set(memory.glob("rtsep-*")) - before
            process.kill()
            deadline = time.monotonic() + 20
            while listening(address.port or 0) or any(file.exists() for file in mine):
                assert time.monotonic() < deadline, (address, mine)
                time.sleep(0.05)
        finally:
            process.kill()


def listening(port: int) -> bool:
    try:
        with socket.create_connection(("127.0.0.1", port), timeout=5):
            return True
    except OSError:
        return False


def test_for_other_machines_the_link_holds_a_token(spawn: Spawn, model: Path) -> None:
    with spawn("run", model, *ARGS, "--console-host", "0.0.0.0") as process:
        try:
            link = link_of(process)
            assert re.fullmatch(r"http://[\d.]+:\d+/#token=[\w-]{22,}", link)
            assert next_line(process) == "         Whoever has this link can move the faders.\n"
            process.send_signal(signal.SIGINT)
        finally:
            process.kill()


def next_line(process: subprocess.Popen[str]) -> str:
    assert process.stderr is not None
    return process.stderr.readline()


def test_a_taken_port_and_a_strange_address_are_named(run: Run, model: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        result = run("run", model, *ARGS, "--console-port", port)
    assert result.exit_code == 3
    assert f"port {port}" in result.stderr
    assert "--console-port" in result.stderr
    result = run("run", model, *ARGS, "--console-host", "no-such-host.invalid")
    assert result.exit_code == 2
    assert "no-such-host.invalid" in result.stderr


def test_a_missing_package_is_named_before_anything_is_opened(
    run: Run, model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name, *rest: None if name == "uvicorn" else found(name, *rest)
    )
    result = run("run", model, *ARGS, "--console")
    assert result.exit_code == 2
    assert "pip install 'rtsep[console]'" in result.stderr
    assert "Latency" not in result.stderr
