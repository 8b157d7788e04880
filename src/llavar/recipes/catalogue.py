"""Every recipe by its name on the command line."""

from __future__ import annotations

from llavar.errors import ConfigError
from llavar.recipes import llavar, nano
from llavar.recipes.llavar import Recipe, parity


def recipes() -> tuple[Recipe, ...]:
    """All recipes; each has a parity variant besides."""
    plain = (
        llavar.llavar_13b_stage1(),
        llavar.llavar_13b_stage2(),
        llavar.llavar_7b_stage1(),
        llavar.llavar_7b_stage2(),
        nano.nano_recipe1(),
        nano.nano_recipe2(),
    )
    return (*plain, *(parity(recipe) for recipe in plain))


def get(name: str) -> Recipe:
    """The recipe called ``name``.

    Raises:
        ConfigError: there is none.
    """
    known = {recipe.name: recipe for recipe in recipes()}
    if name not in known:
        raise ConfigError(f"there is no recipe {name!r}; known are {', '.join(known)}")
    return known[name]
