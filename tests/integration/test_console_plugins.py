"""A VST3 of zam-plugins on the console's page, in a real browser: added, set, bypassed, removed; its latency counts."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile

from rtsep.audio.backends import DummyConfig
from rtsep.audio.song_config import SongConfig
from rtsep.console.live import Console
from rtsep.control.registry import engine_registry
from rtsep.engine import Engine
from rtsep.takes.live import LiveTakes
from tests.integration.browser import opened, until
from tests.integration.jack import need_tools
from tests.support.graphs import make_delay_model

pytestmark = pytest.mark.integration

MAXIM = Path("/usr/lib/vst3/ZaMaximX2.vst3")
NAME = "ZaMaximX2 (VST3)"
RATE = 48_000
LATE = 480
"""Samples that ZaMaximX2 is late at 48 kHz, as an impulse confirms in test_plugins_jack.py."""


@pytest.fixture(autouse=True)
def _scanned(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    need_tools(*([] if MAXIM.exists() else ["zam-plugins"]), packages="zam-plugins")
    pytest.importorskip("pedalboard")
    from rtsep.plugins.scan import scan

    monkeypatch.setenv("RTSEP_PLUGIN_CACHE", str(tmp_path / "plugins.json"))
    assert scan(MAXIM).ok


def add(page: Any, target: str) -> None:
    """Choose the plugin by keyboard alone, and add it."""
    offered = page.get_by_role("combobox", name=f"Add a plugin to {target}")
    offered.focus()
    page.keyboard.type("ZaMaxim")
    until(lambda: offered.input_value() == NAME, "the choice")
    page.keyboard.press("Tab")
    page.keyboard.press("Enter")
    page.wait_for_selector(f"[data-slot='{target}/0']")


def test_a_vst3_is_added_set_bypassed_and_removed(browser: Any, tmp_path: Path) -> None:
    model = make_delay_model(tmp_path / "m.onnx", hop=512, latency=700, gains=(0.25, 0.125, 0.125, 0.5))
    song = (0.1 * np.random.default_rng(1).standard_normal((120 * RATE, 2))).astype(np.float32)
    soundfile.write(tmp_path / "song.wav", song, RATE, subtype="FLOAT")
    with (
        Engine(model, backend=DummyConfig(), song=SongConfig(str(tmp_path / "song.wav"))) as engine,
        Console(engine, engine_registry(engine)) as console,
        opened(browser, console) as page,
    ):
        before = engine.latency()
        add(page, "vocals")
        shows(page, engine, before.total_samples + LATE)
        assert "10.0 ms" in page.locator("#latency-parts tr", has_text="plugins").inner_text()
        add(page, "master")
        shows(page, engine, before.total_samples + 2 * LATE)
        assert engine.latency()["plugins"].samples == 2 * LATE

        # Its threshold, by keyboard; the dialog says how late it is.
        page.locator("[data-slot='vocals/0']").press("Enter")
        dialog = page.get_by_role("dialog", name="ZaMaximX2 on vocals")
        assert "10.0 ms late" in dialog.inner_text()
        dialog.get_by_role("slider", name="threshold").press("Home")
        until(lambda: engine.chains["vocals"][0].spec.parameters.get("threshold_db") == -30.0, "the threshold")
        dialog.get_by_role("button", name="ZaMaximX2 bypass").press("Space")
        until(lambda: engine.chains["vocals"][0].spec.bypass, "the bypass")
        page.keyboard.press("Escape")
        dialog.wait_for(state="hidden")
        assert page.evaluate("document.activeElement.dataset.slot") == "vocals/0", "the focus is where it was"

        # Bypassed, and at 0 dB on the master, it is only late: in a take the mix is the sum of the stems.
        with LiveTakes(engine, tmp_path / "takes") as takes:
            faded = engine.position_samples + RATE // 5
            until(lambda: engine.position_samples > faded, "the end of its fade")
            takes.start()
            until(lambda: (at := takes.state.since_s) and engine.position_samples > (at + 1.0) * RATE, "a take")
            takes.stop()
            until(lambda: takes.state.done, "its end")
        folder = takes.state.done[0][0]
        stems = sum(soundfile.read(folder / f"{name}.wav")[0] for name in ("drums", "bass", "other", "vocals"))
        mix = soundfile.read(folder / "mix.wav")[0]
        assert np.abs(stems - mix).max() < 2e-4, "the mix is as late as its plugins say"

        lamp = page.get_by_role("button", name="ZaMaximX2 on vocals")
        lamp.press("Space")
        until(lambda: not engine.chains["vocals"][0].spec.bypass, "the end of the bypass")
        page.wait_for_selector("[data-slot='vocals/0/lamp'][aria-pressed='true']")
        assert page.evaluate("document.activeElement.dataset.slot") == "vocals/0/lamp"
        for target in ("vocals", "master"):
            page.locator(f"[data-slot='{target}/0']").click()
            page.get_by_role("dialog").get_by_role("button", name="Remove").click()
            page.wait_for_selector(f"[data-slot='{target}/0']", state="detached")
        shows(page, engine, before.total_samples)
        assert engine.plugin_news() == []


def shows(page: Any, engine: Engine, samples: int) -> None:
    """Wait until the page has a latency that the engine has, too."""
    page.wait_for_selector(f"#glance-latency:has-text('{1000 * samples / RATE:.1f} ms')")
    assert engine.latency().total_samples == samples
