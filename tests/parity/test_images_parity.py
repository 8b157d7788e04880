"""The arrays of the three transforms against those recorded from the original code, bit for bit."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from llavar import images

NAMES = {"pad": "pad", "square": "crop", "resize_image": "fit"}
PHOTOS = (
    "demo1.png",
    "extreme_ironing.jpg",
    "gatech.png",
    "gatech_post.jpg",
    "pron.png",
    "read_response.png",
    "teaser.png",
    "vb.png",
    "waterview.jpg",
)


@pytest.fixture(scope="module")
def recorded(shared_data: Path) -> dict[tuple[str, str], dict[str, Any]]:
    """Cases by (file name, the original's mode), as far as their pictures are there."""
    path = shared_data / "parity" / "images.json"
    if not path.is_file():
        pytest.skip(f"the recorded image arrays are not at {path}")
    cases = json.loads(path.read_text())["cases"]
    return {
        (Path(case["image"]).name, case["mode"]): case
        for case in cases
        if (shared_data / case["image"]).is_file()
    }


@pytest.mark.parametrize("mode", NAMES)
@pytest.mark.parametrize("photo", PHOTOS)
def test_pixels_equal_the_original(
    photo: str, mode: str, recorded: dict[tuple[str, str], dict[str, Any]], shared_data: Path
) -> None:
    case = recorded[photo, mode]
    found = images.pixels(shared_data / case["image"], transform=NAMES[mode], size=336)
    assert found.dtype == np.float32
    assert list(found.shape) == case["shape"]
    for channel, y, x, value in case["points"]:
        assert found[channel, y, x] == np.float32(value)
    assert hashlib.sha256(found.tobytes()).hexdigest() == case["sha256_f32"]


def test_no_recorded_picture_is_left_out(recorded: dict[tuple[str, str], dict[str, Any]]) -> None:
    # 'keep' crashed in the original on pictures that are not square, and is not ported.
    assert {key for key in recorded if key[1] != "keep"} == {
        (photo, mode) for photo in PHOTOS for mode in NAMES
    }


def test_opening_equals_the_original_conversion(
    recorded: dict[tuple[str, str], dict[str, Any]], shared_data: Path
) -> None:
    for (_, mode), case in recorded.items():
        if mode == "square":  # there the intermediate picture is the opened one
            rgb = images.open_image(shared_data / case["image"])
            assert hashlib.sha256(rgb.tobytes()).hexdigest() == case["intermediate_sha256_u8"]
