"""``llavar eval``."""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from llavar.cli.arguments import Commands, count

_FAILED = 1


def add(commands: Commands) -> None:
    parser = commands.add_parser(
        "eval",
        help="ask a model or an endpoint the questions of benchmarks, and score the answers",
        description=(
            "Ask a model the questions of benchmarks, and score its answers. Every reply is kept as it "
            "comes: stopped at any time, the same command goes on. Status 1 if questions have no answer."
        ),
    )
    parser.add_argument(
        "model", metavar="MODEL", help="nano, a model folder, a hub id, or http://host:8000/v1#name"
    )
    parser.add_argument("--tasks", nargs="+", required=True, metavar="NAME")
    parser.add_argument("--data", type=Path, required=True, metavar="DIR", help="the benchmarks' files")
    parser.add_argument("--out", type=Path, required=True, metavar="RUN", help="folder of the run")
    parser.add_argument("--limit", type=count, metavar="N", help="the first N questions of each task only")
    _add_asking(parser)
    _add_running(parser)
    parser.add_argument("--json", action="store_true", help="print one object with the results of all tasks")
    parser.set_defaults(command=_eval)


def _add_asking(parser: argparse.ArgumentParser) -> None:
    asking = parser.add_argument_group("how questions are put (all of it is recorded with the results)")
    asking.add_argument(
        "--preset",
        choices=("greedy", "mmocr", "mme", "llava"),
        default="greedy",
        help="greedy, or as the paper's scripts sample: text-VQA, MME, judged questions (default: greedy)",
    )
    asking.add_argument("--temperature", type=float, metavar="T", help="0 is greedy")
    asking.add_argument("--top-p", type=float, metavar="P")
    asking.add_argument("--seed", type=int, metavar="N", help="of drawn answers (default: 0)")
    asking.add_argument(
        "--image-position",
        choices=("after", "before"),
        help="of the question (default: before it; the paper's presets: after it)",
    )
    asking.add_argument(
        "--transform",
        choices=("pad", "fit", "crop"),
        help="how pictures are made square (default: the preset's, else the checkpoint's own)",
    )
    asking.add_argument("--suffix", default="", metavar="TEXT", help="a line after every question")
    asking.add_argument(
        "--max-new-tokens", type=count, metavar="N", help="default: the preset's, else the task's"
    )
    asking.add_argument(
        "--conversation", default="", metavar="NAME", help="another conversation than the model's own"
    )


def _add_running(parser: argparse.ArgumentParser) -> None:
    running = parser.add_argument_group("how the run goes")
    running.add_argument("--batch-size", type=count, default=16, metavar="N", help="default: %(default)s")
    running.add_argument(
        "--workers", type=count, default=8, metavar="N", help="requests to an endpoint at a time (default: 8)"
    )
    running.add_argument(
        "--timeout", type=float, default=120.0, metavar="S", help="seconds for a request (default: 120)"
    )
    running.add_argument(
        "--dtype",
        choices=("float32", "bfloat16", "float16"),
        default="",
        help="of the weights (default: float32, on a GPU bfloat16)",
    )
    running.add_argument(
        "--verify-batch",
        type=count,
        default=0,
        metavar="K",
        help="ask K questions of each task again, alone; status 1 if an answer differs",
    )
    running.add_argument(
        "--allow-failures", action="store_true", help="status 0 although questions have no answer"
    )


def _eval(arguments: argparse.Namespace) -> int:
    from llavar.images import Transform
    from llavar.study import evaluation

    position = arguments.image_position
    settings = evaluation.Settings(
        model=arguments.model,
        tasks=tuple(arguments.tasks),
        data=arguments.data,
        out=arguments.out,
        limit=arguments.limit,
        batch_size=arguments.batch_size,
        preset=arguments.preset,
        temperature=arguments.temperature,
        top_p=arguments.top_p,
        seed=arguments.seed,
        image_first=None if position is None else position == "before",
        transform=Transform(arguments.transform) if arguments.transform else None,
        suffix=arguments.suffix,
        max_new_tokens=arguments.max_new_tokens,
        conversation=arguments.conversation,
        verify_batch=arguments.verify_batch,
        workers=arguments.workers,
        timeout=arguments.timeout,
        dtype=arguments.dtype,
    )
    done = evaluation.run(settings, tell=None if arguments.json else _tell)
    if arguments.json:
        print(json.dumps(done.document()))
    failed = done.failed and not arguments.allow_failures
    return _FAILED if failed or done.unequal else 0


def _tell(line: str) -> None:
    print(line, flush=True)
