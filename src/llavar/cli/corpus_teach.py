"""``llavar corpus teach``: the teacher is asked, or requests to it and its answers are files."""

from __future__ import annotations

import argparse
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from llavar.cli import corpus_ray
from llavar.cli.arguments import Commands
from llavar.cli.corpus_stage import Run, compute, is_recipe

if TYPE_CHECKING:
    from llavar.corpus.teaching.batch import TakenUp

_SHOWN = 20


def add(parts: Commands, run: Run) -> None:
    """``run`` is what ``llavar corpus run`` does."""
    parser = parts.add_parser(
        "teach",
        help="ask the teacher; or write and read its batch files",
        description=(
            "Given a recipe: compute it up to the teacher's conversations. Given a corpus: write the "
            "requests that have no answer yet as a batch file, for OpenAI's batches or for vllm run-batch, "
            "or take the answers up; then run the recipe again. Requests that are answered with what cannot "
            "be used are in the next batch once more."
        ),
    )
    parser.add_argument("given", type=Path, metavar="RECIPE.yaml|CORPUS")
    parser.add_argument("--out", type=Path, metavar="CORPUS", help="of a recipe: where its corpus lies")
    corpus_ray.add(parser)
    way = parser.add_mutually_exclusive_group()
    way.add_argument("--write-batch", type=Path, metavar="FILE.jsonl")
    way.add_argument("--read-batch", type=Path, metavar="RESULTS.jsonl")
    parser.add_argument(
        "--requests",
        type=int,
        metavar="N",
        help="requests in one file at most; the others go into FILE-2.jsonl and so on (default 50000)",
    )
    parser.add_argument("--json", action="store_true", help="print what was done as one object")
    parser.set_defaults(command=partial(_teach, run))


def _teach(run: Run, arguments: argparse.Namespace) -> int:
    from llavar.errors import ConfigError

    batch = arguments.write_batch or arguments.read_batch
    if is_recipe(arguments, "teach"):
        if not batch:
            return compute("teach", run, arguments)
        raise ConfigError(
            "batch files are of a corpus, not of a recipe; run the recipe until it waits for answers, then  "
            f"llavar corpus teach {arguments.out}  with --write-batch or --read-batch"
        )
    if arguments.out or not batch:
        raise ConfigError(
            f"{arguments.given} is a corpus; give --write-batch or --read-batch, or ask the teacher with  "
            f"llavar corpus teach RECIPE.yaml --out {arguments.given}"
        )
    return _batch(arguments.given, arguments)


def _batch(root: Path, arguments: argparse.Namespace) -> int:
    import json

    from llavar.corpus.recipe import saved_recipe, teach_stage
    from llavar.corpus.teaching import batch
    from llavar.corpus.teaching.given import given_to
    from llavar.corpus.teaching.stage import EndpointTeachStage
    from llavar.errors import ConfigError

    most = arguments.requests or batch.MOST_REQUESTS
    if most < 1:
        raise ConfigError(f"--requests is {most}; give at least 1")
    stage = teach_stage(saved_recipe(root), root.absolute())
    if not isinstance(stage, EndpointTeachStage):
        raise ConfigError(
            f"the teacher of {root} is a table of templates, which asks nobody; write  teacher: "
            "{kind: endpoint, model: ...}  into the recipe and run it"
        )
    given = given_to(root, stage.name)
    if arguments.write_batch is not None:
        written = batch.write_batch(stage, given, arguments.write_batch, most=most)
        if arguments.json:
            print(json.dumps({"requests": written.requests, "files": [str(path) for path in written.files]}))
        elif not written.requests:
            print("every request has its answer; run the recipe again")
        else:
            print(f"{written.requests} requests in {', '.join(map(str, written.files))}")
        return 0
    taken = batch.read_batch(stage, given, arguments.read_batch)
    _say(taken, as_json=arguments.json)
    return 0


def _say(taken: TakenUp, *, as_json: bool) -> None:
    import json

    if as_json:
        unanswered = [one._asdict() for one in taken.unanswered]
        print(
            json.dumps(
                {
                    "answers": taken.answers,
                    "known": taken.known,
                    "unanswered": unanswered,
                    "faults": taken.faults,
                    "waiting": taken.waiting,
                }
            )
        )
        return
    before = f", {taken.known} that were there before" if taken.known else ""
    print(f"{taken.answers} answers taken up{before}")
    for fault in taken.faults[:_SHOWN]:
        print(f"  {fault}")
    if taken.unanswered:
        print(f"{len(taken.unanswered)} rows without an answer:")
    for one in taken.unanswered[:_SHOWN]:
        print(f"  {one.id}: {one.reason}")
    if len(taken.unanswered) > _SHOWN:
        print(f"  ... and {len(taken.unanswered) - _SHOWN} more; --json lists all")
    if taken.waiting:
        print(f"{taken.waiting} rows are to be asked about once more")
    again = "write a batch again for the rest, or run" if taken.unanswered or taken.waiting else "run"
    print(f"next: {again} the recipe")
