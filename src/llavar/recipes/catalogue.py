"""Every recipe by its name on the command line."""

from __future__ import annotations

from llavar.errors import ConfigError
from llavar.recipes import hub, llavar, nano
from llavar.recipes.llavar import Recipe, parity


def recipes() -> tuple[Recipe, ...]:
    """All recipes; those that the original has too have a parity variant besides."""
    plain = (
        llavar.llavar_13b_stage1(),
        llavar.llavar_13b_stage2(),
        llavar.llavar_7b_stage1(),
        llavar.llavar_7b_stage2(),
        nano.nano_recipe1(),
        nano.nano_recipe2(),
    )
    adapted = (
        llavar.llavar_13b_stage2_lora(),
        llavar.llavar_7b_stage2_lora(),
        llavar.llavar_13b_stage2_qlora(),
        llavar.llavar_7b_stage2_qlora(),
        nano.nano_recipe2_lora(),
        hub.lora_hub(),
    )
    return (*plain, *adapted, *(parity(recipe) for recipe in plain))


def get(name: str) -> Recipe:
    """The recipe called ``name``.

    Raises:
        ConfigError: there is none.
    """
    known = {recipe.name: recipe for recipe in recipes()}
    if name not in known:
        raise ConfigError(f"there is no recipe {name!r}; known are {', '.join(known)}")
    return known[name]
