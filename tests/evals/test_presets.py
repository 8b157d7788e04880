from __future__ import annotations

import pytest

from llavar.errors import ConfigError
from llavar.evals import presets
from llavar.images import Transform


def test_greedy_is_the_default_and_leaves_the_rest_open() -> None:
    first = presets.presets()[0]
    assert first.name == "greedy"
    assert first.decoding.greedy
    assert (first.max_new_tokens, first.transform_for("textvqa")) == (None, None)


@pytest.mark.parametrize(
    ("name", "temperature", "tokens", "newlines"),
    [("mmocr", 0.9, 256, False), ("mme", 0.2, 1024, True), ("llava", 0.7, 1024, False)],
)
def test_the_settings_of_the_papers_scripts(
    name: str, temperature: float, tokens: int, newlines: bool
) -> None:
    preset = presets.get(name)
    assert preset.decoding.temperature == temperature
    assert preset.decoding.top_p == 1.0
    assert preset.max_new_tokens == tokens
    assert preset.delete_newlines is newlines
    assert preset.image_first is False


def test_transforms_of_the_papers_scripts() -> None:
    assert presets.get("mmocr").transform_for("docvqa") is Transform.FIT
    assert presets.get("mme").transform_for("mme") is Transform.FIT
    assert presets.get("llava").transform_for("qa90") is Transform.CROP
    assert presets.get("llava").transform_for("text50") is Transform.FIT


def test_an_unknown_preset() -> None:
    with pytest.raises(ConfigError, match="no preset 'best'; choose one of greedy, mmocr, mme, llava"):
        presets.get("best")
