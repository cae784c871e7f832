"""Checkpoints with upstream's exact names, shapes and wrappings, and files that must not be trusted."""

from __future__ import annotations

import json
import os
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from models.openunmix.loader import CheckpointError, load_network, load_reference, read_state_dict, target_of
from models.openunmix.reference import ReferenceConfig
from tests.models.openunmix.upstream import FRONT_END, hollow_state, plain_forward, random_state, shapes

TINY: dict[str, Any] = {"bins": 33, "max_bin": 20, "hidden": 8, "layers": 1}
TINY_FACTS = {"nfft": 64, "nhop": 16, "sample_rate": 8000, "nb_channels": 2}


def write(path: Path, state: Any, **facts: Any) -> Path:
    """Save a checkpoint; with facts, its folder's ``separator.json`` too."""
    path.parent.mkdir(parents=True, exist_ok=True)
    torch.save(state, path)
    if facts:
        (path.parent / "separator.json").write_text(json.dumps(facts))
    return path


def tiny(seed: int = 0, **layout: Any) -> dict[str, Tensor]:
    return random_state(shapes(**TINY, **layout), seed)


def wrapped(state: dict[str, Tensor]) -> dict[str, Any]:
    """As the training scripts save it: weights, best loss, and the optimiser's and scheduler's plain values."""
    parameter = nn.Parameter(torch.zeros(2))
    optimiser = torch.optim.Adam([parameter])
    parameter.grad = torch.ones(2)
    optimiser.step()
    scheduler = torch.optim.lr_scheduler.ReduceLROnPlateau(optimiser)
    return {
        "epoch": 5,
        "state_dict": state,
        "best_loss": 0.25,
        "optimizer": optimiser.state_dict(),
        "scheduler": scheduler.state_dict(),
    }


@pytest.mark.parametrize(
    ("name", "layout", "extra", "expected"),
    [
        ("vocals-c8df74a5.pth", {}, FRONT_END, {}),  # umx
        ("vocals-b62c91ce.pth", {}, FRONT_END, {}),  # umxhq
        ("vocals-bccbd9aa.pth", {"hidden": 1024}, {}, {"hidden": 1024}),  # umxl
        (
            "speech_f5e0d9f9.pth",
            {"hidden": 256, "max_bin": 513, "bins": 513, "channels": 1},
            {},
            {"hidden": 256, "max_bin": 513, "n_fft": 1024, "hop": 512, "samplerate": 16000, "channels": 1},
        ),  # umxse
        ("vocals.pth", {"unidirectional": True}, {}, {"unidirectional": True}),
        (
            "vocals.pth.tar",
            {"early": True, "channels": 1, "max_bin": 1393},
            {"stft.window": FRONT_END["stft.window"], "transform.0.window": FRONT_END["transform.0.window"]},
            {"variant": "early", "channels": 1, "max_bin": 1393},
        ),
        ("model.pth", {"heads": 4}, FRONT_END, {"variant": "heads", "heads": 4}),
    ],
)
def test_published_shapes_load_and_say_what_they_are(
    tmp_path: Path, name: str, layout: dict[str, Any], extra: dict[str, Tensor], expected: dict[str, Any]
) -> None:
    network = load_network(write(tmp_path / name, {**hollow_state(shapes(**layout)), **extra}))
    assert network.config == ReferenceConfig(**expected)
    assert not network.training
    assert all(bool((p == 0.01).all()) for p in network.parameters())


@pytest.mark.parametrize("old_format", [False, True])
@pytest.mark.parametrize(
    ("name", "wrap", "layout"),
    [
        ("vocals.pth", False, {}),
        ("vocals.pth", False, {"unidirectional": True, "channels": 1}),
        ("vocals.chkpnt", True, {"layers": 3}),
        ("vocals_chkpnt.pth.tar", True, {"early": True}),
        ("model.chkpnt", True, {"heads": 4}),
    ],
)
def test_a_loaded_network_computes_what_its_file_says(
    tmp_path: Path, name: str, wrap: bool, layout: dict[str, Any], old_format: bool
) -> None:
    state = random_state(shapes(**(TINY | layout)))
    path = tmp_path / name
    torch.save(wrapped(state) if wrap else state, path, _use_new_zipfile_serialization=not old_format)
    network = load_network(path, hop=16, samplerate=8000)
    magnitude = np.random.default_rng(0).gamma(1.0, 1.0, (network.config.channels, 33, 6))
    expected = plain_forward(state, magnitude, early=bool(layout.get("early")), heads=layout.get("heads", 0))
    with torch.no_grad():
        got = network(torch.from_numpy(magnitude).float()[None])[0].numpy()
    np.testing.assert_allclose(got, expected, rtol=1e-4, atol=1e-5)


def test_counters_older_than_torch_0_4_1_may_be_missing(tmp_path: Path) -> None:
    state = {key: value for key, value in tiny().items() if not key.endswith("num_batches_tracked")}
    network = load_network(write(tmp_path / "vocals.pth", state), hop=16, samplerate=8000)
    torch.testing.assert_close(network.bn1.running_mean, state["bn1.running_mean"])


def test_everything_that_does_not_fit_is_named(tmp_path: Path) -> None:
    state = tiny()
    del state["bn2.weight"], state["fc2.weight"]
    state["fc4.weight"] = torch.zeros(2, 2)
    state["stft.windows"] = torch.zeros(64)  # nearly an ignored key
    state["bn1.bias"] = torch.zeros(9)
    path = write(tmp_path / "vocals.pth", state)
    with pytest.raises(CheckpointError) as caught:
        load_network(path, hop=16, samplerate=8000)
    message = str(caught.value)
    assert "missing: bn2.weight, fc2.weight;" in message
    assert "unexpected: fc4.weight, stft.windows;" in message
    assert "wrong shape: bn1.bias (9,) instead of (8,)." in message


def test_exactly_three_keys_are_ignored(tmp_path: Path) -> None:
    ignored = {
        "sample_rate": torch.tensor(8000.0),
        "stft.window": torch.ones(3),
        "transform.0.window": torch.ones(3),
    }
    network = load_network(write(tmp_path / "a.pth", {**tiny(), **ignored}), hop=16)
    assert network.config.samplerate == 8000  # the one that says something nothing else does
    for key in ("window", "istft.window", "transform.1.window", "sample_rates"):
        with pytest.raises(CheckpointError, match=f"unexpected: {key}"):
            load_network(write(tmp_path / "b.pth", {**tiny(), key: torch.ones(3)}), hop=16, samplerate=8000)


def test_a_bidirectional_file_with_half_an_lstm_is_refused(tmp_path: Path) -> None:
    state = random_state(shapes(**(TINY | {"layers": 2})))
    del state["lstm.weight_ih_l0_reverse"]
    with pytest.raises(CheckpointError, match=r"unexpected: .*lstm.weight_hh_l0_reverse"):
        load_network(write(tmp_path / "vocals.pth", state), hop=16, samplerate=8000)


class Trap:
    """Pickles into a call: what unpickling an untrusted file can do."""

    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (str(self.marker),)


def test_pickled_modules_are_refused_and_run_nothing(tmp_path: Path) -> None:
    marker = tmp_path / "was-run"
    torch.save(nn.Linear(2, 2), tmp_path / "vocals_model.pth.tar")
    with pytest.raises(CheckpointError, match=r"pickled torch.nn.modules.linear.Linear.*<target>_chkpnt.pth.tar"):
        read_state_dict(tmp_path / "vocals_model.pth.tar")
    torch.save({"state_dict": Trap(marker)}, tmp_path / "vocals.pth")
    with pytest.raises(CheckpointError, match="not opened: unpickling can run code"):
        read_state_dict(tmp_path / "vocals.pth")
    assert not marker.exists()
    pickle.loads(pickle.dumps(Trap(marker)))  # the trap does work
    assert marker.exists()


@pytest.mark.parametrize("content", [b"", b"RIFF\x00\x00\x00\x00WAVE", b"PK\x03\x04 cut off", b"\x80\x02junk"])
def test_files_that_are_no_checkpoints_are_named(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "vocals.pth"
    path.write_bytes(content)
    with pytest.raises(CheckpointError, match=r"vocals.pth cannot be read as a PyTorch file"):
        load_reference(path)


@pytest.mark.parametrize(
    ("document", "message"),
    [
        ([1, 2], "must hold a state dictionary, got list"),
        ({}, "must hold a state dictionary"),
        ({"epoch": 3, "weights": torch.ones(2)}, "not tensors: epoch"),
        ({"weights": torch.ones(2)}, "missing fc1.weight, fc3.weight, output_mean"),
        ({**tiny(), "fc1.weight": torch.ones(8)}, r"fc1.weight must be a matrix, got shape \(8,\)"),
        ({**tiny(), "output_mean": torch.ones(32)}, "no number of channels divides"),
    ],
)
def test_documents_that_are_no_networks_are_named(tmp_path: Path, document: Any, message: str) -> None:
    with pytest.raises(CheckpointError, match=message):
        load_network(write(tmp_path / "vocals.pth", document), hop=16, samplerate=8000)


def test_hop_and_rate_are_asked_for_where_nothing_says_them(tmp_path: Path) -> None:
    path = write(tmp_path / "vocals.pth", tiny())
    with pytest.raises(CheckpointError, match=r"hop is in no shape.*n_fft is 64.*pass hop="):
        load_network(path)
    with pytest.raises(CheckpointError, match=r"pass samplerate="):
        load_network(path, hop=16)
    assert load_network(path, hop=16, samplerate=8000).config.hop == 16


def test_a_folder_of_v1_loads_in_the_usual_order(tmp_path: Path) -> None:
    for seed, target in enumerate(("bass", "choir", "vocals", "drums")):
        write(tmp_path / f"{target}.pth", tiny(seed), **TINY_FACTS)
        write(tmp_path / f"{target}.chkpnt", wrapped(tiny(99)))  # the last epoch, not the best
        (tmp_path / f"{target}.json").write_text(json.dumps({"args": {"nfft": 64, "nhop": 16}}))
    separator = load_reference(tmp_path)
    assert separator.stems == ("vocals", "drums", "bass", "choir")
    assert separator.iterations == 1
    assert separator.config == ReferenceConfig(n_fft=64, hop=16, samplerate=8000, max_bin=20, hidden=8, layers=1)
    expected = tiny(seed=2)["fc1.weight"]
    assert torch.equal(separator.networks[0].fc1.weight, expected)
    x = torch.randn(1, 2, 400, generator=torch.Generator().manual_seed(0))
    assert separator(x).shape == (1, 4, 2, 400)
    two = load_reference(tmp_path, targets=["drums", "vocals"], residual="rest", softmask=True)
    assert two.stems == ("drums", "vocals", "rest")
    assert two.softmask


def test_a_folder_of_the_early_version_loads_from_its_sub_folders(tmp_path: Path) -> None:
    for target in ("vocals", "drums"):
        folder = tmp_path / target
        write(folder / f"{target}.pth.tar", wrapped(tiny(1, early=True)))
        write(folder / f"{target}_chkpnt.pth.tar", wrapped(tiny(2, early=True)))
        torch.save(nn.Linear(2, 2), folder / f"{target}_model.pth.tar")
        args = {"args": {"nfft": 64, "nhop": 16, "nb_channels": 2}, "rate": 8000}
        (folder / "output.json").write_text(json.dumps(args))
    separator = load_reference(tmp_path)
    assert separator.stems == ("vocals", "drums")
    assert (separator.config.variant, separator.config.samplerate) == ("early", 8000)
    assert torch.equal(separator.networks[0].fc1.weight, tiny(1, early=True)["fc1.weight"])


def test_only_a_pickled_module_in_a_folder_is_refused_by_its_reason(tmp_path: Path) -> None:
    torch.save(nn.Linear(2, 2), tmp_path / "vocals_model.pth.tar")
    with pytest.raises(CheckpointError, match="holds a pickled"):
        load_reference(tmp_path)


def test_a_folder_of_the_fork_gives_its_heads_as_stems(tmp_path: Path) -> None:
    write(tmp_path / "model.pth", tiny(heads=4))
    write(tmp_path / "model.chkpnt", wrapped(tiny(9, heads=4)))
    (tmp_path / "4.json").write_text(json.dumps({"args": {"nfft": 64, "nb_channels": 2}}))
    separator = load_reference(tmp_path, samplerate=8000)
    assert separator.stems == ("vocals", "drums", "bass", "other")
    assert separator.config.hop == 16  # a quarter of n_fft, which that code relied on
    assert len(separator.networks) == 1
    stems = ["speech", "music", "noise", "room"]
    assert load_reference(tmp_path, targets=stems, samplerate=8000).stems == tuple(stems)
    with pytest.raises(CheckpointError, match=r"has 4 heads, got 2 names \(a, b\)"):
        load_reference(tmp_path, targets=["a", "b"], samplerate=8000)


def test_a_single_file_is_not_filtered_without_a_residual(tmp_path: Path) -> None:
    path = write(tmp_path / "vocals-0123abcd.pth", tiny(), **TINY_FACTS)
    assert load_reference(path).stems == ("vocals",)
    assert load_reference(path).iterations == 0
    assert load_reference(path, residual="rest").iterations == 1
    assert load_reference(path, targets=["singer"]).stems == ("singer",)
    with pytest.raises(ValueError, match="name a residual stem"):
        load_reference(path, iterations=2)


def test_two_models_in_one_folder_are_not_guessed_between(tmp_path: Path) -> None:
    write(tmp_path / "vocals-b62c91ce.pth", tiny(), **TINY_FACTS)
    write(tmp_path / "vocals-bccbd9aa.pth", tiny())
    with pytest.raises(CheckpointError, match=r"'vocals': vocals-b62c91ce.pth, vocals-bccbd9aa.pth; give the path"):
        load_reference(tmp_path)


def test_json_that_belongs_to_another_network_is_refused(tmp_path: Path) -> None:
    path = write(tmp_path / "vocals.pth", tiny(), **(TINY_FACTS | {"nfft": 128}))
    with pytest.raises(CheckpointError, match=r"weights have n_fft 64, the JSON beside them says 128"):
        load_reference(path)
    write(path, tiny(), **(TINY_FACTS | {"nb_channels": 1}))
    with pytest.raises(CheckpointError, match=r"channels 2, .* says 1"):
        load_reference(path)
    (tmp_path / "separator.json").write_text("{")
    with pytest.raises(CheckpointError, match=r"separator.json is not valid JSON"):
        load_reference(path)


def test_what_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="no checkpoint file or folder at"):
        load_reference(tmp_path / "nowhere")
    with pytest.raises(FileNotFoundError, match="no checkpoint at all"):
        load_reference(tmp_path)
    write(tmp_path / "vocals.pth", tiny(), **TINY_FACTS)
    with pytest.raises(FileNotFoundError, match=r"no checkpoint for drums in .*it has vocals"):
        load_reference(tmp_path, targets=["vocals", "drums"])


@pytest.mark.parametrize(
    ("name", "target"),
    [
        ("vocals.pth", "vocals"),
        ("vocals-b62c91ce.pth", "vocals"),
        ("noise_04a6fc2d.pt", "noise"),
        ("other_chkpnt.pth.tar", "other"),
        ("other_model.pth.tar", "other"),
        ("lead_vocals.chkpnt", "lead_vocals"),
        ("separator.json", None),
        ("song.wav", None),
    ],
)
def test_targets_are_read_from_file_names(name: str, target: str | None) -> None:
    assert target_of(Path(name)) == target
