"""Files that crash, hang or are none: found out in a process that may be lost, and remembered."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from rtsep.errors import PluginError
from rtsep.plugins import PluginSpec
from rtsep.plugins.scan import admit, cache_path, find_files, read_cache, resolve, scan, scan_all

Bundle = Callable[..., Path]


def test_a_plugin_that_crashes_is_named_and_remembered(bundle: Bundle) -> None:
    path = bundle("Crash", "-DCRASH_AT_LOAD")
    result = scan(path)
    assert (result.status, result.detail) == ("crashed", "SIGSEGV while it was loaded and tried")
    with pytest.raises(
        PluginError, match=r"Crash\.vst3 is not loaded: it crashed when it was tried \(SIGSEGV.*--rescan"
    ):
        admit([PluginSpec(str(path))])
    assert read_cache()[str(path)] == result


def test_a_plugin_that_hangs_is_given_up_and_not_tried_again(bundle: Bundle) -> None:
    path = bundle("Hang", "-DHANG_AT_LOAD")
    result = scan(path, timeout_s=4.0)
    assert result.status == "hung"
    assert result.detail == "no answer within 4 s, while it was loaded and tried"
    began = time.monotonic()
    assert scan(path) == result
    assert time.monotonic() - began < 2.0, "known: no process was started"
    with pytest.raises(PluginError, match="hung when it was tried"):
        admit([PluginSpec(str(path))])


def test_a_plugin_that_works_all_the_time_may_be_slow(bundle: Bundle) -> None:
    detail = scan(bundle("Busy", "-DWORK_AT_LOAD"), timeout_s=4.0).detail
    assert detail.startswith("no answer within 4 s, while it was loaded and tried; it was at work all the time")
    assert "--timeout" in detail


def test_a_plugin_that_dies_while_it_plays_is_found_out_too(bundle: Bundle) -> None:
    result = scan(bundle("Aborts", "-DFAULT=4"))
    assert (result.status, result.detail) == ("crashed", "SIGABRT while it was loaded and tried")
    assert scan(bundle("Nan", "-DFAULT=1")).detail == "Faulty gives NaN or infinity."


def test_what_passed_is_loaded_once_until_the_file_changes(bundle: Bundle) -> None:
    path = bundle("Passes", "-DLATE=300")
    result = scan(path)
    assert result.ok
    assert result.names == ("Faulty",)
    assert result.plugins[0]["latency_samples"] == 300
    assert [parameter["name"] for parameter in result.plugins[0]["parameters"]] == ["fault", "late"]
    again = scan(path)
    assert again.seconds == result.seconds, "from the cache"
    library = next(path.rglob("*.so"))
    os.utime(library, ns=(1, 1))
    assert scan(path).stamp != result.stamp
    assert scan(path, rescan=True).seconds != again.seconds


def test_junk_is_a_failure_that_says_why(tmp_path: Path) -> None:
    (tmp_path / "junk.vst3").write_bytes(b"no plugin")
    assert scan(tmp_path / "junk.vst3").status == "failed"
    with pytest.raises(PluginError, match="cannot be used"):
        admit([PluginSpec(str(tmp_path / "junk.vst3"))])
    with pytest.raises(PluginError, match=r"No plugin at .*none\.vst3"):
        scan(tmp_path / "none.vst3")


def test_a_damaged_cache_is_no_cache(bundle: Bundle) -> None:
    cache_path().parent.mkdir(parents=True)
    for text in ("", "{", "[]", json.dumps({"version": 99, "files": {}}), json.dumps({"version": 1, "host": 1})):
        cache_path().write_text(text)
        assert read_cache() == {}
    assert scan(bundle()).ok
    assert len(read_cache()) == 1


def test_a_cache_that_cannot_be_written_does_no_harm(
    bundle: Bundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("RTSEP_PLUGIN_CACHE", str(tmp_path / "file" / "plugins.json"))
    assert scan(bundle()).ok


def test_all_of_a_folder(bundle: Bundle, tmp_path: Path) -> None:
    folder = bundle().parent
    seen: list[tuple[int, int]] = []
    names = {path.stem for path in find_files([folder])}
    assert "Faulty" in names
    results = scan_all([bundle(), bundle("Late", "-DLATE=300")], progress=lambda *x: seen.append(x[:2]))
    assert [result.status for result in results] == ["ok", "ok"]
    assert seen == [(1, 2), (2, 2)]
    with pytest.raises(PluginError, match="No plugin and no folder"):
        find_files([tmp_path / "nowhere"])


def test_names_are_resolved(zam: Path, bundle: Bundle) -> None:
    assert resolve(PluginSpec("reverb")).plugin == "Reverb"
    assert resolve(PluginSpec("ZaMaximX2")).plugin == str(zam / "ZaMaximX2.vst3")
    with pytest.raises(PluginError, match="Did you mean 'ZaMaximX2'"):
        resolve(PluginSpec("ZaMaximX"))
    path = str(bundle())
    assert admit([PluginSpec(path, name="Faulty")])[0].name == "Faulty"
    with pytest.raises(PluginError, match="Did you mean 'Faulty'"):
        admit([PluginSpec(path, name="Faulti")])


def test_a_slow_loader_of_zam_plugins_is_one_that_hangs_within_a_short_limit(zam: Path) -> None:
    assert scan(zam / "ZamVerb.vst3", timeout_s=3.0).status == "hung"
    assert scan(zam / "ZamTube.vst3").ok
