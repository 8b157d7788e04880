"""The build of nano in two steps a part: equal bytes from equal seeds, resumed, shipped."""

from __future__ import annotations

import functools
import json
from pathlib import Path

import pytest
import torch

from llavar.errors import ConfigError
from llavar.generate.local import LocalGenerator
from llavar.models import folder as folders
from llavar.models.shape import LlavaShape, TextShape, VisionShape
from llavar.recipes import nano as recipe
from llavar.study.nano import build, weights
from llavar.study.nano.build import BuildSettings, Made
from llavar.study.nano.decoder import DecoderData
from llavar.study.nano.tower import TowerData
from llavar.study.nano.tune import TuneData
from llavar.train import loop as training

SETTINGS = BuildSettings(
    tower_steps=2, decoder_steps=2, join_steps=2, stage1_steps=2, stage2_steps=2, exam_pictures=2, threads=1
)


def narrow(*, vocab: int, image_token_id: int) -> LlavaShape:
    """Nano's numbers but for the widths, so that a step takes moments."""
    return LlavaShape(
        vision=VisionShape(image_size=96, patch_size=8, hidden=24, layers=1, heads=2, mlp=32),
        text=TextShape(vocab=vocab, hidden=48, layers=1, heads=2, kv_heads=1, mlp=64, max_positions=2048),
        image_token_id=image_token_id,
        vision_feature_layer=-1,
    )


@pytest.fixture(scope="module", autouse=True)
def small():
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(recipe, "nano_shape", narrow)
        patch.setattr(build, "TowerData", functools.partial(TowerData, batch=4))
        patch.setattr(build, "DecoderData", functools.partial(DecoderData, batch=4, parts=2))
        patch.setattr(build, "TuneData", functools.partial(TuneData, batch=4, parts=2))
        yield


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Made:
    return build.run(tmp_path_factory.mktemp("build"), SETTINGS, quiet=True)


def content(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.name != "README.md"}


def test_equal_settings_give_equal_bytes(made: Made, tmp_path: Path):
    again = build.run(tmp_path, SETTINGS, quiet=True)
    assert content(again.nano) == content(made.nano)
    assert again.report.scores == made.report.scores


def test_the_number_of_threads_is_as_before(made: Made, tmp_path: Path):
    threads = torch.get_num_threads()
    settings = BuildSettings(**{**vars_of(SETTINGS), "threads": threads + 1})
    build.run(tmp_path, settings, quiet=True)
    assert torch.get_num_threads() == threads


def test_another_seed_gives_other_weights(made: Made, tmp_path: Path):
    other = build.run(tmp_path, BuildSettings(**{**vars_of(SETTINGS), "seed": 1}), quiet=True)
    assert content(other.nano)["model.safetensors"] != content(made.nano)["model.safetensors"]


def vars_of(settings: BuildSettings) -> dict[str, int]:
    return json.loads(json.dumps({name: getattr(settings, name) for name in BuildSettings.__slots__}))


@pytest.mark.parametrize(("part", "step"), [("decoder", 1), ("join", 1), ("stage2", 1)])
def test_an_interrupted_build_goes_on_to_the_same_bytes(made: Made, tmp_path: Path, part: str, step: int):
    class Stopping(training.Run):
        def finish_step(self, *given: object, **named: object) -> object:  # type: ignore[override]
            if self.out.name == part and self.done == step:
                raise KeyboardInterrupt
            return super().finish_step(*given, **named)  # type: ignore[arg-type]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(training, "Run", Stopping)
        with pytest.raises(KeyboardInterrupt):
            build.run(tmp_path, SETTINGS, quiet=True)
    assert not (tmp_path / "nano").exists()
    again = build.run(tmp_path, SETTINGS, quiet=True)
    assert content(again.nano) == content(made.nano)


def test_a_finished_build_is_left_alone(made: Made):
    before = (made.nano / "model.safetensors").stat().st_mtime_ns
    again = build.run(made.nano.parent, SETTINGS, quiet=True)
    assert (made.nano / "model.safetensors").stat().st_mtime_ns == before
    assert again.report.scores == made.report.scores


@pytest.mark.parametrize("content", [None, "{", "[]", "\xff"])
def test_another_build_in_the_same_folder(tmp_path: Path, content: str | None):
    (tmp_path / "build.json").write_text(json.dumps({"seed": 5}) if content is None else content, "latin-1")
    with pytest.raises(ConfigError, match="holds a build with other settings"):
        build.run(tmp_path, SETTINGS, quiet=True)


@pytest.mark.parametrize("name", ["tower_steps", "stage2_steps", "exam_pictures", "threads"])
def test_nothing_to_do_is_refused(name: str):
    with pytest.raises(ConfigError, match=f"{name} is 0; it must be at least 1"):
        BuildSettings(**{name: 0})


def test_the_card_says_how_it_was_made(made: Made):
    card = (made.nano / "README.md").read_text()
    assert card.startswith("---\nlicense: apache-2.0\n")
    for name in BuildSettings.__slots__:
        assert f"| {name} | {getattr(SETTINGS, name)} |" in card
    for name, score in made.report.scores.items():
        assert f"| {name} | {score.value:.3f} | {score.low:.3f} to {score.high:.3f} | {score.n} |" in card
    assert "On 2 held-out pictures" in card
    for name in ("tower", "decoder", "join", "stage1", "stage2"):
        (row,) = (line for line in card.splitlines() if line.startswith(f"| {name} |"))
        losses = [float(cell) for cell in row.split("|")[2:-1] if cell.strip()]
        assert losses
        assert all(0 < loss < 100 for loss in losses)
    assert "| Stage 2 on scenes |" in card


def test_shipped_files_are_found_and_answer(made: Made, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    build.ship(made.nano.parent, tmp_path)
    build.ship(made.nano.parent, tmp_path)  # over an older one
    assert sorted(path.name for path in tmp_path.iterdir()) == ["nano"]
    assert content(tmp_path / "nano") == content(made.nano)
    assert (tmp_path / "nano" / "README.md").is_file()
    monkeypatch.setattr(weights, "_FOLDER", tmp_path)
    base = weights.base_folder(tmp_path / "put-together")
    wanted = folders.read_tensors(folders.open_weights(made.nano))
    given = folders.read_tensors(folders.open_weights(base))
    assert wanted.keys() == given.keys()
    # All but the projector, which is untrained in both.
    assert all(
        wanted[key].float().equal(given[key])
        for key in wanted
        if not key.startswith("multi_modal_projector.")
    )
    assert LocalGenerator.load(weights.folder("nano")).setup.image_tokens == 144
