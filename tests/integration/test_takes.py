"""The record button: on the console's page in a real browser, and with a real JACK server."""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
from numpy.typing import NDArray

from rtsep.audio.backends import DummyConfig
from rtsep.audio.song_config import SongConfig
from rtsep.console.live import Console
from rtsep.control.record import add_record
from rtsep.control.registry import engine_registry
from rtsep.engine import Engine
from rtsep.notes.live import LiveNotes
from rtsep.takes.live import LiveTakes
from tests.integration.jack import JackServer, write_noise
from tests.support.graphs import make_delay_model

pytestmark = pytest.mark.integration

RATE = 48_000
PATIENCE_S = 30.0
STEMS = ("drums", "bass", "other", "vocals")
GAINS = (0.5, 0.25, 0.125, 0.125)
Audio = NDArray[np.float32]


def until(condition: Callable[[], object], what: str) -> None:
    deadline = time.monotonic() + PATIENCE_S
    while not condition():
        assert time.monotonic() < deadline, f"{what} never came"
        time.sleep(0.02)


def read(folder: Path) -> tuple[Audio, Audio]:
    """Stems [S, T, C] and mix [T, C]."""
    stems = [soundfile.read(folder / f"{stem}.wav", dtype="float32", always_2d=True)[0] for stem in STEMS]
    return np.stack(stems), soundfile.read(folder / "mix.wav", dtype="float32", always_2d=True)[0]


def same(take: Audio, played: Audio) -> float:
    """The part of a take that is, segment by segment, what was played, all with one and the same shift."""
    segment = 4096
    anchor = take[RATE // 2 : RATE // 2 + 64, 0]
    places = [i for i in np.flatnonzero(played[:, 0] == anchor[0]) if np.array_equal(played[i : i + 64, 0], anchor)]
    assert len(places) == 1, "what was recorded was never played"
    shift = places[0] - RATE // 2
    found = [
        np.array_equal(take[at : at + segment], played[at + shift : at + shift + segment])
        for at in range(0, len(take) - segment, segment)
        if 0 <= at + shift <= len(played) - segment
    ]
    return float(np.mean(found))


def test_a_take_on_jack_is_what_its_clients_played(server: JackServer, tmp_path: Path) -> None:
    """Taken while a client plays into the engine; the take of the whole run beside it has its mix in the same place."""
    model = make_delay_model(tmp_path / "m.onnx", hop=512, latency=700, gains=GAINS)
    noise = write_noise(tmp_path / "noise.wav", 60.0)
    whole = tmp_path / "whole"
    whole.mkdir()
    settings: dict[str, Any] = {"tap": True, "record": whole / "mix.wav", "record_captured": True}
    with (
        Engine(model, **settings) as engine,
        LiveNotes(engine, stems=[], take=whole) as notes,
        LiveTakes(engine, tmp_path / "takes", notes) as takes,
    ):
        server.play(tmp_path / "noise.wav")
        until(lambda: engine.meters().master_peak > 0.05, "the noise")
        takes.start()
        until(lambda: takes.state.since_s is not None, "the take")
        since = round((takes.state.since_s or 0.0) * RATE)
        until(lambda: engine.position_samples > since + 3 * RATE, "three seconds of it")
        takes.stop()
        until(lambda: takes.state.done, "its end")
        assert takes.state.error is None
    folder, seconds = takes.state.done[0]
    stems, mix = read(folder)
    assert stems.shape[1] == len(mix) == round(seconds * RATE)
    assert np.abs(stems.sum(0) - mix).max() < 1e-6
    # On a crowded machine JACK itself may lose a cycle in a few of the segments.
    assert same(mix, noise) >= 0.7
    # The take of the whole run counts from frame 0 of the device: the same frames lie there. Its mix is what was heard,
    # with what covered late hops.
    both, heard = read(whole)
    assert np.array_equal(both[:, since : since + len(mix)], stems)
    assert np.mean(np.abs(heard[since : since + len(mix)] - mix).max(1) < 1e-6) > 0.7


def test_the_page_begins_and_ends_a_take_and_shows_how_long_it_is(browser: Any, tmp_path: Path) -> None:
    model = make_delay_model(tmp_path / "m.onnx", hop=512, latency=700, gains=GAINS)
    song = 0.2 * np.random.default_rng(7).standard_normal((60 * RATE, 2)).astype(np.float32)
    soundfile.write(tmp_path / "song.wav", song, RATE, subtype="FLOAT")
    folder = tmp_path / "takes"
    with Engine(model, backend=DummyConfig(), song=SongConfig(str(tmp_path / "song.wav"))) as engine:
        registry = engine_registry(engine)
        takes = LiveTakes(engine, folder)
        add_record(registry, takes)
        with Console(engine, registry, takes=takes) as console:
            page, other = browser.new_page(), browser.new_page()
            errors: list[str] = []
            for one in (page, other):
                one.on("pageerror", lambda error: errors.append(str(error)))
                one.goto(console.link)
            button = page.get_by_role("button", name="record")
            button.click()
            until(lambda: takes.state.since_s is not None, "the take")
            other.wait_for_selector("#record button[aria-pressed='true']")
            page.wait_for_selector("#record-words:has-text('0:01.')")
            button.press("Space")
            page.wait_for_selector("#record-words:has-text('take-001 kept')")
            other.wait_for_selector("#record button[aria-pressed='false']")
            stems, mix = read(folder / "take-001")
            assert len(mix) > RATE
            assert np.abs(stems.sum(0) - mix).max() < 1e-6
            # A folder that is not there any more, and cannot be made: said on the page, and the button goes back.
            shutil.rmtree(folder)
            folder.write_text("in the way")
            button.click()
            page.wait_for_selector("#notice:has-text('No folder for a take')")
            page.wait_for_selector("#record button[aria-pressed='false']")
            assert not takes.on
            assert not errors
        takes.close()
