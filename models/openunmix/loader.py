"""Upstream Open-Unmix checkpoints, read into the reference form: strict, and without unpickling any class.

What is read:

======================================== ===========================================================
``<target>.pth``, ``<target>-<8 hex>.pth`` bare state dictionary (v1 training, the hub's files)
``<target>.chkpnt``                      wrapper with ``state_dict`` (v1 training)
``<target>.pth.tar``,                    wrapper with ``state_dict`` (early version)
``<target>_chkpnt.pth.tar``
``model.pth``, ``model.chkpnt``          one network with several heads (the loss fork)
a folder of these                        with ``separator.json``, ``<target>.json`` or ``output.json``
======================================== ===========================================================

Sizes, the kind of LSTM and the variant follow from the tensors' shapes (upstream needs them told, and cannot
load its own unidirectional networks). Only hop and sample rate are in no shape: they come from the call, the
JSON files, the checkpoint's own ``sample_rate`` or, for the published 4096-sample models, are known.
"""

from __future__ import annotations

import io
import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from models.openunmix.reference import OpenUnmix, ReferenceConfig, ReferenceSeparator, Variant

IGNORED_KEYS = frozenset({"sample_rate", "stft.window", "transform.0.window"})  # front end, stored in 2019
USUAL_TARGETS = ("vocals", "drums", "bass", "other")
# Hub files of the speech enhancement model, the only published one that is not 4096/1024 at 44.1 kHz.
_SPEECH_FILES = ("speech_f5e0d9f9", "noise_04a6fc2d")
_FILE_NAME = re.compile(
    r"(?P<target>.+?)(?:[-_](?P<hash>[0-9a-f]{8}))?(?P<kind>_chkpnt|_model)?\.(?P<ending>pth\.tar|pth|pt|chkpnt)"
)


class CheckpointError(ValueError):
    """A file is not an Open-Unmix checkpoint, or not a whole one."""


def load_reference(
    path: str | Path,
    *,
    targets: Sequence[str] | None = None,
    hop: int | None = None,
    samplerate: int | None = None,
    iterations: int | None = None,
    wiener_frames: int | None = 300,
    softmask: bool = False,
    residual: str | None = None,
) -> ReferenceSeparator:
    """Load a checkpoint file, or a folder of them, as an offline separator in evaluation mode.

    Parameters
    ----------
    path : str or Path
        File or folder, see the module's table.
    targets : sequence of str, optional
        Which targets of a folder to load, and in which order; for a network with several heads, the names of
        its heads. Default: all that are found, the usual four first.
    hop, samplerate : int, optional
        Samples and Hz, over what the files say.
    iterations : int, optional
        Of the Wiener filter. Default 1, or 0 for a single target without residual.
    wiener_frames, softmask, residual
        See :class:`ReferenceSeparator`.

    Raises
    ------
    FileNotFoundError
        The path or a target is not there.
    CheckpointError
        A file cannot be read as Open-Unmix; the message names the keys or values.
    """
    path = Path(path)
    if path.is_dir():
        files = _files_of_folder(path, targets)
    elif path.is_file():
        name = target_of(path) or path.stem
        files = {targets[0] if targets and len(targets) == 1 else name: path}
    else:
        raise FileNotFoundError(f"no checkpoint file or folder at {path}; give a .pth file or its folder.")
    networks = {
        target: load_network(file, target=target, hop=hop, samplerate=samplerate) for target, file in files.items()
    }
    first = next(iter(networks.values()))
    source: dict[str, OpenUnmix] | tuple[OpenUnmix, tuple[str, ...]] = networks
    stems = tuple(networks)
    if any(network.config.variant == "heads" for network in networks.values()):
        if len(networks) > 1:
            raise CheckpointError(
                f"{path} holds {len(networks)} networks ({', '.join(networks)}), one of them with heads for "
                "several targets; give the path of one file."
            )
        stems = _head_names(path, next(iter(files.values())), first.config.heads, targets)
        source = (first, stems)
    if iterations is None:
        iterations = 0 if len(stems) == 1 and residual is None else 1
    return ReferenceSeparator(
        source,
        iterations=iterations,
        wiener_frames=wiener_frames,
        softmask=softmask,
        residual=residual,
    ).eval()


def load_network(
    path: str | Path, *, target: str | None = None, hop: int | None = None, samplerate: int | None = None
) -> OpenUnmix:
    """Load one checkpoint file as a network in evaluation mode.

    Parameters
    ----------
    path : str or Path
    target : str, optional
        Whose ``<target>.json`` to look for beside it; default, from the file's name.
    hop, samplerate : int, optional
        As in :func:`load_reference`.

    Raises
    ------
    CheckpointError
        As in :func:`load_reference`.
    """
    path = Path(path)
    state = read_state_dict(path)
    facts = _front_end_facts(path, target or target_of(path) or path.stem)
    if "samplerate" not in facts and "sample_rate" in state and state["sample_rate"].numel() == 1:
        facts["samplerate"] = int(state["sample_rate"])
    facts.update({name: value for name, value in (("hop", hop), ("samplerate", samplerate)) if value is not None})
    network = OpenUnmix(_infer_config(path, state, facts))
    _fill(path, network, state)
    return network.eval()


def target_of(path: Path) -> str | None:
    """Return the target a checkpoint's file name speaks of, or None when it is no checkpoint's name."""
    match = _FILE_NAME.fullmatch(path.name)
    return match["target"] if match else None


def read_state_dict(path: str | Path) -> dict[str, Tensor]:
    """Return the tensors of a bare or wrapped state dictionary; nothing else is ever unpickled.

    Raises
    ------
    CheckpointError
        The file holds a pickled class, or no state dictionary.
    """
    data = io.BytesIO(Path(path).read_bytes())  # so that what fails below is the content, not the disk
    try:
        document = torch.load(data, map_location="cpu", weights_only=True)
    except Exception as error:  # the restricted unpickler fails on a broken file in any way there is
        found = re.search(r"GLOBAL (\S+)", str(error))
        if found is None:
            raise CheckpointError(
                f"{path} cannot be read as a PyTorch file ({type(error).__name__}); fetch or copy it again."
            ) from error
        raise CheckpointError(
            f"{path} holds a pickled {found[1]}, not just weights, and is not opened: unpickling can run "
            "code from the file. Use the file with the state dictionary (<target>.pth, <target>.pth.tar or "
            "<target>_chkpnt.pth.tar), or re-save module.state_dict() where the file is trusted."
        ) from error
    if isinstance(document, Mapping) and isinstance(document.get("state_dict"), Mapping):
        document = document["state_dict"]
    if not isinstance(document, Mapping) or not document:
        raise CheckpointError(f"{path} must hold a state dictionary, got {type(document).__name__}.")
    others = sorted(str(key) for key, value in document.items() if not isinstance(value, Tensor))
    if others:
        raise CheckpointError(
            f"{path} must hold tensors, or a dictionary with 'state_dict'; not tensors: {', '.join(others[:8])}."
        )
    return dict(document)


def _infer_config(path: Path, state: Mapping[str, Tensor], facts: Mapping[str, int]) -> ReferenceConfig:
    """Read a network's shape from its tensors; ``facts`` adds hop and sample rate."""
    heads = sum(1 for key in state if re.fullmatch(r"fc3_\d+\.weight", key))
    last = "fc3_1.weight" if heads else "fc3.weight"
    variant: Variant = "heads" if heads else "v1" if "input_mean" in state else "early"
    needed = ["fc1.weight", last, "output_mean", "lstm.weight_ih_l0"] + ["input_mean"] * (variant != "early")
    missing = [key for key in needed if key not in state]
    if missing:
        raise CheckpointError(
            f"{path} is no Open-Unmix network: missing {', '.join(missing)}; "
            f"it has {len(state)} tensors, the first {', '.join(list(state)[:4])}."
        )
    hidden, width_in = _matrix(path, state, "fc1.weight")
    width_out, _ = _matrix(path, state, last)
    bins = state["output_mean"].numel()
    channels = width_out // bins
    max_bin = width_in // max(channels, 1)
    if channels * bins != width_out or channels * max_bin != width_in:
        raise CheckpointError(
            f"{path}: {last} has {width_out} rows and fc1.weight {width_in} columns, which no number of "
            f"channels divides into {bins} output bins."
        )
    n_fft = 2 * (bins - 1)
    _agree(path, facts, "n_fft", n_fft)
    _agree(path, facts, "channels", channels)
    published = n_fft == 4096
    try:
        return ReferenceConfig(
            variant=variant,
            channels=channels,
            n_fft=n_fft,
            hop=_known(path, facts, "hop", 1024 if published else None, n_fft),
            samplerate=_known(path, facts, "samplerate", 44100 if published else None, n_fft),
            max_bin=max_bin,
            hidden=hidden,
            layers=sum(1 for key in state if re.fullmatch(r"lstm\.weight_ih_l\d+", key)),
            unidirectional="lstm.weight_ih_l0_reverse" not in state,
            heads=max(heads, 1),
        )
    except CheckpointError:
        raise
    except ValueError as error:
        raise CheckpointError(f"{path}: {error}") from error


def _matrix(path: Path, state: Mapping[str, Tensor], key: str) -> tuple[int, int]:
    if state[key].ndim != 2:
        raise CheckpointError(f"{path}: {key} must be a matrix, got shape {tuple(state[key].shape)}.")
    rows, columns = state[key].shape
    return rows, columns


def _agree(path: Path, facts: Mapping[str, int], name: str, value: int) -> None:
    if facts.get(name, value) != value:
        raise CheckpointError(
            f"{path}: the weights have {name} {value}, the JSON beside them says {facts[name]}; "
            "they belong to different networks."
        )


def _known(path: Path, facts: Mapping[str, int], name: str, default: int | None, n_fft: int) -> int:
    value = facts.get(name, default)
    if value is None:
        raise CheckpointError(
            f"{path}: {name} is in no shape and no separator.json says it (n_fft is {n_fft}); pass {name}=."
        )
    return value


def _fill(path: Path, network: OpenUnmix, state: Mapping[str, Tensor]) -> None:
    """Copy the weights, naming everything that does not fit."""
    expected = network.state_dict()
    got = {key: value for key, value in state.items() if key not in IGNORED_KEYS}
    # Written by torch since 0.4.1 only, and of no use in evaluation.
    optional = {key for key in expected if key.endswith(".num_batches_tracked")}
    missing = sorted(expected.keys() - got.keys() - optional)
    unexpected = sorted(got.keys() - expected.keys())
    shapes = [
        f"{key} {tuple(got[key].shape)} instead of {tuple(expected[key].shape)}"
        for key in sorted(expected.keys() & got.keys())
        if got[key].shape != expected[key].shape
    ]
    problems = [
        f"{what}: {', '.join(keys)}"
        for what, keys in (("missing", missing), ("unexpected", unexpected), ("wrong shape", shapes))
        if keys
    ]
    if problems:
        raise CheckpointError(f"{path} does not fit variant {network.config.variant!r}; {'; '.join(problems)}.")
    network.load_state_dict({**expected, **got})


def _files_of_folder(folder: Path, targets: Sequence[str] | None) -> dict[str, Path]:
    """Return the best checkpoint of each target in a folder, or in one sub-folder per target."""
    ranked: dict[str, dict[int, list[Path]]] = {}
    for file in sorted([*folder.glob("*"), *folder.glob("*/*")]):
        match = _FILE_NAME.fullmatch(file.name)
        if match and file.is_file() and file.parent in (folder, folder / match["target"]):
            ranked.setdefault(match["target"], {}).setdefault(_rank(match), []).append(file)
    wanted = list(targets or sorted(ranked, key=lambda name: ((*USUAL_TARGETS, name).index(name), name)))
    if targets and "model" in ranked and not set(targets) & ranked.keys():
        wanted = ["model"]  # one network with a head per target
    absent = [target for target in wanted if target not in ranked]
    if absent or not wanted:
        raise FileNotFoundError(
            f"no checkpoint for {', '.join(absent) or 'any target'} in {folder}; it has "
            f"{', '.join(sorted(ranked)) or 'no checkpoint at all (<target>.pth, .chkpnt, .pth.tar)'}."
        )
    files = {}
    for target in wanted:
        best = ranked[target][min(ranked[target])]
        if len(best) > 1:
            raise CheckpointError(
                f"{folder} has several checkpoints for {target!r}: {', '.join(file.name for file in best)}; "
                "give the path of one file, or keep one model per folder."
            )
        files[target] = best[0]
    return files


def _rank(match: re.Match[str]) -> int:
    """Order in which one target's files are preferred: best weights, hub, wrappers, pickled module."""
    if match["kind"] == "_model":
        return 4
    if match["kind"] == "_chkpnt" or match["ending"] == "chkpnt":
        return 3
    return 2 if match["ending"] == "pth.tar" else 1 if match["hash"] else 0


def _front_end_facts(path: Path, target: str) -> dict[str, int]:
    """Collect n_fft, hop, samplerate and channels from the JSON files beside a checkpoint."""
    facts: dict[str, int] = {}
    if path.name.startswith(_SPEECH_FILES):
        facts.update(n_fft=1024, hop=512, samplerate=16000)
    documents = [_args_of_heads(path)] if target == "model" else []
    for file in (path.parent / "output.json", path.parent / f"{target}.json"):
        document = _read_json(file)
        documents.append({**document.get("args", {}), **{key: document[key] for key in ("rate",) if key in document}})
    documents.append(_read_json(path.parent / "separator.json"))
    names = {
        "nfft": "n_fft",
        "nhop": "hop",
        "sample_rate": "samplerate",
        "rate": "samplerate",
        "nb_channels": "channels",
    }
    for document in documents:
        for key, name in names.items():
            if document.get(key) is not None:
                facts[name] = int(document[key])
    return facts


def _args_of_heads(path: Path) -> dict[str, Any]:
    """Return the training arguments of a network with heads, which lie in ``<number of heads>.json``."""
    numbered = sorted(file for file in path.parent.glob("*.json") if file.stem.isdigit())
    args = dict(_read_json(numbered[0]).get("args", {})) if len(numbered) == 1 else {}
    if "nfft" in args and "nhop" not in args:
        args["nhop"] = int(args["nfft"]) // 4  # that code never passes a hop on: torch's default
    return args


def _head_names(path: Path, file: Path, heads: int, targets: Sequence[str] | None) -> tuple[str, ...]:
    stored = _args_of_heads(file).get("targets")
    if targets:
        names = tuple(targets)
    elif isinstance(stored, list):
        names = tuple(str(name) for name in stored)
    else:
        names = USUAL_TARGETS
    if len(names) != heads:
        raise CheckpointError(
            f"{path} has {heads} heads, got {len(names)} names ({', '.join(names)}); pass targets= with {heads} names."
        )
    return names


def _read_json(file: Path) -> dict[str, Any]:
    if not file.is_file():
        return {}
    try:
        document = json.loads(file.read_text(encoding="utf-8"))
    except ValueError as error:
        raise CheckpointError(f"{file} is not valid JSON: {error}; repair or remove it.") from error
    if not isinstance(document, dict):
        raise CheckpointError(f"{file} must hold a JSON object, got {type(document).__name__}.")
    return document
