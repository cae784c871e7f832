"""The console process of a running engine, and clients without a browser: honest, clumsy and hostile ones."""

from __future__ import annotations

import asyncio
import http.client
import json
import os
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from socket import SHUT_RDWR
from urllib.parse import urlsplit

import numpy as np
import pytest
import soundfile
from websockets.exceptions import InvalidStatus

from rtsep.console.live import Console
from rtsep.console.server import ASSETS, BURST, LONGEST_MESSAGE, MOST_CLIENTS, Client
from rtsep.control.registry import Parameter, Registry
from rtsep.engine import Engine
from rtsep.errors import DeviceBusyError, UsageError
from tests.console.conftest import Page, open_socket, until


def get(console: Console, path: str, method: str = "GET", **headers: str) -> tuple[int, bytes, dict[str, str]]:
    """Ask for a path exactly as it is written."""
    address = urlsplit(console.link)
    connection = http.client.HTTPConnection(str(address.hostname), address.port, timeout=20)
    try:
        connection.request(method, path, headers={key.replace("_", "-"): value for key, value in headers.items()})
        answer = connection.getresponse()
        return answer.status, answer.read(), {key.lower(): value for key, value in answer.getheaders()}
    finally:
        connection.close()


# --- the page ---------------------------------------------------------------------------------------------------------


def test_the_page_comes_with_all_its_parts_and_a_strict_policy(console: Console) -> None:
    static = Path(__file__).parents[2] / "rtsep/console/static"
    assert {name for name, _ in ASSETS.values()} == {file.name for file in static.iterdir()}
    for path, (name, kind) in ASSETS.items():
        status, body, headers = get(console, path)
        assert (status, body) == (200, (static / name).read_bytes()), path
        assert headers["content-type"] == kind
        assert "script-src 'self'" in headers["content-security-policy"]
        assert "frame-ancestors 'none'" in headers["content-security-policy"]
        assert headers["x-content-type-options"] == "nosniff"


@pytest.mark.parametrize(
    "path", ["/../../pyproject.toml", "/%2e%2e/config.py", "/static/app.js", "/app.js/", "//etc/passwd", "/app.js%00"]
)
def test_nothing_else_is_served(console: Console, path: str) -> None:
    status, body, _ = get(console, path)
    assert status in (307, 404)
    assert b"rtsep" not in body


def test_only_get_is_answered(console: Console) -> None:
    for method in ("POST", "PUT", "DELETE"):
        assert get(console, "/", method)[0] == 405


def test_a_rebound_name_sees_nothing(console: Console) -> None:
    for path in ("/", "/check"):
        status, body, _ = get(console, path, Host="evil.example")
        assert status == 403
        assert b"<html" not in body
    assert get(console, "/", Host="localhost")[0] == 200


# --- who may connect --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "origin", ["http://evil.example", "null", None, "http://127.0.0.1:1", "http://localhost.evil.example"]
)
def test_a_foreign_page_is_refused(console: Console, origin: str | None) -> None:
    with pytest.raises(InvalidStatus) as refusal, open_socket(console, origin=origin):
        pass
    assert refusal.value.response.status_code == 403


def test_a_rebound_name_does_not_connect(console: Console) -> None:
    port = urlsplit(console.link).port
    headers = {"Host": f"evil.example:{port}"}
    with (
        pytest.raises(InvalidStatus),
        open_socket(console, origin=f"http://evil.example:{port}", additional_headers=headers),
    ):
        pass


def test_the_network_needs_the_token(engine: Engine, registry: Registry) -> None:
    with Console(engine, registry, host="0.0.0.0") as console:
        assert console.token is not None
        assert console.link.endswith(f"#token={console.token}")
        for protocols in (["rtsep.console.1"], ["rtsep.console.1", "token.wrong"], ["token."]):
            with pytest.raises(InvalidStatus) as refusal, open_socket(console, subprotocols=protocols):
                pass
            assert refusal.value.response.status_code == 403
        with open_socket(console) as socket:
            assert socket.subprotocol == "rtsep.console.1"
            Page(socket)
        assert get(console, "/check")[0] == 401
        assert get(console, "/check", Authorization=f"Bearer {console.token}")[0] == 204
        # The page itself holds no secret; it says what is missing.
        assert get(console, "/")[0] == 200


def test_a_port_that_is_taken_is_an_error_before_anything_runs(
    engine: Engine, registry: Registry, console: Console
) -> None:
    port = urlsplit(console.link).port
    with pytest.raises(DeviceBusyError, match="--console-port"):
        Console(engine, registry, port=port).start()
    with pytest.raises(UsageError, match="1 to 65535"):
        Console(engine, registry, port=0)


def test_the_seventeenth_page_has_to_wait(console: Console) -> None:
    with ExitStack() as stack:
        sockets = []

        def joined() -> bool:
            try:
                sockets.append(stack.enter_context(open_socket(console)))
            except InvalidStatus:  # a page of the test before has not quite left
                return False
            return True

        for _ in range(MOST_CLIENTS):
            until(joined, "room for a page")
        with pytest.raises(InvalidStatus), open_socket(console):
            pass
        sockets[-1].close()
        until(lambda: opens(console), "room for another page")


def opens(console: Console) -> bool:
    try:
        with open_socket(console):
            return True
    except (OSError, InvalidStatus):
        return False


# --- values -----------------------------------------------------------------------------------------------------------


def test_a_page_gets_the_whole_state(page: Page, registry: Registry, engine: Engine) -> None:
    table = {entry["path"]: entry for entry in page.hello["table"]}
    assert list(table) == list(registry.parameters)
    gain = table["stem/vocals/gain_db"]
    assert (gain["value"], gain["lowest"], gain["highest"]) == (0.0, -120.0, 24.0)
    parameter = registry.parameter("stem/vocals/gain_db")
    assert gain["curve"][75] == pytest.approx(parameter.from_unit(0.75))
    assert page.hello["about"]["stems"] == list(engine.info.stems)
    assert page.hello["status"]["latency"]["total_samples"] == engine.latency().total_samples


def test_what_a_page_sets_the_engine_does(page: Page, registry: Registry, engine: Engine) -> None:
    page.set(stem__vocals__gain_db=-6.5, stem__drums__mute=True)
    until(lambda: engine.settings.mute[0] == 1.0, "the mute")
    assert registry.get("stem/vocals/gain_db") == -6.5


def test_two_pages_follow_each_other_and_everybody_else(console: Console, page: Page, registry: Registry) -> None:
    with open_socket(console) as socket:
        other = Page(socket)
        page.set(stem__bass__gain_db=-3.0)
        other.wait_for_value("stem/bass/gain_db", -3.0)
        other.set(stem__bass__gain_db=2.0, stem__bass__solo=True)
        page.wait_for_value("stem/bass/gain_db", 2.0)
        page.wait_for_value("stem/bass/solo", True)
        registry.set("stem/other/pan", 0.5, "keys")
        page.wait_for_value("stem/other/pan", 0.5)
        other.wait_for_value("stem/other/pan", 0.5)
        # Nobody hears an echo of himself: a fader under a finger must not be pulled back.
        assert not any(message.get("values", {}).get("stem/bass/gain_db") == -3.0 for message in page.texts)
        assert not any(message.get("values", {}).get("stem/bass/gain_db") == 2.0 for message in other.texts)
    with open_socket(console) as socket:
        late = {entry["path"]: entry["value"] for entry in Page(socket).hello["table"]}
    assert late["stem/bass/gain_db"] == 2.0
    assert late["stem/other/pan"] == 0.5


def test_what_is_changed_past_the_registry_is_seen_too(page: Page, engine: Engine) -> None:
    engine.set_gain("other", -9.0)
    page.wait_for_value("stem/other/gain_db", -9.0)


def test_a_page_that_vanishes_in_the_middle_of_a_drag_leaves_its_last_value(
    console: Console, page: Page, registry: Registry
) -> None:
    with open_socket(console) as socket:
        Page(socket)
        for i in range(40):
            socket.send(json.dumps({"set": {"stem/vocals/gain_db": -i / 2}}))
        socket.socket.shutdown(SHUT_RDWR)  # no goodbye
    page.wait_for_value("stem/vocals/gain_db", -19.5)
    assert registry.get("stem/vocals/gain_db") == -19.5
    page.set(stem__vocals__gain_db=0.0)
    until(lambda: registry.get("stem/vocals/gain_db") == 0.0, "the next change")


def test_a_value_out_of_range_is_refused_by_its_name(page: Page, registry: Registry) -> None:
    page.set(stem__vocals__gain_db=25.0)
    refused = page.wait_for("refused")
    assert refused["path"] == "stem/vocals/gain_db"
    assert "-120 to 24" in refused["message"]
    assert refused["value"] == 0.0
    page.set(stem__vocals__mute="loud")
    assert "true or false" in page.wait_for("refused", lambda r: r["path"].endswith("mute"))["message"]
    assert registry.get("stem/vocals/mute") is False


@pytest.mark.parametrize(
    "path", ["stem/vocals/gain", "__class__", "../../etc/passwd", "stem/vocals/gain_db/", "x" * 3000, ""]
)
def test_an_unknown_path_changes_nothing(page: Page, registry: Registry, path: str) -> None:
    before = registry.values()
    page.socket.send(json.dumps({"set": {path: 1.0}}))
    refused = page.wait_for("refused")
    assert refused["path"] == path[:200]
    assert registry.values() == before


def test_parameters_that_come_and_go_are_told(page: Page, registry: Registry) -> None:
    registry.add(Parameter("stem/vocals/plugins/1/mix", "float", 0.0, 1.0, 0.5))
    added = page.wait_for("table", lambda table: table["added"])["added"]
    assert (added[0]["path"], added[0]["value"]) == ("stem/vocals/plugins/1/mix", 0.5)
    page.set(stem__vocals__plugins__1__mix=0.25)
    until(lambda: registry.get("stem/vocals/plugins/1/mix") == 0.25, "the new parameter's change")
    registry.remove("stem/vocals/plugins/1/mix")
    assert page.wait_for("table", lambda table: table["removed"])["removed"] == ["stem/vocals/plugins/1/mix"]


# --- plugins ----------------------------------------------------------------------------------------------------------


def plugin(page: Page, do: str, **command: object) -> None:
    page.socket.send(json.dumps({"plugin": {"do": do, "target": "vocals", **command}}))


@pytest.fixture
def chains(engine: Engine) -> Iterator[Callable[[], list[str]]]:
    """What is on the vocals; nothing at the beginning and at the end."""
    pytest.importorskip("pedalboard")
    engine.set_chain("vocals", [])
    yield lambda: [slot.label for slot in engine.chains["vocals"]]
    engine.set_chain("vocals", [])


def test_plugins_are_added_set_moved_bypassed_and_removed(
    page: Page, engine: Engine, chains: Callable[[], list[str]]
) -> None:
    plugin(page, "add", name="Reverb")
    plugin(page, "add", name="Gain")
    until(lambda: chains() == ["Reverb", "Gain"], "both")
    plugin(page, "set", slot=0, name="room_size", value=0.25)
    plugin(page, "bypass", slot=1, value=True)
    plugin(page, "move", slot=1, to=0)
    until(lambda: chains() == ["Gain", "Reverb"], "the other order")
    gain, reverb = (slot.spec for slot in engine.chains["vocals"])
    assert gain.bypass
    assert reverb.parameters["room_size"] == 0.25
    shown = page.wait_for("plugins", lambda p: [slot["label"] for slot in p["chains"]["vocals"]] == ["Gain", "Reverb"])
    assert shown["chains"]["vocals"][0]["bypass"] is True
    plugin(page, "remove", slot=0)
    until(lambda: chains() == ["Reverb"], "the end of the first")


def test_what_another_hand_does_to_plugins_is_seen(page: Page, engine: Engine, chains: Callable[[], list[str]]) -> None:
    from rtsep.plugins.spec import PluginSpec

    engine.add_plugin("vocals", PluginSpec("Delay", {"mix": 0.125}))
    slots = page.wait_for("plugins", lambda p: p["chains"]["vocals"])["chains"]["vocals"]
    values = {parameter["path"]: parameter["value"] for parameter in slots[0]["parameters"]}
    assert values["mix"] == 0.125


@pytest.mark.parametrize(
    ("do", "command", "why"),
    [
        ("add", {"name": "/tmp/evil.vst3"}, "offers no plugin"),
        ("add", {"name": "PitchShift"}, "offers no plugin"),
        ("add", {"name": "Convolution"}, "offers no plugin"),
        ("remove", {"slot": 7}, "there is no number 7"),
        ("set", {"slot": -1, "name": "mix", "value": 1}, "there is no number -1"),
        ("add", {"target": "../vocals", "name": "Gain"}, "No stem"),
    ],
)
def test_what_is_not_offered_is_refused(
    page: Page, chains: Callable[[], list[str]], do: str, command: dict[str, object], why: str
) -> None:
    plugin(page, do, **command)
    assert why in page.wait_for("refused")["message"]
    assert chains() == []


def test_a_file_of_a_plugin_is_not_for_pages(
    page: Page, engine: Engine, tmp_path: Path, chains: Callable[[], list[str]]
) -> None:
    from rtsep.plugins.spec import PluginSpec

    soundfile.write(tmp_path / "room.wav", np.eye(1, 64)[0], 48_000)
    engine.add_plugin("vocals", PluginSpec("Convolution", {"impulse_response_filename": str(tmp_path / "room.wav")}))
    slots = page.wait_for("plugins", lambda p: p["chains"]["vocals"])["chains"]["vocals"]
    assert [parameter["path"] for parameter in slots[0]["parameters"]] == ["mix"]
    plugin(page, "set", slot=0, name="impulse_response_filename", value="/etc/passwd")
    assert "is a file" in page.wait_for("refused")["message"]


# --- hostile and broken clients ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "message",
    [
        "", "garbage", "[]", "{}", '{"set": []}', '{"set": {}}', '{"set": {"stem/vocals/gain_db": [1]}}', "[" * 4000,
        '{"set": {"stem/vocals/gain_db": NaN}}', '{"set": {"stem/vocals/gain_db": 1e999}}', '{"visible": 1}',
        '{"set": {"stem/vocals/gain_db": {"a": 1}}}', '{"set": {"stem/vocals/gain_db": null}}', b"\x00\x01\x02",
        '{"plugin": 1}', '{"plugin": {"do": "add"}}', '{"plugin": {"do": "run", "target": "vocals"}}',
        '{"plugin": {"do": "set", "target": "vocals", "slot": "0"}}',
        '{"plugin": {"do": "add", "target": "vocals", "path": "/x"}}',
        '{"plugin": {"do": "set", "target": "vocals", "slot": 0, "name": "mix", "value": [1]}}',
        json.dumps({"set": {"stem/vocals/gain_db": "x" * 300}}), json.dumps({"set": {str(i): 1 for i in range(65)}}),
    ],
)  # fmt: skip
def test_garbage_ends_the_connection_and_changes_nothing(
    page: Page, console: Console, registry: Registry, message: str | bytes
) -> None:
    before = registry.values()
    page.socket.send(message)
    code, why = page.wait_for_end()
    assert code == 1008
    assert why
    assert registry.values() == before
    with open_socket(console) as socket:
        Page(socket)


def test_a_message_that_is_too_long_ends_the_connection(page: Page, registry: Registry) -> None:
    page.socket.send(json.dumps({"set": {"stem/vocals/gain_db": -6.0}, "more": "x" * LONGEST_MESSAGE}))
    assert page.wait_for_end()[0] == 1009
    assert registry.get("stem/vocals/gain_db") == 0.0


def test_a_flood_ends_its_own_connection_and_no_other(console: Console, page: Page, registry: Registry) -> None:
    with open_socket(console) as socket:
        flood = Page(socket)
        text = json.dumps({"set": {"stem/drums/pan": 0.5}})
        for _ in range(int(20 * BURST)):
            try:
                socket.send(text)
            except Exception:
                break
        code, why = flood.wait_for_end()
    assert (code, why) == (1008, "Too many messages.")
    page.set(stem__drums__pan=-0.5)
    until(lambda: registry.get("stem/drums/pan") == -0.5, "the honest page's change")


def test_a_page_that_reads_nothing_holds_up_nobody(console: Console, page: Page, registry: Registry) -> None:
    with open_socket(console, max_queue=1, close_timeout=0.2):
        first = page.next_frame().number
        until(lambda: page.next_frame().number > first + 60, "two seconds of frames")
        page.set(stem__drums__pan=0.25)
        until(lambda: registry.get("stem/drums/pan") == 0.25, "the change")


def test_what_waits_for_a_slow_page_is_bounded() -> None:
    async def wait() -> Client:
        client = Client(1)
        for number in range(1000):
            client.show(bytes([number % 256]))
            client.tell_value("stem/vocals/gain_db", -number)
        assert (client.frame, client.values) == (bytes([999 % 256]), {"stem/vocals/gain_db": -999})
        assert not client.too_slow
        for number in range(501):
            client.tell({"notes": [number]})
        return client

    assert asyncio.run(wait()).too_slow


# --- frames -----------------------------------------------------------------------------------------------------------


def test_frames_show_the_levels_and_spectra_of_what_plays(page: Page, engine: Engine, registry: Registry) -> None:
    def settled() -> bool:
        frame = page.next_frame()
        meters = engine.meters()
        with np.errstate(divide="ignore"):
            rms_db = 20 * np.log10(np.maximum(meters.rms, 1e-6))
        return bool(frame.bands and (abs(frame.levels[4:8] - rms_db) < 1.5).all() and frame.spectra.max() > 0)

    until(settled, "levels as the engine's own")
    frame = page.next_frame()
    assert frame.hops > 0
    assert frame.period == pytest.approx(512 / 48, rel=1e-3)
    # Drums are .5 of the noise, bass half of that: 6 dB apart in the meters as in the spectra (96 dB are 255 steps).
    assert frame.levels[4] - frame.levels[5] == pytest.approx(6.0, abs=1.0)
    shown = [page.next_frame().spectra[:2].astype(float) for _ in range(10)]
    apart = np.mean([s[0] - s[1] for s in shown if s.size]) * 72 / 255
    assert apart == pytest.approx(6.0, abs=0.5)


def test_a_hidden_page_gets_no_frames_until_it_is_seen_again(page: Page) -> None:
    page.next_frame()
    page.socket.send(json.dumps({"visible": False}))
    quiet_since = time.monotonic()
    deadline = quiet_since + 20
    while time.monotonic() - quiet_since < 1.0:
        if page.read(0.2) and page.frames:
            page.frames.clear()
            quiet_since = time.monotonic()
        assert time.monotonic() < deadline, "frames kept coming"
    page.socket.send(json.dumps({"visible": True}))
    page.next_frame()


def test_a_late_hop_is_told_when_it_happens_and_to_who_comes_later(
    console: Console, page: Page, engine: Engine
) -> None:
    engine.inject("worker", 0.2)
    late = page.wait_for("events", lambda events: any(event["kind"] == "late" for event in events))
    assert late[0]["at"] == pytest.approx(engine.position_samples / engine.samplerate, abs=5.0)
    until(lambda: page.next_frame().late >= 1, "the counter")
    with open_socket(console) as socket:
        assert any(event["kind"] == "late" for event in Page(socket).hello["events"])


# --- life -------------------------------------------------------------------------------------------------------------


def test_a_console_that_dies_is_started_again_where_it_was(engine: Engine, registry: Registry) -> None:
    said: list[str] = []
    with Console(engine, registry, report=said.append) as console:
        link, first = console.link, console.pid
        hops = engine.stats().hops
        os.kill(first, signal.SIGKILL)
        until(lambda: console.pid != first and said, "another process")
        until(lambda: opens(console), "the page")
        assert console.link == link
        assert "started again" in said[0]
        assert engine.running
        until(lambda: engine.stats().hops > hops + 50, "sound")
        with open_socket(console) as socket:
            page = Page(socket)
            page.set(stem__vocals__mute=True)
            until(lambda: engine.settings.mute[3] == 1.0, "the mute")


def test_a_console_that_dies_again_and_again_stays_away_and_the_sound_goes_on(
    engine: Engine, registry: Registry
) -> None:
    said: list[str] = []
    with Console(engine, registry, report=said.append) as console:
        for _ in range(4):
            pid = console.pid
            os.kill(pid, signal.SIGKILL)
            until(lambda pid=pid: console.pid != pid or not console.running, "what comes after")  # type: ignore[misc]
        until(lambda: not console.running, "the end")
        assert "not started any more" in said[-1]
        assert console.exit_error is not None
        hops = engine.stats().hops
        until(lambda: engine.stats().hops > hops + 20, "sound")
        registry.set("stem/vocals/gain_db", -1.0)  # nobody listens, and nobody minds


def test_stopping_ends_the_process_and_frees_the_port(engine: Engine, registry: Registry) -> None:
    console = Console(engine, registry)
    console.start()
    pid, port = console.pid, urlsplit(console.link).port
    console.stop()
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)
    with Console(engine, registry, port=port) as again:
        assert urlsplit(again.link).port == port
