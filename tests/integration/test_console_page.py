"""What the console's page does when something comes between: lost connections, tables that change, other hands."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from typing import Any

import pytest

from rtsep.audio.backends import DummyConfig
from rtsep.console.live import Console
from rtsep.control.parameter import Parameter
from rtsep.control.registry import Registry, engine_registry
from rtsep.engine import Engine
from tests.integration.browser import fader, opened, until
from tests.support.graphs import make_delay_model

pytestmark = pytest.mark.integration

GAIN = "stem/vocals/gain_db"


@pytest.fixture(scope="module")
def engine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Engine]:
    model = make_delay_model(tmp_path_factory.mktemp("m") / "m.onnx", hop=512, latency=700)
    with Engine(model, backend=DummyConfig(source="noise"), tap=True) as running:
        yield running


@pytest.fixture
def registry(engine: Engine) -> Registry:
    registry = engine_registry(engine)
    for path, parameter in registry.parameters.items():
        registry.set(path, parameter.default)
    return registry


@pytest.fixture
def page(browser: Any, console: Console) -> Iterator[Any]:
    with opened(browser, console, quiet=False) as page:  # connections are lost on purpose
        yield page


class Hand:
    """A mouse on the cap of the vocals' fader."""

    def __init__(self, page: Any) -> None:
        cap = fader(page).locator(".cap").bounding_box()
        self.page, self.x, self.y = page, cap["x"] + cap["width"] / 2, cap["y"] + cap["height"] / 2
        page.mouse.move(self.x, self.y)
        page.mouse.down()

    def pull(self, pixels: float) -> float:
        """Move the fader down; return where it says that it stands."""
        self.y += pixels
        self.page.mouse.move(self.x, self.y)
        return float(fader(self.page).get_attribute("aria-valuenow"))

    def release(self) -> None:
        self.page.mouse.up()


def test_a_drag_goes_on_over_a_lost_connection(page: Any, console: Console, registry: Registry) -> None:
    hand = Hand(page)
    first = hand.pull(20)
    until(lambda: registry.get(GAIN) == first, "the first move")
    os.kill(console.pid, signal.SIGKILL)
    page.wait_for_selector("#connection[data-state='lost']")
    hand.pull(10)
    page.wait_for_selector("#notice:has-text('nothing was changed')")
    page.wait_for_selector("#connection[data-state='open']")
    second = hand.pull(10)
    assert second < first - 1
    until(lambda: registry.get(GAIN) == second, "the move after it")
    hand.release()
    assert float(fader(page).get_attribute("aria-valuenow")) == second
    # The page has the whole table again, and what is set now is what it shows.
    registry.set(GAIN, -1.5)
    page.wait_for_selector(f"[data-path='{GAIN}'][aria-valuenow='-1.5']")


def test_what_was_wanted_while_nobody_answered_is_not_shown_for_ever(page: Any, console: Console) -> None:
    os.kill(console.pid, signal.SIGKILL)
    page.wait_for_selector("#connection[data-state='lost']")
    page.get_by_role("button", name="drums mute").click()
    page.wait_for_selector("#connection[data-state='open']")
    page.wait_for_selector("button[data-path='stem/drums/mute'][aria-pressed='false']")


def test_a_connection_that_falls_silent_is_noticed_and_comes_back(page: Any, console: Console) -> None:
    os.kill(console.pid, signal.SIGSTOP)
    try:
        page.wait_for_selector("#connection[data-state='lost']")
        page.wait_for_selector("#notice:has-text('does not answer')")
    finally:
        os.kill(console.pid, signal.SIGCONT)
    page.wait_for_selector("#connection[data-state='open']")
    assert page.locator("#notice").is_hidden()


def test_a_table_that_changes_leaves_the_hand_its_fader(page: Any, registry: Registry) -> None:
    hand = Hand(page)
    first = hand.pull(20)
    registry.add(Parameter("control/new", "float", 0.0, 1.0, 0.5))
    until(lambda: registry.get(GAIN) == first, "the first move")
    page.wait_for_timeout(500)  # longer than the news takes
    second = hand.pull(15)
    assert second < first - 0.5
    until(lambda: registry.get(GAIN) == second, "the second move")
    hand.release()
    page.get_by_role("slider", name="control/new").wait_for()
    assert float(fader(page).get_attribute("aria-valuenow")) == second
    registry.remove("control/new")
    page.get_by_role("slider", name="control/new").wait_for(state="detached")


def test_of_two_hands_on_one_fader_the_last_wins_on_both_pages(
    browser: Any, console: Console, page: Any, registry: Registry
) -> None:
    with opened(browser, console, quiet=False) as other:
        hand = Hand(page)
        held = hand.pull(20)
        other.wait_for_selector(f"[data-path='{GAIN}'][aria-valuenow='{held:g}']")
        fader(other).press("Home")
        until(lambda: registry.get(GAIN) == -120.0, "the other hand's")
        other.wait_for_selector(f"[data-path='{GAIN}'][aria-valuenow='-120']")
        assert float(fader(page).get_attribute("aria-valuenow")) == held, "it stays where the hand is"
        hand.release()
        page.wait_for_selector(f"[data-path='{GAIN}'][aria-valuenow='-120']")


def test_a_second_finger_does_not_pull_a_fader_away(page: Any, registry: Registry) -> None:
    hand = Hand(page)
    held = hand.pull(20)
    page.evaluate(
        """(path) => { const slider = document.querySelector(`[data-path="${path}"]`);
        for (const kind of ['pointerdown', 'pointermove', 'pointerup']) slider.dispatchEvent(new PointerEvent(kind,
            { pointerId: 77, clientX: 0, clientY: 5, button: 0, bubbles: true })); }""",
        GAIN,
    )
    assert float(fader(page).get_attribute("aria-valuenow")) == held
    moved = hand.pull(10)
    assert moved < held
    hand.release()
    until(lambda: registry.get(GAIN) == moved, "the first finger's")


def test_names_are_text(page: Any, registry: Registry) -> None:
    name = "<img src=x onerror='window.ran=1'>"
    registry.add(Parameter("control/odd", "choice", default=name, choices=(name, "\"'&"), label=name))
    page.get_by_role("combobox", name=name).wait_for()
    assert page.locator("#others img").count() == 0
    assert page.evaluate("window.ran") is None
    registry.remove("control/odd")


def test_a_list_of_plugins_adds_nothing_by_itself(page: Any, engine: Engine) -> None:
    pytest.importorskip("pedalboard")
    offered = page.get_by_role("combobox", name="Add a plugin to bass")
    offered.focus()
    for _ in range(3):
        page.keyboard.press("ArrowDown")
    page.keyboard.press("Escape")
    page.keyboard.press("r")
    until(lambda: offered.input_value(), "a choice")
    go = page.get_by_role("button", name="Add to bass")
    go.wait_for()
    assert engine.chains["bass"] == ()
    name = offered.input_value()
    go.press("Enter")
    until(lambda: engine.chains["bass"], "the plugin")
    assert engine.chains["bass"][0].label == name
    page.locator("[data-slot='bass/0']").press("Enter")
    page.get_by_role("dialog").get_by_role("button", name="Remove").press("Enter")
    until(lambda: not engine.chains["bass"], "its end")
    page.wait_for_selector("[data-slot='bass/0']", state="detached")
    assert page.evaluate("document.activeElement.dataset.slot") == "bass/add"


def test_nothing_that_moves_many_times_a_second_is_read_aloud(page: Any) -> None:
    """An `output`, or what is marked so, is announced at every change: levels and times must be none of these."""
    page.wait_for_timeout(300)
    live = page.evaluate(
        """() => new Promise((done) => { const found = new Set();
        const watch = new MutationObserver((changes) => { for (const { target } of changes) {
            const element = target.nodeType === 1 ? target : target.parentElement;
            const box = element.closest('output, [role=status], [role=alert], [aria-live]');
            if (box && box.id !== 'events') found.add(box.outerHTML.slice(0, 80)); } });
        watch.observe(document.body, { subtree: true, childList: true, characterData: true });
        setTimeout(() => done([...found]), 2000); })"""
    )
    assert live == []
