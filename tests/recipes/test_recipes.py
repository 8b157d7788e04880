from __future__ import annotations

import pytest

from llavar.errors import ConfigError
from llavar.recipes import catalogue, nano
from llavar.recipes.llavar import llavar_7b_stage2, llavar_13b_stage1, llavar_13b_stage2, parity
from llavar.recipes.plan import load_of, planned
from llavar.train.config import Mean, Precision, Schedule
from llavar.train.estimate import Machine
from llavar.train.llava import DECODER, PROJECTOR


def test_every_recipe_has_a_name_of_its_own_and_is_found_by_it():
    names = [recipe.name for recipe in catalogue.recipes()]
    assert len(set(names)) == len(names) >= 17
    assert {"llavar-13b-stage1", "llavar-7b-stage2", "nano-stage1", "llavar-13b-stage2-parity"} <= set(names)
    assert {"llavar-13b-stage2-lora", "llavar-7b-stage2-qlora", "nano-stage2-lora"} <= set(names)
    assert [catalogue.get(name).name for name in names] == names
    with pytest.raises(ConfigError, match="no recipe 'llavar-13b'; known are llavar-13b-stage1, "):
        catalogue.get("llavar-13b")


def test_the_stages_have_the_numbers_of_the_paper():
    first, second = llavar_13b_stage1().stage, llavar_13b_stage2().stage
    assert {name: part.lr for name, part in first.parts.items()} == {PROJECTOR: 2e-3}
    assert {name: part.lr for name, part in second.parts.items()} == {PROJECTOR: 2e-5, DECODER: 2e-5}
    assert (first.batch, first.epochs, first.max_length) == (128, 1, 1024)
    assert (second.batch, second.epochs, second.max_length) == (32, 3, 2048)
    for stage in (first, second):
        assert {part.weight_decay for part in stage.parts.values()} == {0.0}
        assert (stage.warmup, stage.floor, stage.precision) == (0.03, 0.0, Precision.BF16)
        assert stage.mean is Mean.TOKEN
        assert stage.packing


def test_parity_is_padded_and_averages_micro_batches():
    stage = parity(llavar_13b_stage1()).stage
    assert (stage.packing, stage.like_lengths) == (False, False)
    assert (stage.mean, stage.schedule) == (Mean.BATCH, Schedule.TRAINER)
    assert stage.micro_batches == 16  # 8 GPUs, 8 rows each, accumulated twice
    assert parity(llavar_7b_stage2()).stage.micro_batches == 8


def test_nano_trains_as_the_demo_does():
    recipe, stage = nano.nano_recipe2(), nano.nano_stage2(steps=7)
    assert recipe.stage.parts == stage.loop.parts
    assert (recipe.stage.batch, recipe.stage.micro_batch) == (stage.feed.batch, 8)
    assert (recipe.stage.betas, recipe.stage.packing) == (stage.loop.betas, False)


def test_the_plans_of_13b_are_those_of_the_floors():
    # 35e18 FLOPs in both stages; 3.1 hours on eight H100 at 40 %.
    machine = Machine(gpus=8)
    first, assumed = planned(llavar_13b_stage1(), machine)
    second, _ = planned(llavar_13b_stage2(), machine)
    assert first.flops == pytest.approx(35e18, rel=0.02)
    # Computing each layer's input twice, as stage 2 does to fit, adds a third.
    assert 35e18 <= second.flops * 3 / 4 <= 39e18
    assert first.seconds / 3600 == pytest.approx(3.1, abs=0.1)
    assert "1,017,690 rows of 660 tokens" in assumed
    assert second.options[0].fits  # divided among the eight


def test_a_plan_takes_the_fullest_micro_batch():
    load = load_of(llavar_13b_stage2())
    assert (load.longest, load.pictures_at_once) == (4 * 2048, 4)
