"""Device lookup over lists as PortAudio gives them, and the text when there is no PortAudio."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from rtsep.audio.devices import Device, find_device
from rtsep.errors import DeviceAmbiguousError, DeviceNotFoundError


def device(index: int, name: str, inputs: int, outputs: int, default: bool = False) -> Device:
    return Device(index, name, "Core Audio", inputs, outputs, 48000, (4.0, 5.0), default and inputs > 0, default)


DEVICES = [
    device(0, "Built-in Microphone", 1, 0),
    device(1, "Scarlett 2i2 USB", 2, 2, default=True),
    device(2, "USB PnP Sound Device", 1, 2),
    device(3, "USB Audio CODEC", 2, 2),
    device(4, "USB Audio CODEC 4ch", 4, 4),
    device(5, "HDMI", 0, 8),
]


@pytest.mark.parametrize(
    ("wanted", "index"),
    [
        (3, 3),
        ("3", 3),
        ("scarlett", 1),
        ("PNP", 2),
        ("usb scar", 1),
        ("USB Audio CODEC", 3),
        ("usb audio codec, core audio", 3),
        ("4ch", 4),
        (None, 1),
    ],
)
def test_index_part_or_exact_name_finds_one(wanted: int | str | None, index: int) -> None:
    assert find_device(wanted, "input", DEVICES).index == index


def test_several_matches_are_all_listed() -> None:
    with pytest.raises(DeviceAmbiguousError) as caught:
        find_device("usb", "input", DEVICES)
    text = str(caught.value)
    assert "4 input devices match 'usb'" in text
    assert all(f"[{index}]" in text for index in (1, 2, 3, 4))
    assert "for example: 1" in text


def test_no_match_names_close_ones_and_the_list() -> None:
    with pytest.raises(DeviceNotFoundError) as caught:
        find_device("Scarlet 2i3 USB", "input", DEVICES)
    assert "Close: 'Scarlett 2i2 USB'" in str(caught.value)
    assert "rtsep devices" in str(caught.value)


@pytest.mark.parametrize(("wanted", "kind", "text"), [(5, "input", "no input channels"), (99, "output", "index 99")])
def test_an_index_that_cannot_be_used_says_why(wanted: int, kind: str, text: str) -> None:
    with pytest.raises(DeviceNotFoundError, match=text):
        find_device(wanted, kind, DEVICES)


def test_no_device_at_all_says_what_works() -> None:
    with pytest.raises(DeviceNotFoundError, match="--backend file"):
        find_device(None, "input", DEVICES[5:])
    assert json.loads(json.dumps(DEVICES[0].to_dict()))["name"] == "Built-in Microphone"


def test_without_portaudio_the_text_says_how_to_install_it(tmp_path: Path) -> None:
    # sounddevice looks the library up by name through ctypes.util; a search that finds nothing is a machine without it.
    (tmp_path / "sitecustomize.py").write_text(
        "import ctypes.util\nctypes.util.find_library = lambda name: None\nimport importlib.abc, sys\n"
    )
    program = (
        "import rtsep.audio.devices as d\n"
        "from rtsep.errors import DeviceError\n"
        "try:\n    d.list_devices()\n"
        "except DeviceError as e:\n    print(type(e).__name__, e)\n"
    )
    root = Path(__file__).parents[2]
    environment = {**os.environ, "PYTHONPATH": f"{tmp_path}{os.pathsep}{root}"}
    result = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, env=environment, check=True
    )
    assert result.stdout.startswith("DeviceError PortAudio is not installed"), result.stderr
    assert "apt-get install libportaudio2" in result.stdout
    assert "rtsep demo" in result.stdout
