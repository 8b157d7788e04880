"""What a recipe would take on given machines, before there is data or a model."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from llavar.images import WHOLE, Tiles
from llavar.models.resolution import check_room
from llavar.recipes.llavar import Recipe
from llavar.train.config import Shard
from llavar.train.estimate import Estimate, Load, Machine, estimate, shards_of
from llavar.train.scale import Network, Scaled, scaled


def planned(recipe: Recipe, machine: Machine) -> tuple[Estimate, str]:
    """The estimate, and a sentence that says what was assumed for it."""
    load = load_of(recipe)
    tokens = f"{recipe.rows:,} rows of {recipe.tokens:.0f} tokens with one picture each{_seen(recipe)}"
    shards = shards_of(recipe.stage, machine.gpus)
    held = (
        f"a micro-batch of {load.longest:,} tokens on the fullest GPU, "
        f"{f'the decoder divided among {shards}' if shards > 1 else 'weights of every GPU whole'}, scaled "
        "dot product attention"
    )
    doubt = "4 FLOPs for a parameter and a token with the decoder frozen, 6 with it or its adapter trained"
    return estimate(recipe.shape, recipe.stage, load, machine), f"{tokens}; {held}; {doubt}."


def sheet(
    recipe: Recipe, machine: Machine, network: Network, counts: Sequence[int], price: float
) -> tuple[tuple[Scaled, ...], str]:
    """``recipe`` on ever more GPUs of ``machine``'s kind, and what was assumed besides :func:`planned`."""
    rows = tuple(
        scaled(
            recipe.shape,
            recipe.stage,
            lambda stage: load_of(replace(recipe, stage=stage)),
            replace(machine, gpus=gpus),
            network,
            price=price,
        )
        for gpus in counts
    )
    how = "after the arithmetic" if recipe.stage.shard is Shard.NONE else "hidden behind the arithmetic"
    inside, between = (f"{rate / 1e9:.0f} GB/s" for rate in (network.inside, network.between))
    assumed = (
        f"{machine.mfu:.0%} of the peak at any number of GPUs; "
        f"exchange at {inside} for each GPU in a machine of {network.node}, {between} between them, {how}; "
        "no time for checkpoints, looks. A batch that had to grow is another run, whose rate is to be found"
    )
    return rows, f"{assumed}."


def load_of(recipe: Recipe) -> Load:
    """Rows as the recipe expects them; the fullest micro-batch is one of rows as long as they may be."""
    stage = recipe.stage
    return Load(
        rows=recipe.rows,
        tokens=recipe.tokens,
        pictures=recipe.tiles.views,
        longest=stage.micro_batch * stage.max_length,
        pictures_at_once=stage.micro_batch * recipe.tiles.views,
    )


def at_resolution(recipe: Recipe, *, tiles: Tiles = WHOLE, tower_size: int = 0) -> Recipe:
    """``recipe`` with pictures in tiles, or for a tower of another size in pixels (0: its own).

    Raises:
        ConfigError: a picture would fill the sequences or the decoder's context.
    """
    shape = recipe.shape
    if tower_size:
        shape = replace(shape, vision=replace(shape.vision, image_size=tower_size))
    size, patch = shape.vision.image_size, shape.vision.patch_size
    for limit, what in ((shape.text.max_positions, "the context"), (recipe.stage.max_length, "--max-length")):
        check_room(tiles, shape.image_tokens, limit, size=size, patch=patch, what=what)
    more = tiles.views * shape.image_tokens - recipe.tiles.views * recipe.shape.image_tokens
    return replace(recipe, shape=shape, tiles=tiles, tokens=recipe.tokens + more)


def _seen(recipe: Recipe) -> str:
    if recipe.tiles == WHOLE:
        return ""
    tokens = f"{recipe.tiles.views} x {recipe.shape.image_tokens} tokens"
    return f" in {recipe.tiles} tiles and an overview ({tokens})"
