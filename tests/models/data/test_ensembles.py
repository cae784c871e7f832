"""Rendered ensembles: the stems are the mixture, and the notes are where the audio says."""

from __future__ import annotations

import itertools
import json
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import soundfile
from torch.utils.data import DataLoader

from models.data.ensembles import (
    SCORES,
    EnsembleConfig,
    EnsembleDataset,
    Orchestra,
    StemPlayers,
    in_range,
    melodic_line,
    read_scores,
)
from models.data.instruments import load_instruments
from models.data.notes import HIGHEST_MIDI, LOWEST_MIDI, Note, NotedStem
from tests.models.data.recorded_notes import RATE, pitch_of, tone, write_notes

PLAIN = EnsembleConfig(shift=0, equaliser=0.0, room=0.0, absent=0.0, sizes=(1.0,))


@pytest.fixture(scope="module")
def orchestra(tmp_path_factory: pytest.TempPathFactory) -> Orchestra:
    folder = tmp_path_factory.mktemp("orchestra")
    return Orchestra(load_instruments(write_notes(folder / "notes"), RATE, folder / "cache"), read_scores())


def runs(roll: np.ndarray) -> list[tuple[int, int, int]]:
    """(first frame, frame after the last, MIDI number) of each note."""
    edges = [0, *(np.flatnonzero(np.diff(roll)) + 1).tolist(), len(roll)]
    return [(a, b, int(roll[a])) for a, b in itertools.pairwise(edges) if roll[a]]


def test_the_chorales_are_voices_within_reach() -> None:
    assert SCORES.stat().st_size < 300_000
    kept, held_out = read_scores(), read_scores(held_out=True)
    assert len(held_out) == pytest.approx((len(kept) + len(held_out)) / 5, abs=1)
    assert not [score for score in held_out if score in kept]
    for score in kept + held_out:
        assert len(score) == 4
        pitches = [midi for voice in score for midi, _ in voice if midi]
        assert LOWEST_MIDI < min(pitches) <= max(pitches) < HIGHEST_MIDI
        lengths = [sum(duration for _, duration in voice) for voice in score]
        assert min(lengths) > 8
        assert all(duration > 0 for voice in score for _, duration in voice)
        medians = [np.median([midi for midi, _ in voice if midi]) for voice in score]
        assert medians[0] > medians[3]  # soprano over bass
    assert len(json.loads(SCORES.read_text())["chorales"]) == len(kept) + len(held_out)


def test_random_lines_have_rests_and_are_long_enough() -> None:
    lines = [melodic_line(np.random.default_rng(seed), 30.0) for seed in range(20)]
    assert all(30 <= sum(duration for _, duration in line) < 35 for line in lines)
    assert any(midi == 0 for line in lines for midi, _ in line)
    assert len({midi % 12 for line in lines for midi, _ in line if midi}) == 12


def test_notes_are_where_the_audio_says(orchestra: Orchestra) -> None:
    checked = 0
    for seed in range(12):
        rng = np.random.default_rng(seed)
        name = orchestra.instruments[seed % 3]
        audio, roll = orchestra.ensemble(rng, [name], 4.0, [0])[0](0)
        assert audio.shape == (4 * RATE,)
        assert roll.shape == (400,)
        level = np.sqrt(np.mean(audio.reshape(400, -1) ** 2, axis=1))  # [N]
        for first, last, midi in runs(roll):
            if first >= 5 and not roll[first - 5 : first].any():  # begins from silence
                assert level[first - 1 : first + 2].max() > 0.05
                quiet = roll[first - 12 : first]
                if first >= 12 and not quiet.any():
                    assert level[first - 2] < 0.02 * level[first : first + 10].max()
            if last - first >= 20 and last < 400:
                part = audio[(first + 6) * RATE // 100 : (last - 2) * RATE // 100]
                assert pitch_of(part) == pytest.approx(midi, abs=0.35)  # tuning up to 0.2
                checked += 1
    assert checked > 40


def test_every_onset_in_the_audio_is_a_note(orchestra: Orchestra) -> None:
    """Energy appears nowhere but under a note or its release."""
    for seed in range(8):
        audio, roll = orchestra.ensemble(np.random.default_rng(100 + seed), ["reed"], 4.0, [0])[0](0)
        level = np.sqrt(np.mean(audio.reshape(400, -1) ** 2, axis=1))
        # From a frame before (onsets are rounded) to 140 ms after (the release).
        near = np.convolve(roll > 0, np.ones(16), "full")[1:401] > 0
        assert level[~near].max(initial=0.0) < 1e-3


def test_notes_of_the_same_pitch_are_struck_apart(orchestra: Orchestra) -> None:
    voice = [(60, 1.0)] * 6
    part = orchestra._part(np.random.default_rng(0), "horn", voice, 0.5, 0.0, 3.0, 0)
    _, roll = part(0)
    notes = runs(roll)
    assert len(notes) == 6
    assert all(b[0] - a[1] >= 3 for a, b in itertools.pairwise(notes))


def test_a_transposed_part_is_the_same_music(orchestra: Orchestra) -> None:
    part = orchestra.ensemble(np.random.default_rng(4), ["string"], 4.0, [0])[0]
    (first, roll), (again, same), (moved, higher) = part(0), part(0), part(1)
    assert np.array_equal(first, again)
    assert np.array_equal(roll, same)
    assert not np.array_equal(first, moved)
    a, b = runs(roll), runs(higher)
    assert len(a) == len(b) > 3
    assert all(abs(x[0] - y[0]) <= 1 for x, y in zip(a, b, strict=True))
    assert {(y[2] - x[2]) % 12 for x, y in zip(a, b, strict=True)} == {1}


def test_voices_are_moved_to_where_an_instrument_can_play(orchestra: Orchestra) -> None:
    horn, rng = orchestra.library["horn"], np.random.default_rng(0)
    line = list(range(80, 100))
    moved = in_range(line, horn, rng)
    assert all(horn.lowest <= midi <= horn.highest for midi in moved)
    assert all((a - b) % 12 == 0 for a, b in zip(line, moved, strict=True))
    assert in_range([], horn, rng) == []


def test_the_mixture_is_the_sum_of_its_stems(orchestra: Orchestra) -> None:
    data = EnsembleDataset([orchestra], [1.0], EnsembleConfig(sizes=(0.0, 1.0)), RATE, seed=0)
    rng = np.random.default_rng(1)
    rendered: list[np.ndarray] = []
    ensemble = orchestra.ensemble

    def spy(*arguments: object) -> object:
        parts = ensemble(*arguments)  # type: ignore[arg-type]
        return [lambda m, part=part: rendered.append(part(m)) or part(m) for part in parts]

    orchestra.ensemble = spy  # type: ignore[method-assign, assignment]
    try:
        plain = EnsembleDataset([orchestra], [1.0], PLAIN, RATE, seed=0).example(rng, "horn", ["reed", "string"])
        drawn = data.example(rng)
    finally:
        orchestra.ensemble = ensemble  # type: ignore[method-assign]
    horn, *others = (audio for audio, _ in rendered[:3])
    rest = plain["mixture"] - plain["target"]
    # What is not the target is the other two, each at some gain.
    gains, *_ = np.linalg.lstsq(np.stack(others, 1), rest, rcond=None)
    np.testing.assert_allclose(rest, np.stack(others, 1) @ gains, atol=1e-6)
    assert (gains > 0.01).all()
    scale = plain["target"] @ horn / (horn @ horn)
    np.testing.assert_allclose(plain["target"], scale * horn, atol=1e-6)
    assert np.array_equal(plain["roll"], rendered[0][1])
    assert drawn["mixture"].shape == (3 * RATE,)
    assert drawn["queries"].shape == (2, 2, 2 * RATE)
    assert {key: value.dtype for key, value in drawn.items()} == {
        "mixture": np.float32,
        "target": np.float32,
        "queries": np.float32,
        "roll": np.int64,
    }
    assert np.abs(drawn["mixture"]).max() < 1


def test_queries_are_two_recordings_each_of_two_instruments(
    orchestra: Orchestra, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = EnsembleDataset([orchestra], [1.0], PLAIN, RATE, seed=0)
    played: list[str] = []
    solo = orchestra.solo
    monkeypatch.setattr(orchestra, "solo", lambda rng, name, *rest: played.append(name) or solo(rng, name, *rest))
    queries = data.example(np.random.default_rng(3), "reed", ["string", "horn"])["queries"]
    assert played == ["reed", "reed", "string", "string"]
    assert queries.shape == (2, 2, 2 * RATE)
    assert not np.allclose(queries[0, 0], queries[0, 1], atol=1e-3)
    level = np.sqrt(np.mean(queries.reshape(2, 2, -1, 1600) ** 2, axis=-1))  # [2, 2, tenths of a second]
    sounding = level > 0.05 * level.max(-1, keepdims=True)
    assert sounding.mean() > 0.8  # hardly any rests


def test_now_and_then_the_instrument_does_not_play(orchestra: Orchestra) -> None:
    config = EnsembleConfig(absent=1.0, sizes=(1.0,))
    example = EnsembleDataset([orchestra], [1.0], config, RATE, seed=0).example(np.random.default_rng(0))
    assert not example["target"].any()
    assert not example["roll"].any()
    assert example["mixture"].any()


def test_the_second_mixture_has_other_notes_at_the_same_times(orchestra: Orchestra) -> None:
    config = EnsembleConfig(absent=0.0, room=0.0, equaliser=0.0, sizes=(1.0,), second_shift=4)
    data = EnsembleDataset([orchestra], [1.0], config, RATE, seed=0)
    likeness = []
    for seed in range(6):
        example = data.example(np.random.default_rng(seed))
        a, b = (np.sqrt(np.mean(example[key].reshape(60, -1) ** 2, axis=1)) for key in ("mixture", "second"))
        likeness.append(np.corrcoef(a, b)[0, 1])
        assert not np.allclose(example["mixture"], example["second"], atol=1e-3)
    assert np.median(likeness) > 0.6


def test_the_stream_is_a_function_of_seed_and_worker(orchestra: Orchestra) -> None:
    def take(seed: int, workers: int = 0) -> list[float]:
        data = EnsembleDataset([orchestra], [1.0], EnsembleConfig(), RATE, seed)
        batches = iter(DataLoader(data, 2, num_workers=workers))
        return [float(x) for _ in range(3) for x in next(batches)["mixture"].square().sum(-1)]

    assert take(1) == take(1)
    assert not set(take(1)) & set(take(2))


def test_configs_from_toml() -> None:
    assert EnsembleConfig.from_dict({"sizes": [0.5, 0.5], "level_db": [-20.0, -10.0]}).sizes == (0.5, 0.5)
    with pytest.raises(TypeError, match="tempo"):
        EnsembleConfig.from_dict({"tempo": 90})


@pytest.fixture
def stems(tmp_path: Path) -> list[NotedStem]:
    """A reed and a horn, each with four notes of half a second and half a second of rest between them."""
    out = []
    for k, name in enumerate(("reed", "horn")):
        notes = tuple(Note(0.5 + i, 1.0 + i, 55 + 5 * k + 2 * i) for i in range(4))
        audio = np.zeros(5 * 44100)
        for note in notes:
            start = int(note.onset * 44100)
            sound = tone(name, note.midi, 0.5, 44100)
            audio[start : start + len(sound)] = sound
        path = tmp_path / f"{name}.flac"
        soundfile.write(path, audio, 44100)
        out.append(NotedStem("piece", name, path, notes))
    return out


@pytest.mark.parametrize("semitones", [0, 3])
def test_excerpts_of_stems_keep_their_notes(stems: list[NotedStem], semitones: int) -> None:
    players = StemPlayers(stems, RATE)
    assert players.instruments == ("horn", "reed")
    checked = Counter[str]()
    for seed in range(8):
        parts = players.ensemble(np.random.default_rng(seed), ["reed", "horn"], 2.0, [0, 0])
        for name, part in zip(("reed", "horn"), parts, strict=True):
            audio, roll = part(semitones)
            assert audio.shape == (2 * RATE,)
            for first, last, midi in runs(roll):
                if last - first > 30:
                    sound = audio[(first + 4) * 160 : (last - 4) * 160]
                    assert pitch_of(sound) == pytest.approx(midi, abs=0.1)
                    checked[name] += 1
    assert min(checked.values()) > 5


def test_queries_of_stems_have_no_rests(stems: list[NotedStem]) -> None:
    players = StemPlayers(stems, RATE)
    audio = players.solo(np.random.default_rng(0), "horn", 4.0, 0)
    assert audio.shape == (4 * RATE,)
    level = np.sqrt(np.mean(audio.reshape(-1, 1600) ** 2, axis=1))
    assert level.min() > 0.3 * level.max()
    data = EnsembleDataset([players], [1.0], PLAIN, RATE, seed=0)
    assert data.example(np.random.default_rng(0))["mixture"].any()
