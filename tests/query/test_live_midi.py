"""Keys that are played: what they do, the synthesiser under them, and the score they make."""

from __future__ import annotations

import time
from pathlib import Path

import numpy as np
import pytest
import soundfile
from hypothesis import given
from hypothesis import strategies as st

from rtsep.audio.backends import FileConfig
from rtsep.query.graphs import SynthGraph
from rtsep.query.live_synth import LiveSynth
from rtsep.query.midi_in import Keys, PlayedNote
from rtsep.query.queries import Query
from tests.support.pitch import cents, pitch_of
from tests.support.query_graphs import hertz

ON, OFF, CONTROL = 0x90, 0x80, 0xB0


def press(keys: Keys, *messages: tuple[int, int, int]) -> list[tuple[bool, int, int]]:
    return [(n.on, n.pitch, n.velocity) for message in messages for n in keys.take(message)]


def test_note_on_with_velocity_0_is_an_end() -> None:
    assert press(Keys(), (ON, 60, 90), (ON, 60, 0)) == [(True, 60, 90), (False, 60, 0)]


def test_pedal_holds_until_it_comes_up() -> None:
    keys = Keys()
    assert press(keys, (CONTROL, 64, 127), (ON, 60, 90), (OFF, 60, 0), (ON, 62, 80)) == [(True, 60, 90), (True, 62, 80)]
    assert press(keys, (CONTROL, 64, 0)) == [(False, 60, 0)]
    assert press(keys, (OFF, 62, 0)) == [(False, 62, 0)]


def test_a_key_struck_again_ends_first() -> None:
    assert press(Keys(), (ON, 60, 90), (ON, 60, 50)) == [(True, 60, 90), (False, 60, 0), (True, 60, 50)]


def test_all_notes_off_percussion_and_other_messages() -> None:
    keys = Keys()
    assert press(keys, (ON, 60, 90), (ON | 9, 36, 90), (0xE0, 0, 64), (CONTROL, 123, 0)) == [
        (True, 60, 90),
        (False, 60, 0),
    ]
    assert keys.take((0xF8,)) == []


@given(
    st.lists(
        st.one_of(
            st.tuples(st.sampled_from([ON, OFF]), st.integers(60, 63), st.integers(0, 127)),
            st.tuples(st.just(CONTROL), st.just(64), st.sampled_from([0, 127])),
        )
    )
)
def test_every_beginning_has_one_end(messages: list[tuple[int, int, int]]) -> None:
    keys, sounding = Keys(), set()
    for on, pitch, _ in press(keys, *messages, (CONTROL, 123, 0)):
        assert (pitch in sounding) is not on
        (sounding.add if on else sounding.remove)(pitch)
    assert not sounding


@pytest.mark.parametrize("rate", [44100, 48000])
def test_synthesiser_plays_what_is_played_when_it_is_played(
    family: Path, query: Query, tmp_path: Path, rate: int
) -> None:
    soundfile.write(tmp_path / "silence.wav", np.zeros((rate * 2, 2), np.float32), rate)
    config = FileConfig(str(tmp_path / "silence.wav"), str(tmp_path / "out.wav"), blocksize=128)
    synth = LiveSynth(SynthGraph(family, query), config)
    with synth:
        began = time.monotonic()
        time.sleep(0.5)
        pressed = time.monotonic() - began
        synth.play(PlayedNote(True, 69, 100))
        synth.play(PlayedNote(True, 12, 100))  # below its range
        time.sleep(0.6)
        synth.play(PlayedNote(False, 69))
        while synth.running and time.monotonic() - began < 8:
            time.sleep(0.02)
    assert synth.error is None
    assert (synth.notes, synth.left_out, synth.voices) == (1, 1, 0)
    audio = soundfile.read(tmp_path / "out.wav", dtype="float32")[0][:, 0]
    loud = np.flatnonzero(np.abs(audio) > 0.01)
    # `pressed` is measured beside the device's clock, which began a little earlier.
    assert -0.02 < loud[0] / rate - pressed < synth.latency_ms / 1000 + 0.1
    assert abs(cents(pitch_of(audio[loud[0] + rate // 10 : loud[0] + rate // 2], rate), hertz(69))) < 10
    assert np.abs(audio[loud[0] + round(0.9 * rate) :]).max() == 0.0
