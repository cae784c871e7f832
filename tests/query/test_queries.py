"""Query files: what comes back is what was written, and nothing else is taken for one."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from rtsep.errors import QueryError, UsageError
from rtsep.query.queries import Query, controls_for
from rtsep.zoo.registry import read_info
from tests.support.graphs import make_delay_model
from tests.support.query_graphs import make_encoder, make_step


def test_a_query_comes_back_bit_for_bit(query: Query, tmp_path: Path) -> None:
    query.save(tmp_path / "a.query")
    back = Query.load(tmp_path / "a.query")
    np.testing.assert_array_equal(back.vector, query.vector)
    assert len(back.timbre) == len(query.timbre) == 2
    for one, other in zip(back.timbre, query.timbre, strict=True):
        np.testing.assert_array_equal(one, other)
        assert one.dtype == np.float32
    plain = ("name", "model", "encoder_sha256", "samplerate", "seconds", "source", "created_by")
    assert all(getattr(back, key) == getattr(query, key) for key in plain)
    assert [path.name for path in tmp_path.iterdir()] == ["a.query"]


def changed(**changes: Any) -> Callable[[dict[str, Any]], dict[str, Any]]:
    return lambda document: {**document, **changes}


def without(key: str) -> Callable[[dict[str, Any]], dict[str, Any]]:
    return lambda document: {k: v for k, v in document.items() if k != key}


@pytest.mark.parametrize(
    ("change", "text"),
    [
        (changed(kind="preset"), "is no query of rtsep (its kind is 'preset')"),
        (changed(format=2), "has the query format 2; this rtsep reads 1"),
        (changed(colour="red"), "unknown key 'colour'"),
        (without("seconds"), "has no key 'seconds'"),
        (changed(query=[]), "query is empty"),
        (changed(query=[1e39]), "query is empty or not finite"),
        (changed(query=["a"]), "query[0] is a string; a number is needed"),
        (changed(samplerate="16 kHz"), "samplerate is a string"),
        (changed(timbre=[{"shape": [1, 8], "data": "AAAA"}]), "timbre[0] holds 3 bytes for the shape [1, 8]"),
        (changed(timbre=[{"shape": [1, 1], "data": "!!"}]), "not base64"),
        (changed(timbre=[{"shape": [1, 1], "data": "AADAfw=="}]), "timbre is empty or not finite"),
        (changed(timbre=[{"shape": [], "data": "AAAAAA=="}]), "for the shape []"),
        (changed(timbre=[7]), "timbre[0] is int"),
    ],
)
def test_damaged_documents_are_named(
    query: Query, tmp_path: Path, change: Callable[[dict[str, Any]], dict[str, Any]], text: str
) -> None:
    path = tmp_path / "a.query"
    query.save(path)
    path.write_text(json.dumps(change(json.loads(path.read_text()))))
    with pytest.raises(QueryError) as caught:
        Query.load(path)
    assert text in str(caught.value)
    assert str(path) in str(caught.value)
    assert "rtsep enroll" in str(caught.value)
    assert "contract.md" not in str(caught.value)


@pytest.mark.parametrize("data", [b"", b"RIFF\x24\x00\x00\x00WAVE" + bytes(100), b"\xff\xfe\x00", b"[1, 2]", b"{"])
def test_other_files_are_no_queries(tmp_path: Path, data: bytes) -> None:
    path = tmp_path / "a.query"
    path.write_bytes(data)
    with pytest.raises(QueryError, match=r"a\.query is (no query|damaged)"):
        Query.load(path)


def test_missing_files_and_places_are_said(query: Query, tmp_path: Path) -> None:
    with pytest.raises(QueryError, match="No such file"):
        Query.load(tmp_path / "none.query")
    with pytest.raises(QueryError, match="cannot be written"):
        query.save(tmp_path / "none" / "a.query")


def test_a_query_knows_its_model(query: Query, family: Path, tmp_path: Path) -> None:
    np.testing.assert_array_equal(controls_for(read_info(family), family, query)["query"], query.vector)
    other = make_step(tmp_path / "other.onnx", name="other")
    with pytest.raises(QueryError, match="'oboe' is for the model msi, not for other"):
        query.check(read_info(other), other)
    plain = make_delay_model(tmp_path / "plain.onnx")
    with pytest.raises(QueryError, match=r"takes no query; 'oboe' is for msi: --model msi"):
        query.check(read_info(plain), plain)
    assert controls_for(read_info(plain), plain, None) == {}
    with pytest.raises(UsageError, match=r"has none: --query NAME\.query"):
        controls_for(read_info(family), family, None)


def test_a_query_of_an_older_encoder_is_refused(query: Query, tmp_path: Path) -> None:
    step = make_step(tmp_path / "msi.onnx")
    query.check(read_info(step), step)  # without an encoder beside it nothing contradicts
    make_encoder(tmp_path / "msi.query.onnx", salt=0.1)
    with pytest.raises(QueryError, match=r"another version of msi .* rtsep enroll oboe\.wav"):
        query.check(read_info(step), step)


def test_how_to_enroll_again(query: Query, tmp_path: Path) -> None:
    taken = dataclasses.replace(query, source="take 1.wav", name="my oboe")
    assert taken.enroll_again(Path("m.onnx")).endswith("rtsep enroll 'take 1.wav' --model m.onnx -o 'my oboe.query'")
    live = dataclasses.replace(query, source="live from system")
    assert "rtsep enroll --live 5 --model" in live.enroll_again(Path("m.onnx"))
