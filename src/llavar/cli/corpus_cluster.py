"""``llavar corpus cluster``: the contact sheet on which a person picks clusters."""

from __future__ import annotations

import argparse
from functools import partial
from pathlib import Path

from llavar.cli import corpus_ray
from llavar.cli.arguments import Commands
from llavar.cli.corpus_stage import Run, compute, is_recipe


def add(parts: Commands, run: Run) -> None:
    """``run`` is what ``llavar corpus run`` does."""
    parser = parts.add_parser(
        "cluster",
        help="the contact sheet of a corpus's clusters",
        description=(
            "Write a page with pictures of every cluster, and the clusters' centres for other recipes. Given "
            "a recipe, its clusters are computed first, and what stands before them; given the folder of a "
            "corpus, they are those of its last run. Name the numbers to keep in the recipe and run it:  "
            "cluster: {keep: [3, 7]}"
        ),
    )
    parser.add_argument("given", type=Path, metavar="RECIPE.yaml|CORPUS")
    parser.add_argument(
        "--out", type=Path, metavar="DIR", help="of a recipe: its corpus; of a corpus: where the page goes"
    )
    corpus_ray.add(parser)
    parser.set_defaults(command=partial(_cluster, run))


def _cluster(run: Run, arguments: argparse.Namespace) -> int:
    from llavar.corpus.shards import existing
    from llavar.corpus.sheet import CENTRES, SHEET, largest, write_sheet

    corpus, out = arguments.given, arguments.out
    if is_recipe(arguments, "cluster"):
        arguments.json = False
        compute("cluster", run, arguments)
        corpus = out
    out = out or corpus
    out.mkdir(parents=True, exist_ok=True)
    groups = write_sheet(existing(corpus), out)
    print(f"{len(groups)} clusters, the largest: {largest(groups)}")
    print(f"look at {out / SHEET}; the centres are in {out / CENTRES}")
    return 0
