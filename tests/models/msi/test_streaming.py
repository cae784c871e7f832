"""The streaming form: causal, the same for every cut, and upstream's weights where upstream has them."""

from __future__ import annotations

import math
from collections.abc import Sequence

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from models.msi.layers import CausalConvBlock, CausalUpBlock
from models.msi.reference import CLASSES, PITCHES, SILENCE, ConvBlock, ReferenceMSI, UpBlock
from models.msi.streaming import MSIConfig, StreamingMSI, SynthStep, one_hot
from models.streaming.base import State
from tests.models.msi.small import CONFIG, MASKING, enliven, small_model

HOP = CONFIG.hop
both = pytest.mark.parametrize("config", [CONFIG, MASKING], ids=["magnitude", "mask"])


def example(
    hops: int, seed: int, dtype: torch.dtype = torch.float64, batch: int = 2
) -> tuple[Tensor, dict[str, Tensor]]:
    """Audio and controls that are not special."""
    generator = torch.Generator().manual_seed(seed)

    def draw(*shape: int) -> Tensor:
        return torch.rand(shape, generator=generator, dtype=torch.float64).to(dtype)

    audio = 0.4 * (draw(batch, 1, hops * HOP) - 0.5)
    return audio, {"query": 2 * draw(batch, 6) - 1, "score": draw(batch, PITCHES), "score_weight": draw(batch)}


@torch.no_grad()
def run(
    model: StreamingMSI, audio: Tensor, controls: dict[str, Tensor], sizes: Sequence[int] | None = None
) -> tuple[dict[str, Tensor], State]:
    """Outputs by name, joined over chunks of `sizes` hops, and the last state."""
    pieces: list[dict[str, Tensor]] = []
    state, start = None, 0
    for size in sizes or [audio.shape[-1] // HOP]:
        chunk = audio[..., start * HOP : (start + size) * HOP]
        stems, notes, state = model(chunk, state, controls)
        pieces.append({"stems": stems, **notes})
        start += size
    axes = {"stems": 3, "onset": 2, "frame": 2, "velocity": 2}
    assert state is not None
    return {name: torch.cat([p[name] for p in pieces], axis) for name, axis in axes.items()}, state


@both
@settings(max_examples=10, deadline=None)
@given(sizes=st.lists(st.integers(1, 5), min_size=1, max_size=6), seed=st.integers(0, 2**16))
def test_any_cut_gives_the_same_output_and_state(config: MSIConfig, sizes: list[int], seed: int) -> None:
    model = small_model(config).double()
    audio, controls = example(sum(sizes), seed)
    whole, state = run(model, audio, controls)
    cut, cut_state = run(model, audio, controls, sizes)
    for name, expected in whole.items():
        torch.testing.assert_close(cut[name], expected, rtol=1e-9, atol=1e-9)
    assert cut_state.keys() == state.keys() == model.initial_state(1).keys()
    for key, expected in state.items():
        torch.testing.assert_close(cut_state[key], expected, rtol=1e-9, atol=1e-9)


@both
@settings(max_examples=8, deadline=None)
@given(now=st.integers(1, 9), seed=st.integers(0, 2**16))
def test_the_future_never_changes_the_past(config: MSIConfig, now: int, seed: int) -> None:
    model = small_model(config)
    audio, controls = example(10, seed, torch.float32)
    other = audio.clone()
    other[..., now * HOP :] *= -30
    before, _ = run(model, audio, controls)
    after, _ = run(model, other, controls)
    assert torch.equal(before["stems"][..., : now * HOP], after["stems"][..., : now * HOP])
    for name in ("onset", "frame", "velocity"):
        assert torch.equal(before[name][:, :, :now], after[name][:, :, :now])
    assert not torch.equal(before["stems"], after["stems"])


def test_items_of_a_batch_do_not_meet() -> None:
    model = small_model().double()
    audio, controls = example(6, 1)
    both, _ = run(model, audio, controls)
    second, _ = run(model, audio[1:], {name: value[1:] for name, value in controls.items()})
    for name, value in second.items():
        torch.testing.assert_close(both[name][1:], value, rtol=1e-9, atol=1e-9)


@both
def test_the_stems_add_up_to_the_delayed_audio_and_the_query_is_a_part_of_it(config: MSIConfig) -> None:
    model = small_model(config)
    audio, controls = example(20, 3, torch.float32)
    stems = run(model, audio, controls)[0]["stems"]
    delayed = torch.nn.functional.pad(audio, (model.latency, 0))[..., : audio.shape[-1]]
    torch.testing.assert_close(stems.sum(1), delayed, atol=1e-6, rtol=0)
    share = float(stems[:, 0].square().sum() / delayed.square().sum())
    assert 0.01 < share < 0.99


@both
def test_silence_gives_exact_silence(config: MSIConfig) -> None:
    model = small_model(config)
    audio, controls = example(40, 4, torch.float32)
    audio[..., : 10 * HOP] = 0.0
    stems = run(model, audio, controls)[0]["stems"]
    assert not stems[..., : 10 * HOP].any()
    assert stems[..., 12 * HOP :].any()


@both
def test_a_query_changes_what_is_extracted(config: MSIConfig) -> None:
    model = small_model(config)
    audio, controls = example(10, 5, torch.float32)
    first, _ = run(model, audio, controls)
    second, _ = run(model, audio, {**controls, "query": -controls["query"]})
    assert not torch.allclose(first["stems"], second["stems"], atol=1e-4)


def test_without_controls_they_have_their_defaults() -> None:
    model = small_model()
    audio, controls = example(4, 6, torch.float32)
    defaults = {
        spec["name"]: torch.tensor(spec["default"]).reshape(1, *spec["shape"]).expand(2, *spec["shape"])
        for spec in model.controls
    }
    assert defaults.keys() == controls.keys()
    expected, _ = run(model, audio, defaults)
    with torch.no_grad():
        stems, _, _ = model(audio)
    assert torch.equal(stems, expected["stems"])


def test_a_score_leads_as_far_as_its_weight_says() -> None:
    model = small_model()
    audio, controls = example(8, 7, torch.float32)
    nothing = {**controls, "score_weight": torch.zeros(2)}
    own, _ = run(model, audio, nothing)
    ignored, _ = run(model, audio, {**nothing, "score": torch.zeros(2, PITCHES)})
    assert torch.equal(own["stems"], ignored["stems"])

    score = torch.zeros(2, PITCHES)
    score[0, 40] = 1.0  # a note; the other item rests
    given, _ = run(model, audio, {**controls, "score": score, "score_weight": torch.ones(2)})
    torch.testing.assert_close(given["frame"][:, 0], score[:, None].expand(2, 8, PITCHES), atol=1e-6, rtol=0)
    assert not torch.allclose(given["stems"], own["stems"], atol=1e-4)
    half, _ = run(model, audio, {**controls, "score": score, "score_weight": torch.full((2,), 0.5)})
    torch.testing.assert_close(half["frame"], (own["frame"] + given["frame"]) / 2, atol=1e-6, rtol=0)


@given(score=st.lists(st.floats(0, 1), min_size=PITCHES, max_size=PITCHES))
@settings(max_examples=20, deadline=None)
def test_posteriors_of_any_score_are_a_distribution(score: list[float]) -> None:
    model = small_model()
    controls = {"score": torch.tensor([score]), "score_weight": torch.ones(1)}
    posteriors = model.posteriors(torch.zeros(1, CLASSES, 3), controls)
    assert float(posteriors.min()) >= 0
    torch.testing.assert_close(posteriors.sum(1), torch.ones(1, 3))


def test_onsets_are_rises_and_velocity_is_the_stems_level() -> None:
    model = small_model()
    posteriors = torch.zeros(1, CLASSES, 4)
    posteriors[0, SILENCE] = torch.tensor([1.0, 0.2, 0.1, 1.0])
    posteriors[0, 12] = 1 - posteriors[0, SILENCE]
    tone = torch.sin(2 * math.pi * 1000 * torch.arange(4 * HOP) / 16000)[None, None]
    re, im, _, _ = model.stft(tone)
    magnitude = (re.square() + im.square()).sqrt()
    before = torch.zeros(1, PITCHES)
    before[0, 12] = 0.3
    notes, last = model._notes(posteriors, magnitude, before)
    assert notes["frame"].shape == (1, 1, 4, PITCHES)
    torch.testing.assert_close(notes["frame"][0, 0, :, 12], torch.tensor([0.0, 0.8, 0.9, 0.0]))
    torch.testing.assert_close(notes["onset"][0, 0, :, 12], torch.tensor([0.0, 0.8, 0.1, 0.0]))
    torch.testing.assert_close(last, notes["frame"][:, 0, -1])
    # A full-scale sine has velocity 1, one of a thousandth (-60 dB) nearly 0; where no note is heard there is none.
    quiet, _ = model._notes(posteriors, 1e-3 * magnitude, before)
    assert float(notes["velocity"][0, 0, 2, 12]) == pytest.approx(1.0, abs=0.02)
    assert float(quiet["velocity"][0, 0, 2, 12]) == pytest.approx(0.05, abs=0.02)
    assert not notes["velocity"][0, 0, 0].any()


def test_compression_is_undone_by_expansion() -> None:
    model = small_model()
    magnitude = torch.tensor([0.0, 1e-6, 1e-3, 0.2, 1.0])
    torch.testing.assert_close(model.expand(model.compress(magnitude)), magnitude, atol=1e-7, rtol=1e-3)
    assert float(model.expand(torch.tensor(-3.0))) == pytest.approx(0.0, abs=1e-7)
    linear = StreamingMSI(MSIConfig())
    assert float(linear.compress(torch.tensor(1.0))) == pytest.approx(512.0)  # a full-scale sine, in upstream's scale


def test_features_of_a_recording_are_those_of_the_stream() -> None:
    model = small_model()
    audio, _ = example(9, 8, torch.float32)
    re, im, _, _ = model.stft(audio)
    expected = model.compress(model.bands.merge((re.square() + im.square()).sqrt()))
    uneven = torch.nn.functional.pad(audio[:, 0], (0, HOP - 1))  # what is left over is not looked at
    torch.testing.assert_close(model.features(uneven), expected, atol=1e-5, rtol=1e-5)


@torch.no_grad()
def test_timbre_is_averaged_over_the_frames_that_sound() -> None:
    model = small_model()
    audio, controls = example(30, 9, torch.float32)
    features, query = model.features(audio[:, 0]), controls["query"]
    maps = model.timbre(features, query)
    assert [tuple(x.shape) for x in maps] == [(2, *shape) for shape in model.shapes]
    longer = torch.cat([features, torch.zeros(2, 1, 25, features.shape[-1])], 2)
    for a, b in zip(maps, model.timbre(longer, query), strict=True):
        torch.testing.assert_close(a, b)
    levels, _ = model.encoder(features, query)
    filtered, _ = model.timbre_filter(levels)
    torch.testing.assert_close(maps[1], filtered[1].mean(2))
    for x in model.timbre(torch.zeros_like(features), query):  # silence is no division by zero
        assert torch.isfinite(x).all()


@torch.no_grad()
def test_a_convolution_lags_upstreams_by_one_frame() -> None:
    torch.manual_seed(0)
    x = torch.randn(2, 3, 9, 8)
    theirs, ours = enliven(ConvBlock(3, 4)).eval(), CausalConvBlock(3, 4, 8).eval()
    ours.load_state_dict({key.replace("conv.", "conv.conv.", 1): v for key, v in theirs.state_dict().items()})
    torch.testing.assert_close(ours(x)[0][:, :, 2:], theirs(x)[:, :, 1:-1])

    skip = torch.randn(2, 2, 9, 16)
    up, causal = enliven(UpBlock(3, 2)).eval(), CausalUpBlock(3, 2, 8).eval()
    weights = up.state_dict()
    causal.load_state_dict(
        {
            key: weights[key.replace(".conv.conv.", ".conv.").replace("conv.conv.", "conv.", 1)]
            for key in causal.state_dict()
        }
    )
    later = torch.nn.functional.pad(skip, (0, 0, 1, 0))[:, :, :-1]
    # Up by one frame, over the skip by another.
    torch.testing.assert_close(causal(x, later)[0][:, :, 3:], up(x, skip)[:, :, 1:-2])


def test_upstreams_weights_fit_and_are_taken_over() -> None:
    torch.manual_seed(3)
    reference = ReferenceMSI()
    model = StreamingMSI.from_reference(reference)
    assert sum(p.numel() for p in model.parameters()) == 3_828_330
    theirs = sorted(float(v.double().sum()) for v in reference.state_dict().values())
    assert sorted(float(v.double().sum()) for v in model.state_dict().values()) == theirs
    a, b = reference.state_dict(), model.state_dict()
    assert torch.equal(a["transcriptor.layers.1.conv1.conv.weight"], b["transcriptor.layers.1.conv1.conv.conv.weight"])
    with pytest.raises(ValueError, match="must be 'MSI', which has all parts, got 'MSS'"):
        StreamingMSI.from_reference(ReferenceMSI("MSS"))


@torch.no_grad()
def test_the_synth_is_the_decoder_on_a_still_timbre() -> None:
    model = small_model()
    step = SynthStep(model).eval()
    generator = torch.Generator().manual_seed(2)
    timbre = [torch.rand(1, *shape, generator=generator) for shape in model.shapes]
    notes = torch.zeros(1, 30, PITCHES)
    notes[0, 3:15, 39], notes[0, 15:25, 51] = 1.0, 0.7
    whole, state = step(notes, timbre)
    assert whole.shape == (1, 30, model.stft.dft.bins)
    assert float(whole.min()) >= 0
    frames, carried = [], None
    for n in range(30):
        frame, carried = step(notes[:, n : n + 1], timbre, carried)
        frames.append(frame)
    torch.testing.assert_close(torch.cat(frames, 1), whole, atol=1e-5, rtol=1e-4)
    assert carried is not None
    assert carried.keys() == state.keys() == step.initial_state(1).keys()
    assert not torch.allclose(whole[:, 10], whole[:, 20], atol=1e-5)  # another note, another spectrum


@both
def test_training_outputs_reach_every_parameter(config: MSIConfig) -> None:
    model = small_model(config).train()
    generator = torch.Generator().manual_seed(5)
    audio = torch.randn(2, 40 * HOP, generator=generator)
    recordings = torch.randn(2, 2, 2, 30 * HOP, generator=generator)
    classes = torch.randint(CLASSES, (2, 40), generator=generator)
    outputs = model.training_outputs(audio, recordings, -audio, classes)
    assert {name: tuple(value.shape) for name, value in outputs.items()} == {
        "queries": (2, 2, 2, 6),
        "logits": (2, CLASSES, 40),
        "mask" if config.mask else "magnitude": (2, 1, 40, 128),
        "synthesis": (1, 1, 40, 128),  # half of the batch
    }
    sum(value.square().mean() for value in outputs.values()).backward()  # type: ignore[union-attr]
    assert [name for name, p in model.named_parameters() if p.grad is None or not p.grad.any()] == []


@torch.no_grad()
def test_the_second_mixture_gives_the_timbre_and_not_the_notes() -> None:
    model = small_model()
    generator = torch.Generator().manual_seed(6)
    audio, second = torch.randn(2, 1, 20 * HOP, generator=generator)
    recordings = torch.randn(1, 2, 2, 20 * HOP, generator=generator)
    one = model.training_outputs(audio, recordings)
    two = model.training_outputs(audio, recordings, second)
    assert torch.equal(one["logits"], two["logits"])
    assert not torch.allclose(one["magnitude"], two["magnitude"], atol=1e-4)
    same = model.training_outputs(audio, recordings, audio)
    torch.testing.assert_close(same["magnitude"], one["magnitude"])


def test_one_hot_of_classes() -> None:
    classes = torch.tensor([[3, SILENCE]])
    assert one_hot(classes).argmax(1).tolist() == classes.tolist()
    assert float(one_hot(classes).sum()) == 2.0


def test_configs_round_trip_and_say_what_is_wrong() -> None:
    assert (
        MSIConfig.from_dict({k: list(v) if isinstance(v, tuple) else v for k, v in CONFIG.to_dict().items()}) == CONFIG
    )
    with pytest.raises(TypeError, match="width"):
        MSIConfig.from_dict({"width": 3})
    with pytest.raises(ValueError, match=r"above 0 and at most 1, got 1\.5"):
        MSIConfig(compression=1.5)
    with pytest.raises(ValueError, match="multiple of 4 and at least 8, got 130"):
        StreamingMSI(MSIConfig(edges=(4, 256), channels=(2, 2, 2), transcriptor_channels=(2,), window=512))
