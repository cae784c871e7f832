"""Upstream Meta-TasNet checkpoints, read into the reference form: strict, and without unpickling foreign classes.

Upstream saves ``{epoch, state_dict, optimizer, steps, args}`` (``best_model.pt``, ``best_checkpoint``,
``last_checkpoint``). ``args`` is an :class:`argparse.Namespace`, the one class that is allowed; it holds the sizes. A
bare state dictionary is read too, and must then have the published sizes or those that are given.
"""

from __future__ import annotations

import argparse
import io
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from models.metatasnet.reference import MetaTasNet, ReferenceConfig

# Names in upstream's arguments, and what they are called here.
_ARGUMENTS = {
    "stages_num": "stages",
    "sampling_rate": "samplerate",
    "N": "latents",
    "L": "kernel",
    "W": "stride",
    "filters": "filters",
    "num_mels": "mels",
    "B": "width",
    "H": "hidden",
    "layers": "layers",
    "stack": "stacks",
    "kernel": "taps",
    "E_1": "embedding",
    "E_2": "rank",
}
# What only one other system's keys contain.
_OTHERS = {
    "fc1.weight": "Open-Unmix",
    "network.queryNet.bottom.conv.weight": "MSI",
    "unet.encoder.bn0.bn.weight": "MSI",
}
_HDF5 = b"\x89HDF\r\n\x1a\n"


class CheckpointError(ValueError):
    """A file is not a Meta-TasNet checkpoint, or not a whole one."""


def load_reference(path: str | Path, config: ReferenceConfig | None = None) -> MetaTasNet:
    """Load an upstream checkpoint as the reference form, in evaluation mode.

    Parameters
    ----------
    path : str or Path
    config : ReferenceConfig, optional
        Sizes of a bare state dictionary; default the published ones. What the file itself says comes first.

    Raises
    ------
    FileNotFoundError
        There is no file.
    CheckpointError
        The file cannot be read safely, is another system's, or its tensors do not fit; the message names them all.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"no checkpoint file at {path}; give upstream's best_model.pt or best_checkpoint.")
    document = _read(path)
    state = document.get("state_dict", document)
    if not isinstance(state, Mapping) or not state or not all(isinstance(v, Tensor) for v in state.values()):
        other = f" of the system {document['system']!r}" if isinstance(document.get("system"), str) else ""
        raise CheckpointError(
            f"{path} must hold a state dictionary, by itself or under 'state_dict'; "
            f"it holds {', '.join(map(str, document)) or 'nothing'}{other}."
        )
    _refuse_others(path, document, state)
    arguments = document.get("args")
    if isinstance(arguments, argparse.Namespace):
        config = config_of(arguments)
    elif not any(key.startswith("stages.") and key.endswith("kernel.weight") for key in state):
        config = config or ReferenceConfig(rank=None)
    model = MetaTasNet(config)
    _fill(path, model, state)
    return model.eval()


def config_of(arguments: argparse.Namespace) -> ReferenceConfig:
    """Read the sizes from upstream's command line arguments.

    Raises
    ------
    CheckpointError
        An argument is missing, or asks for what upstream itself cannot run or nobody has published.
    """
    values = vars(arguments)
    missing = sorted((_ARGUMENTS.keys() | {"independent_params"}) - values.keys())
    if missing:
        raise CheckpointError(f"'args' of the checkpoint lacks {', '.join(missing)}.")
    if values.get("residual_bias"):
        raise CheckpointError("checkpoints trained with --residual_bias are not supported; no published one is.")
    if values["H"] % 8 or values["B"] % 8 or values["N"] % 8:
        raise CheckpointError(f"N, B and H must be multiples of 8, got {values['N']}, {values['B']}, {values['H']}.")
    sizes: dict[str, Any] = {name: values[argument] for argument, name in _ARGUMENTS.items()}
    if values["independent_params"]:
        sizes["rank"], sizes["embedding"] = None, ReferenceConfig().embedding
    elif sizes["embedding"] is None:
        raise CheckpointError("E_1 is None, which upstream's own code cannot run; a number of 1 or more is needed.")
    return ReferenceConfig(**sizes)


def _read(path: Path) -> Mapping[str, Any]:
    data = path.read_bytes()  # so that what fails below is the content, not the disk
    if data.startswith(_HDF5):
        raise CheckpointError(
            f"{path} is an HDF5 file, as the Conditioned U-Net's Keras models are, and no Meta-TasNet checkpoint."
        )
    try:
        with torch.serialization.safe_globals([argparse.Namespace]):
            document = torch.load(io.BytesIO(data), map_location="cpu", weights_only=True)
    except Exception as error:  # the restricted unpickler fails on a broken file in any way there is
        found = re.search(r"GLOBAL (\S+)", str(error))
        if found is None:
            raise CheckpointError(
                f"{path} cannot be read as a PyTorch file ({type(error).__name__}); fetch or copy it again."
            ) from error
        raise CheckpointError(
            f"{path} holds a pickled {found[1]} and is not opened: unpickling can run code from the file. Allowed are "
            "tensors, plain values and argparse.Namespace. Re-save its 'state_dict' alone where the file is trusted."
        ) from error
    if not isinstance(document, Mapping):
        raise CheckpointError(f"{path} must hold a dictionary, got {type(document).__name__}.")
    return document


def _refuse_others(path: Path, document: Mapping[str, Any], state: Mapping[str, Tensor]) -> None:
    """Name the system whose checkpoint this is, if it is another's."""
    if isinstance(document.get("system"), str):
        raise CheckpointError(
            f"{path} is a streaming checkpoint of this project, of the system {document['system']!r}, and not an "
            "upstream Meta-TasNet. Load it with models.checkpoint.load_checkpoint."
        )
    for key, system in _OTHERS.items():
        if key in state:
            raise CheckpointError(f"{path} is no Meta-TasNet checkpoint; with {key!r} in it, it looks like {system}.")


def _fill(path: Path, model: MetaTasNet, state: Mapping[str, Tensor]) -> None:
    """Copy the weights, naming everything that does not fit."""
    expected = model.state_dict()
    missing = sorted(expected.keys() - state.keys())
    unexpected = sorted(state.keys() - expected.keys())
    shapes = [
        f"{key} {tuple(state[key].shape)} instead of {tuple(expected[key].shape)}"
        for key in sorted(expected.keys() & state.keys())
        if state[key].shape != expected[key].shape
    ]
    problems = [
        f"{what}: {', '.join(keys)}"
        for what, keys in (("missing", missing), ("unexpected", unexpected), ("wrong shape", shapes))
        if keys
    ]
    if problems:
        raise CheckpointError(f"{path} does not fit a Meta-TasNet of {model.config}; {'; '.join(problems)}.")
    model.load_state_dict(dict(state))
