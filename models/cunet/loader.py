"""Upstream's Keras checkpoints in the reference form: strict, and without TensorFlow.

What is read:

============================================ ==========================================================
``NAME.h5``                                  Keras, whole model or weights only
``ckpt``, ``ckpt.index``, ``ckpt.data-...``  TensorFlow's tensor bundle: any of the files, or their prefix
a folder                                     that holds one of the two
============================================ ==========================================================

Keras numbers layers through a whole process (``conv2d_23``), so that names say nothing: layers are matched by kind and
order, which is the order of the graph in both formats. Variant and sizes follow from the shapes.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import h5py
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from models.cunet.film import Variant
from models.cunet.reference import CUNet, ReferenceConfig
from models.cunet.tensor_bundle import BundleError, read_bundle

Kind = Literal["norm", "dense", "conv1d", "conv2d"]
Array = NDArray[np.generic]
_TF_KEY = re.compile(r"(?:.+/)?layer_with_weights-(?P<number>\d+)/(?P<weight>\w+)/\.ATTRIBUTES/VARIABLE_VALUE")
_TF_BESIDE = re.compile(r"save_counter/.*|(?:.+/)?(?:optimizer|keras_api)/.*|.*\.OPTIMIZER_SLOT.*")
_NORM = {"gamma": "weight", "beta": "bias", "moving_mean": "running_mean", "moving_variance": "running_var"}
_KERNEL = {"kernel": "weight", "bias": "bias"}
# From Keras' layout of a kernel to torch's, by its number of axes; without a flip, transposed convolutions included.
_LAYOUT = {2: (1, 0), 3: (2, 1, 0), 4: (3, 2, 0, 1)}


class CheckpointError(ValueError):
    """A file is no checkpoint of the Conditioned U-Net, or not a whole one."""


@dataclass(frozen=True)
class Layer:
    """One layer of a checkpoint: its name there, and its arrays by Keras' names (``kernel``, ``gamma`` ...)."""

    name: str
    arrays: dict[str, Array]

    @property
    def kind(self) -> Kind | None:
        """None for a layer no Conditioned U-Net has."""
        if self.arrays.keys() == _NORM.keys():
            return "norm"
        kinds: dict[int, Kind] = {2: "dense", 3: "conv1d", 4: "conv2d"}
        return kinds.get(self.arrays["kernel"].ndim) if self.arrays.keys() == _KERNEL.keys() else None


def load_reference(path: str | Path) -> CUNet:
    """Load a checkpoint as the reference form, in evaluation mode.

    Parameters
    ----------
    path : str or Path
        See the module's table.

    Raises
    ------
    FileNotFoundError
        Nothing is there.
    CheckpointError
        The file cannot be read, or is not a whole Conditioned U-Net; the message names all layers that do not fit.
    """
    path = Path(path)
    layers = list(read_layers(path))
    config = _infer_config(path, layers)
    network = CUNet(config)
    _fill(path, network, layers)
    return network.eval()


def read_layers(path: Path) -> Iterator[Layer]:
    """Yield the layers with weights in the order of the graph.

    Raises
    ------
    FileNotFoundError, CheckpointError
        As :func:`load_reference`.
    """
    file = _find(path)
    if file.suffix == ".index":
        yield from _tensorflow_layers(file)
    else:
        yield from _keras_layers(file)


def _find(path: Path) -> Path:
    """Return the ``.h5`` or ``.index`` file that a path means."""
    if path.is_dir():
        found = sorted([*path.glob("*.h5"), *path.glob("*.hdf5"), *path.glob("*.index")])
        if len(found) != 1:
            names = ", ".join(file.name for file in found) or "none"
            raise FileNotFoundError(f"{path} must hold one checkpoint (NAME.h5 or NAME.index), has: {names}.")
        return found[0]
    index = path.with_name(re.sub(r"\.data-\d{5}-of-\d{5}$|\.index$", "", path.name) + ".index")
    if index.is_file():
        return index
    if path.is_file():
        return path
    raise FileNotFoundError(f"no checkpoint at {path}; give a Keras .h5 file, or a TensorFlow checkpoint (ckpt.index).")


def _keras_layers(path: Path) -> Iterator[Layer]:
    if not h5py.is_hdf5(path):
        raise CheckpointError(
            f"{path} is neither a Keras .h5 file nor a TensorFlow checkpoint, the two that Conditioned U-Nets come in"
            f"{_other_system(path)}."
        )
    try:
        with h5py.File(path, "r") as file:
            root = file.get("model_weights", file)
            if "layer_names" not in root.attrs:
                raise CheckpointError(f"{path} is an HDF5 file, and not one that Keras saved: it lists no layer_names.")
            for name in map(_text, root.attrs["layer_names"]):
                weights = [_text(weight) for weight in root[name].attrs["weight_names"]]
                if weights:
                    arrays = {w.rpartition("/")[2].partition(":")[0]: np.asarray(root[name][w]) for w in weights}
                    yield Layer(name, arrays)
    except (OSError, KeyError, RuntimeError) as error:
        raise CheckpointError(f"{path} is damaged: {error}. Copy it again.") from error


def _text(name: str | bytes) -> str:
    return name.decode() if isinstance(name, bytes) else str(name)


def _tensorflow_layers(index: Path) -> Iterator[Layer]:
    try:
        tensors = read_bundle(index.with_suffix(""))
    except BundleError as error:
        raise CheckpointError(str(error)) from error
    layers: dict[int, dict[str, Array]] = {}
    strange = []
    for key, array in tensors.items():
        if match := _TF_KEY.fullmatch(key):
            layers.setdefault(int(match["number"]), {})[match["weight"]] = array
        elif not _TF_BESIDE.fullmatch(key):
            strange.append(key)
    if strange or not layers:
        what = f"it holds {', '.join(sorted(strange)[:8])}" if strange else "it holds no layer_with_weights-N"
        raise CheckpointError(f"{index} is no checkpoint of a Keras model: {what}.")
    for number in sorted(layers):
        yield Layer(f"layer_with_weights-{number}", layers[number])


def _other_system(path: Path) -> str:
    """Say which system a PyTorch file looks like; empty when it is none we know."""
    from models.checkpoint import looks_like

    try:
        document = torch.load(path, map_location="cpu", weights_only=True)
    except Exception:  # whatever it is, it is no file of ours: the caller says so
        return ""
    looks = looks_like(document)
    if looks is None and isinstance(document, dict) and isinstance(document.get("system"), str):
        looks = f"this project's own checkpoint of a streaming {document['system']}"
    return f"; it looks like {looks}" if looks else "; it is a PyTorch file"


def _of_kind(layers: list[Layer], kind: Kind) -> list[Layer]:
    return [layer for layer in layers if layer.kind == kind]


def _infer_config(path: Path, layers: list[Layer]) -> ReferenceConfig:
    """Read variant and sizes from the shapes."""
    strange = [f"{layer.name} ({', '.join(sorted(layer.arrays))})" for layer in layers if layer.kind is None]
    if strange:
        raise CheckpointError(f"{path} holds layers no Conditioned U-Net has: {', '.join(strange)}.")
    dense, taps, convs = (_of_kind(layers, kind) for kind in ("dense", "conv1d", "conv2d"))
    counts = f"{len(convs)} convolutions, {len(dense)} dense layers and {len(taps)} convolutions of the condition"
    kinds = {(0, 0): "standard", (5, 0): "dense", (2, 3): "cnn"}
    control = kinds.get((len(dense), len(taps)))
    if control is None or not convs or len(convs) % 2:
        raise CheckpointError(
            f"{path} is no Conditioned U-Net: it has {counts}; those have twice as many convolutions as blocks, and "
            "for the condition nothing, 5 dense layers, or 3 convolutions and 2 dense layers."
        )
    filters = tuple(int(layer.arrays["kernel"].shape[3]) for layer in convs[: len(convs) // 2])
    hidden = dense[:3] if control == "dense" else taps
    widths = tuple(int(layer.arrays["kernel"].shape[-1]) for layer in hidden)
    variant: Variant = "standard"
    if control != "standard":
        outputs = int(dense[-2].arrays["kernel"].shape[-1])
        films: dict[int, Variant] = {
            sum(filters): "complex_dense" if control == "dense" else "complex_cnn",
            len(filters): "simple_dense" if control == "dense" else "simple_cnn",
        }
        if outputs not in films:
            raise CheckpointError(
                f"{path}: {dense[-2].name} gives {outputs} scales; {len(filters)} (one per block) or {sum(filters)} "
                "(one per channel) fit the encoder."
            )
        variant = films[outputs]
    try:
        return ReferenceConfig(variant=variant, filters=filters, control_widths=widths)
    except ValueError as error:
        raise CheckpointError(f"{path}: {error}") from error


def _expected(network: CUNet) -> list[tuple[str, Kind, nn.Module]]:
    """Modules in the order of the graph, by kind."""
    found: list[tuple[str, Kind, nn.Module]] = []

    def add(kind: Kind, name: str, modules: nn.ModuleList) -> None:
        found.extend((f"{name}.{index}", kind, module) for index, module in enumerate(modules))

    if network.control is not None:
        add("dense" if network.control.kind == "dense" else "conv1d", "control.layers", network.control.layers)
        add("norm", "control.norms", network.control.norms)
        found += [(f"control.{name}", "dense", getattr(network.control, name)) for name in ("scales", "shifts")]
    for part in ("encoder", "decoder"):
        add("conv2d", part, getattr(network, part))
        add("norm", f"{part}_norms", getattr(network, f"{part}_norms"))
    return found


def _fill(path: Path, network: CUNet, layers: list[Layer]) -> None:
    """Copy the weights, naming everything that does not fit."""
    left: dict[str, list[Layer]] = {kind: _of_kind(layers, kind) for kind in ("norm", "dense", "conv1d", "conv2d")}
    problems: dict[str, list[str]] = {"missing": [], "wrong shape": [], "unexpected": []}
    for name, kind, module in _expected(network):
        if not left[kind]:
            problems["missing"].append(f"{kind} {name}")
            continue
        layer = left[kind].pop(0)
        targets = module.state_dict()
        for theirs, ours in (_NORM if kind == "norm" else _KERNEL).items():
            value = _to_torch(layer.arrays[theirs])
            if value.shape != targets[ours].shape:
                problems["wrong shape"].append(
                    f"{layer.name}/{theirs} for {name}: {list(layer.arrays[theirs].shape)}, expected "
                    f"{_keras_shape(targets[ours])}"
                )
            else:
                targets[ours].copy_(value)
    problems["unexpected"] = [layer.name for rest in left.values() for layer in rest]
    told = [f"{what}: {', '.join(names)}" for what, names in problems.items() if names]
    if told:
        raise CheckpointError(f"{path} does not fit the {network.config.variant} Conditioned U-Net; {'; '.join(told)}.")


def _to_torch(array: Array) -> Tensor:
    axes = _LAYOUT.get(array.ndim, range(array.ndim))
    return torch.from_numpy(np.ascontiguousarray(array.transpose(axes), np.float32))


def _keras_shape(tensor: Tensor) -> list[int]:
    back = np.argsort(_LAYOUT.get(tensor.ndim, range(tensor.ndim)))
    return [tensor.shape[axis] for axis in back]
