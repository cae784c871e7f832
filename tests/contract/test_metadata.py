"""The metadata document: round trip, and a named error for everything that can be wrong with it."""

from __future__ import annotations

import dataclasses
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rtsep.contract import CONTRACT_VERSION, ControlSpec, ModelInfo, NotesSpec
from rtsep.errors import ContractVersionError, MetadataError
from tests.contract.documents import full_document, full_info

KEYS = [field.name for field in dataclasses.fields(ModelInfo)]
DOCS = Path(__file__).parents[2] / "docs" / "contract.md"


def read(document: Any) -> ModelInfo:
    return ModelInfo.from_json(json.dumps(document))


def test_importing_the_contract_loads_the_standard_library_only() -> None:
    code = (
        "import sys; before = set(sys.modules); import rtsep.contract; "
        "print(*sorted({n.partition('.')[0] for n in set(sys.modules) - before}))"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    loaded = set(run.stdout.split())
    assert "rtsep" in loaded
    assert loaded - {"rtsep"} <= set(sys.stdlib_module_names)


def test_a_document_survives_the_round_trip() -> None:
    info = full_info()
    again = ModelInfo.from_json(info.to_json())
    assert again == info
    assert json.loads(info.to_json()) == full_document()


def test_values_arrive_as_declared() -> None:
    info = full_info()
    assert info.samplerates == (44100, 48000)
    assert info.controls == (
        ControlSpec("query", (2, 3), (0.0, 0.5, 0.0, 0.0, 0.0, -1.0), -1.0, 1.5, "what to extract"),
    )
    assert info.notes == NotesSpec(("vocals", "bass"), 21, 108, 2, 1024)
    assert info.notes.pitches == 88
    assert info.evaluation["musdb18 SDR dB"]["vocals"] == 4.5


def test_labels_name_the_elements_of_a_control() -> None:
    control = {**full_document()["controls"][0], "labels": ["a", "b", "c", "d", "e", "f"]}
    info = full_info(controls=[control])
    assert info.controls[0].labels == ("a", "b", "c", "d", "e", "f")
    assert ModelInfo.from_json(info.to_json()) == info
    del control["labels"]
    with pytest.raises(MetadataError, match=r"no key 'controls\[0\].labels'"):
        full_info(controls=[control])


def test_null_stands_for_none() -> None:
    info = full_info(residual_stem=None, notes=None, controls=[])
    assert info.residual_stem is None
    assert info.notes is None
    assert info.controls == ()


@given(
    st.recursive(
        st.none()
        | st.booleans()
        | st.integers(-(2**53), 2**53)
        | st.floats(allow_nan=False, allow_infinity=False)
        | st.text(),
        lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
        max_leaves=8,
    )
)
def test_any_evaluation_survives_the_round_trip(value: Any) -> None:
    info = dataclasses.replace(full_info(), evaluation={"figure": value})
    assert ModelInfo.from_json(info.to_json()) == info


@pytest.mark.parametrize("key", KEYS)
def test_a_missing_key_is_named(key: str) -> None:
    document = full_document()
    del document[key]
    with pytest.raises(MetadataError, match=f"no key '{key}'"):
        read(document)


@pytest.mark.parametrize("key", KEYS)
def test_a_wrong_type_is_named(key: str) -> None:
    # An array of arrays fits no key.
    with pytest.raises(MetadataError, match=rf"{key}(\[0\])? is an array; .* is needed"):
        read(full_document(**{key: [[]]}))


@pytest.mark.parametrize("key", [key for key in KEYS if key not in ("residual_stem", "notes")])
def test_null_is_refused_elsewhere(key: str) -> None:
    with pytest.raises(MetadataError, match=f"{key} is null"):
        read(full_document(**{key: None}))


def test_an_unknown_key_is_named_with_the_likely_one() -> None:
    with pytest.raises(MetadataError, match=r"unknown key 'latency_sample'.* Did you mean 'latency_samples'\?"):
        read(full_document(latency_sample=3))


@pytest.mark.parametrize(
    ("part", "key"), [("controls", "minimum"), ("controls", "meaning"), ("notes", "lowest_midi"), ("notes", "stems")]
)
def test_keys_of_parts_are_strict_too(part: str, key: str) -> None:
    document = full_document()
    item = document[part][0] if part == "controls" else document[part]
    path = r"controls\[0\]" if part == "controls" else "notes"
    value = item.pop(key)
    with pytest.raises(MetadataError, match=rf"no key '{path}\.{key}'"):
        read(document)
    item[key] = value
    item["extra"] = 1
    with pytest.raises(MetadataError, match=rf"unknown key '{path}\.extra'"):
        read(document)


@pytest.mark.parametrize("version", [0, CONTRACT_VERSION + 1])
def test_another_version_is_said_before_anything_else(version: int) -> None:
    with pytest.raises(ContractVersionError, match=f"version {version}; this rtsep reads version 1"):
        read({"contract_version": version, "keys_of_the_future": True})


@pytest.mark.parametrize("version", ["1", 1.0, True])
def test_a_version_is_an_integer(version: Any) -> None:
    with pytest.raises(MetadataError, match="contract_version is"):
        read(full_document(contract_version=version))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "not JSON"),
        ("{", "not JSON"),
        ("[]", "is an array; an object is needed"),
        ('{"name": 1, "name": 2}', "the key 'name' twice"),
        ('{"evaluation": {"x": NaN}}', "holds NaN"),
        ('{"evaluation": -Infinity}', "holds -Infinity"),
        ("[" * 100_000, "not JSON"),
    ],
)
def test_text_that_is_no_document(text: str, message: str) -> None:
    with pytest.raises(MetadataError, match=message):
        ModelInfo.from_json(text)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"name": ""}, "name is ''"),
        ({"name": "a/b"}, "name is 'a/b'"),
        ({"version": ""}, "version is empty"),
        ({"licence": ""}, "licence is empty"),
        ({"git_commit": ""}, "git_commit is empty"),
        ({"samplerates": []}, "samplerates is"),
        ({"samplerates": [44100, 44100]}, "one or more different rates"),
        ({"samplerates": [0]}, "samplerates is 0; 1 or more"),
        ({"samplerates": [44100.0]}, r"samplerates\[0\] is a number; an integer"),
        ({"hop_samples": 0}, "hop_samples is 0; 1 or more"),
        ({"hop_samples": True}, "hop_samples is a boolean"),
        ({"latency_samples": -1}, "latency_samples is -1; 0 or more"),
        ({"channels": 0}, "channels is 0"),
        ({"parameters": -1}, "parameters is -1"),
        ({"macs_per_second": -1}, "macs_per_second is -1"),
        ({"stems": []}, "stems is"),
        ({"stems": ["bass", "bass"]}, "different names"),
        ({"stems": ["bass", "state/x"]}, "'state/x'"),
        ({"stems": ["drums", "vocals"]}, "residual_stem 'bass' is none of the stems drums, vocals"),
        ({"residual_stem": "vocal"}, "Did you mean 'vocals'"),
        ({"weights_sha256": "AB" * 32}, "64 lower-case hexadecimal"),
        ({"training_data": [1]}, r"training_data\[0\] is an integer; a string"),
        ({"controls": full_document()["controls"] * 2}, "not all different"),
    ],
)
def test_values_out_of_range(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(MetadataError, match=message):
        read(full_document(**changes))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"shape": [2, 2]}, "has 6 values; shape .2, 2. needs 4"),
        ({"shape": [6, 0]}, "shape is 0"),
        ({"maximum": 0.25}, "holds 0.5; allowed is -1.0 to 0.25"),
        ({"minimum": 2}, "minimum 2.0 is above maximum 1.5"),
        ({"maximum": 10**400}, "a finite number is needed"),
        ({"minimum": "low"}, "a number is needed"),
        ({"name": "a/b"}, "'a/b'"),
        ({"labels": ["a", "b"]}, "labels has 2 names; shape .2, 3. needs 6, or none"),
        ({"labels": ["a"] * 6}, "different names are needed"),
        ({"labels": ["a", "b", "c", "d", "e", "f/g"]}, "'f/g'"),
    ],
)
def test_controls_out_of_range(changes: dict[str, Any], message: str) -> None:
    control = {**full_document()["controls"][0], **changes}
    with pytest.raises(MetadataError, match=message):
        read(full_document(controls=[control]))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"lowest_midi": 109}, "109 to notes.highest_midi 108"),
        ({"highest_midi": 128}, "within 0 to 127"),
        ({"lowest_midi": -1}, "within 0 to 127"),
        ({"frames_per_hop": 0}, "frames_per_hop is 0"),
        ({"extra_latency_samples": -1}, "extra_latency_samples is -1"),
        ({"stems": ["guitar"]}, "holds 'guitar', none of the stems"),
        ({"stems": []}, "notes.stems is"),
    ],
)
def test_notes_out_of_range(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(MetadataError, match=message):
        read(full_document(notes={**full_document()["notes"], **changes}))


def test_an_evaluation_json_cannot_carry_is_refused_on_writing() -> None:
    for value in (float("nan"), object()):
        info = dataclasses.replace(full_info(), evaluation={"x": value})
        with pytest.raises(MetadataError, match="evaluation cannot be written"):
            info.to_json()


def test_the_document_describes_every_key() -> None:
    text = DOCS.read_text(encoding="utf-8")
    for cls in (ModelInfo, ControlSpec, NotesSpec):
        for field in dataclasses.fields(cls):
            assert f"`{field.name}`" in text, f"docs/contract.md does not mention {field.name}"
