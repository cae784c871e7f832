"""The streaming form: one graph for all cuts, faders that mean what they say, and no clicks."""

from __future__ import annotations

import dataclasses
import itertools
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from export.pipeline import Facts, export_model
from models.cunet.film import CONTROL_WIDTHS
from models.cunet.reference import CUNet, ReferenceConfig, keras_parameters
from models.cunet.streaming import LABELS, CUNetConfig, StreamingCUNet
from models.streaming.base import State, StreamingModule, prefixed, substate
from rtsep.inference import StreamingSession
from rtsep.mixer.faders import ConditionFaders
from tests.models.cunet.upstream import PARAMETERS
from tests.models.streaming.cases import Axis, Case, call, call_in_chunks

ROOT = Path(__file__).parents[3]
HOP = 16
SMALL = CUNetConfig(
    variant="complex_dense",
    window=64,
    hop=HOP,
    edges=(8, 16, 32),
    filters=(3, 4, 5),
    control_widths=(8, 9, 10),
    dilations=(1, 2, 3),
    samplerates=(8000,),
)
TEST = st.lists(st.integers(1, 5), min_size=1, max_size=8)


class Playing(StreamingModule):
    """The model with its faders standing somewhere, as a layer with one input."""

    def __init__(self, config: CUNetConfig, condition: tuple[float, ...] = (1.0, 0.2, 0.0, 0.7)) -> None:
        super().__init__()
        self.model, self.condition = StreamingCUNet(config), condition

    def forward(self, audio: Tensor, state: State | None = None) -> tuple[Tensor, State]:
        controls = {"condition": audio.new_tensor(self.condition).expand(audio.shape[0], 4)}
        stems, new = self.model(audio, substate(state, "model") if state is not None else None, controls)
        return stems, prefixed("model", new)


def case(name: str, **changes: Any) -> Case:
    config = dataclasses.replace(SMALL, **changes)
    channels = config.channels
    past = [2 * d for d in config.dilations]
    encoder = zip(((4 if channels == 2 else 1), *config.filters), past, (16, 8, 4), strict=False)
    decoder = zip((5, 8, 6), past[::-1], (2, 4, 8), strict=True)
    state = {"model.condition": (2, 4), "model.started": (2, 1), "model.stft.history": (2, channels, 48)}
    state |= {f"model.encoder.{i}.past": (2, *shape) for i, shape in enumerate(encoder)}
    state |= {f"model.decoder.{i}.past": (2, *shape) for i, shape in enumerate(decoder)}
    state["model.istft.tail"] = (2, channels, HOP)
    return Case(
        name,
        lambda: Playing(config),
        (Axis((2, channels, 0), HOP),),
        (Axis((2, 2, channels, 0), HOP),),
        state,
    )


CASES = [
    case("complex dense"),
    case("simple cnn, as upstream", variant="simple_cnn", features="magnitude", mask="sigmoid", channels=1),
]
every_case = pytest.mark.parametrize("case", CASES, ids=[c.name for c in CASES])


def built(config: CUNetConfig = SMALL) -> StreamingCUNet:
    """A model with random weights and statistics that are large enough to matter, in double precision."""
    module = Case("", lambda: StreamingCUNet(config), (), (), {}).module()
    assert isinstance(module, StreamingCUNet)
    with torch.no_grad():
        for layer in module.control.layers:  # narrow layers with random biases would fall silent
            layer.weight.mul_(4.0)
            layer.bias.abs_()
    return module


def noise(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64) * 0.3


def faders(*values: float, batch: int = 1) -> dict[str, Tensor]:
    return {"condition": torch.tensor(values, dtype=torch.float64).expand(batch, 4)}


@torch.no_grad()
def selected(model: StreamingCUNet, audio: Tensor, *values: float) -> Tensor:
    return model(audio, None, faders(*values, batch=audio.shape[0]))[0][:, 0]


# --- what holds for every streaming model -----------------------------------------------------------------------------


@every_case
@settings(max_examples=10, deadline=None)
@given(sizes=TEST, seed=st.integers(0, 2**16))
def test_any_cut_gives_the_same_output_and_state(case: Case, sizes: list[int], seed: int) -> None:
    module, inputs = case.module(), case.example(sum(sizes), seed)
    whole, state = call(module, inputs, None)
    cut, cut_state = call_in_chunks(case, module, inputs, sizes)
    torch.testing.assert_close(cut[0], whole[0], rtol=1e-9, atol=1e-9)
    assert {key: tuple(value.shape) for key, value in state.items()} == case.state
    assert {key: tuple(value.shape) for key, value in module.initial_state(2).items()} == case.state
    for key in state:
        torch.testing.assert_close(cut_state[key], state[key], rtol=1e-9, atol=1e-9)


@every_case
@settings(max_examples=8, deadline=None)
@given(now=st.integers(0, 11), seed=st.integers(0, 2**16))
def test_the_future_never_changes_the_past(case: Case, now: int, seed: int) -> None:
    module, (audio,) = case.module(torch.float32), case.example(12, seed, torch.float32)
    other = audio.clone()
    other[..., now * HOP :] *= -50.0
    (before,), _ = call(module, [audio], None)
    (after,), _ = call(module, [other], None)
    assert torch.equal(before[..., : now * HOP], after[..., : now * HOP])
    assert not torch.equal(before, after)


@every_case
def test_items_of_a_batch_do_not_meet(case: Case) -> None:
    module, (audio,) = case.module(), case.example(6, 1)
    (both,), _ = call(module, [audio], None)
    (second,), _ = call(module, [audio[1:]], None)
    torch.testing.assert_close(both[1:], second, rtol=1e-9, atol=1e-9)


@settings(max_examples=20, deadline=None)
@given(
    moves=st.lists(
        st.tuples(st.integers(1, 6), st.lists(st.floats(0, 1), min_size=4, max_size=4)), min_size=2, max_size=4
    ),
    seed=st.integers(0, 2**16),
    cuts=st.randoms(use_true_random=False),
)
def test_faders_moved_between_hops_give_the_same_however_the_hops_are_cut(moves: Any, seed: int, cuts: Any) -> None:
    """A chunk ends wherever a fader moves; between the moves it may be cut anywhere."""
    model = built()
    hops = sum(length for length, _ in moves)
    audio = noise(1, 2, hops * HOP, seed=seed)

    def play(pieces: Any) -> Tensor:
        out, state, start = [], None, 0
        with torch.no_grad():
            for length, condition in pieces:
                part = audio[..., start * HOP : (start + length) * HOP]
                stems, state = model(part, state, faders(*condition))
                out.append(stems)
                start += length
        return torch.cat(out, dim=-1)

    pieces = []
    for length, condition in moves:
        first = cuts.randint(0, length)
        pieces += [(size, condition) for size in (first, length - first) if size]
    one_by_one = [(1, condition) for length, condition in moves for _ in range(length)]
    expected = play(moves)
    torch.testing.assert_close(play(pieces), expected, rtol=0, atol=1e-9)
    torch.testing.assert_close(play(one_by_one), expected, rtol=0, atol=1e-9)


# --- what the faders mean ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("variant", CONTROL_WIDTHS)
@torch.no_grad()
def test_all_up_is_the_mixture_and_all_down_is_silence(variant: str) -> None:
    model = built(dataclasses.replace(SMALL, variant=variant))
    audio = noise(1, 2, 20 * HOP)
    late = torch.cat([torch.zeros(1, 2, HOP), audio[..., :-HOP]], dim=-1)
    torch.testing.assert_close(selected(model, audio, 1, 1, 1, 1), late, rtol=0, atol=1e-6)
    assert not selected(model, audio, 0, 0, 0, 0).any()
    torch.testing.assert_close(selected(model, audio, 0.3, 0.3, 0.3, 0.3), 0.3 * late, rtol=0, atol=1e-6)
    torch.testing.assert_close(model(audio)[0][:, 0], late, rtol=0, atol=1e-6)  # the default
    one_hot = [selected(model, audio, *row) for row in torch.eye(4).tolist()]
    for a, b in itertools.combinations(one_hot, 2):
        assert float((a - b).abs().max()) > 1e-4, "the condition has no say"


@torch.no_grad()
def test_stems_add_to_the_late_mixture_whatever_the_faders_do() -> None:
    model = built()
    audio = noise(2, 2, 20 * HOP)
    late = torch.cat([torch.zeros(2, 2, HOP), audio[..., :-HOP]], dim=-1)
    stems, _ = model(audio, None, faders(0.1, 1, 0.5, 0, batch=2))
    assert stems.shape == (2, 2, 2, 20 * HOP)
    torch.testing.assert_close(stems.sum(1), late, rtol=0, atol=1e-12)


@torch.no_grad()
def test_one_fader_alone_is_proportional_and_pulling_it_out_of_the_mix_is_too() -> None:
    model = built()
    audio = noise(1, 2, 30 * HOP)
    alone, without = selected(model, audio, 0, 0, 0, 1), selected(model, audio, 1, 1, 1, 0)
    mixture = selected(model, audio, 1, 1, 1, 1)
    for p in (0.05, 0.25, 0.5, 0.9):
        torch.testing.assert_close(selected(model, audio, 0, 0, 0, p), p * alone, rtol=0, atol=1e-9)
        expected = p * mixture + (1 - p) * without
        torch.testing.assert_close(selected(model, audio, 1, 1, 1, p), expected, rtol=0, atol=1e-9)


@torch.no_grad()
def test_masks_lie_between_the_lowest_and_the_highest_fader() -> None:
    model = built()
    condition = torch.rand(3, 1, 4, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    masks, _ = model.band_masks(noise(3, 9, 4 * 16), condition)
    assert masks.shape == (3, 2, 9, 16)
    lowest, highest = (x.view(3, 1, 1, 1) for x in (condition.amin(-1), condition.amax(-1)))
    assert bool(((masks >= lowest) & (masks <= highest)).all())
    assert float(masks.std()) > 0.01


@torch.no_grad()
def test_silence_gives_exact_silence_whatever_came_before() -> None:
    model = built()
    _, state = model(noise(1, 2, 30 * HOP), None, faders(0, 1, 0, 0.5))
    _, state = model(torch.zeros(1, 2, 5 * HOP, dtype=torch.float64), state, faders(0, 1, 0, 0.5))
    stems, _ = model(torch.zeros(1, 2, 10 * HOP, dtype=torch.float64), state, faders(1, 0, 0, 0.5))
    assert not stems.any()


@torch.no_grad()
def test_faders_start_where_they_stand_and_take_the_ramp_from_then_on() -> None:
    model = built(dataclasses.replace(SMALL, ramp_frames=4))
    state = model.initial_state(1)
    start, state = model.faders(torch.tensor([[1.0, 0, 0.5, 0.2]]), 2, state)
    assert start[0].tolist() == [pytest.approx([1.0, 0, 0.5, 0.2])] * 2
    moved, state = model.faders(torch.tensor([[0.0, 1.0, 0.5, 0.3]]), 3, state)
    np.testing.assert_allclose(moved[0], [[0.75, 0.25, 0.5, 0.3], [0.5, 0.5, 0.5, 0.3], [0.25, 0.75, 0.5, 0.3]])
    there, state = model.faders(torch.tensor([[0.0, 1.0, 0.5, 0.3]]), 2, state)
    np.testing.assert_allclose(there[0], [[0, 1, 0.5, 0.3]] * 2, atol=1e-7)


@torch.no_grad()
def test_moving_a_fader_does_not_click() -> None:
    """Tones below 2 kHz: what a step of a fader adds above 8 kHz stays 50 dB below what a step of a gain adds there.

    The front end is that of the shipped sizes; vocals go from 0 to 1 in steps, one every 20 hops.
    """
    config = CUNetConfig(filters=(4, 6, 8, 8, 8, 8), dilations=(1, 1, 2, 2, 4, 4), control_widths=(4, 5, 6))
    model = built(config)
    hop, rate, positions = config.hop, 44100, (0.0, 0.25, 0.5, 1.0, 0.0)
    time_s = torch.arange(len(positions) * 20 * hop, dtype=torch.float64) / rate
    tones = sum(torch.sin(2 * torch.pi * f * time_s + f) for f in (110.0, 220.7, 441.3, 880.1, 1760.9))
    assert isinstance(tones, Tensor)
    audio = 0.1 * tones.expand(1, 2, -1) * torch.sin(torch.pi * time_s / time_s[-1])  # from silence to silence

    state: Mapping[str, Tensor] | None = None
    out = []
    for index, position in enumerate(positions):
        part = audio[..., index * 20 * hop : (index + 1) * 20 * hop]
        stems, state = model(part, state, faders(0, 0, 0, position))  # type: ignore[arg-type]
        out.append(stems[0, 0, 0])
    heard = torch.cat(out)
    level = [float(part[10 * hop :].square().mean().sqrt()) for part in out]
    assert level[0] == 0.0
    assert level[1] < level[2] < level[3]

    def high(signal: Tensor) -> Tensor:
        """Highest level above 8 kHz in windows of a quarter of a hop around each step."""
        windows = signal.unfold(0, 1024, 128) * torch.hann_window(1024, dtype=torch.float64)
        spectrum = torch.fft.rfft(windows)
        return spectrum[:, int(8000 / rate * 1024) :].abs().amax()

    gains = torch.tensor(positions, dtype=torch.float64).repeat_interleave(20 * hop)
    jump = gains * selected(model, audio, 0, 0, 0, 1)[0, 0]
    still = selected(model, audio, 0, 0, 0, 1)[0, 0]
    assert float(high(jump)) > 100 * float(high(still)), "the comparison must have a click to find"
    assert float(high(heard)) < float(high(jump)) * 10 ** (-50 / 20)
    assert float(high(heard)) < 3 * float(high(still)), "no more than the signal's own"


# --- sizes, upstream's weights, export --------------------------------------------------------------------------------


@pytest.mark.parametrize("variant", CONTROL_WIDTHS)
def test_the_original_sizes_have_upstreams_weights(variant: str) -> None:
    model = StreamingCUNet(CUNetConfig.original(variant))
    assert keras_parameters(model) == PARAMETERS[variant]
    assert (model.channels, model.samplerates, model.hop_samples, model.bands.bands) == (1, (8192,), 256, 512)


@pytest.mark.parametrize("variant", ["complex_dense", "simple_cnn"])
@torch.no_grad()
def test_upstreams_weights_initialise_it(variant: str) -> None:
    torch.manual_seed(0)
    reference = CUNet(ReferenceConfig(variant, (3, 4, 5), (4, 5, 6), window=64, hop=HOP)).eval()  # type: ignore[arg-type]
    model = StreamingCUNet.from_reference(reference).eval()
    assert model.config.filters == (3, 4, 5)
    assert model.config.dilations == (1, 2, 4)
    # Upstream's order is bass, drums, rest, vocals.
    for label, place in zip(LABELS, (1, 0, 2, 3), strict=True):
        theirs = torch.zeros(1, 4)
        theirs[0, place] = 1.0
        mine = torch.zeros(1, 4)
        mine[0, LABELS.index(label)] = 1.0
        assert reference.control is not None
        for a, b in zip(reference.control(theirs), model.control(model._stretch(mine)[2]), strict=True):
            torch.testing.assert_close(a[0], b[0])
            torch.testing.assert_close(a[1], b[1])
    for mine, theirs in zip(model.decoder, reference.decoder, strict=True):
        torch.testing.assert_close(mine.conv.weight, 0.5 * theirs.weight.transpose(2, 3))
    audio = noise(1, 1, 40 * HOP).float()
    stems, _ = model(audio, None, {"condition": torch.tensor([[0.0, 0, 0, 1]])})
    assert torch.isfinite(stems).all()
    assert float(stems[:, 0].abs().max()) > 0
    with pytest.raises(ValueError, match="the standard U-Net has no condition"):
        StreamingCUNet.from_reference(CUNet(ReferenceConfig("standard", (3, 4, 5), window=64, hop=HOP)))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"variant": "standard"}, "variant must be one of simple_dense"),
        ({"features": "mel"}, "features must be one of log, magnitude, got 'mel'"),
        ({"mask": "softmax"}, "mask must be one of range, sigmoid"),
        ({"channels": 3}, "channels must be one of 1, 2"),
        ({"dilations": (1, 2)}, "dilations must be 3, one per filter, got 2"),
        ({"control_widths": (1, 2)}, "three widths"),
        ({"order": (0, 1, 2, 2)}, "order must hold 0 to 3 once each"),
        ({"frames": 0}, "frames must be 1 or more"),
        ({"ramp_frames": 0}, "ramp_frames must be 1 or more"),
        ({"filters": (2,) * 6, "dilations": (1,) * 6}, "16 bands cannot be halved 6 times"),
    ],
)
def test_sizes_that_cannot_be_are_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        StreamingCUNet(dataclasses.replace(SMALL, **changes))


def test_config_survives_json_and_refuses_unknown_keys() -> None:
    plain = {key: list(v) if isinstance(v, tuple) else v for key, v in SMALL.to_dict().items()}
    assert CUNetConfig.from_dict(plain) == SMALL
    with pytest.raises(TypeError, match="filtres"):
        CUNetConfig.from_dict({"filtres": [1]})


def test_every_parameter_has_a_say() -> None:
    torch.manual_seed(0)
    model = StreamingCUNet(SMALL).double().eval()  # as training starts
    stems, _ = model(noise(2, 2, 40 * HOP), None, faders(0.2, 1, 0, 0.5, batch=2))
    (stems[:, 0] * noise(2, 2, 40 * HOP, seed=4)).sum().backward()
    without = [name for name, p in model.named_parameters() if p.grad is None or not p.grad.any()]
    assert without == []


def test_the_shipped_sizes_keep_their_budget() -> None:
    document = tomllib.loads((ROOT / "models/configs/cunet-low.toml").read_text())
    model = StreamingCUNet(CUNetConfig.from_dict(document["model"]))
    assert sum(p.numel() for p in model.parameters()) <= 2_400_000
    assert (model.hop_samples, model.latency, model.channels) == (512, 512, 2)


@pytest.mark.parametrize("mask", ["range", "sigmoid"])
def test_the_exported_graph_follows_moving_faders(mask: str, tmp_path: Path) -> None:
    config = dataclasses.replace(SMALL, mask=mask, variant="simple_cnn" if mask == "sigmoid" else "complex_dense")
    model = built(config).float()
    facts = Facts("tiny", "1", "CC0", (), {}, "tiny", {})
    report = export_model(model, tmp_path / "tiny.onnx", facts, seconds=1.0, benchmark_hops=20)
    assert ConditionFaders.fits(report.info)
    (control,) = report.info.controls
    assert control.labels == LABELS
    assert report.info.residual_stem == "rest"

    rng = np.random.default_rng(1)
    audio = (0.3 * rng.standard_normal((2, 400 * HOP))).astype(np.float32)
    stops = [0, 37, 38, 150, 260, 400]
    conditions = np.float32([[0, 0, 0, 1], [1, 1, 0, 0], [1, 1, 1, 1], [0.3, 0, 0.8, 0.1], [0, 0, 0, 0]])
    expected, state = [], None
    with torch.no_grad(), StreamingSession(tmp_path / "tiny.onnx", provider="cpu") as session:
        worst = 0.0
        for condition, start, stop in zip(conditions, stops, stops[1:], strict=False):
            part = torch.from_numpy(audio[None, :, start * HOP : stop * HOP])
            stems, state = model(part, state, {"condition": torch.from_numpy(condition[None])})
            expected.append(stems[0])
            session.set_control("condition", condition)
            for hop in range(start, stop):
                got = session.step(np.ascontiguousarray(audio[:, hop * HOP : (hop + 1) * HOP]))
                wanted = stems[0, ..., (hop - start) * HOP : (hop - start + 1) * HOP].numpy()
                worst = max(worst, float(np.abs(got - wanted).max()))
    assert worst < 1e-5
    assert float(torch.cat(expected, -1)[0].std()) > 0.05
