"""``llavar score``."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import TYPE_CHECKING

from llavar.cli.arguments import Commands
from llavar.version import __version__

if TYPE_CHECKING:
    from llavar.evals.interchange import Loaded
    from llavar.evals.score import Scored
    from llavar.records import Score


def add(commands: Commands) -> None:
    parser = commands.add_parser(
        "score",
        help="score saved answers: LLaVAR's, LLaVA's, MME's, lmms-eval's, VLMEvalKit's or our own",
        description="Score saved answers, with interval, failures and what answers score that look at no "
        "picture. The format of the file is recognised.",
    )
    parser.add_argument("file", type=Path, nargs="?", metavar="FILE", help="answers, or a folder of MME's")
    parser.add_argument("--metric", default="", metavar="NAME", help="one of those that --list shows")
    parser.add_argument(
        "--references", type=Path, metavar="FILE", help="the references, for answers that come without"
    )
    parser.add_argument(
        "--answered-only",
        action="store_true",
        help="leave out questions of --references that have no answer, which else count as wrong",
    )
    parser.add_argument("--no-baselines", action="store_true", help="the score alone, which is quicker")
    parser.add_argument("--list", action="store_true", help="list the metrics")
    parser.add_argument("--json", action="store_true", help="print an object with all that is known")
    parser.set_defaults(command=_score)


def _score(arguments: argparse.Namespace) -> int:
    from llavar.errors import ConfigError
    from llavar.evals import metrics
    from llavar.evals.interchange import read_answers
    from llavar.evals.score import score_answers

    if arguments.list:
        _list(arguments.json)
        return 0
    if arguments.file is None:
        raise ConfigError("there is nothing to score; give a FILE of answers, or --list to see the metrics")
    if arguments.metric:
        metrics.full_name(arguments.metric)  # a name that is wrong is said before a long file is read
    loaded = read_answers(
        arguments.file, references=arguments.references, answered_only=arguments.answered_only
    )
    name = arguments.metric or loaded.metric
    if not name:
        raise ConfigError(
            f"{arguments.file} ({loaded.format}) can be scored in several ways; give --metric with one of "
            f"{', '.join(metrics.NAMES)}"
        )
    scored = score_answers(loaded.answers, name, baselines=not arguments.no_baselines)
    if arguments.json:
        print(json.dumps(_document(arguments.file, loaded, scored), ensure_ascii=False))
    else:
        _show(arguments.file, loaded, scored)
    return 0


def _list(as_json: bool) -> None:
    from llavar.evals import metrics

    if as_json:
        print(json.dumps({name: metrics.about(name) for name in metrics.NAMES}, ensure_ascii=False))
        return
    for name in metrics.NAMES:
        print(f"{name:22} {metrics.about(name)}")


def _document(file: Path, loaded: Loaded, scored: Scored) -> dict[str, object]:
    document: dict[str, object] = {
        **scored.document(),
        "file": str(file),
        "format": loaded.format.value,
        "data_sha256": loaded.sha256,
        "version": __version__,
    }
    document["notes"] = [*loaded.notes, *scored.notes]
    if loaded.references_sha256:
        document["references_sha256"] = loaded.references_sha256
    return document


def _show(file: Path, loaded: Loaded, scored: Scored) -> None:
    from llavar.evals import metrics

    better = "higher is better" if scored.higher_is_better else "LOWER is better"
    print(f"{file} ({loaded.format}), {metrics.full_name(scored.metric)}, {better}\n")
    digits = 1 if scored.pairwise else 4
    width = max(map(len, ("mean length", *scored.baselines, *scored.categories, *scored.totals)))
    _line("score", scored.score, width, digits)
    for name, text in (
        ("failed", f"{scored.failed:>9}"),
        ("empty", f"{scored.empty:>9}"),
        ("mean length", f"{scored.mean_length:>9.1f}   words"),
    ):
        print(f"  {name:{width}} {text}")
    if scored.baselines:
        print("\nthe same metric for answers that look at no picture")
        for name, value in scored.baselines.items():
            beaten = value < scored.score.value if scored.higher_is_better else value > scored.score.value
            remark = "" if beaten else "   not worse than the answers that were scored"
            print(f"  {name:{width}} {value:>9.{digits}f}{remark}")
    if len(scored.categories) > 1:
        print("\nby category" + (" and in sum" if scored.totals else ""))
        for name, score in (*scored.categories.items(), *scored.totals.items()):
            _line(name, score, width, digits)
    for note in (*loaded.notes, *scored.notes):
        print(f"\nnote: {note}")


def _line(name: str, score: Score, width: int, digits: int) -> None:
    interval = f"{score.low:.{digits}f} to {score.high:.{digits}f}"
    print(f"  {name:{width}} {score.value:>9.{digits}f}   95 %: {interval}   n {score.n:,}")
