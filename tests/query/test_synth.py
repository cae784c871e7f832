"""The synthesiser: right pitches, steady tones, no clicks, bounded voices."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest

from rtsep.errors import GraphError, MetadataError, MidiFileError, ModelNotFoundError, QueryError, UsageError
from rtsep.query.graphs import SynthGraph
from rtsep.query.notes import Note
from rtsep.query.queries import Query
from rtsep.query.synth import MAX_VOICES, Synthesizer, asymmetric_windows, frequency, level_db, render
from tests.support.pitch import cents, pitch_of
from tests.support.query_graphs import HOP, RATE, WINDOW, make_family, make_step, make_synth


@pytest.fixture(scope="module")
def graph(family: Path, query: Query) -> SynthGraph:
    return SynthGraph(family, query)


def test_a_scale_has_the_right_pitches(graph: SynthGraph) -> None:
    pitches = [36, 43, 48, 50, 52, 53, 55, 57, 59, 60, 61, 66, 69, 72, 79, 84, 91, 96]
    audio = render([Note(0.4 * i, 0.4 * (i + 1), pitch, 100) for i, pitch in enumerate(pitches)], graph)
    for i, pitch in enumerate(pitches):
        begin = round((0.4 * i + 0.08) * RATE)
        found = pitch_of(audio[begin : begin + round(0.3 * RATE)])
        assert abs(cents(found, frequency(pitch))) < 5, (pitch, found)


@pytest.mark.parametrize(("pitch", "tolerance", "between_db"), [(40, 0.13, -25), (57, 0.03, -33), (85, 0.01, -60)])
def test_a_held_note_is_its_harmonics(
    graph: SynthGraph, query: Query, pitch: int, tolerance: float, between_db: float
) -> None:
    """Each harmonic has the timbre's amplitude and nothing lies between them: frames overlap in step.

    The test graph adds magnitudes, where the skirts of low notes' harmonics would add as complex numbers.
    """
    audio = render([Note(0.0, 2.0, pitch, 127)], graph)[8000:24000].astype(np.float64)
    wanted = query.timbre[0][0]
    time = np.arange(len(audio)) / RATE
    window = np.hanning(len(audio))
    rest = audio.copy()
    for number, amplitude in enumerate(wanted, start=1):
        if number * frequency(pitch) > RATE / 2:
            continue
        basis = np.exp(-2j * np.pi * number * frequency(pitch) * time)
        found = 2 * (audio * window * basis).sum() / window.sum()
        assert abs(found) == pytest.approx(amplitude, rel=tolerance), number
        rest -= (found * basis.conj()).real
    assert 20 * np.log10(np.std(rest) / np.std(audio)) < between_db


def test_notes_fade_in_and_out_without_a_click(graph: SynthGraph) -> None:
    audio = render([Note(0.2, 0.6, 69, 127), Note(0.6, 1.0, 69, 127), Note(1.0, 1.4, 76, 127)], graph)
    assert not audio[: round(0.2 * RATE)].any()
    # Above the highest harmonic (8 x 659 Hz) nothing but a click could have energy.
    spectra = np.abs(np.fft.rfft(np.lib.stride_tricks.sliding_window_view(audio, 256)[::32] * np.hanning(256)))
    high, low = spectra[:, 110:].sum(1), spectra[:, :100].sum(1)
    assert high.max() < 0.004 * low.max()
    end = round((1.4 + 0.07) * RATE)
    assert not audio[end:].any()
    assert len(audio) <= end + 3 * HOP


def test_phases_run_on_for_minutes(graph: SynthGraph) -> None:
    audio = render([Note(0.0, 60.0, 69, 127)], graph)
    for begin in (RATE, 58 * RATE):
        assert abs(cents(pitch_of(audio[begin : begin + 4800]), 440.0)) < 1
    assert np.std(audio[RATE : 2 * RATE]) == pytest.approx(np.std(audio[58 * RATE : 59 * RATE]), rel=1e-3)


def test_velocity_is_level(graph: SynthGraph) -> None:
    loud, soft = (render([Note(0, 0.5, 60, velocity)], graph) for velocity in (100, 50))
    assert level_db(loud) - level_db(soft) == pytest.approx(12.04, abs=0.01)
    assert level_db(np.zeros(3, np.float32)) == -np.inf


def test_voices_add_up(graph: SynthGraph) -> None:
    notes = [Note(0.0, 0.5, 60, 100), Note(0.1, 0.4, 64, 80), Note(0.2, 0.5, 67, 90)]
    together = render(notes, graph)
    alone = [render([note], graph) for note in notes]
    total = np.zeros(len(together))
    for audio in alone:
        total[: len(audio)] += audio[: len(total)]
    np.testing.assert_allclose(together, total, atol=1e-6)


def test_voices_are_bounded(graph: SynthGraph) -> None:
    cluster = [Note(0.0, 1.0, 40 + i, 64) for i in range(MAX_VOICES + 1)]
    with pytest.raises(MidiFileError, match=r"17 notes sound at once at 0\.0 s; 16 can be rendered"):
        render(cluster, graph)
    render(cluster[:-1], graph)
    synth = Synthesizer(graph)
    for i in range(MAX_VOICES):
        synth.note_on(40 + i)
    synth.note_off(45)
    synth.step()
    synth.note_on(80)  # takes the place of the one that fades
    assert synth.voices == MAX_VOICES
    synth.note_on(81)  # and now of the first
    assert sorted(voice.pitch for voice in synth._voices) == [41, 42, 43, 44, *range(46, 56), 80, 81]
    for pitch in range(21, 109):
        synth.note_off(pitch)
    for _ in range(8):
        last = synth.step()
    assert synth.voices == 0
    assert not last.any()


def test_overlapping_notes_of_a_pitch_go_on_to_the_end_of_the_later(graph: SynthGraph) -> None:
    audio = render([Note(0.0, 0.5, 60, 100), Note(0.3, 1.0, 60, 100)], graph)
    assert np.abs(audio[round(0.8 * RATE) : round(0.95 * RATE)]).max() > 0.1


def test_hop_by_hop_is_what_render_gives(graph: SynthGraph) -> None:
    synth = Synthesizer(graph)
    synth.note_on(60, 100)
    hops = [synth.step() for _ in range(20)]
    synth.note_off(60)
    while synth.voices:
        hops.append(synth.step())
    hops.append(synth.step())
    assert {hop.shape for hop in hops} == {(HOP,)}
    np.testing.assert_array_equal(np.concatenate(hops), render([Note(0.0, 0.2, 60, 100)], graph))


@pytest.mark.parametrize(("pitch", "velocity"), [(20, 64), (109, 64), (60, 0), (60, 128)])
def test_notes_that_cannot_be_played(graph: SynthGraph, pitch: int, velocity: int) -> None:
    with pytest.raises(UsageError, match="21 to 108"):
        Synthesizer(graph).note_on(pitch, velocity)


def test_the_windows_are_those_of_training() -> None:
    # Here, so that the other tests need no PyTorch.
    from models.streaming.stft import StreamingISTFT, StreamingSTFT

    analysis, synthesis = asymmetric_windows(WINDOW, HOP)
    stft = StreamingSTFT(WINDOW, HOP, channels=1)
    np.testing.assert_allclose(analysis, stft.analysis, rtol=1e-5, atol=1e-10)
    np.testing.assert_allclose(synthesis, StreamingISTFT(stft, streams=1).synthesis, rtol=1e-5, atol=1e-6)


def test_wrong_synths_are_refused(query: Query, tmp_path: Path) -> None:
    step = make_step(tmp_path / "msi.onnx")
    with pytest.raises(ModelNotFoundError, match="msi has no synthesiser"):
        SynthGraph(step, query)
    make_family(tmp_path)
    path = tmp_path / "msi.synth.onnx"
    with pytest.raises(QueryError, match=r"'oboe' is for the model other"):
        SynthGraph(step, dataclasses.replace(query, model="other"))
    with pytest.raises(QueryError, match=r"timbre/1 of shape None, .* rtsep enroll oboe\.wav"):
        SynthGraph(step, dataclasses.replace(query, timbre=query.timbre[:1]))
    make_synth(path, hop=2000)
    with pytest.raises(GraphError, match="window 2048 and hop 2000 do not fit"):
        SynthGraph(step, query)
    make_synth(path, window=1024)
    with pytest.raises(GraphError, match=r"\[1, 1, 513\] finite numbers"):
        SynthGraph(step, query)
    make_synth(path, colour="red")
    with pytest.raises(MetadataError, match="unknown key 'colour'"):
        SynthGraph(step, query)
    path.write_bytes((tmp_path / "msi.query.onnx").read_bytes())
    with pytest.raises(MetadataError, match="no 'rtsep-synth' metadata"):
        SynthGraph(step, query)
