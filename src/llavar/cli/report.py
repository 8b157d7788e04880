"""``llavar report``."""

from __future__ import annotations

import argparse
from pathlib import Path

from llavar.cli.arguments import Commands, whole


def add(commands: Commands) -> None:
    parser = commands.add_parser(
        "report",
        help="a page about a run: scores and answers of an evaluation, or the curves of a training",
        description="Write one self-contained page about a run. Of an evaluation: scores, intervals, what "
        "replies score that look at no picture, best and worst answers with their pictures. Of a training: "
        "its curves, the answers over time, what was left out, its settings.",
    )
    parser.add_argument("run", type=Path, metavar="RUN", help="the --out of llavar eval or llavar train")
    parser.add_argument("--out", type=Path, metavar="FILE.html", help="default: RUN/report.html")
    parser.add_argument(
        "--images",
        type=whole,
        default=8,
        metavar="N",
        help="answers shown of each kind and task (default: 8)",
    )
    parser.add_argument("--pictures", type=Path, metavar="DIR", help="where the pictures are now")
    parser.set_defaults(command=_report)


def _report(arguments: argparse.Namespace) -> int:
    from llavar import html

    page = _page(arguments.run, arguments.images, arguments.pictures)
    out: Path = arguments.out or arguments.run / "report.html"
    html.write(page, out)
    print(out)
    return 0


def _page(run: Path, images: int, pictures: Path | None) -> str:
    from llavar.errors import NotFoundError
    from llavar.study import training_page
    from llavar.study.evaluation_page import evaluation_page
    from llavar.study.stored_run import is_run, read_run

    if is_run(run):
        return evaluation_page(read_run(run), images=images, pictures=pictures)
    if training_page.is_training(run):
        read = training_page.read_training(run)
        return training_page.training_page(read, images=images, pictures=pictures)
    if not run.is_dir():
        raise NotFoundError(f"there is no folder {run}; give the --out of llavar eval or llavar train")
    raise NotFoundError(
        f"{run} holds no run: neither run.json or results.json of llavar eval, nor {training_page.LOG} and "
        f"{training_page.CONFIG} of llavar train"
    )
