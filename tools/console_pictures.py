"""Pictures of the console for its documentation: light, dark and phone-sized, of a running engine.

    python tools/console_pictures.py docs/console

Needs jackd2, ecasound and jack-capture, Debian's ``chromium``, playwright and pedalboard. The engine plays the song of
``rtsep demo`` on a JACK server of its own.
"""

from __future__ import annotations

import argparse
import contextlib
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import soundfile
from PIL import Image
from playwright.sync_api import sync_playwright

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from rtsep.console.live import Console
from rtsep.control.record import add_record
from rtsep.control.registry import engine_registry
from rtsep.demo.song import render_song
from rtsep.engine import Engine
from rtsep.notes.live import LiveNotes
from rtsep.plugins.spec import PluginSpec
from rtsep.takes.live import LiveTakes
from tests.integration.jack import jack_server

CHROMIUM = "/usr/bin/chromium"
PICTURES: dict[str, dict[str, Any]] = {
    "dark": {"color_scheme": "dark", "viewport": {"width": 1280, "height": 860}},
    "light": {"color_scheme": "light", "viewport": {"width": 1280, "height": 860}},
    "phone": {"color_scheme": "dark", "viewport": {"width": 390, "height": 844}, "device_scale_factor": 2},
}
COLOURS = 255


def main() -> int:
    """Take the pictures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--model", default="default")
    arguments = parser.parse_args()
    arguments.folder.mkdir(parents=True, exist_ok=True)
    song = render_song(samplerate=48_000, seconds=20.0)
    with contextlib.ExitStack() as stack:
        name = stack.enter_context(tempfile.TemporaryDirectory())
        wav = Path(name) / "song.wav"
        # Before anything plays: 46 MB of fresh memory hold a small machine up.
        soundfile.write(wav, np.tile(song.mixture, 6).T, 48_000, subtype="FLOAT")
        server = stack.enter_context(jack_server())
        engine = stack.enter_context(Engine(arguments.model, tap=True))
        with LiveNotes(engine) as notes:
            registry = engine_registry(engine, notes)
            for path, value in (("stem/vocals/gain_db", -4.5), ("stem/drums/pan", -0.2), ("stem/bass/gain_db", 2.0)):
                registry.set(path, value)
            engine.set_chain("vocals", [PluginSpec("Compressor"), PluginSpec("Reverb", {"wet_level": 0.1})])
            engine.set_chain("master", [PluginSpec("Limiter", bypass=True)])
            server.play(wav)
            takes = LiveTakes(engine, Path(name) / "takes", notes)
            add_record(registry, takes)
            with takes, Console(engine, registry, notes, takes) as console:
                registry.set("record/on", True)
                take(console.link, arguments.folder)
    return 0


def take(link: str, folder: Path) -> None:
    """Open a page for each picture and wait until there is something to see."""
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        for name, look in PICTURES.items():  # one at a time: drawing without a graphics card takes most of a core
            context = browser.new_context(**look)
            page = context.new_page()
            page.on("console", lambda message: print(message.text, file=sys.stderr))
            page.on("pageerror", lambda error: print(error, file=sys.stderr))
            page.goto(link)
            page.get_by_role("slider", name="vocals gain").wait_for()
            time.sleep(14)
            path = folder / f"{name}.png"
            page.screenshot(path=path, full_page=name != "phone")
            context.close()
            with Image.open(path) as picture:
                picture.convert("RGB").quantize(COLOURS).save(path, optimize=True)
            print(f"{path}: {path.stat().st_size} bytes")
        browser.close()


if __name__ == "__main__":
    raise SystemExit(main())
