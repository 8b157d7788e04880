"""``llavar corpus run|status|explain``.

:mod:`llavar.cli.corpus_stage` has the commands for one stage, :mod:`llavar.cli.corpus_data` those for data
that is there.
"""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

from llavar.cli import (
    corpus_clean,
    corpus_cluster,
    corpus_data,
    corpus_ray,
    corpus_stage,
    corpus_teach,
)
from llavar.cli.arguments import Commands

if TYPE_CHECKING:
    from llavar.corpus.open_shard import Step
    from llavar.corpus.shards import RunSummary
    from llavar.corpus.stage import Stage

_SECONDS = 10.0
"""Between lines of progress where no terminal is."""


def add(commands: Commands) -> None:
    parser = commands.add_parser(
        "corpus",
        help="make instruction data from pictures",
        description="Make instruction data from pictures, stage by stage; a run that was stopped goes on.",
    )
    parts = parser.add_subparsers(metavar="COMMAND", required=True)
    _add_run(parts)
    corpus_stage.add(parts, _run)
    corpus_cluster.add(parts, _run)
    corpus_teach.add(parts, _run)
    status = parts.add_parser("status", help="what is done, what was left out and why")
    status.add_argument("corpus", type=Path, metavar="CORPUS")
    status.set_defaults(command=_status)
    explain = parts.add_parser("explain", help="the life of one row, from its source to its conversation")
    explain.add_argument("corpus", type=Path, metavar="CORPUS")
    explain.add_argument("row", metavar="ROW", help="the id of a row or of a reject")
    explain.set_defaults(command=_explain)
    corpus_data.add(parts)
    corpus_clean.add(parts)


def _add_run(parts: Commands) -> None:
    parser = parts.add_parser(
        "run",
        help="all stages of a recipe",
        description="Compute the stages of a recipe that are not done yet; write rows in LLaVA's format.",
    )
    corpus_stage.add_recipe(parser)
    parser.add_argument("--until", metavar="STAGE", help="stop after this stage, and write no rows")
    parser.add_argument(
        "--retry",
        action="store_true",
        help="try again what was left out by a time limit, a process that died, or a server that was busy or "
        "did not answer",
    )
    corpus_ray.add(parser)
    parser.set_defaults(command=_run)


def _tried_again(arguments: argparse.Namespace) -> frozenset[str]:
    """Reasons for which items are tried again; their products are out of date from then on."""
    from llavar.corpus.products import forget
    from llavar.corpus.retry import PASSING

    if not getattr(arguments, "retry", False):  # the commands for one stage have no such option
        return frozenset()
    forget(arguments.out)
    return PASSING


def _run(arguments: argparse.Namespace) -> int:
    """Compute a recipe, no further than the stage ``until`` if one is named; products otherwise."""
    import json
    from dataclasses import asdict

    from llavar.corpus.products import write_products
    from llavar.corpus.recipe import read_recipe, save_recipe, source_of, stages_of
    from llavar.corpus.removed import purge, withheld
    from llavar.corpus.shards import SCAN, Corpus, RunSettings
    from llavar.models.sight import HuggingFace

    recipe = read_recipe(arguments.recipe)
    corpus = Corpus(arguments.out)
    stages = stages_of(recipe, arguments.out.absolute(), HuggingFace())
    _check_until(stages, arguments.until)
    source = withheld(source_of(recipe, arguments.recipe.parent), arguments.out)
    save_recipe(recipe, arguments.out)
    with corpus_ray.crews_of(arguments.cluster, recipe, arguments.out) as crews:
        settings = RunSettings(
            shard_rows=recipe.shard_rows,
            workers=recipe.workers,
            crews=crews,
            retry=_tried_again(arguments),
        )
        summary = corpus.run(source, stages, settings=settings, until=arguments.until, on_step=_Lines().say)
    purge(arguments.out)
    if arguments.until is not None:
        _show(summary, as_json=arguments.json)
        return 0
    names = [SCAN, *(stage.name for stage in stages)]
    made = write_products(corpus, names, recipe.products, base=arguments.recipe.parent)
    if arguments.json:
        print(json.dumps({**asdict(summary), **corpus_stage.counts(made)}))
        return 0
    _table(summary)
    corpus_stage.say(made)
    return 0


def _check_until(stages: list[Stage], last: str | None) -> None:
    from llavar.errors import ConfigError

    names = [stage.name for stage in stages]
    if last is not None and last not in names:
        raise ConfigError(f"the recipe has no stage {last!r}; --until takes one of {', '.join(names)}")


def _show(summary: RunSummary, *, as_json: bool) -> None:
    import json
    from dataclasses import asdict

    if as_json:
        print(json.dumps(asdict(summary)))
    else:
        _table(summary)


def _table(summary: RunSummary) -> None:
    for stage in summary.stages:
        computed = f"{stage.computed} of {stage.shards} shards computed"
        print(f"{stage.stage:>8}  {stage.rows} in, {stage.kept} kept  ({computed}, {stage.seconds:.1f} s)")


class _Lines:
    """Progress on the error stream: over and over in one line of a terminal, now and then elsewhere."""

    def __init__(self) -> None:
        self._live, self._shown, self._stage = sys.stderr.isatty(), 0.0, ""

    def say(self, step: Step) -> None:
        now = time.monotonic()
        wait = 0.1 if self._live else _SECONDS
        is_last = step.total and step.done == step.total
        if step.stage == self._stage and now - self._shown < wait and not is_last:
            return
        if self._live and step.stage != self._stage and self._stage:
            print(file=sys.stderr)
        self._shown, self._stage = now, step.stage
        of = f" of {step.total}, {step.rejected} left out" if step.total else " found"
        line = f"{step.stage}: {step.done}{of}"
        print(f"\r\x1b[K{line}" if self._live else line, end="" if self._live else "\n", file=sys.stderr)


def _status(arguments: argparse.Namespace) -> int:
    from llavar.corpus.fetch import FOLDER as FETCHED
    from llavar.corpus.fetch import STAGE as FETCH
    from llavar.corpus.products import status_of
    from llavar.corpus.select import METADATA, unknown
    from llavar.corpus.shards import existing
    from llavar.corpus.teaching.replies import spent_in

    corpus = existing(arguments.corpus)
    for line in status_of(corpus):
        print(line)
    if any(stage.stage == METADATA for stage in corpus.chain()):
        passed = unknown(corpus.items(METADATA))
        print(f"metadata  passed unknown: {passed.watermark} on watermarks, {passed.unsafe} on safety")
    if any(stage.stage == FETCH for stage in corpus.chain()) and not (corpus.root / FETCHED).is_dir():
        print(f"{FETCHED}/ was removed: pictures that have to be opened anew are fetched again")
    spent = spent_in(arguments.corpus)
    if spent.replies:
        print(f" teacher  {spent.replies} replies, {spent.tokens} tokens, cost {spent.cost:.4f}")
    return 0


def _explain(arguments: argparse.Namespace) -> int:
    from llavar.corpus.products import life_of
    from llavar.corpus.shards import existing

    print(life_of(existing(arguments.corpus), arguments.row))
    return 0
