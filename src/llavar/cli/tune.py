"""``llavar tune``."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import TYPE_CHECKING

from llavar.cli.arguments import Commands, count, whole

if TYPE_CHECKING:
    from llavar.corpus.teaching.teacher import EndpointTeacher


def add(commands: Commands) -> None:
    parser = commands.add_parser(
        "tune",
        help="tune a model on a folder of your own pictures, and see whether it got better",
        description=(
            "Read your pictures with an OCR engine, keep some aside, train an adapter on rows made of the "
            "others, and write a page with answers and scores before and after. Nothing leaves this machine "
            "unless a teacher is named. Stopped at any time, the same command goes on."
        ),
    )
    parser.add_argument("pictures", type=Path, metavar="FOLDER", help="your pictures; folders in it as well")
    parser.add_argument(
        "--model",
        default="nano",
        metavar="DIR_OR_HUB_ID",
        help="nano, a model folder, or a hub id of any image-text-to-text model (default: %(default)s)",
    )
    parser.add_argument(
        "--questions",
        type=Path,
        metavar="FILE",
        help="your own questions as JSONL, JSON, CSV or TSV: image, question, answer or answers; scored "
        "first, and their pictures are never trained on",
    )
    parser.add_argument(
        "--out", type=Path, default=Path("runs/tune"), metavar="RUN", help="folder of the run (%(default)s)"
    )
    parser.add_argument(
        "--hours",
        type=float,
        metavar="H",
        help="a budget: what a picture, an answer and a step take is measured first, and how much of each "
        "fits is chosen and said",
    )
    parser.add_argument(
        "--held-out", type=count, metavar="N", help="pictures kept aside (a fifth, at most 100)"
    )
    parser.add_argument("--steps", type=count, default=0, metavar="N", help="of training (by the rows)")
    parser.add_argument(
        "--seed", type=whole, default=0, help="of the choice of pictures, rows and training (%(default)s)"
    )
    parser.add_argument(
        "--mask",
        action="store_true",
        help="mask e-mail addresses and numbers of telephones, cards and accounts in what is learned",
    )
    _add_teacher(parser)
    parser.add_argument("--json", action="store_true", help="print what was made as an object")
    parser.set_defaults(command=_tune)


def _add_teacher(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("a teacher, which is sent the text of the pictures, masked")
    group.add_argument(
        "--teacher",
        default="",
        metavar="URL",
        help="of an OpenAI-compatible server, such as http://127.0.0.1:8000/v1; without one, templates make "
        "the conversations",
    )
    group.add_argument("--teacher-model", default="", metavar="NAME", help="what the server calls the model")
    group.add_argument(
        "--teacher-tokens", type=count, metavar="N", help="most tokens that it may cost, all runs together"
    )


def _tune(arguments: argparse.Namespace) -> int:
    from llavar.study import tune

    settings = tune.Settings(
        pictures=arguments.pictures,
        out=arguments.out,
        model=arguments.model,
        questions=arguments.questions,
        hours=arguments.hours,
        held_out=arguments.held_out,
        steps=arguments.steps,
        seed=arguments.seed,
        mask=arguments.mask,
        teacher=_teacher(arguments),
    )
    made = tune.run(settings)
    if arguments.json:
        document = {
            "report": str(made.report),
            "result": str(made.result),
            "model": str(made.model),
            "verdict": made.verdict,
            "commands": list(made.commands),
            "seconds": round(made.seconds, 1),
        }
        print(json.dumps(document, ensure_ascii=False))
    return 0


def _teacher(arguments: argparse.Namespace) -> EndpointTeacher | None:
    from llavar.errors import ConfigError

    if not arguments.teacher:
        if arguments.teacher_model or arguments.teacher_tokens:
            raise ConfigError("--teacher-model and --teacher-tokens are of a teacher; give --teacher URL")
        return None
    from llavar.corpus.teaching.teacher import EndpointTeacher

    if not arguments.teacher_model:
        raise ConfigError("the teacher has no model; give its name on that server as --teacher-model")
    return EndpointTeacher(
        kind="endpoint",
        url=arguments.teacher,
        model=arguments.teacher_model,
        budget_tokens=arguments.teacher_tokens,
        seed=arguments.seed,
    )
