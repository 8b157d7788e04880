"""``llavar corpus fetch|select|dedup|ocr|pairs|merge``: a recipe one stage at a time."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from llavar.cli import corpus_ray
from llavar.cli.arguments import Commands

if TYPE_CHECKING:
    from llavar.corpus.products import Products

Run = Callable[[argparse.Namespace], int]
"""Computes the recipe of ``arguments`` (see :func:`add_recipe`), no further than the stage ``until``."""

_STAGES = (
    (
        "fetch",
        "get the pictures behind URLs",
        "Look at the metadata of URLs, and fetch the pictures that pass (stages metadata, fetch).",
    ),
    (
        "select",
        "choose pictures, by metadata and by their text",
        "Choose text-rich pictures (stages metadata, select). Without a model the choice is made by what OCR "
        "found, so that pictures are read for it.",
    ),
    (
        "dedup",
        "leave out equal pictures, and edited copies",
        "Leave out equal files and pixels, and edited copies (stages exact, near). Texts decide what is a "
        "copy, so that pictures are read for it; with  near: null  in the recipe only equal ones are looked "
        "for.",
    ),
    (
        "ocr",
        "read the pictures",
        "Read the pictures, and compare what several engines read (stages ocr, agree).",
    ),
    ("pairs", "make the rows of stage 1", "Make the rows of stage 1 of what was read (stage pairs)."),
)
_NOTE = (
    "What stands before it in the recipe is computed as well, unless it is done. Rows are written by run or "
    "merge."
)


def add(parts: Commands, run: Run) -> None:
    """``run`` is what ``llavar corpus run`` does."""
    for name, help, description in _STAGES:
        parser = parts.add_parser(name, help=help, description=f"{description} {_NOTE}")
        add_recipe(parser)
        corpus_ray.add(parser)
        parser.set_defaults(command=partial(compute, name, run))
    parser = parts.add_parser(
        "merge",
        help="write the products of a corpus that is computed",
        description="Write rows, merged with LLaVA's where the recipe says so, pictures and rejects of a "
        "corpus whose stages are all done. Nothing is computed.",
    )
    add_recipe(parser)
    parser.set_defaults(command=_merge)


def add_recipe(parser: argparse.ArgumentParser) -> None:
    """The arguments of commands that are given a recipe."""
    parser.add_argument("recipe", type=Path, metavar="RECIPE.yaml")
    parser.add_argument("--out", type=Path, required=True, metavar="CORPUS")
    parser.add_argument("--json", action="store_true", help="print what was made as one object")


def compute(part: str, run: Run, arguments: argparse.Namespace) -> int:
    """Compute a recipe up to and including one part of it."""
    from llavar.corpus.parts import Part, last_stage
    from llavar.corpus.recipe import read_recipe

    arguments.until = last_stage(read_recipe(arguments.recipe), Part(part))
    return run(arguments)


def is_recipe(arguments: argparse.Namespace, command: str) -> bool:
    """Whether the path ``given`` is a recipe, not the folder of a corpus; it becomes ``recipe`` then.

    Raises:
        NotFoundError: it is neither.
        ConfigError: it is a recipe, and nobody has said where its corpus lies; or it is a corpus, of which
            nothing can be computed on a cluster.
    """
    from llavar.errors import ConfigError, NotFoundError

    given: Path = arguments.given
    if given.is_dir():
        if arguments.cluster is not None:
            raise ConfigError(f"{given} is a corpus, of which nothing is computed; --cluster is for a recipe")
        return False
    if not given.is_file():
        raise NotFoundError(f"{given} holds no corpus and is no recipe; check the path")
    if arguments.out is None:
        raise ConfigError(
            f"{given} is a recipe; say where its corpus lies:  llavar corpus {command} {given} --out CORPUS"
        )
    arguments.recipe = given
    return True


def _merge(arguments: argparse.Namespace) -> int:
    import json

    from llavar.corpus.products import write_products
    from llavar.corpus.recipe import read_recipe, save_recipe, source_of, stages_of
    from llavar.corpus.removed import withheld
    from llavar.corpus.shards import SCAN, RunSettings, existing
    from llavar.errors import ConfigError
    from llavar.models.sight import HuggingFace

    out: Path = arguments.out
    recipe, corpus = read_recipe(arguments.recipe), existing(out)
    stages = stages_of(recipe, out.absolute(), HuggingFace())
    source = withheld(source_of(recipe, arguments.recipe.parent), out)
    behind = corpus.behind(source, stages, settings=RunSettings(shard_rows=recipe.shard_rows))
    if behind is not None:
        raise ConfigError(
            f"the corpus in {out} is not up to {arguments.recipe}: the stage {behind!r} is to be computed; "
            f"run  llavar corpus run {arguments.recipe} --out {out},  which writes the products as well"
        )
    save_recipe(recipe, out)
    names = [SCAN, *(stage.name for stage in stages)]
    made = write_products(corpus, names, recipe.products, base=arguments.recipe.parent)
    if arguments.json:
        print(json.dumps(counts(made)))
    else:
        say(made)
    return 0


def counts(made: Products) -> dict[str, object]:
    """Products, for a JSON object."""
    rows = {"stage1": made.stage1, "stage2": made.stage2, "rejects": made.rejects.total()}
    return {"rows": rows, "products": str(made.folder)}


def say(made: Products) -> None:
    """Products, for people."""
    for (stage, reason), count in sorted(made.rejects.items()):
        print(f"  {count} left out at {stage}: {reason}")
    print(f"{made.stage1} stage-1 and {made.stage2} stage-2 rows in {made.folder}")
