"""Names, aliases and paths of models; and that a shipped model is what its card says."""

from __future__ import annotations

import json
import os
from pathlib import Path

import numpy as np
import pytest

from rtsep.contract import ModelInfo
from rtsep.errors import GraphError, MetadataError, ModelFileError, ModelNotFoundError
from rtsep.inference import StreamingSession
from rtsep.zoo import ModelCard, ZooEntry, list_models, resolve, verify
from rtsep.zoo.registry import ALIASES
from tests.support.cards import write_beside
from tests.support.graphs import make_delay_model


def add_model(folder: Path, name: str) -> ZooEntry:
    path = make_delay_model(folder / f"{name}.onnx", hop=64, latency=96, name=name)
    write_beside(path)
    return ZooEntry(name, path, ())


@pytest.fixture
def zoo(tmp_path: Path) -> Path:
    folder = tmp_path / "zoo"
    folder.mkdir()
    for name in ("bandsplit-low", "openunmix-high"):
        add_model(folder, name)
    return folder


def test_the_default_model_is_shipped_and_in_order() -> None:
    entries = {entry.name: entry for entry in list_models()}
    assert "bandsplit-low" in entries
    assert resolve("default") == entries["bandsplit-low"].path
    live = entries["bandsplit-live"]
    assert resolve("live") == live.path
    assert 1000 * (live.info.hop_samples + live.info.latency_samples) / live.info.samplerates[0] <= 8.0
    for entry in entries.values():
        found = verify(entry)
        assert found.hops > 0
        assert found.max_abs_error <= 1e-4


def test_listing(zoo: Path) -> None:
    low, high = list_models(zoo)
    assert (high.name, high.aliases) == ("openunmix-high", ())
    assert (low.name, low.aliases) == ("bandsplit-low", ("default", "low"))
    assert low.path == zoo / "bandsplit-low.onnx"
    assert low.card_path == zoo / "bandsplit-low.json"
    assert low.golden_path == zoo / "bandsplit-low.golden.npz"
    assert isinstance(low.info, ModelInfo)
    assert low.info.latency_samples == 96
    assert low.card.name == "bandsplit-low"


def test_an_empty_folder_lists_nothing(tmp_path: Path) -> None:
    assert list_models(tmp_path) == []
    with pytest.raises(ModelNotFoundError, match=r"'default' is 'bandsplit-low', and bandsplit-low\.onnx is not in"):
        resolve("default", tmp_path)


@pytest.mark.parametrize("name", ["bandsplit-low", *(n for n, target in ALIASES.items() if target == "bandsplit-low")])
def test_names_and_aliases(zoo: Path, name: str) -> None:
    assert resolve(name, zoo) == zoo / "bandsplit-low.onnx"


def test_paths(zoo: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = zoo / "bandsplit-low.onnx"
    assert resolve(path) == path
    assert resolve(str(path)) == path
    monkeypatch.chdir(zoo)
    assert resolve("bandsplit-low.onnx") == Path("bandsplit-low.onnx")
    assert resolve(os.path.join(".", "bandsplit-low.onnx")) == Path("bandsplit-low.onnx")
    other = tmp_path / "checkpoint without suffix"
    other.write_bytes(path.read_bytes())
    assert resolve(str(other)) == other
    monkeypatch.setenv("HOME", str(tmp_path))
    assert resolve("~/zoo/bandsplit-low.onnx") == path


def test_a_file_does_not_hide_a_name(zoo: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "default").write_text("not a model")
    assert resolve("default", zoo) == zoo / "bandsplit-low.onnx"


@pytest.mark.parametrize(("wrong", "right"), [("bandsplit-lo", "bandsplit-low"), ("defualt", "default")])
def test_an_unknown_name_is_met_with_the_likely_one(zoo: Path, wrong: str, right: str) -> None:
    with pytest.raises(ModelNotFoundError) as caught:
        resolve(wrong, zoo)
    message = str(caught.value)
    assert f"No model is named '{wrong}'. Did you mean '{right}'?" in message
    assert "Known are bandsplit-low, openunmix-high, default, low" in message
    assert message.endswith("See: rtsep models list")


def test_an_unknown_path_is_met_with_the_likely_one(zoo: Path) -> None:
    with pytest.raises(ModelNotFoundError, match=r"No model file .*low\.onx\..*Did you mean '.*low\.onnx'"):
        resolve(zoo / "bandsplit-low.onx")
    with pytest.raises(ModelNotFoundError, match=r"No model file nowhere/at/all\.onnx"):
        resolve("nowhere/at/all.onnx")


def test_a_model_in_order_is_verified(zoo: Path) -> None:
    low = list_models(zoo)[0]
    found = verify(low)
    assert (found.name, found.sha256, found.hops) == ("bandsplit-low", low.card.sha256, 8)
    assert found.max_abs_error == 0.0


def test_a_changed_file_is_found(zoo: Path) -> None:
    low = list_models(zoo)[0]
    low.path.write_bytes(low.path.read_bytes() + b"\x72\x00")
    with pytest.raises(ModelFileError, match=r"has the SHA-256 .* the file was changed or damaged"):
        verify(low)


def test_another_models_card_is_found(zoo: Path) -> None:
    low, high = list_models(zoo)
    card = json.loads(low.card_path.read_text())
    low.card_path.write_text(json.dumps({**card, "name": high.name}))
    with pytest.raises(ModelFileError, match="calls itself 'bandsplit-low', and its card says 'openunmix-high'"):
        verify(low)


def test_a_model_that_computes_something_else_is_found(zoo: Path) -> None:
    path = make_delay_model(
        zoo / "bandsplit-low.onnx", hop=64, latency=96, name="bandsplit-low", gains=(0.125, 0.125, 0.252, 0.498)
    )
    golden = path.with_suffix(".golden.npz")
    before = golden.read_bytes()
    write_beside(path)
    golden.write_bytes(before)
    with pytest.raises(ModelFileError, match=r"differs from its golden stems by \d\.\d\de-03; 1e-04 is allowed"):
        verify(list_models(zoo)[0])


def test_a_model_off_the_contract_is_found(zoo: Path) -> None:
    path = zoo / "bandsplit-low.onnx"
    make_delay_model(path, hop=64, latency=96, name="bandsplit-low", broken="no-audio")
    write_beside(path, golden=False)
    with pytest.raises(GraphError, match="no input 'audio'"):
        verify(list_models(zoo)[0])


@pytest.mark.parametrize("spoil", ["missing", "cut", "no key", "shape", "ragged", "dtype", "empty"])
def test_a_golden_pair_that_does_not_fit_is_found(zoo: Path, spoil: str) -> None:
    low = list_models(zoo)[0]
    golden = low.golden_path
    with np.load(golden) as pair:
        audio, stems = pair["audio"], pair["stems"]
    match spoil:
        case "missing":
            golden.unlink()
        case "cut":
            golden.write_bytes(golden.read_bytes()[:100])
        case "no key":
            np.savez(golden, audio=audio)
        case "shape":
            np.savez(golden, audio=audio, stems=stems[:3])
        case "ragged":
            np.savez(golden, audio=audio[:, :-1], stems=stems[:, :, :-1])
        case "dtype":
            np.savez(golden, audio=audio.astype(np.float64), stems=stems)
        case "empty":
            np.savez(golden, audio=audio[:, :0], stems=stems[:, :, :0])
    with pytest.raises(ModelFileError, match=r"The golden pair .*bandsplit-low\.golden\.npz (cannot be read|holds)"):
        verify(low)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (None, "cannot be read"),
        ("{", "is not JSON"),
        ("[]", "is an array; an object is needed"),
        ('{"name": "x"}', "has no key 'sha256'"),
    ],
)
def test_a_bad_card_is_named(zoo: Path, text: str | None, message: str) -> None:
    low = list_models(zoo)[0]
    low.card_path.unlink()
    if text is not None:
        low.card_path.write_text(text)
    with pytest.raises(MetadataError, match=message) as caught:
        _ = low.card
    assert str(low.card_path) in str(caught.value)


def test_an_unknown_key_of_a_card_is_named(zoo: Path) -> None:
    low = list_models(zoo)[0]
    card = json.loads(low.card_path.read_text())
    low.card_path.write_text(json.dumps({**card, "sumary": "x"}))
    with pytest.raises(MetadataError, match=r"unknown key 'sumary'\. Did you mean 'summary'"):
        ModelCard.read(low.card_path)


def test_a_session_takes_a_name_of_the_zoo_or_a_path(zoo: Path) -> None:
    for model in (zoo / "bandsplit-low.onnx", str(zoo / "bandsplit-low.onnx")):
        with StreamingSession(model) as session:
            assert session.info.name == "bandsplit-low"
