"""Stems to notes: times, cuts, delays, mutes."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
from hypothesis import given, settings
from hypothesis import strategies as st

from rtsep.errors import ModelNotFoundError, StemNotFoundError, UsageError
from rtsep.notes.stream import StemEvent, StemNotes, bends_of, kind_of_stem, notes_of, unbegun
from rtsep.notes.tracker import TrackedEvent
from rtsep.query.notes import Bend
from rtsep.query.transcribe import transcribe
from rtsep.zoo.registry import read_info
from tests.notes.conftest import LENGTH_S, MELODY, melody
from tests.support.graphs import make_delay_model

Files = dict[str, Path]


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_delay_model(tmp_path_factory.mktemp("m") / "model.onnx", hop=512, latency=512)


def stems_of(rate: int, playing: int, count: int = 4) -> np.ndarray:
    stems = np.zeros((count, 2, round((LENGTH_S + 0.5) * rate)), np.float32)
    stems[playing, :, : round(LENGTH_S * rate)] = melody(rate, 2)
    return stems


def listen(notes: StemNotes, stems: np.ndarray, cuts: list[int]) -> list[StemEvent]:
    events: list[StemEvent] = []
    at = 0
    for cut in [*cuts, stems.shape[2]]:
        end = min(at + cut, stems.shape[2])
        events += notes.push(stems[:, :, at:end])
        at = end
    return events + notes.reset()


@pytest.mark.parametrize("latency", ["tight", "normal", "quality"])
@pytest.mark.parametrize(("rate", "stem"), [(44100, 1), (48000, 2), (48000, 3)])
def test_notes_are_those_played_in_time_and_of_the_stem(
    model: Path, transcribers: Files, latency: str, rate: int, stem: int
) -> None:
    notes = StemNotes(read_info(model), rate, latency, transcribers=transcribers)
    found = notes_of(listen(notes, stems_of(rate, stem), [512] * 300), 0.0, LENGTH_S)
    assert set(found) == {stem}
    assert [note.pitch for note in found[stem]] == [pitch for _, _, pitch in MELODY]
    for note, (start, end, _) in zip(found[stem], MELODY, strict=True):
        assert note.start_s == pytest.approx(start, abs=0.025)
        assert note.end_s == pytest.approx(end, abs=0.06)


@settings(max_examples=15, deadline=None)
@given(st.lists(st.integers(1, 9000), max_size=30))
def test_cuts_change_nothing(cuts: list[int]) -> None:
    import tempfile

    from tests.support.transcriber_graphs import make_transcriber

    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        model = make_delay_model(folder / "m.onnx", stems=("piano", "other"), hop=512, latency=512)
        files = {"polyphonic": make_transcriber(folder / "t.onnx")}
        info = read_info(model)
        whole = listen(StemNotes(info, 48000, transcribers=files), stems_of(48000, 0, 2), [])
        assert listen(StemNotes(info, 48000, transcribers=files), stems_of(48000, 0, 2), cuts) == whole


def test_bends_follow_the_pitch_of_those_stems_that_were_asked_for(model: Path, transcribers: Files) -> None:
    info, rate = read_info(model), 48000
    plain = listen(StemNotes(info, rate, transcribers=transcribers), stems_of(rate, 3), [512] * 300)
    bent = StemNotes(info, rate, transcribers=transcribers, bends=[info.stems[3]])
    shift_each_push(bent, 0.3)
    events = listen(bent, stems_of(rate, 3), [512] * 300)
    assert [replace(e, bend=0.0) for e in events if e.kind != "bend"] == plain
    sounding = None
    for event in events:
        if event.kind == "on":
            sounding = event.pitch
        elif event.kind == "off":
            sounding = None
        else:
            assert event.pitch == sounding
            assert event.stem == 3
    assert {round(e.bend, 3) for e in events if e.kind == "on"} == {0.3}
    changes = bends_of(events, 0.0, LENGTH_S)[3]
    assert {round(b.semitones, 3) for b in changes} == {0.3}
    assert notes_of(events, 0.0, LENGTH_S) == notes_of(plain, 0.0, LENGTH_S)
    bent.set_bends([])
    assert not [e for e in listen(bent, stems_of(rate, 3), []) if e.kind == "bend"]


def test_bends_of_a_note_end_where_the_next_one_turns_out_to_have_begun() -> None:
    events = [
        StemEvent(0, "on", 60, 90, 1.0, 0.1),
        StemEvent(0, "bend", 60, 0, 1.2, 0.2),
        StemEvent(0, "bend", 60, 0, 1.5, 1.9),
        StemEvent(0, "off", 60, 0, 1.45),
        StemEvent(0, "on", 62, 90, 1.45, -0.1),
        StemEvent(0, "bend", 62, 0, 1.52, 0.0),
        StemEvent(0, "off", 62, 0, 2.0),
    ]
    assert bends_of(events, 0.0, 9.0) == {0: [Bend(1.0, 0.1), Bend(1.2, 0.2), Bend(1.45, -0.1), Bend(1.52, 0.0)]}
    assert bends_of(events, -1.1, 0.4) == {0: [Bend(pytest.approx(0.1), 0.2), Bend(pytest.approx(0.35), -0.1)]}


def test_a_note_that_is_struck_again_in_the_moment_of_a_mute_still_ends() -> None:
    off, on = TrackedEvent("off", 60, 0, 5.0), TrackedEvent("on", 60, 90, 5.0)
    late = TrackedEvent("off", 60, 0, 6.0)
    assert unbegun([off, on, late]) == [off]
    assert unbegun([on, late]) == []
    assert unbegun([off]) == [off]


def shift_each_push(notes: StemNotes, semitones: float) -> None:
    """Let the monophonic transcriber hear everything sharp."""
    for group in notes._groups:
        push = group.transcriber.push

        def sharp(audio: np.ndarray, push: Any = push) -> dict[str, np.ndarray]:
            found = dict(push(audio))
            if "pitch" in found:
                found["pitch"] = np.where(found["pitch"] > 0, found["pitch"] + np.float32(semitones), 0)
            return found

        group.transcriber.push = sharp  # type: ignore[method-assign]


def test_nothing_is_given_out_later_than_declared(model: Path, transcribers: Files) -> None:
    rate = 48000
    for latency in ("tight", "normal", "quality"):
        notes = StemNotes(read_info(model), rate, latency, transcribers=transcribers)
        stems, hop = stems_of(rate, 2), 240
        late = []
        for at in range(0, stems.shape[2] - hop, hop):
            for event in notes.push(stems[:, :, at : at + hop]):
                if event.kind == "on":
                    late.append((at + hop) / rate - event.time_s - notes.delays_s[event.stem])
        assert len(late) == len(MELODY)
        assert max(late) <= 0


def test_muted_stem_ends_its_notes_and_begins_none(model: Path, transcribers: Files) -> None:
    notes = StemNotes(read_info(model), 48000, transcribers=transcribers)
    stems = stems_of(48000, 2)
    half = round(0.6 * 48000)
    first = notes.push(stems[:, :, :half])
    assert [e.kind for e in first] == ["on"]
    rest = [e for at in range(half, stems.shape[2], 480) for e in notes.push(stems[:, :, at : at + 480], heard=0b1011)]
    assert [(e.kind, e.pitch) for e in rest] == [("off", 60)]


def test_silence_and_faint_hiss_give_no_notes(model: Path, transcribers: Files) -> None:
    notes = StemNotes(read_info(model), 44100, transcribers=transcribers)
    hiss = np.random.default_rng(0).normal(0, 3e-4, (4, 2, 88200)).astype(np.float32)
    assert listen(notes, hiss, []) == []


def test_names_of_stems_choose_their_transcriber() -> None:
    assert [kind_of_stem(name) for name in ("Drums", "vocals", "bass", "other", "piano")] == [
        "drums", "monophonic", "monophonic", "polyphonic", "polyphonic",
    ]  # fmt: skip


def test_says_what_is_missing(model: Path, transcribers: Files) -> None:
    info = read_info(model)
    with pytest.raises(ModelNotFoundError, match="no monophonic transcriber for bass, vocals"):
        StemNotes(info, 44100, transcribers={"drums": transcribers["drums"], "polyphonic": transcribers["polyphonic"]})
    with pytest.raises(UsageError, match="is a drums transcriber"):
        StemNotes(info, 44100, transcribers={**transcribers, "polyphonic": transcribers["drums"]})
    with pytest.raises(StemNotFoundError):
        StemNotes(info, 44100, transcribers=transcribers, stems=["vocal"])
    with pytest.raises(UsageError, match="has no latency"):
        StemNotes(info, 44100, "slow", transcribers=transcribers)


def test_a_file_through_separator_and_transcribers(model: Path, transcribers: Files, tmp_path: Path) -> None:
    soundfile.write(tmp_path / "a.wav", melody(44100, 2).T, 44100, subtype="FLOAT")
    found = transcribe(tmp_path / "a.wav", model, transcribers=transcribers, stems=["other", "bass"])
    assert set(found.notes) == {"other", "bass"}
    for notes in found.notes.values():
        assert [note.pitch for note in notes] == [pitch for _, _, pitch in MELODY]
        assert [note.start_s for note in notes] == pytest.approx([start for start, _, _ in MELODY], abs=0.025)
