"""Upstream's checkpoint files, and files that are none."""

from __future__ import annotations

import argparse
from pathlib import Path

import pytest
import torch

from models.msi.loader import CheckpointError, load_reference
from models.msi.reference import ReferenceMSI
from tests.models.msi import upstream


def written(path: Path, document: object) -> Path:
    torch.save(document, path)
    return path


@pytest.mark.parametrize("variant", ["MSI", "MSS", "AMT", "MSS-AMT"])
def test_every_variant_is_known_by_its_keys_and_loaded_whole(tmp_path: Path, variant: str) -> None:
    state = upstream.random_state(upstream.shapes(variant))
    path = written(tmp_path / "params_epoch-199.pkl", state | upstream.hollow(upstream.FRONT_END))
    model = load_reference(path)
    assert model.variant == variant
    assert not model.training
    got = model.state_dict()
    assert len(got) == len(state)
    # Every number has arrived, whatever its name here.
    assert sorted(float(v.double().sum()) for v in got.values()) == sorted(
        float(v.double().sum()) for v in state.values()
    )
    key = "network.unet.encoder.layers.3.conv2.conv.weight"
    assert torch.equal(got["encoder.layers.3.conv2.conv.weight"], state[key])


def test_the_whole_file_has_as_many_entries_as_upstreams() -> None:
    assert len(upstream.shapes() | upstream.FRONT_END) == 256


def test_missing_extra_and_misshapen_keys_are_all_named(tmp_path: Path) -> None:
    state = upstream.random_state(upstream.shapes())
    del state["network.queryNet.bn0.bn.running_mean"], state["network.unet.decoder.bottom.conv.bias"]
    state["network.transcriptor.layers.7.bias"] = torch.zeros(3)
    state["network.pitchExtractor.layers.2.conv.weight"] = torch.zeros(4096, 88, 1)
    with pytest.raises(CheckpointError) as caught:
        load_reference(written(tmp_path / "a.pkl", state))
    message = str(caught.value)
    for part in (
        "missing: network.queryNet.bn0.bn.running_mean, network.unet.decoder.bottom.conv.bias",
        "unexpected: network.transcriptor.layers.7.bias",
        "network.pitchExtractor.layers.2.conv.weight (4096, 88, 1) instead of (4096, 89, 1)",
    ):
        assert part in message


class Payload:
    """Writes a file when it is unpickled without care."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[object, tuple[object, ...]]:
        return Path.touch, (self.path,)


def test_a_pickle_that_wants_to_run_code_is_refused(tmp_path: Path) -> None:
    trap = tmp_path / "ran"
    path = written(tmp_path / "params_epoch-1.pkl", {"network.x": Payload(trap)})
    with pytest.raises(CheckpointError, match=r"unpickling can run code"):
        load_reference(path)
    assert not trap.exists()


@pytest.mark.parametrize(
    ("document", "named"),
    [
        ({"fc1.weight": torch.zeros(2, 2)}, "looks like Open-Unmix"),
        ({"state_dict": {"fc1.weight": torch.zeros(2, 2)}, "epoch": 3}, "looks like Open-Unmix"),
        ({"state_dict": {"stages.0.instrument_embedding.weight": torch.zeros(4, 8)}}, "looks like Meta-TasNet"),
        ({"args": argparse.Namespace(a=1), "state_dict": {}}, "looks like a Meta-TasNet"),
        ({"system": "cunet", "config": {}, "state_dict": {}, "extras": {}}, "streaming 'cunet' checkpoint"),
        ({"weight": torch.zeros(1)}, "no key starts with 'network.'"),
        ({"network.x": "words"}, "not tensors: network.x"),
        ([1, 2], "got list"),
        ({}, "must hold a state dictionary"),
    ],
)
def test_files_of_other_systems_are_named(tmp_path: Path, document: object, named: str) -> None:
    with pytest.raises(CheckpointError, match=named.replace(".", r"\.")):
        load_reference(written(tmp_path / "a.pkl", document))


def test_files_that_are_no_pytorch_files(tmp_path: Path) -> None:
    path = tmp_path / "a.pkl"
    with pytest.raises(FileNotFoundError, match=r"params_epoch-<N>\.pkl"):
        load_reference(path)
    path.write_bytes(b"\x89HDF\r\n\x1a\n" + bytes(64))
    with pytest.raises(CheckpointError, match="looks like a Conditioned U-Net"):
        load_reference(path)
    path.write_bytes(b"nothing of the kind")
    with pytest.raises(CheckpointError, match="cannot be read as a PyTorch file"):
        load_reference(path)


def test_an_unknown_variant_is_refused() -> None:
    with pytest.raises(ValueError, match="MSI, MSS, AMT, MSS-AMT, got 'DIS'"):
        ReferenceMSI("DIS")  # type: ignore[arg-type]
