"""Upstream's checkpoint files: read whole, or refused with every reason."""

from __future__ import annotations

from pathlib import Path

import h5py
import numpy as np
import pytest
import torch

from models.cunet.film import VARIANTS
from models.cunet.loader import CheckpointError, load_reference
from models.cunet.reference import CUNet, keras_parameters
from models.cunet.tensor_bundle import BundleError, read_bundle
from tests.models.cunet.upstream import PARAMETERS, SMALL, Layers, layers, tf_tensors, write_bundle, write_h5


def small(variant: str = "simple_dense", *, first_number: int = 0) -> Layers:
    return layers(variant, SMALL[0], SMALL[1] if variant != "standard" else (), first_number=first_number)


def assert_filled(network: CUNet, content: Layers) -> None:
    """Every array of the checkpoint is in its place, in torch's layout."""
    arrays = dict(content)
    convs = [a for name, a in content if name.startswith("conv2d") and "transpose" not in name]
    turned = [a for name, a in content if name.startswith("conv2d_transpose")]
    for module, layer in zip((*network.encoder, *network.decoder), (*convs, *turned), strict=True):
        np.testing.assert_array_equal(module.weight.detach(), layer["kernel"].transpose(3, 2, 0, 1))
        np.testing.assert_array_equal(module.bias.detach(), layer["bias"])
    norms = [a for name, a in content if name.startswith("batch_normalization")]
    control = network.control.norms if network.control is not None else []
    for module, layer in zip((*control, *network.encoder_norms, *network.decoder_norms), norms, strict=True):
        np.testing.assert_array_equal(module.weight.detach(), layer["gamma"])
        np.testing.assert_array_equal(module.bias.detach(), layer["beta"])
        np.testing.assert_array_equal(module.running_mean, layer["moving_mean"])
        np.testing.assert_array_equal(module.running_var, layer["moving_variance"])
    if network.control is not None:
        dense = [a for name, a in content if name.startswith("dense")]
        taps = [a for name, a in content if name.startswith("conv1d")]
        for module, layer in zip((network.control.scales, network.control.shifts), dense[-2:], strict=True):
            np.testing.assert_array_equal(module.weight.detach(), layer["kernel"].T)
        for module, layer in zip(network.control.layers, taps or dense[:3], strict=True):
            axes = (2, 1, 0) if taps else (1, 0)
            np.testing.assert_array_equal(module.weight.detach(), layer["kernel"].transpose(axes))
    assert arrays


@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("form", ["h5", "h5 weights", "tensorflow"])
def test_every_variant_in_every_form(variant: str, form: str, tmp_path: Path) -> None:
    content = small(variant, first_number=23 if form == "h5" else 0)
    if form == "tensorflow":
        path = write_bundle(tmp_path / "ckpt", tf_tensors(content))
    else:
        path = write_h5(tmp_path / "model.h5", content, whole_model=form == "h5")
    network = load_reference(path)
    assert (network.config.variant, network.config.filters) == (variant, SMALL[0])
    assert not network.training
    assert_filled(network, content)


@pytest.mark.parametrize("form", ["h5", "tensorflow"])
def test_a_checkpoint_of_upstreams_names_and_shapes(form: str, tmp_path: Path) -> None:
    content = layers("complex_dense", first_number=7)
    assert sum(a.size for _, arrays in content for a in arrays.values()) == PARAMETERS["complex_dense"]
    if form == "h5":
        write_h5(tmp_path / "NAME.h5", content)
    else:
        write_bundle(tmp_path / "ckpt", tf_tensors(content))
    network = load_reference(tmp_path)  # the folder it lies in
    assert keras_parameters(network) == PARAMETERS["complex_dense"]
    assert_filled(network, content)


@pytest.mark.parametrize("name", ["ckpt", "ckpt.index", "ckpt.data-00000-of-00001"])
def test_any_name_of_a_tensorflow_checkpoint_will_do(name: str, tmp_path: Path) -> None:
    write_bundle(tmp_path / "ckpt", tf_tensors(small()))
    assert load_reference(tmp_path / name).config.variant == "simple_dense"


def test_what_tensorflow_stores_beside_the_weights_is_passed_over(tmp_path: Path) -> None:
    content = small("complex_cnn")
    beside = {
        "_CHECKPOINTABLE_OBJECT_GRAPH": np.array(None, object),
        "save_counter/.ATTRIBUTES/VARIABLE_VALUE": np.int64(3),
        "optimizer/iter/.ATTRIBUTES/VARIABLE_VALUE": np.int64(3),
        "layer_with_weights-0/kernel/.OPTIMIZER_SLOT/optimizer/m/.ATTRIBUTES/VARIABLE_VALUE": np.zeros(3, np.float32),
    }
    write_bundle(tmp_path / "ckpt", {**tf_tensors(content), **beside})
    assert_filled(load_reference(tmp_path / "ckpt"), content)


def test_nothing_there(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"no checkpoint at .*give a Keras \.h5 file"):
        load_reference(tmp_path / "none.h5")
    with pytest.raises(FileNotFoundError, match=r"must hold one checkpoint.*has: none"):
        load_reference(tmp_path)
    for name in ("a.h5", "b.h5"):
        write_h5(tmp_path / name, small())
    with pytest.raises(FileNotFoundError, match=r"has: a\.h5, b\.h5"):
        load_reference(tmp_path)


def test_missing_and_unexpected_layers_are_all_named(tmp_path: Path) -> None:
    content = small()
    lost = [item for item in content if item[0] not in ("batch_normalization_4", "batch_normalization_5")]
    with pytest.raises(CheckpointError, match=r"simple_dense .*missing: norm decoder_norms.0, norm decoder_norms.1"):
        load_reference(write_h5(tmp_path / "lost.h5", lost))
    more = [*content, ("batch_normalization_98", content[2][1]), ("batch_normalization_99", content[2][1])]
    with pytest.raises(CheckpointError, match="unexpected: batch_normalization_98, batch_normalization_99"):
        load_reference(write_h5(tmp_path / "more.h5", more))
    foreign = [*content, ("lstm", {"kernel": content[0][1]["kernel"], "recurrent_kernel": np.zeros((2, 2))})]
    with pytest.raises(CheckpointError, match=r"layers no Conditioned U-Net has: lstm \(kernel, recurrent_kernel\)"):
        load_reference(write_h5(tmp_path / "foreign.h5", foreign))


def test_wrong_shapes_are_all_named(tmp_path: Path) -> None:
    content = [(name, dict(arrays)) for name, arrays in small()]
    arrays = dict(content)
    arrays["conv2d_1"]["kernel"] = np.zeros((3, 3, 2, 3), np.float32)
    arrays["batch_normalization"]["gamma"] = np.zeros(9, np.float32)
    with pytest.raises(CheckpointError) as caught:
        load_reference(write_h5(tmp_path / "model.h5", content))
    assert "conv2d_1/kernel for encoder.1: [3, 3, 2, 3], expected [5, 5, 2, 3]" in str(caught.value)
    assert "batch_normalization/gamma for control.norms.0: [9], expected [5]" in str(caught.value)


def test_numbers_of_layers_that_no_variant_has(tmp_path: Path) -> None:
    content = small("standard")
    odd = [item for item in content if item[0] != "conv2d_transpose"]
    with pytest.raises(CheckpointError, match="it has 3 convolutions, 0 dense layers"):
        load_reference(write_h5(tmp_path / "odd.h5", odd))
    heads = [(name, dict(a)) for name, a in small()]
    for name in ("dense_3", "dense_4"):
        dict(heads)[name].update(kernel=np.zeros((6, 4), np.float32), bias=np.zeros(4, np.float32))
    with pytest.raises(CheckpointError, match=r"gives 4 scales; 2 \(one per block\) or 5 \(one per channel\)"):
        load_reference(write_h5(tmp_path / "heads.h5", heads))


def test_files_of_other_systems_are_recognised(tmp_path: Path) -> None:
    torch.save({"fc3.weight": torch.zeros(2)}, tmp_path / "vocals.pth")
    with pytest.raises(CheckpointError, match="it looks like an upstream Open-Unmix target"):
        load_reference(tmp_path / "vocals.pth")
    torch.save({"x": torch.zeros(2)}, tmp_path / "x.pth")
    with pytest.raises(CheckpointError, match="it is a PyTorch file"):
        load_reference(tmp_path / "x.pth")
    torch.save({"system": "cunet", "config": {}}, tmp_path / "own.pt")
    with pytest.raises(CheckpointError, match="this project's own checkpoint of a streaming cunet"):
        load_reference(tmp_path / "own.pt")
    (tmp_path / "x.txt").write_text("weights")
    with pytest.raises(CheckpointError, match=r"neither a Keras \.h5 file nor a TensorFlow checkpoint"):
        load_reference(tmp_path / "x.txt")


def test_damaged_h5_files(tmp_path: Path) -> None:
    with h5py.File(tmp_path / "other.h5", "w") as file:
        file["x"] = np.zeros(3)
    with pytest.raises(CheckpointError, match="not one that Keras saved"):
        load_reference(tmp_path / "other.h5")
    path = write_h5(tmp_path / "model.h5", small())
    with h5py.File(path, "a") as file:
        del file["model_weights/conv2d/conv2d/kernel:0"]
    with pytest.raises(CheckpointError, match="is damaged"):
        load_reference(path)
    path.write_bytes(write_h5(tmp_path / "whole.h5", small()).read_bytes()[:9000])
    with pytest.raises(CheckpointError, match="is damaged"):
        load_reference(path)


# --- TensorFlow's format ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("block_bytes", [1, 200, 4096, 1 << 20])
def test_tables_of_one_and_of_many_blocks(block_bytes: int, tmp_path: Path) -> None:
    random = np.random.default_rng(0)
    tensors = {f"a/{'b' * (i % 7)}/{i}": random.standard_normal((i % 4, 3)).astype(np.float32) for i in range(60)}
    tensors["count"] = np.int64(1 << 40)
    write_bundle(tmp_path / "ckpt", tensors, block_bytes=block_bytes)
    got = read_bundle(tmp_path / "ckpt")
    assert got.keys() == tensors.keys()
    for key, value in tensors.items():
        np.testing.assert_array_equal(got[key], value)


def test_bundles_that_cannot_be_read_say_why(tmp_path: Path) -> None:
    prefix = tmp_path / "ckpt"
    data = tmp_path / "ckpt.data-00000-of-00001"
    tensors = tf_tensors(small())
    write_bundle(prefix, tensors, compression=1)
    with pytest.raises(BundleError, match="is compressed"):
        read_bundle(prefix)
    write_bundle(prefix, tensors, endianness=1)
    with pytest.raises(BundleError, match="big-endian"):
        read_bundle(prefix)
    index = write_bundle(prefix, tensors)
    data.write_bytes(data.read_bytes()[:-4])
    with pytest.raises(BundleError, match="do not belong together or are cut off"):
        read_bundle(prefix)
    data.unlink()
    with pytest.raises(FileNotFoundError, match=r"needs ckpt\.data-00000-of-00001"):
        read_bundle(prefix)
    index.unlink()
    with pytest.raises(FileNotFoundError, match="no TensorFlow checkpoint index"):
        read_bundle(prefix)
    write_bundle(prefix, {"model/x": np.zeros(3, np.float32)})
    with pytest.raises(CheckpointError, match="no checkpoint of a Keras model: it holds model/x"):
        load_reference(prefix)


def test_a_cut_or_changed_index_never_gives_more_than_an_error(tmp_path: Path) -> None:
    tensors = {f"layer_with_weights-{i}/kernel": np.zeros((2, 3), np.float32) for i in range(4)}
    index = write_bundle(tmp_path / "ckpt", tensors)
    whole = index.read_bytes()
    for length in range(0, len(whole), 3):
        index.write_bytes(whole[:length])
        with pytest.raises(BundleError, match="no TensorFlow checkpoint index, or is cut off"):
            read_bundle(tmp_path / "ckpt")
    random = np.random.default_rng(0)
    refused = 0
    for position in range(len(whole) - 8):
        changed = bytearray(whole)
        changed[position] ^= int(random.integers(1, 256))
        index.write_bytes(bytes(changed))
        try:
            read_bundle(tmp_path / "ckpt")
        except (BundleError, FileNotFoundError):
            refused += 1
    assert refused > 0.3 * len(whole)
