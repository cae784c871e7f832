"""Checkpoints with upstream's names, shapes and wrapping, and files that must not be trusted."""

from __future__ import annotations

import argparse
import os
import pickle
from pathlib import Path
from typing import Any

import pytest
import torch

from models.metatasnet.loader import CheckpointError, load_reference
from models.metatasnet.reference import ReferenceConfig
from tests.models.metatasnet.upstream import ARGUMENTS, TINY, document, hollow_state, namespace, random_state, shapes


def save(path: Path, content: Any) -> Path:
    torch.save(content, path)
    return path


def tiny(**changes: Any) -> dict[str, Any]:
    arguments = TINY | changes
    return document(random_state(shapes(arguments)), argparse.Namespace(**arguments))


def test_the_published_layout_loads(tmp_path: Path) -> None:
    state = hollow_state(shapes())
    assert len(state) == 1539
    model = load_reference(save(tmp_path / "best_model.pt", document(state, namespace())))
    assert model.config == ReferenceConfig()
    assert not model.training
    assert all(bool((p == 0.01).all()) for p in model.parameters())


@pytest.mark.parametrize("old_format", [False, True])
@pytest.mark.parametrize("independent", [False, True])
def test_every_tensor_arrives(tmp_path: Path, independent: bool, old_format: bool) -> None:
    content = tiny(independent_params=independent)
    path = tmp_path / "best_checkpoint"
    torch.save(content, path, _use_new_zipfile_serialization=not old_format)
    model = load_reference(path)
    assert (model.config.rank is None) == independent
    loaded = model.state_dict()
    assert loaded.keys() == content["state_dict"].keys()
    assert all(torch.equal(loaded[name], value) for name, value in content["state_dict"].items())


def test_a_bare_state_dictionary_needs_its_sizes(tmp_path: Path) -> None:
    path = save(tmp_path / "state.pt", tiny()["state_dict"])
    sizes = ReferenceConfig(stages=2, latents=16, mels=6, width=8, hidden=16, layers=2, stacks=2)
    assert load_reference(path, sizes).config == sizes
    with pytest.raises(CheckpointError, match=r"does not fit .*missing: stages.0.mask.tcn.10"):
        load_reference(path)


def test_everything_that_does_not_fit_is_named(tmp_path: Path) -> None:
    content = tiny()
    state = content["state_dict"]
    del state["stages.1.decoder.filters.2.weight"], state["stages.0.mask.prelu_4.weight"]
    state["stages.0.mask.res_out.bias.weight"] = torch.zeros(2, 2)
    state["stages.0.encoder.filters.0.weight"] = torch.zeros(4, 1, 21)
    with pytest.raises(CheckpointError) as caught:
        load_reference(save(tmp_path / "c", content))
    message = str(caught.value)
    assert "missing: stages.0.mask.prelu_4.weight, stages.1.decoder.filters.2.weight;" in message
    assert "unexpected: stages.0.mask.res_out.bias.weight;" in message
    assert "wrong shape: stages.0.encoder.filters.0.weight (4, 1, 21) instead of (4, 1, 20)." in message


class Trap:
    """Pickles into a call: what unpickling an untrusted file can do."""

    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (str(self.marker),)


def test_a_pickle_that_runs_code_is_refused_and_runs_nothing(tmp_path: Path) -> None:
    marker = tmp_path / "was-run"
    path = save(tmp_path / "best_model.pt", tiny() | {"optimizer": Trap(marker)})
    with pytest.raises(CheckpointError, match=r"not opened: unpickling can run code.*argparse.Namespace"):
        load_reference(path)
    assert not marker.exists()
    pickle.loads(pickle.dumps(Trap(marker)))  # the trap does work
    assert marker.exists()


def test_a_class_within_the_arguments_is_refused(tmp_path: Path) -> None:
    content = tiny()
    content["args"].network = torch.nn.Linear(2, 2)
    with pytest.raises(CheckpointError, match=r"holds a pickled torch\.nn\.modules\.linear\.Linear"):
        load_reference(save(tmp_path / "c", content))


def test_only_this_load_trusts_the_namespace(tmp_path: Path) -> None:
    path = save(tmp_path / "c", tiny())
    load_reference(path)
    assert argparse.Namespace not in torch.serialization.get_safe_globals()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"fc1.weight": torch.zeros(2)}, "looks like Open-Unmix"),
        ({"state_dict": {"fc1.weight": torch.zeros(2)}}, "looks like Open-Unmix"),
        ({"network.queryNet.bottom.conv.weight": torch.zeros(2)}, "looks like MSI"),
        (
            {"system": "cunet", "config": {}, "state_dict": {"x": torch.zeros(2)}, "extras": {}},
            "streaming checkpoint of this project, of the system 'cunet'",
        ),
        ({"epoch": 3}, "must hold a state dictionary.*it holds epoch"),
        ([1, 2], "must hold a dictionary, got list"),
    ],
)
def test_other_systems_are_named(tmp_path: Path, content: Any, message: str) -> None:
    with pytest.raises(CheckpointError, match=message):
        load_reference(save(tmp_path / "c", content))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "cannot be read as a PyTorch file"),
        (b"PK\x03\x04 cut off", "cannot be read as a PyTorch file"),
        (b"\x89HDF\r\n\x1a\n", "HDF5 file, as the Conditioned U-Net"),
    ],
)
def test_files_that_are_no_checkpoints_are_named(tmp_path: Path, content: bytes, message: str) -> None:
    (tmp_path / "c").write_bytes(content)
    with pytest.raises(CheckpointError, match=message):
        load_reference(tmp_path / "c")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"residual_bias": True}, "--residual_bias are not supported"),
        ({"E_1": None}, "E_1 is None"),
        ({"N": 444}, "multiples of 8, got 444, 8, 16"),
    ],
)
def test_arguments_that_cannot_be_followed_are_named(tmp_path: Path, changes: dict[str, Any], message: str) -> None:
    content = tiny()
    content["args"] = argparse.Namespace(**(TINY | changes))
    with pytest.raises(CheckpointError, match=message):
        load_reference(save(tmp_path / "c", content))


def test_missing_arguments_and_files_are_named(tmp_path: Path) -> None:
    arguments = {key: value for key, value in ARGUMENTS.items() if key not in ("E_2", "stack")}
    content = document(tiny()["state_dict"], argparse.Namespace(**arguments))
    with pytest.raises(CheckpointError, match="lacks E_2, stack"):
        load_reference(save(tmp_path / "c", content))
    with pytest.raises(FileNotFoundError, match="no checkpoint file at"):
        load_reference(tmp_path / "nowhere")
