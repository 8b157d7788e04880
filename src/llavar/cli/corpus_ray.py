"""``--cluster``: where the stages of a corpus are computed."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Generator
from contextlib import contextmanager, redirect_stdout
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from llavar.corpus.crews import Crews
    from llavar.corpus.recipe import CorpusRecipe


def add(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--cluster",
        nargs="?",
        const="",
        metavar="HOST:PORT",
        help="compute on the Ray cluster whose head this is; without an address on that of RAY_ADDRESS, or "
        "on one that is started here",
    )


@contextmanager
def crews_of(address: str | None, recipe: CorpusRecipe, out: Path) -> Generator[Crews, None, None]:
    """Processes of this machine where ``address`` is None, else of a cluster."""
    from llavar.corpus.crews import LocalCrews

    if address is None:
        yield LocalCrews()
        return
    from llavar.corpus.cluster import cluster

    folder = recipe.source.pictures
    folders = () if folder is None else (folder,)
    # Ray tells of lost workers on the standard output, where a run's own result belongs.
    with (
        redirect_stdout(sys.stderr),
        cluster(address, out, folders=folders, workers=recipe.workers) as joined,
    ):
        print(f"cluster: {joined}", file=sys.stderr)
        yield joined
