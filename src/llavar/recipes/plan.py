"""What a recipe would take on given machines, before there is data or a model."""

from __future__ import annotations

from llavar.recipes.llavar import Recipe
from llavar.train.estimate import Estimate, Load, Machine, estimate


def planned(recipe: Recipe, machine: Machine) -> tuple[Estimate, str]:
    """The estimate, and a sentence that says what was assumed for it."""
    load = load_of(recipe)
    tokens = f"{recipe.rows:,} rows of {recipe.tokens:.0f} tokens with one picture each"
    held = (
        f"a micro-batch of {load.longest:,} tokens on the fullest GPU, weights of every GPU whole, scaled "
        "dot product attention"
    )
    doubt = "4 FLOPs for a parameter and a token with the decoder frozen, 6 with it trained"
    return estimate(recipe.shape, recipe.stage, load, machine), f"{tokens}; {held}; {doubt}."


def load_of(recipe: Recipe) -> Load:
    """Rows as the recipe expects them; the fullest micro-batch is one of rows as long as they may be."""
    stage = recipe.stage
    return Load(
        rows=recipe.rows,
        tokens=recipe.tokens,
        pictures=1,
        longest=stage.micro_batch * stage.max_length,
        pictures_at_once=stage.micro_batch,
    )
