"""The reference form: upstream's sizes, layouts and reach in time."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from models.msi.reference import (
    BINS,
    CLASSES,
    SILENCE,
    Decoder,
    Encoder,
    FiLM,
    PitchExtractor,
    QueryNet,
    ReferenceMSI,
    TimbreFilter,
    Transcriptor,
    entangle,
)
from tests.models.msi.small import enliven


@pytest.fixture(scope="module")
def model() -> ReferenceMSI:
    torch.manual_seed(0)
    return enliven(ReferenceMSI()).eval()  # type: ignore[return-value]


def count(module: torch.nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


@pytest.mark.parametrize(
    ("variant", "parameters"), [("MSI", 3_828_330), ("AMT", 1_542_319), ("MSS", 301_857), ("MSS-AMT", 1_591_674)]
)
def test_parameters_are_upstreams(variant: str, parameters: int) -> None:
    assert count(ReferenceMSI(variant)) == parameters  # type: ignore[arg-type]


def test_parameters_of_each_part_are_upstreams(model: ReferenceMSI) -> None:
    parts = {name: count(part) for name, part in model.named_children()}
    assert parts == {
        "query_net": 6_254,
        "encoder": 246_248,
        "transcriptor": 1_289_817,
        "decoder": 49_355,
        "pitch_extractor": 2_187_264,
        "timbre_filter": 49_392,
    }


def test_film_has_a_scale_and_an_offset_for_every_channel_and_bin() -> None:
    film = FiLM(query=2, channels=3, bins=4)
    x, query = torch.randn(1, 3, 5, 4), torch.tensor([[0.5, -1.0]])
    y = film(x, query).detach()
    state = {key: value.detach().numpy() for key, value in film.state_dict().items()}
    for c, n, f in ((0, 0, 0), (1, 4, 2), (2, 3, 3)):
        row = c * 4 + f
        gamma, beta = (
            state[f"{kind}.conv.weight"][row, :, 0] @ query[0].numpy() + state[f"{kind}.conv.bias"][row]
            for kind in ("gamma", "beta")
        )
        assert float(y[0, c, n, f]) == pytest.approx(float(x[0, c, n, f]) * gamma + beta, abs=1e-6)


def test_flattened_axes_are_channels_first() -> None:
    torch.manual_seed(0)
    query_net = QueryNet().eval()
    with torch.no_grad():
        query_net.bottom.conv.weight.zero_()
        query_net.bottom.conv.bias.zero_()
        query_net.bottom.conv.weight[2, 3 * 256 + 17] = 1.0  # channel 3, bin 17
        seen: list[Tensor] = []
        query_net.layers[1].register_forward_hook(lambda *call: seen.append(call[2]))
        query = query_net(torch.rand(1, 1, 10, BINS))
        # 10 frames are cut to 8, which are pooled twice by 2.
        assert seen[0].shape == (1, 4, 4, 512)
        pooled = seen[0][0, 3, :, 34:36].reshape(2, 2, 2).mean((1, 2))  # [N / 4]
    assert float(query[0, 2]) == pytest.approx(float(torch.tanh(pooled).mean()), abs=1e-6)


def test_posteriors_pick_rows_of_the_pitch_tables() -> None:
    extractor = PitchExtractor([(2, 8), (3, 4)])
    notes = torch.zeros(1, CLASSES, 2)
    notes[0, 40, 0], notes[0, SILENCE, 1] = 1.0, 1.0
    first, second = extractor(notes)
    table = extractor.layers[1].conv.weight[..., 0].detach()  # [2 C F, P]
    assert first.shape == (1, 4, 2, 8)
    torch.testing.assert_close(second[0, :, 0].detach(), table[:, 40].reshape(6, 4))
    timbre = [torch.rand(1, 2, 2, 8), torch.rand(1, 3, 2, 4)]
    mixed = entangle([first, second], timbre)[1]
    torch.testing.assert_close(mixed[0, 1, 0], table[4:8, 40] * timbre[1][0, 1, 0] + table[16:20, 40])


@pytest.mark.parametrize(("path", "reach"), [("separation", 26), ("notes", 16), ("timbre", 23), ("score", 10)])
def test_it_looks_as_far_ahead_as_upstream_was_measured_to(path: str, reach: int) -> None:
    """Frames on each side that change the output in the middle."""
    frames, middle = 64, 32
    # In double precision, since the influence of the furthest frames is small.
    model = enliven(ReferenceMSI()).eval().double()
    query = torch.zeros(1, 6).double()
    generator = torch.Generator().manual_seed(1)
    notes = torch.softmax(torch.randn(1, CLASSES, frames, generator=generator), 1)
    features = torch.rand(1, 1, frames, BINS, generator=generator) + 0.5

    def output(features: Tensor, notes: Tensor) -> Tensor:
        levels = model.encoder(features, query)
        if path == "notes":
            return model.transcriptor(levels[-1])[..., middle]  # type: ignore[misc]
        own = torch.softmax(model.transcriptor(levels[-1]), 1) if path == "separation" else notes  # type: ignore[misc]
        maps = model.timbre_filter(levels)  # type: ignore[misc]
        return model.decoder(entangle(model.pitch_extractor(own), maps))[:, :, middle]  # type: ignore[misc]

    subject = notes if path == "score" else features
    subject.requires_grad_()
    output(features.double(), notes.double()).square().sum().backward()
    axis = 2
    felt = subject.grad.abs().sum([a for a in range(subject.ndim) if a != axis]) > 0  # type: ignore[union-attr]
    assert felt.nonzero().flatten().tolist() == list(range(middle - reach, middle + reach + 1))


@torch.no_grad()
def test_a_score_replaces_the_transcription(model: ReferenceMSI) -> None:
    audio = 0.1 * torch.randn(1, 8000, generator=torch.Generator().manual_seed(2))
    query = model.embed(audio)
    assert query.shape == (1, 6)
    assert float(query.abs().max()) < 1
    own = model.separate(audio, query)
    assert own.audio.shape == audio.shape
    assert own.posteriors is not None
    torch.testing.assert_close(own.posteriors.sum(1), torch.ones(1, 51))
    assert torch.equal(model.transcribe(audio, query), own.posteriors.argmax(1))
    # Its own posteriors as a score change nothing, others do.
    again = model.separate(audio, query, own.posteriors)
    torch.testing.assert_close(again.audio, own.audio)
    assert again.posteriors is None
    other = torch.zeros_like(own.posteriors)
    other[:, 30] = 1.0
    assert not torch.allclose(model.separate(audio, query, other).audio, own.audio, atol=1e-4)
    with pytest.raises(ValueError, match=r"notes must be \[B, 89, N\] = \(1, 89, 51\)"):
        model.separate(audio, query, other[..., :20])


@torch.no_grad()
def test_the_mixtures_magnitude_gives_the_mixture(model: ReferenceMSI, monkeypatch: pytest.MonkeyPatch) -> None:
    audio = torch.from_numpy(np.sin(2 * np.pi * 440 * np.arange(8000) / 16000)).float()[None]
    monkeypatch.setattr(model, "magnitude", lambda features, *rest: (features, None))
    torch.testing.assert_close(model.separate(audio, torch.zeros(1, 6)).audio, audio, atol=1e-3, rtol=0)


def test_baselines_say_what_they_cannot_do() -> None:
    audio, query = torch.zeros(1, 4000), torch.zeros(1, 6)
    with pytest.raises(ValueError, match="'AMT' does not separate"):
        ReferenceMSI("AMT").separate(audio, query)
    with pytest.raises(ValueError, match="'MSS' does not transcribe"):
        ReferenceMSI("MSS").transcribe(audio, query)
    with pytest.raises(ValueError, match="'MSS' takes no score"):
        ReferenceMSI("MSS").separate(audio, query, torch.zeros(1, CLASSES, 26))


@torch.no_grad()
def test_parts_put_together_by_hand_give_the_magnitude(model: ReferenceMSI) -> None:
    features, query = torch.rand(2, 1, 12, BINS), 0.5 * torch.randn(2, 6)
    assert isinstance(model.encoder, Encoder)
    assert isinstance(model.decoder, Decoder)
    levels = model.encoder(features, query)
    assert [tuple(x.shape[1:]) for x in levels] == [(2 << i, 12, BINS >> i) for i in range(6)]
    assert isinstance(model.transcriptor, Transcriptor)
    assert isinstance(model.timbre_filter, TimbreFilter)
    posteriors = torch.softmax(model.transcriptor(levels[-1]), 1)
    expected = model.decoder(entangle(model.pitch_extractor(posteriors), model.timbre_filter(levels)))  # type: ignore[misc]
    magnitude, used = model.magnitude(features, query)
    torch.testing.assert_close(magnitude, expected)
    torch.testing.assert_close(used, posteriors)
