"""Remixed segments, and the sums per band that training uses instead of bins."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch

from models.data.library import Song, load_source
from models.data.readers import STEMS, Source
from models.data.remix import RemixConfig, RemixDataset
from models.data.spectra import SpectralDataset
from models.losses import band_snr_loss, windowed_snr_loss
from models.openunmix.streaming import StreamingOpenUnmix, StreamingOpenUnmixConfig
from tests.models.data.conftest import RATE

WEIGHTS = {"songs": 1.0, "solo": 0.5}


@pytest.fixture
def material(songs: Path, tmp_path: Path) -> list[Song]:
    whole = Source("songs", str(songs), "folders", "none")
    solo = Source("solo", str(songs.parent / "solo"), "solo", "none", stem="vocals")
    return [song for s in (whole, solo) for song in load_source(s, RATE, tmp_path / "cache")]


def test_the_stream_is_a_function_of_the_seed(material: list[Song]) -> None:
    def first(seed: int) -> np.ndarray:
        data = iter(RemixDataset(material, WEIGHTS, RemixConfig(seconds=1.0), RATE, seed))
        return torch.stack([next(data) for _ in range(3)]).numpy()

    np.testing.assert_array_equal(first(1), first(1))
    assert not np.array_equal(first(1), first(2))


def test_segments_are_whole_and_within_full_scale(material: list[Song]) -> None:
    data = RemixDataset(material, WEIGHTS, RemixConfig(seconds=1.5, level_db=(0.0, 20.0)), RATE, 0)
    rng = np.random.default_rng(0)
    segments = np.stack([data.segment(rng) for _ in range(40)])
    assert segments.shape == (40, len(STEMS), 2, 12000)
    assert segments.dtype == np.float32
    assert np.abs(segments.sum(1)).max() <= 1.0 + 1e-5
    silent = ~segments.any(axis=(2, 3))
    assert 0 < silent.sum() < silent.size / 2, "stems are absent now and then"


def test_other_of_an_incomplete_song_is_never_a_target(material: list[Song]) -> None:
    data = RemixDataset(material, WEIGHTS, RemixConfig(seconds=1.0), RATE, 0)
    assert "song3" in [s.name for s in data.pools["vocals"][0]]
    assert "song3" not in [s.name for s in data.pools["other"][0]]
    assert "song3" not in [s.name for s in data.whole[0]]
    for _, chances in (*data.pools.values(), data.whole):
        assert chances.sum() == pytest.approx(1.0)


def test_another_voice_sings_over_instruments_that_play_together(material: list[Song]) -> None:
    def first(**values: float) -> np.ndarray:
        config = RemixConfig(seconds=1.0, coherent=1.0, drop=0.0, solo_stem=0.0, level_db=(-20.0, -20.0), **values)
        return RemixDataset(material, WEIGHTS, config, RATE, 0).segment(np.random.default_rng(5))

    def balance(stems: np.ndarray) -> np.ndarray:
        return stems / np.abs(stems[0]).max()

    own, foreign = balance(first()), balance(first(other_voice=1.0))
    vocals = STEMS.index("vocals")
    assert np.abs(own[vocals]).max() > 0
    assert not np.allclose(own[vocals], foreign[vocals], atol=1e-3)
    # The first three of the drawn values are the same, so the instruments are.
    others = [i for i in range(len(STEMS)) if i != vocals]
    np.testing.assert_allclose(own[others], foreign[others], rtol=0, atol=1e-5)


def test_a_compressor_over_the_mixture_leaves_the_stems_their_shares(material: list[Song]) -> None:
    rng = np.random.default_rng(2)
    data = RemixDataset(material, WEIGHTS, RemixConfig(seconds=1.0), RATE, 0)
    loud = np.zeros((2, RATE), np.float32)
    loud[:, RATE // 2 :] = np.sin(np.arange(RATE // 2) * 0.3)
    loud[:, : RATE // 2] = 0.05 * np.sin(np.arange(RATE // 2) * 0.3)
    gains = [data._compression(rng, loud) for _ in range(20)]
    for gain in gains:
        assert gain.shape == (RATE,)
        assert 0.0 < gain.min() <= gain.max() <= 1.0
        assert gain[-RATE // 8] <= gain[RATE // 4], "what is loud is turned down"
    assert np.mean([gain[-RATE // 8] for gain in gains]) < 0.9
    config = RemixConfig(seconds=1.0, glue=1.0, solo_stem=0.0, drop=0.0)
    segment = RemixDataset(material, WEIGHTS, config, RATE, 0).segment(np.random.default_rng(3))
    assert np.abs(segment.sum(0)).max() <= 1.0 + 1e-5


def test_steady_noise_is_in_other(material: list[Song]) -> None:
    config = RemixConfig(seconds=1.0, noise=1.0, drop=1.0, solo_stem=0.0, level_db=(0.0, 0.0))
    data = RemixDataset(material, WEIGHTS, config, RATE, 0)
    levels_db = []
    for seed in range(30):
        segment = data.segment(np.random.default_rng(seed))
        others = [i for i, stem in enumerate(STEMS) if stem != "other"]
        assert not segment[others].any()
        audio = segment[STEMS.index("other")]
        halves = [float(np.sqrt(np.mean(np.square(half)))) for half in np.array_split(audio, 2, axis=1)]
        assert 0.25 < halves[0] / halves[1] < 4.0
        levels_db.append(20 * np.log10(np.sqrt(np.mean(np.square(audio)))))
    assert -66 < min(levels_db) < -50 < -40 < max(levels_db) < -24


def test_pairs_are_taken_as_they_are_and_only_when_asked_for(songs: Path, tmp_path: Path) -> None:
    folder, rng = tmp_path / "pairs", np.random.default_rng(1)
    folder.mkdir()
    for name in ("a_1", "b_1"):
        for part in ("vocals", "accompaniment"):
            soundfile.write(folder / f"{name}.{part}.flac", 0.1 * rng.standard_normal(4 * RATE), RATE)
    (folder / "c_1.vocals.flac").write_bytes((folder / "a_1.vocals.flac").read_bytes())
    source = Source("pairs", str(folder), "karaoke", "none", exclude=("b_*",))
    pairs = load_source(source, RATE, tmp_path / "cache")
    assert [song.name for song in pairs] == ["a_1"], "b is left out, and c has no accompaniment"
    whole = load_source(Source("songs", str(songs), "folders", "none"), RATE, tmp_path / "cache")
    without = RemixDataset([*whole, *pairs], {"songs": 1.0, "pairs": 1.0}, RemixConfig(seconds=1.0), RATE, 0)
    assert all("pairs" not in {s.source for s in pool} for pool, _ in (*without.pools.values(), without.whole))
    config = RemixConfig(seconds=1.0, pairs=True, coherent=1.0, drop=0.0, solo_stem=0.0)
    data = RemixDataset(pairs + whole, {"songs": 1e-9, "pairs": 1.0}, config, RATE, 0)
    segment = data.segment(np.random.default_rng(0))
    loud = dict(zip(STEMS, segment.any(axis=(1, 2)), strict=True))
    assert loud == {"drums": False, "bass": False, "other": True, "vocals": True}
    for pool, _ in data.pools.values():
        assert "pairs" not in {song.source for song in pool}


@pytest.fixture
def model() -> StreamingOpenUnmix:
    torch.manual_seed(0)
    return StreamingOpenUnmix(StreamingOpenUnmixConfig(window=256, hop=64, edges=(16, 32, 64, 128), hidden=16)).eval()


def test_band_loss_is_the_loss_on_bins(material: list[Song], model: StreamingOpenUnmix) -> None:
    data = RemixDataset(material, WEIGHTS, RemixConfig(seconds=1.0, solo_stem=0.0, drop=0.0), RATE, 0)
    stems = data.segment(np.random.default_rng(3))[..., : 124 * 64]
    features, a, c, d = SpectralDataset(data, model).transform(stems)
    batch = torch.from_numpy(stems)
    re, im, _, _ = model.stft(batch)  # stems as the batch: [S, C, N, F]
    mix_re, mix_im = re.sum(0, keepdim=True), im.sum(0, keepdim=True)
    torch.testing.assert_close(features, model.features(mix_re, mix_im)[0], atol=2e-4, rtol=0)

    masks, _ = model.band_masks(features[None])
    wide = model.bands.spread(masks)[0, ..., :-1]  # [S, C, N, F]; the Nyquist bin belongs to no band
    re, im, mix_re, mix_im = (x[..., :-1] for x in (re, im, mix_re, mix_im))
    error = (wide * mix_re - re).square() + (wide * mix_im - im).square()
    window, tau = 31, 10 ** (-20 / 10)
    floor = tau * (mix_re.square() + mix_im.square())[0]
    worked_out = []
    for stem in range(len(STEMS)):
        for start in range(0, 124, window):
            part = (slice(None), slice(start, start + window))
            quiet = floor[part].sum() + 1e-6
            target = (re[stem].square() + im[stem].square())[part].sum()
            worked_out.append(10 * torch.log10((error[stem][part].sum() + quiet) / (target + quiet)))
    expected = torch.stack(worked_out).mean()
    loss = band_snr_loss(masks, a[None], c[None], d[None], window, threshold_db=-20.0)
    torch.testing.assert_close(loss, expected, atol=1e-3, rtol=0)


def test_waveform_loss_by_hand() -> None:
    target = torch.zeros(1, 2, 1, 200)
    target[0, 0, 0, :100], target[0, 1, 0, 100:] = 1.0, 2.0
    estimate = 0.5 * target
    tau = 0.01
    ratios = [
        (25 + tau * 100) / (100 + tau * 100),
        (100 + tau * 400) / (400 + tau * 400),
        1.0,  # a silent stem, estimated as silent
        1.0,
    ]
    loss = windowed_snr_loss(estimate, target, 100, threshold_db=-20.0)
    assert float(loss) == pytest.approx(np.mean(10 * np.log10(ratios)), abs=1e-3)
