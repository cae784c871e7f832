"""Upstream MSI checkpoints, read into the reference form: strict, and without unpickling any class.

Upstream writes ``params_epoch-<N>.pkl``: a state dictionary whose network lies under ``network.`` beside the
constant weights of its STFT, which are not needed here. Variants are told apart by the parts that are there.
"""

from __future__ import annotations

import io
import re
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor

from models.msi.reference import ReferenceMSI, Variant

FROZEN = ("stft.", "istft.")  # torchlibrosa's Fourier matrices, 17.8 of the file's 21.7 million values
_PARTS = {
    "network.queryNet.": "query_net.",
    "network.unet.encoder.": "encoder.",
    "network.unet.decoder.": "decoder.",
    "network.transcriptor.": "transcriptor.",
    "network.pitchExtractor.": "pitch_extractor.",
    "network.timbreFilter.": "timbre_filter.",
}
_INSIDE = (("bn0.bn.", "bn0."), ("decoder.bottom.conv.", "decoder.bottom."))
_SIGNS = {"fc1.weight": "Open-Unmix", "stages.": "Meta-TasNet"}  # by which other systems' keys are known


class CheckpointError(ValueError):
    """A file is not an MSI checkpoint, or not a whole one."""


def load_reference(path: str | Path) -> ReferenceMSI:
    """Load a checkpoint of any variant, in evaluation mode.

    Parameters
    ----------
    path : str or Path
        Upstream's ``params_epoch-<N>.pkl``.

    Raises
    ------
    FileNotFoundError
        There is no file.
    CheckpointError
        The file holds more than tensors, is of another system, or keys or shapes are not those of MSI; all of
        them are named.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"no checkpoint at {path}; give upstream's params_epoch-<N>.pkl.")
    state = read_state_dict(path)
    got = {_our_name(key): value for key, value in state.items() if not key.startswith(FROZEN)}
    network = ReferenceMSI(_variant(got))
    expected = network.state_dict()
    missing = sorted(_upstream_name(key) for key in expected.keys() - got.keys())
    unexpected = sorted(_upstream_name(key) for key in got.keys() - expected.keys())
    shapes = [
        f"{_upstream_name(key)} {tuple(got[key].shape)} instead of {tuple(value.shape)}"
        for key, value in expected.items()
        if key in got and got[key].shape != value.shape
    ]
    kinds = (("missing", missing), ("unexpected", unexpected), ("wrong shape", shapes))
    problems = [f"{what}: {', '.join(keys)}" for what, keys in kinds if keys]
    if problems:
        raise CheckpointError(f"{path} does not fit variant {network.variant!r}; {'; '.join(problems)}.")
    network.load_state_dict(got)
    return network.eval()


def read_state_dict(path: Path) -> dict[str, Tensor]:
    """Return the tensors of a state dictionary; nothing else is ever unpickled.

    Raises
    ------
    CheckpointError
        The file holds a pickled class, no state dictionary, or one of another system.
    """
    content = path.read_bytes()
    if content.startswith(b"\x89HDF"):
        raise CheckpointError(f"{path} is an HDF5 file, not PyTorch's; it looks like a Conditioned U-Net.")
    data = io.BytesIO(content)  # so that what fails below is the content, not the disk
    try:
        document = torch.load(data, map_location="cpu", weights_only=True)
    except Exception as error:  # the restricted unpickler fails on a broken file in any way there is
        found = re.search(r"GLOBAL (\S+)", str(error))
        if found is None:
            raise CheckpointError(
                f"{path} cannot be read as a PyTorch file ({type(error).__name__}); fetch or copy it again."
            ) from error
        guess = " It looks like a Meta-TasNet checkpoint." if found[1] == "argparse.Namespace" else ""
        raise CheckpointError(
            f"{path} holds a pickled {found[1]}, not just weights, and is not opened: unpickling can run code from "
            f"the file.{guess} Re-save module.state_dict() where the file is trusted."
        ) from error
    if isinstance(document, Mapping) and isinstance(document.get("system"), str) and "config" in document:
        raise CheckpointError(
            f"{path} is a streaming {document['system']!r} checkpoint, no upstream file; "
            "load it with models.checkpoint.load_checkpoint."
        )
    if not isinstance(document, Mapping) or not document:
        raise CheckpointError(f"{path} must hold a state dictionary, got {type(document).__name__}.")
    keys = [str(key) for key in document]
    if not any(key.startswith("network.") for key in keys):
        wrapped = document.get("state_dict")
        inner = keys + ([str(key) for key in wrapped] if isinstance(wrapped, Mapping) else [])
        looks = next((name for sign, name in _SIGNS.items() if any(key.startswith(sign) for key in inner)), None)
        hint = f"; it looks like {looks}" if looks else ""
        raise CheckpointError(
            f"{path} is no MSI checkpoint: no key starts with 'network.'{hint}. "
            f"It has {len(keys)} entries, the first {', '.join(keys[:4])}."
        )
    others = sorted(str(key) for key, value in document.items() if not isinstance(value, Tensor))
    if others:
        raise CheckpointError(f"{path} must hold tensors only; not tensors: {', '.join(others[:8])}.")
    return dict(document)


def _variant(state: Mapping[str, Tensor]) -> Variant:
    parts = {key.split(".")[0] for key in state}
    if parts & {"pitch_extractor", "timbre_filter"}:
        return "MSI"
    if "transcriptor" in parts:
        return "MSS-AMT" if "decoder" in parts else "AMT"
    return "MSS" if "decoder" in parts else "MSI"


def _our_name(key: str) -> str:
    for theirs, ours in _PARTS.items():
        if key.startswith(theirs):
            key = ours + key.removeprefix(theirs)
            for long, short in _INSIDE:
                key = key.replace(long, short)
            return key
    return key


def _upstream_name(key: str) -> str:
    for theirs, ours in _PARTS.items():
        if key.startswith(ours):
            for long, short in _INSIDE:
                key = key.replace(short, long)
            return theirs + key.removeprefix(ours)
    return key
