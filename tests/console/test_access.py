"""Who gets in: hosts, origins, tokens, addresses."""

from __future__ import annotations

import socket

import pytest

from rtsep.console import access
from rtsep.errors import DeviceBusyError, UsageError


@pytest.mark.parametrize("header", ["127.0.0.1:7373", "localhost:7373", "LOCALHOST", "[::1]:7373", "127.5.0.1"])
def test_this_machine_is_known_by_these_names(header: str) -> None:
    assert access.host_allowed(header, "127.0.0.1")


@pytest.mark.parametrize(
    "header",
    [
        None,
        "",
        "evil.example:7373",
        "192.168.1.5:7373",
        "127.0.0.1.evil.example",
        "localhost.evil.example",
        "[::1",
        "a@b:c",
    ],
)
def test_a_name_that_was_pointed_at_us_is_not_ours(header: str | None) -> None:
    assert not access.host_allowed(header, "127.0.0.1")


def test_for_the_network_an_address_and_our_own_name_will_do() -> None:
    own = socket.gethostname()
    for header in ("192.168.1.5:7373", "[fe80::1]:7373", f"{own}:7373", f"{own}.local", "localhost:7373"):
        assert access.host_allowed(header, "0.0.0.0"), header
    for header in ("evil.example:7373", "192.168.1.5.evil.example", None):
        assert not access.host_allowed(header, "0.0.0.0"), header


def test_an_origin_is_the_host_itself() -> None:
    assert access.origin_allowed("http://127.0.0.1:7373", "127.0.0.1:7373")
    for origin in (
        None,
        "null",
        "http://evil.example",
        "http://127.0.0.1:8000",
        "https://127.0.0.1:7373x",
        "http://localhost:7373",
    ):
        assert not access.origin_allowed(origin, "127.0.0.1:7373"), origin


def test_tokens_are_long_and_compared_as_a_whole() -> None:
    token = access.new_token()
    assert len(token) >= 22
    assert token != access.new_token()
    assert access.token_of(["rtsep.console.1", f"token.{token}"]) == token
    assert access.token_of(["rtsep.console.1"]) is None
    assert access.token_allowed(token, token)
    assert access.token_allowed(None, None)
    for wrong in (None, "", token[:-1], token + "x", "é"):
        assert not access.token_allowed(wrong, token), wrong


def test_a_taken_port_is_said_when_it_was_asked_for() -> None:
    with access.listen_at("127.0.0.1", None) as first:
        port = first.getsockname()[1]
        with pytest.raises(DeviceBusyError, match=rf"port {port}.*--console-port"):
            access.listen_at("127.0.0.1", port)
        with access.listen_at("127.0.0.1", None) as second:
            assert second.getsockname()[1] != port


def test_an_address_that_is_not_ours_is_said() -> None:
    with pytest.raises((UsageError, DeviceBusyError), match=r"192\.0\.2\.1"):
        access.listen_at("192.0.2.1", None)
    with pytest.raises(UsageError, match="no-such-host"):
        access.listen_at("no-such-host.invalid", None)


def test_the_link_hides_the_token_from_servers() -> None:
    assert access.link("127.0.0.1", 7373, None) == "http://127.0.0.1:7373/"
    assert access.link("::1", 7373, None) == "http://[::1]:7373/"
    assert access.link("192.0.2.7", 80, "abc") == "http://192.0.2.7:80/#token=abc"
    assert "0.0.0.0" not in access.link("0.0.0.0", 7373, "abc")


def test_the_qr_code_is_the_link() -> None:
    import segno

    text = "http://192.0.2.7:7373/#token=abcdefghijklmnopqrstuv"
    lines = access.qr_code(text).split("\n")
    expected = [[bool(cell) for cell in row] for row in segno.make(text, error="l").matrix_iter(border=2)]
    halves = {"█": (False, False), "▀": (False, True), "▄": (True, False), " ": (True, True)}
    seen = [[halves[c][half] for c in line] for line in lines for half in (0, 1)]
    assert seen[: len(expected)] == expected
