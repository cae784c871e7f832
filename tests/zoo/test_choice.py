"""The model that is taken when none is named."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest

from rtsep.errors import RtsepError, UsageError
from rtsep.zoo import choice as choices
from rtsep.zoo.choice import Choice, Timing, candidates, choose, load, store

BEST = Timing("metatasnet-low", 5.0, 30.0, 0.5, 0.0)
GOOD = Timing("openunmix-low", 4.0, 23.0, 0.2, 0.005)
HEAVY = Timing("heavy", 6.0, 90.0, 0.9, 0.3)
CHEAP = Timing("cheap", 1.0, 10.0, 0.1, 0.0)


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("RTSEP_CONFIG_DIR", str(tmp_path / "settings"))
    return tmp_path / "settings"


def test_the_best_sounding_that_is_held_is_chosen() -> None:
    choice = choose([CHEAP, GOOD, HEAVY, BEST], "a cpu")
    assert choice.model == BEST.model
    assert "3 models" in choice.why
    assert [t.model for t in choice.timings] == ["heavy", "metatasnet-low", "openunmix-low", "cheap"]
    assert choice.ladder() == ["metatasnet-low", "openunmix-low", "cheap"]
    assert choose([CHEAP, GOOD, HEAVY, BEST], "a cpu", 25.0).model == GOOD.model


def test_where_none_is_held_the_cheapest_is_chosen_and_that_is_said() -> None:
    late = dataclasses.replace(GOOD, late=0.2)
    choice = choose([HEAVY, late], "a cpu")
    assert (choice.model, choice.ladder()) == (late.model, [late.model])
    assert "none" in choice.why


def test_a_limit_that_none_keeps_is_an_error() -> None:
    with pytest.raises(UsageError, match=r"5 ms or less.*10\.0 ms"):
        choose([CHEAP, GOOD], "a cpu", 5.0)


def test_a_choice_is_kept_for_this_machine_only(home: Path) -> None:
    assert load("a cpu") is None
    choice = choose([GOOD, CHEAP], "a cpu")
    assert store(choice).parent == home
    assert load("a cpu") == choice
    assert load("another cpu") is None
    store(Choice("gone", "", "a cpu", ()))
    assert load("a cpu") is None  # a model that is not there any more


@pytest.mark.parametrize("text", ["", "{", "[]", '{"timings": 3}', '{"model": "low", "timings": []}'])
def test_a_damaged_file_is_no_choice(home: Path, text: str) -> None:
    home.mkdir()
    (home / choices.FILE).write_text(text)
    assert load("a cpu") is None


def test_a_folder_that_cannot_be_written_is_a_clear_error(home: Path) -> None:
    home.write_text("in the way")
    with pytest.raises(RtsepError, match="RTSEP_CONFIG_DIR"):
        store(choose([GOOD], "a cpu"))


def test_candidates_are_the_four_stem_models_with_figures() -> None:
    found = candidates()
    names = [entry.name for entry, _ in found]
    assert "openunmix-low" in names
    assert not {"msi-low", "cunet-low"} & set(names)
    assert [sdr for _, sdr in found] == sorted((sdr for _, sdr in found), reverse=True)
