"""``llavar compare``."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import TYPE_CHECKING

from llavar.cli.arguments import Commands, whole

if TYPE_CHECKING:
    from llavar.records import Score
    from llavar.study.compare import RunComparison, TaskComparison

_HELP = """\
A and B are runs of llavar eval, or two files of answers that llavar score reads. Questions are matched by
their id, within each task. Of two runs a page with the answers that differ goes into B, unless --out names
another place; --json writes none unless --out is given."""


def add(commands: Commands) -> None:
    parser = commands.add_parser(
        "compare",
        help="compare two runs, or two files of answers: paired tests, and the answers that differ",
        description="Compare two models on the same questions: paired tests, and the answers that differ.",
        epilog=_HELP,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("first", type=Path, metavar="A", help="a run, or a file of answers")
    parser.add_argument("second", type=Path, metavar="B", help="another of the same kind")
    parser.add_argument(
        "--task", action="append", default=[], metavar="NAME", help="this task alone (may be repeated)"
    )
    parser.add_argument(
        "--metric", default="", metavar="NAME", help="in place of the runs' own; files may need one"
    )
    parser.add_argument(
        "--references", type=Path, metavar="FILE", help="the references, for files that come without"
    )
    parser.add_argument("--out", type=Path, metavar="FILE.html", help="write the page here")
    parser.add_argument(
        "--images", type=whole, default=8, metavar="N", help="answers shown of each direction (default: 8)"
    )
    parser.add_argument("--pictures", type=Path, metavar="DIR", help="where the pictures are now")
    parser.add_argument("--json", action="store_true", help="print one object with all numbers")
    parser.set_defaults(command=_compare)


def _compare(arguments: argparse.Namespace) -> int:
    from llavar import html
    from llavar.study.compare import compare
    from llavar.study.compare_page import compare_page
    from llavar.study.stored_run import is_run

    found = compare(
        arguments.first,
        arguments.second,
        tasks=list(dict.fromkeys(arguments.task)),
        metric=arguments.metric,
        references=arguments.references,
    )
    page: Path | None = arguments.out
    if page is None and not arguments.json and is_run(arguments.second):
        page = arguments.second / f"compared_with_{arguments.first.resolve().name}.html"
    if arguments.json:
        print(json.dumps(found.document()))
    else:
        _show(found)
    if page is not None:
        html.write(compare_page(found, images=arguments.images, pictures=arguments.pictures), page)
    if not arguments.json:
        print(f"\nThe answers that differ, with their pictures: {page or 'add --out FILE.html'}")
    return 0


def _show(found: RunComparison) -> None:
    for name, side in (("A", found.first), ("B", found.second)):
        print(f"{name}  {side.path}{f' ({side.model})' if side.model else ''}")
    for note in found.notes:
        print(f"note: {note}")
    for task in found.tasks:
        print()
        _task(task, len(found.tasks))
    if len(found.tasks) > 1:
        clear = [task.task for task in found.tasks if task.better is not None]
        told = f"{len(clear)}: {', '.join(clear)}" if clear else "none"
        print(f"\nOf {len(found.tasks)} differences those with p below 0.05 after Holm's correction: {told}")


def _task(task: TaskComparison, tasks: int) -> None:
    from llavar.evals import metrics

    compared, change = task.compared, task.compared.comparison
    digits = 1 if compared.metric.startswith("mme") else 4
    lower = "" if metrics.higher_is_better(compared.metric) else ", LOWER is better"
    print(f"{task.task}: {metrics.full_name(compared.metric)}{lower}, n {compared.first.n:,}")
    _line("A", compared.first, digits)
    _line("B", compared.second, digits)
    told = {True: "B is better", False: "B is worse", None: "no clear difference"}[task.better]
    span = f"{change.low:+.{digits}f} to {change.high:+.{digits}f}"
    corrected = f" (Holm: {_p(task.corrected)})" if tasks > 1 else ""
    print(f"  B - A  {change.difference:>+9.{digits}f}   95 %: {span}   {_p(change.p)}{corrected}   {told}")
    exact = "" if compared.mcnemar is None else f"; McNemar's exact {_p(compared.mcnemar)}"
    print(f"  answers that B has better: {len(task.up):,}, worse: {len(task.down):,}{exact}")
    for name, one, other in task.settings:
        print(f"  {name}: {one or 'not stated'} in A, {other or 'not stated'} in B")
    for note in task.notes:
        print(f"  note: {note}")


def _p(value: float) -> str:
    return f"p {value:.4f}" if value >= 0.0001 else "p < 0.0001"


def _line(name: str, score: Score, digits: int) -> None:
    interval = f"{score.low:.{digits}f} to {score.high:.{digits}f}"
    print(f"  {name:5}  {score.value:>9.{digits}f}   95 %: {interval}")
