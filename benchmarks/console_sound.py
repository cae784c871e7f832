"""Measure how long it takes until what is done on the console's page is heard; JSON on stdout.

    python benchmarks/console_sound.py --times 20 > sound.json

Headless Chromium presses Mute, or adds a plugin to a stem, again and again; the engine plays a constant on a JACK
server without a sound card, whose output is recorded with the time of day beside it. Milliseconds from the click (the
browser's own time of the event) to the first sample that is another one, p50 and maximum; for plugins also where they
went: until the page sends, until the control process acts, until the engine has loaded it, and until it is heard. A
change that falls together with a late hop counts like any other. ``largest_step`` is the largest difference of two
neighbouring samples as a part of full scale: a click is nearly 1.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import shutil
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import soundfile

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from rtsep.cli.common import machine
from rtsep.console.live import Console
from rtsep.control.registry import engine_registry
from rtsep.engine import Engine
from tests.integration.heard import LEVEL, RATE, change_after, did, largest_step, recording, watch_events
from tests.integration.jack import INSTALL, JackServer, jack_server, missing_tools
from tests.support.graphs import make_delay_model
from tests.support.stalls import machine_stalls

_BATCH = 5
_SENT = """() => { window.sent = []; const send = WebSocket.prototype.send;
    WebSocket.prototype.send = function (text) {
        window.sent.push([performance.timeOrigin / 1000 + performance.now() / 1000, String(text)]);
        return send.call(this, text); }; }"""


class Rig:
    """The page, the engine, and a note of when the control process asked and got its answer."""

    def __init__(self, page: Any, engine: Engine, server: JackServer, folder: Path) -> None:
        self.page, self.engine, self.server, self.folder = page, engine, server, folder
        self.asked: list[float] = []
        self.answered: list[float] = []
        add = engine.add_plugin

        def noted(*words: Any, **more: Any) -> None:
            self.asked.append(time.time())
            add(*words, **more)
            self.answered.append(time.time())

        engine.add_plugin = noted  # type: ignore[method-assign]

    def mute(self, times: int) -> dict[str, Any]:
        """Press Mute on and off."""
        button = self.page.get_by_role("button", name="vocals mute")

        def press() -> None:
            button.click()
            time.sleep(0.5)

        return self._measured(times, lambda i: press())

    def plugin(self, name: str, times: int) -> dict[str, Any]:
        """Add a plugin to the vocals and take it out again."""
        page = self.page

        def add(i: int) -> None:
            page.get_by_role("combobox", name="Add a plugin to vocals").select_option(name)
            page.get_by_role("button", name="Add to vocals").click()
            page.wait_for_selector("[data-slot='vocals/0']")
            time.sleep(0.4)
            self.engine.remove_plugin("vocals", 0)
            page.wait_for_selector("[data-slot='vocals/0']", state="detached")
            time.sleep(0.3 + 0.0037 * (i % 5))

        return self._measured(times, add, sends='"do":"add"')

    def _measured(self, times: int, act: Any, sends: str | None = None) -> dict[str, Any]:
        late, took, steps, parts = self.engine.stats().late_hops, [], [], []
        for begin in range(0, times, _BATCH):
            count = min(_BATCH, times - begin)
            self.page.evaluate("() => { window.did.length = 0; window.sent.length = 0; }")
            self.asked.clear()
            self.answered.clear()
            with recording(self.server, self.folder / "take.wav", 3.0 + 1.6 * count) as takes:
                time.sleep(0.5)
                for i in range(count):
                    act(begin + i)
            at, levels = takes[0]
            clicks = did(self.page, "click")
            heard = [change_after(at, levels, click)[0] for click in clicks]
            took += heard
            steps.append(largest_step(levels[levels > 0.01]))
            if sends:
                sent = [when for when, text in self.page.evaluate("window.sent") if sends in text]
                edges = np.array([clicks, sent, self.asked, self.answered, clicks + np.array(heard) / 1000])
                parts.append(1000 * np.diff(edges, axis=0))
        found: dict[str, Any] = {
            "times": len(took),
            "p50_ms": round(float(np.median(took)), 1),
            "max_ms": round(float(max(took)), 1),
            "late_hops": self.engine.stats().late_hops - late,
            "largest_step": round(max(steps), 4),
        }
        if parts:
            names = ("page_ms", "to_control_ms", "loading_ms", "to_sound_ms")
            middle = np.median(np.concatenate(parts, axis=1), axis=1)
            found |= {name: round(float(value), 1) for name, value in zip(names, middle, strict=True)}
        return found


@contextlib.contextmanager
def opened_page(link: str) -> Iterator[Any]:
    """Chromium without a window, with the console's page."""
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=shutil.which("chromium"), args=["--no-sandbox"])
        page = browser.new_page()
        page.add_init_script(f"({_SENT})()")
        page.goto(link)
        page.get_by_role("slider", name="vocals gain").wait_for()
        yield page
        browser.close()


def main() -> int:
    """Run everything and print one JSON document."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--times", type=int, default=20, help="of each kind")
    parser.add_argument("--plugins", default="Gain,Reverb,Delay", help="built-in effects, or names of the list")
    arguments = parser.parse_args()
    if missing := [*missing_tools(), *([] if shutil.which("chromium") else ["chromium"])]:
        print(f"{', '.join(missing)} not installed; run: {INSTALL} chromium", file=sys.stderr)
        return 1
    names = arguments.plugins.split(",")
    seconds = 60.0 + (1 + len(names)) * (3.0 * arguments.times + 30.0)
    document: dict[str, Any] = {"machine": machine(), "load_average": round(os.getloadavg()[0], 2)}
    with contextlib.ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        model = make_delay_model(folder / "m.onnx", hop=512, latency=700, gains=(0.25, 0.125, 0.125, 0.5))
        soundfile.write(folder / "constant.wav", np.full((int(seconds * RATE), 2), LEVEL, np.float32), RATE, "FLOAT")
        server = stack.enter_context(jack_server())
        engine = stack.enter_context(Engine(model, tap=True))
        server.play(folder / "constant.wav")
        console = stack.enter_context(Console(engine, engine_registry(engine)))
        page = stack.enter_context(opened_page(console.link))
        watch_events(page)
        time.sleep(2.0)
        rig = Rig(page, engine, server, folder)
        with machine_stalls() as stalls:
            document["first " + names[0]] = rig.plugin(names[0], 1)
            document["mute"] = rig.mute(arguments.times)
            for name in names:
                document[name] = rig.plugin(name, arguments.times)
        document["machine_stalls"], document["longest_stall_ms"] = stalls.count, round(stalls.longest_ms, 1)
    print(json.dumps(document, indent=2))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
