"""Jobs on pictures in tiles and on towers of another size, from files to a folder that answers."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from llavar import images
from llavar.cli import main
from llavar.data.collate import Batch
from llavar.errors import ConfigError
from llavar.generate.base import Request
from llavar.generate.local import LocalGenerator
from llavar.images import WHOLE, Tiles
from llavar.models import _hf as hf
from llavar.models.loss import answer_loss
from llavar.models.processor import read_tiles
from llavar.models.resolution import resize_tower
from llavar.models.shape import LlavaShape, TextShape, VisionShape
from llavar.models.tokenizer import nano_tokenizer
from llavar.recipes.llavar import llavar_13b_stage2
from llavar.recipes.plan import at_resolution, load_of
from llavar.train import material
from llavar.train.config import PartConfig, Precision, StageConfig
from llavar.train.job import Job, read_job, run
from llavar.train.llava import PROJECTOR

FOUR = Tiles(rows=2, columns=2)


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    tokens = nano_tokenizer()
    shape = LlavaShape(
        vision=VisionShape(image_size=16, patch_size=8, hidden=32, layers=2, heads=2, mlp=48),
        text=TextShape(
            vocab=tokens.vocab_size, hidden=64, layers=1, heads=4, kv_heads=2, mlp=96, max_positions=256
        ),
        image_token_id=tokens.image_patch_id,
        vision_feature_layer=-1,
    )
    folder = tmp_path_factory.mktemp("base") / "tiny"
    hf.save_llava(hf.build_llava(shape, seed=2), folder)
    tokens.save(folder)
    return folder


@pytest.fixture
def make(base: Path, tmp_path: Path) -> Callable[..., Job]:
    rng, rows = np.random.default_rng(1), []
    for number in range(4):
        Image.fromarray(rng.integers(0, 255, (30, 40, 3), dtype=np.uint8)).save(tmp_path / f"{number}.png")
        talk = [{"from": "human", "value": "<image>\nWhat?"}, {"from": "gpt", "value": f"STOP {number}"}]
        rows.append({"id": str(number), "image": f"{number}.png", "conversations": talk})
    (tmp_path / "rows.json").write_text(json.dumps(rows))

    def made(**changes: Any) -> Job:
        stage = StageConfig(
            parts={PROJECTOR: PartConfig(lr=2e-3)},
            batch=4,
            micro_batch=2,
            max_length=128,
            steps=2,
            precision=Precision.FP32,
            log_every=1,
        )
        job = Job(stage=stage, model=str(base), data=(str(tmp_path / "rows.json"),), images=str(tmp_path))
        return replace(job, **changes)

    return made


def test_a_run_in_tiles_leaves_a_model_that_is_asked_in_tiles(make: Callable[..., Job], tmp_path: Path):
    job = make(tiles=FOUR)
    fitted = run(job, tmp_path / "run")
    assert read_job(tmp_path / "run") == job
    folder = tmp_path / "run" / "model"
    assert read_tiles(folder) == FOUR
    assert "in 5 views of 16 x 16 pixels" in (folder / "README.md").read_text()
    generator = LocalGenerator.load(folder)
    assert generator.setup.tiles == FOUR
    assert len(generator.answer([Request(image=tmp_path / "0.png", question="What?", max_new_tokens=4)])) == 1
    assert all(np.isfinite(tick.loss) for tick in fitted.ticks)


def test_the_first_loss_is_that_of_tiles_cut_by_hand(make: Callable[..., Job], base: Path, tmp_path: Path):
    fitted = run(make(tiles=FOUR), tmp_path / "run")
    model: Any = hf.load_llava(base)
    loaded = material.load_model(base, tiles=FOUR)
    encoder = material.encoder_of(loaded, 128)
    rows = material.read_rows(make().data, str(tmp_path), loaded, max_length=128)
    total = supervised = 0.0
    for row in rows.encoded:
        seen = images.view_pixels(tmp_path / row.images[0], tiles=FOUR, transform="pad", size=16)
        one = Batch(
            ids=torch.tensor([row.ids]),
            labels=torch.tensor([row.labels]),
            positions=torch.arange(len(row))[None],
            vision=torch.as_tensor(seen),
            is_features=False,
            rows=1,
        )
        total += float(answer_loss(model, one).detach())
        supervised += one.supervised
    assert encoder.views == 5
    assert fitted.ticks[0].loss == pytest.approx(total / supervised, rel=1e-5)


def test_a_tower_of_another_size_is_part_of_the_result(make: Callable[..., Job], base: Path, tmp_path: Path):
    run(make(tower_size=32), tmp_path / "run")
    folder = tmp_path / "run" / "model"
    config = json.loads((folder / "config.json").read_text())
    assert (config["vision_config"]["image_size"], config["image_seq_length"]) == (32, 16)
    resized: Any = hf.load_llava(base)
    resize_tower(resized, 32)
    written = hf.load_stock(folder).model.vision_tower.state_dict()
    assert all(
        torch.equal(written[key], value) for key, value in resized.model.vision_tower.state_dict().items()
    )
    assert LocalGenerator.load(folder).setup.image_tokens == 16


def test_a_run_goes_on_with_the_tiles_it_has_and_is_another_with_others(
    make: Callable[..., Job], tmp_path: Path
):
    run(make(tiles=FOUR), tmp_path / "run")
    with pytest.raises(ConfigError, match="tiles is 2x2 there and 1x2 here"):
        run(make(tiles=Tiles(rows=1, columns=2)), tmp_path / "run")


def test_tiles_of_the_folder_are_kept_and_may_be_left_out(base: Path, tmp_path: Path):
    hf.save_llava(hf.load_llava(base), tmp_path / "m", tiles=FOUR)
    nano_tokenizer().save(tmp_path / "m")
    assert material.load_model(tmp_path / "m").tiles == FOUR
    assert material.load_model(tmp_path / "m", tiles=WHOLE).tiles == WHOLE


def test_pictures_that_fill_the_context_end_the_run_before_it_begins(
    make: Callable[..., Job], base: Path, tmp_path: Path
):
    with pytest.raises(ConfigError, match=r"5 x 64 = 320 tokens, and the context of its decoder is 256"):
        run(make(tiles=FOUR, tower_size=64), tmp_path / "run")
    with pytest.raises(ConfigError, match=r"10 x 16 = 160 tokens, and --max-length is 128; fewer tiles"):
        run(make(tiles=Tiles(rows=3, columns=3), tower_size=32), tmp_path / "other")
    with pytest.raises(ConfigError, match="multiple of the patch size 8"):
        material.load_model(base, tower_size=20)


def test_a_plan_counts_the_tokens_and_pictures_of_tiles():
    recipe = llavar_13b_stage2()
    with pytest.raises(ConfigError, match="5 x 576 = 2,880 tokens, and the context is 2,048"):
        at_resolution(recipe, tiles=FOUR)
    smaller = at_resolution(recipe, tiles=FOUR, tower_size=224)
    assert smaller.tokens == recipe.tokens - 576 + 5 * 256
    assert (load_of(smaller).pictures, load_of(smaller).pictures_at_once) == (5, 20)
    assert at_resolution(recipe) == recipe


def test_the_command_line_takes_tiles_and_says_what_does_not_fit(capsys: pytest.CaptureFixture[str]):
    assert main(["train", "llavar-13b-stage2", "--plan", "--tiles", "2x2", "--tower-size", "224"]) == 0
    assert "2x2 tiles and an overview (5 x 256 tokens)" in " ".join(capsys.readouterr().out.split())
    assert main(["train", "llavar-13b-stage2", "--plan", "--tiles", "2x2"]) == 2
    assert "a tower of 238 pixels or fewer" in capsys.readouterr().err
    assert main(["train", "nano-stage2", "--plan", "--tiles", "two"]) == 2
    assert "ROWSxCOLUMNS" in capsys.readouterr().err
