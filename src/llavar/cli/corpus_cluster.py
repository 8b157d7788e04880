"""``llavar corpus cluster``: the contact sheet on which a person picks clusters."""

from __future__ import annotations

import argparse
from pathlib import Path

from llavar.cli.arguments import Commands


def add(parts: Commands) -> None:
    parser = parts.add_parser(
        "cluster",
        help="the contact sheet of a corpus's clusters",
        description=(
            "Write a page with pictures of every cluster, and the clusters' centres for other recipes. Name "
            "the numbers to keep in the recipe and run it again:  cluster: {keep: [3, 7]}"
        ),
    )
    parser.add_argument("corpus", type=Path, metavar="CORPUS")
    parser.add_argument("--out", type=Path, metavar="DIR", help="default: the folder of the corpus")
    parser.set_defaults(command=_cluster)


def _cluster(arguments: argparse.Namespace) -> int:
    from llavar.corpus.shards import existing
    from llavar.corpus.sheet import CENTRES, SHEET, largest, write_sheet

    out = arguments.out or arguments.corpus
    out.mkdir(parents=True, exist_ok=True)
    groups = write_sheet(existing(arguments.corpus), out)
    print(f"{len(groups)} clusters, the largest: {largest(groups)}")
    print(f"look at {out / SHEET}; the centres are in {out / CENTRES}")
    return 0
