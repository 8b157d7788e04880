"""``llavar judge``: GPT-style review of answers."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Generator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from llavar.cli.arguments import Commands, count

if TYPE_CHECKING:
    from llavar.evals.judge import Agreement, CategorySummary
    from llavar.evals.judge.run import Judged
    from llavar.llm import Client

_INCOMPLETE = 1
"""Exit status of a run that is done, but in which some requests failed."""


def add(commands: Commands) -> None:
    parser = commands.add_parser(
        "judge",
        help="have a language model review answers, and sum its reviews up",
        description="GPT-style review, as LLaVA does it: a text model compares a model's answers with "
        "reference answers, given a description of each picture.",
    )
    kinds = parser.add_subparsers(title="actions", metavar="ACTION", required=True)
    _add_run(kinds)
    _add_summary(kinds)
    _add_agree(kinds)
    _add_reference(kinds)


def _add_run(kinds: Commands) -> None:
    parser = kinds.add_parser(
        "run",
        help="ask a judge to review answers",
        description="Ask a judge to compare each answer with its reference. Every review is kept as it "
        "comes; the same command goes on where an earlier one stopped, and tries again what failed. Exit "
        "status 1 if some requests failed.",
    )
    _add_questions(parser)
    parser.add_argument("--reference", type=Path, required=True, metavar="A1.jsonl", help="reference answers")
    parser.add_argument("--answers", type=Path, required=True, metavar="A2.jsonl", help="the model's answers")
    _add_endpoint(parser)
    parser.add_argument(
        "--out",
        type=Path,
        default=Path("reviews.jsonl"),
        metavar="FILE",
        help="where the reviews go (%(default)s)",
    )
    parser.add_argument(
        "--rules", type=Path, metavar="FILE", help="rules in LLaVA's format instead of the built-in ones"
    )
    parser.add_argument(
        "--both-orders", action="store_true", help="ask twice, each answer once first, and average"
    )
    parser.add_argument(
        "--strict", action="store_true", help="read scores exactly as LLaVA does, 'A B' on the first line"
    )
    parser.add_argument("--temperature", type=float, default=0.2, metavar="T", help="default: %(default)s")
    parser.set_defaults(command=_run)


def _add_summary(kinds: Commands) -> None:
    parser = kinds.add_parser(
        "summary",
        help="mean scores of a file of reviews, by category",
        description="Mean scores of the reference and the model and their ratio in percent, with its 95 % "
        "interval, by category. Reads files of this command, of LLaVA and of LLaVAR.",
    )
    parser.add_argument("file", type=Path, metavar="FILE")
    parser.add_argument(
        "--compatible", action="store_true", help="average failed reviews in as -1, as LLaVA's script does"
    )
    _add_json(parser)
    parser.set_defaults(command=_summary)


def _add_agree(kinds: Commands) -> None:
    parser = kinds.add_parser(
        "agree",
        help="how far files of reviews agree",
        description="How far reviews of the same questions agree: equal scores, distance, rank correlation; "
        "and, for every two files, the difference of the relative scores with its 95 % interval.",
    )
    parser.add_argument("files", type=Path, nargs="+", metavar="FILE")
    _add_json(parser)
    parser.set_defaults(command=_agree)


def _add_reference(kinds: Commands) -> None:
    parser = kinds.add_parser(
        "reference",
        help="have a text model write reference answers",
        description="Reference answers by a model that reads the contexts instead of seeing the pictures. "
        "Goes on where an earlier run stopped. Exit status 1 if some requests failed.",
    )
    _add_questions(parser)
    _add_endpoint(parser)
    parser.add_argument("--out", type=Path, required=True, metavar="A.jsonl", help="where the answers go")
    parser.add_argument("--temperature", type=float, default=0.0, metavar="T", help="default: %(default)s")
    parser.set_defaults(command=_reference)


def _add_questions(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--questions", type=Path, required=True, metavar="Q.jsonl", help="question_id, image, text, category"
    )
    parser.add_argument(
        "--contexts", type=Path, required=True, metavar="C.jsonl", help="id, image, captions, instances"
    )


def _add_endpoint(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--model", required=True, metavar="NAME", help="as the server knows it")
    parser.add_argument(
        "--base-url", required=True, metavar="URL", help="such as https://api.openai.com/v1 (OPENAI_API_KEY)"
    )
    parser.add_argument("--max-tokens", type=count, default=1024, metavar="N", help="default: %(default)s")
    parser.add_argument(
        "--workers", type=count, default=8, metavar="N", help="requests at a time: %(default)s"
    )
    parser.add_argument("--budget", type=count, metavar="N", help="send at most N requests, retries included")
    parser.add_argument("--cache", type=Path, metavar="FILE", help="keep replies here, for other runs too")
    parser.add_argument(
        "--timeout", type=float, default=120.0, metavar="S", help="seconds for one reply: %(default)s"
    )
    parser.add_argument("--attempts", type=count, default=5, metavar="N", help="for one reply: %(default)s")
    _add_json(parser)


def _add_json(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--json", action="store_true", help="print one object")


def _run(arguments: argparse.Namespace) -> int:
    from llavar.evals.judge import (
        Settings,
        built_in_rules,
        judge,
        read_cases,
        read_reviews,
        read_rules,
        summarise,
    )

    settings = Settings(
        both_orders=arguments.both_orders,
        strict=arguments.strict,
        temperature=arguments.temperature,
        max_tokens=arguments.max_tokens,
        workers=arguments.workers,
    )
    rules = read_rules(arguments.rules) if arguments.rules else built_in_rules()
    cases = read_cases(arguments.questions, arguments.contexts, arguments.reference, arguments.answers)
    with _client(arguments) as client:
        done = judge(
            cases, client, rules, out=arguments.out, settings=settings, progress=_progress("reviews")
        )
    found = summarise(read_reviews(arguments.out))
    summary = {name: row.document() for name, row in found.items()}
    _tell(arguments, done, {"summary": summary}, lambda: _table(found))
    return _INCOMPLETE if done.failed else 0


def _reference(arguments: argparse.Namespace) -> int:
    from llavar.evals.judge import answer_all
    from llavar.evals.judge.files import read_questions

    questions = read_questions(arguments.questions, arguments.contexts)
    with _client(arguments) as client:
        done = answer_all(
            questions,
            client,
            out=arguments.out,
            max_tokens=arguments.max_tokens,
            temperature=arguments.temperature,
            workers=arguments.workers,
            progress=_progress("answers"),
        )
    _tell(arguments, done, {}, lambda: None)
    return _INCOMPLETE if done.failed else 0


@contextmanager
def _client(arguments: argparse.Namespace) -> Generator[Client]:
    from llavar.llm import Budget, Cache, Client, Endpoint

    endpoint = Endpoint(
        base_url=arguments.base_url,
        model=arguments.model,
        timeout=arguments.timeout,
        attempts=arguments.attempts,
    )
    endpoint.key()  # a key that cannot be sent is better found out before anything else
    cache = Cache(arguments.cache) if arguments.cache else None
    try:
        with Client(endpoint, cache=cache, budget=Budget(max_requests=arguments.budget)) as client:
            yield client
    finally:
        if cache:
            cache.close()


def _progress(what: str) -> Callable[[int, int], None]:
    """One line that counts up on a terminal, and about ten lines elsewhere; on standard error."""
    terminal = sys.stderr.isatty()

    def show(done: int, total: int) -> None:
        if terminal:
            print(f"\r{done}/{total} {what}", end="\n" if done == total else "", file=sys.stderr, flush=True)
        elif done in (0, total) or done % max(1, total // 10) == 0:
            print(f"{done}/{total} {what}", file=sys.stderr, flush=True)

    return show


def _tell(
    arguments: argparse.Namespace, done: Judged, more: Mapping[str, Any], show: Callable[[], None]
) -> None:
    if arguments.json:
        document = {"out": str(arguments.out), "asked": done.asked, "kept": done.kept, "failed": done.failed}
        print(json.dumps(document | {"error": done.error} | dict(more), ensure_ascii=False))
        return
    show()
    print(f"{done.asked} asked, {done.kept} kept from before, {done.failed} failed; in {arguments.out}")
    if done.failed:
        print(
            f"llavar: {done.failed} of {done.asked} requests failed, the last so: {done.error}; "
            "the same command tries them again",
            file=sys.stderr,
        )


def _summary(arguments: argparse.Namespace) -> int:
    from llavar.evals.judge import read_reviews, summarise

    found = summarise(read_reviews(arguments.file), compatible=arguments.compatible)
    if arguments.json:
        print(json.dumps({name: row.document() for name, row in found.items()}, ensure_ascii=False))
    else:
        _table(found)
    return 0


def _table(found: Mapping[str, CategorySummary]) -> None:
    width = max(len("category"), *(len(name) for name in found))
    print(f"{'category':{width}}     n  failed  reference   model  relative  95 % interval")
    for name, row in found.items():
        name = "".join(character if character.isprintable() else "?" for character in name)
        interval = "" if row.low is None else f"  {row.low:.1f} to {row.high:.1f}"
        print(
            f"{name:{width}}  {row.n:4}  {row.failed:6}  {_number(row.reference, 3):>9}  "
            f"{_number(row.model, 3):>6}  {_number(row.relative, 1):>8}{interval}"
        )
    advantage = found["all"].advantage
    if advantage is not None:
        print(f"standing first is worth {advantage:+.3f} points")


def _number(value: float | None, digits: int) -> str:
    return "-" if value is None else f"{value:.{digits}f}"


def _agree(arguments: argparse.Namespace) -> int:
    from llavar.evals.judge import agree, read_reviews

    found = agree([(str(path), read_reviews(path)) for path in arguments.files])
    if arguments.json:
        print(json.dumps(found.document(), ensure_ascii=False))
    else:
        _show_agreement(found)
    return 0


def _show_agreement(found: Agreement) -> None:
    spread = found.reference
    print(
        f"reference answers: {spread.differ} of {spread.n} have not the same score in all files; "
        f"they differ by up to {spread.largest:g} points, {spread.mean:.2f} on average"
    )
    for pair in found.pairs:
        print(f"\n{pair.second} compared with {pair.first}: {pair.n} questions, {pair.unmatched} unmatched")
        for what, match in (("reference", pair.reference), ("model", pair.model)):
            print(
                f"  {what:9}  {match.equal:.0%} equal, {match.distance:.2f} points apart, "
                f"rank correlation {_number(match.spearman, 2)}"
            )
        for name, row in pair.relative.items():
            if row is not None:
                interval = f"[{row.low:.1f}, {row.high:.1f}]"
                print(f"  relative score, {name}: {row.difference:+.1f} {interval}, p {row.p:.2g}")
