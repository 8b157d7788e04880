"""How processes share a run is chosen by the stage and by who is there."""

from __future__ import annotations

from dataclasses import replace

import pytest

from llavar.errors import ConfigError
from llavar.recipes.llavar import llavar_7b_stage2_lora
from llavar.train import story
from llavar.train.config import PartConfig, Shard, StageConfig
from llavar.train.llava import DECODER
from llavar.train.parallel import parallel_of
from llavar.train.run import Resumed
from llavar.train.world import World


def stage(shard: Shard) -> StageConfig:
    part = {DECODER: PartConfig(lr=1e-3)}
    return StageConfig(parts=part, batch=8, micro_batch=1, max_length=64, shard=shard)


def test_among_whom_a_decoder_is_divided():
    second_of_two_machines = World(rank=5, size=8, local=1, node=4)
    divided = {shard: parallel_of(stage(shard), second_of_two_machines) for shard in Shard}
    assert {shard: (how.shards, how.even) for shard, how in divided.items()} == {
        Shard.NONE: (1, False),
        Shard.FULL: (8, True),
        Shard.HYBRID: (4, True),
    }
    assert [parallel_of(stage(shard), World()).shards for shard in Shard] == [1, 1, 1]


def test_machines_that_are_not_full_cannot_hold_the_same():
    with pytest.raises(
        ConfigError, match="3 processes do not fill machines of 2; start equally many on each"
    ):
        parallel_of(stage(Shard.HYBRID), World(rank=0, size=3, node=2))


@pytest.mark.parametrize("shard", [Shard.FULL, Shard.HYBRID])
def test_lora_is_not_divided(shard: Shard):
    recipe = llavar_7b_stage2_lora()
    assert recipe.stage.shard is Shard.NONE
    with pytest.raises(ConfigError, match="LoRA is trained with the whole decoder in each process"):
        replace(recipe.stage, shard=shard)


def test_another_number_of_processes_is_told():
    assert story.resumed(Resumed(step=4, processes=2), 2) == "Goes on after step 4."
    assert story.resumed(Resumed(step=4), 8) == "Goes on after step 4."
    said = story.resumed(Resumed(step=4, processes=8), 1)
    assert said.startswith(
        "Goes on after step 4, which 8 processes finished, with 1 process: the next rows are"
    )
