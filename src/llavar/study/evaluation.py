"""Evaluation of a model, or of an endpoint, on named benchmarks: ask, keep, score, and write down how.

A run's folder holds all that scoring, comparing and reporting need::

    RUN/run.json                  the model and the settings of the last command
    RUN/results.json              a row for every task
    RUN/<task>/journal.jsonl      every reply, written as it comes; what a stopped run goes on from
    RUN/<task>/questions.jsonl    the questions with their references as published
    RUN/<task>/predictions.jsonl  the replies that count, in the order of the questions
    RUN/<task>/result.json        score, interval, baselines, and everything that decided them
    RUN/<task>/answers.jsonl      instead of a score, where a judge reviews the answers (LLaVA's format)
"""

from __future__ import annotations

import hashlib
import sys
import time
from collections import abc
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, TextIO

from llavar.errors import ConfigError
from llavar.evals import presets, tasks
from llavar.evals.interchange import write_llava_answers
from llavar.evals.run import Asking, Verified, evaluate, verify
from llavar.evals.score import Scored, score_answers
from llavar.generate.base import Generator
from llavar.images import Transform
from llavar.records import Answered, Prediction, Question, Status
from llavar.study.evaluation_files import code_version, line_of, table, write_json, write_lines
from llavar.study.progress import Watch

if TYPE_CHECKING:
    from llavar.generate.local import LocalGenerator

JUDGE = "judge"
"""The metric of tasks whose answers another model reviews."""

_URL = ("http://", "https://")


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """One evaluation. ``None`` leaves a setting to the preset, the task or the checkpoint, in this order.

    ``model``: nano, a folder, a hub id, or ``http://host:8000/v1#name`` of an OpenAI-compatible server, which
    gets ``workers`` requests at a time and has ``timeout`` seconds for each. ``limit``: the first questions
    of each task only. ``verify_batch``: ask so many questions of each task again, alone. ``dtype``: of the
    weights in memory; empty means float32 on a CPU and bfloat16 on a GPU.
    """

    model: str
    tasks: tuple[str, ...]
    data: Path
    out: Path
    limit: int | None = None
    batch_size: int = 16
    preset: str = "greedy"
    temperature: float | None = None
    top_p: float | None = None
    seed: int | None = None
    image_first: bool | None = None
    transform: Transform | None = None
    suffix: str = ""
    max_new_tokens: int | None = None
    conversation: str = ""
    verify_batch: int = 0
    workers: int = 8
    timeout: float = 120.0
    dtype: str = ""

    def __post_init__(self) -> None:
        if not self.tasks:
            raise ConfigError("no task is named; give --tasks and names, for example textvqa docvqa")
        doubled = {name for name in self.tasks if self.tasks.count(name) > 1}
        if doubled:
            raise ConfigError(f"the task {min(doubled)!r} is named twice; name each once")
        if self.remote and self.transform:
            raise ConfigError(
                f"--transform {self.transform} cannot be: a server makes pictures square in its own way; "
                "leave it out"
            )
        if self.remote and self.conversation:
            raise ConfigError("--conversation cannot be: a server uses its model's own; leave it out")
        presets.get(self.preset)
        self.asking(128)

    @property
    def remote(self) -> bool:
        return self.model.lower().startswith(_URL)

    def asking(self, usual_tokens: int) -> Asking:
        """How questions are put, for a task whose answers usually fit into ``usual_tokens``."""
        preset = presets.get(self.preset)
        given = {"temperature": self.temperature, "top_p": self.top_p, "seed": self.seed}
        decoding = replace(preset.decoding, **{k: v for k, v in given.items() if v is not None})
        return Asking(
            max_new_tokens=self.max_new_tokens or preset.max_new_tokens or usual_tokens,
            decoding=decoding,
            image_first=preset.image_first if self.image_first is None else self.image_first,
            suffix=self.suffix,
            delete_newlines=preset.delete_newlines,
        )

    def transform_for(self, task: str) -> Transform | None:
        return self.transform or presets.get(self.preset).transform_for(task)


@dataclass(frozen=True, slots=True, kw_only=True)
class TaskResult:
    """What a task ended with. ``scored`` is None where a judge is to review the answers first."""

    task: str
    scored: Scored | None
    n: int
    failed: int
    verified: Verified | None
    line: str
    document: Mapping[str, object] = field(repr=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class Evaluation:
    """All tasks of a run, in the order in which they were asked."""

    model: str
    results: tuple[TaskResult, ...]

    @property
    def failed(self) -> int:
        """Questions that have no answer."""
        return sum(result.failed for result in self.results)

    @property
    def unequal(self) -> int:
        """Answers that were another one when their question was asked alone."""
        return sum(len(result.verified.unequal) for result in self.results if result.verified)

    def document(self) -> dict[str, object]:
        return {
            "model": self.model,
            "failed": self.failed,
            "unequal": self.unequal,
            "tasks": {result.task: dict(result.document) for result in self.results},
        }


def run(
    settings: Settings,
    *,
    stream: TextIO | None = None,
    tell: Callable[[str], None] | None = None,
    generator: Generator | None = None,
) -> Evaluation:
    """Ask every task, going on from what an earlier run left in ``settings.out``.

    All files of all tasks are read before the model is loaded. ``generator`` stands in for the model that the
    settings name; ``stream`` takes the progress (default: standard error), and ``tell`` the line about each
    task as soon as it ends (default: among the progress).

    Raises:
        LlavarError: a task, its files, the model or a setting cannot be used. A question that cannot be
            answered raises nothing: it is counted in :attr:`Evaluation.failed`.
    """
    plan = [_Plan.read(name, settings) for name in settings.tasks]
    if generator is not None:
        return _run(plan, settings, generator, stream, tell)
    with opened(settings) as found:
        return _run(plan, settings, found, stream, tell)


def _run(
    plan: Sequence[_Plan],
    settings: Settings,
    generator: Generator,
    stream: TextIO | None,
    tell: Callable[[str], None] | None,
) -> Evaluation:
    if settings.out.exists() and not settings.out.is_dir():
        raise ConfigError(f"{settings.out} is a file; --out names the folder of a run")
    settings.out.mkdir(parents=True, exist_ok=True)
    watch = Watch(settings.out / "seconds.json", stream=stream)
    write_json(settings.out / "run.json", _run_document(settings, generator))
    total = sum(len(task.questions) for task in plan)
    watch.say(f"{generator.name}: {total} questions of {len(plan)} tasks; everything goes to {settings.out}")
    results: list[TaskResult] = []
    for task in plan:
        results.append(_run_task(task, settings, generator, watch))
        write_json(settings.out / "results.json", table(settings.out, watch.say))
        (tell or watch.say)(results[-1].line)
    return Evaluation(model=generator.name, results=tuple(results))


@contextmanager
def opened(settings: Settings) -> abc.Generator[Generator]:
    """The model or the endpoint that the settings name, to use inside a ``with`` statement.

    Raises:
        LlavarError: there is no such model, it cannot be used, or the URL names none.
    """
    if settings.remote:
        from llavar.generate.remote import RemoteGenerator
        from llavar.llm import Client, Endpoint

        url, _, name = settings.model.partition("#")
        if not name:
            raise ConfigError(f"{url!r:.100} names no model; append it: {url[:100]}#NAME")
        endpoint = Endpoint(base_url=url, model=name, timeout=settings.timeout)
        with Client(endpoint) as client:
            yield RemoteGenerator(client, workers=settings.workers)
        return
    import torch

    from llavar.generate.hub import HubGenerator, load_any
    from llavar.study.reader import find

    usual = "bfloat16" if torch.cuda.is_available() else "float32"
    found = load_any(
        find(settings.model),
        name=settings.model,
        template=settings.conversation,
        dtype=getattr(torch, settings.dtype or usual),
    )
    if settings.transform and isinstance(found, HubGenerator):
        raise ConfigError(
            f"--transform {settings.transform} cannot be: the model's own processor prepares pictures; leave "
            "it out"
        )
    yield found


# --- one task -------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class _Plan:
    """A task with its questions at hand."""

    benchmark: tasks.Benchmark
    questions: tuple[Question, ...]
    image_root: Path
    files: tuple[Path, ...]
    data: Mapping[str, str]

    @classmethod
    def read(cls, name: str, settings: Settings) -> _Plan:
        benchmark = tasks.get(name)
        loaded = benchmark.load(settings.data)
        questions = _first(loaded.questions, settings.limit)
        return cls(
            benchmark=benchmark,
            questions=questions,
            image_root=loaded.image_root,
            files=tuple(found for file in benchmark.files if (found := file.find(settings.data))),
            data=_digests(benchmark, settings.data, questions),
        )


def _first(questions: tuple[Question, ...], limit: int | None) -> tuple[Question, ...]:
    """The first ``limit`` questions, and what is scored together with the last of them."""
    if limit is None or limit >= len(questions):
        return questions
    last = questions[limit - 1].group
    end = limit
    while last and end < len(questions) and questions[end].group == last:
        end += 1
    return questions[:end]


def _digests(benchmark: tasks.Benchmark, data: Path, questions: Iterable[Question]) -> dict[str, str]:
    """sha256 of every annotation file, and of the questions as they were understood."""
    found: dict[str, str] = {}
    for expected in benchmark.files:
        path = expected.find(data)
        if path is not None and path.is_file():
            with path.open("rb") as file:
                found[path.relative_to(data).as_posix()] = hashlib.file_digest(file, "sha256").hexdigest()
    digest = hashlib.sha256()
    for question in questions:
        digest.update(line_of(asdict(question)).encode())
    return {**found, "questions": digest.hexdigest()}


def _run_task(plan: _Plan, settings: Settings, generator: Generator, watch: Watch) -> TaskResult:
    name, folder = plan.benchmark.name, settings.out / plan.benchmark.name
    asking = settings.asking(plan.benchmark.max_new_tokens)
    if settings.image_first is None and getattr(generator, "image_first", False):
        asking = replace(asking, image_first=True)  # where its makers train it so
    generator = _with_transform(generator, settings.transform_for(name))
    folder.mkdir(parents=True, exist_ok=True)
    write_lines(folder / "questions.jsonl", map(asdict, plan.questions))
    started = time.monotonic()
    with watch.step(name):
        predictions = evaluate(
            generator,
            plan.questions,
            image_root=plan.image_root,
            out=folder / "journal.jsonl",
            batch_size=settings.batch_size,
            asking=asking,
            progress=watch.count,
            say=watch.say,
            kept=folder / "predictions.jsonl",
        )
        wall = time.monotonic() - started
        verified = _verified(plan, settings, generator, predictions, asking)
    answers = _answered(plan.questions, predictions)
    scored = _scored(plan.benchmark, answers)
    document = {
        "task": name,
        **_score_document(plan.benchmark, answers, scored),
        **_how(settings, asking, generator),
        "data": dict(plan.data),
        "seconds": round(sum(prediction.seconds for prediction in predictions), 3),
        "wall_seconds": round(wall, 3),
        **({} if verified is None else {"verified": _verified_document(verified)}),
        "model": generator.name,
        "about": dict(generator.about),
        "code": code_version(),
        "date": time.strftime("%Y-%m-%dT%H:%M:%S%z"),
        "pictures": str(plan.image_root.resolve()),
    }
    write_json(folder / "result.json", document)
    return TaskResult(
        task=name,
        scored=scored,
        n=len(answers),
        failed=sum(answer.status is Status.FAILED for answer in answers),
        verified=verified,
        line=_told(plan, folder, answers, predictions, scored, verified, generator),
        document=document,
    )


def _with_transform(generator: Generator, transform: Transform | None) -> Generator:
    """Only a model in this process can be told how to make pictures square."""
    if transform is not None and (local := _local(generator)):
        return local.with_transform(transform)
    return generator


def _local(generator: Generator) -> LocalGenerator | None:
    """The generator if it is a model in this process; without loading torch, which asking a server spares."""
    if "llavar.generate.local" not in sys.modules:
        return None
    from llavar.generate.local import LocalGenerator

    return generator if isinstance(generator, LocalGenerator) else None


def _verified(
    plan: _Plan,
    settings: Settings,
    generator: Generator,
    predictions: Sequence[Prediction],
    asking: Asking,
) -> Verified | None:
    if not settings.verify_batch:
        return None
    if local := _local(generator):
        local.forget()  # else the pictures' features would be those of the batch
    return verify(
        generator,
        plan.questions,
        predictions,
        settings.verify_batch,
        image_root=plan.image_root,
        asking=asking,
    )


def _answered(questions: Sequence[Question], predictions: Sequence[Prediction]) -> tuple[Answered, ...]:
    return tuple(
        Answered(
            id=question.id,
            prediction=prediction.text,
            references=question.references,
            question=question.text,
            image=question.image,
            group=question.group,
            category=question.category,
            status=prediction.status,
        )
        for question, prediction in zip(questions, predictions, strict=True)
    )


def _scored(benchmark: tasks.Benchmark, answers: Sequence[Answered]) -> Scored | None:
    if benchmark.metric == JUDGE or not any(answer.references for answer in answers):
        return None
    return score_answers(answers, benchmark.metric, metric_of=benchmark.metric_of)


def _score_document(
    benchmark: tasks.Benchmark, answers: Sequence[Answered], scored: Scored | None
) -> dict[str, object]:
    if scored is None:
        failed = sum(answer.status is Status.FAILED for answer in answers)
        return {"metric": benchmark.metric, "n": len(answers), "score": None, "failed": failed}
    document = scored.document()
    document["scoring_seconds"] = document.pop("seconds")
    also: dict[str, object] = {}
    for name in benchmark.also:
        other = score_answers(answers, name, baselines=False)
        also[name] = {"score": other.score.value, "interval": [other.score.low, other.score.high]}
    return {**document, "metric_of": dict(benchmark.metric_of), "also": also}


def _how(settings: Settings, asking: Asking, generator: Generator) -> dict[str, object]:
    """Everything about the questions that decided the answers."""
    prompt = hashlib.sha256(asking.suffix.encode()).hexdigest()[:8] if asking.suffix else "plain"
    return {
        "preset": settings.preset,
        "prompt": {"id": prompt, "suffix": asking.suffix},
        "decoding": asking.decoding.document,
        "max_new_tokens": asking.max_new_tokens,
        "image_position": "before" if asking.image_first else "after",
        "transform": generator.about.get("transform", ""),
        "delete_newlines": asking.delete_newlines,
        "limit": settings.limit,
        "batch_size": settings.batch_size,
    }


def _verified_document(verified: Verified) -> dict[str, object]:
    return {"n": verified.n, "equal": verified.equal, "unequal": list(verified.unequal)}


def _told(
    plan: _Plan,
    folder: Path,
    answers: Sequence[Answered],
    predictions: Sequence[Prediction],
    scored: Scored | None,
    verified: Verified | None,
    generator: Generator,
) -> str:
    """The line about a finished task; answers for a judge are written on the way."""
    name = plan.benchmark.name
    failures = [prediction for prediction in predictions if prediction.status is Status.FAILED]
    if scored is not None:
        low, high = scored.score.low, scored.score.high
        line = f"{name}: {scored.metric} {scored.score.value:.4f} [{low:.4f}, {high:.4f}], n {scored.n}"
    elif plan.benchmark.metric == JUDGE:
        path = folder / "answers.jsonl"
        write_llava_answers(path, answers, generator.name)
        line = f"{name}: {len(answers)} answers in {path}; review them: {_judge_command(plan, path)}"
    else:
        line = f"{name}: {len(answers)} answers, and no references to score them with"
    if failures:
        line += f"; {len(failures)} failed, the first: {failures[0].error} (the same command asks them again)"
    if verified is not None:
        line += f"; alone and in a batch: {verified.equal} of {verified.n} equal"
    return line


def _judge_command(plan: _Plan, answers: Path) -> str:
    """How to have answers reviewed; capitals stand for what only the user knows."""
    asked = next((path for path in plan.files if "question" in path.name), "QUESTIONS.jsonl")
    reference = next((path for path in plan.files if "answer" in path.name), "REFERENCE.jsonl")
    return (
        f"llavar judge run --questions {asked} --contexts CONTEXTS.jsonl --reference {reference} "
        f"--answers {answers} --model JUDGE --base-url URL"
    )


def _run_document(settings: Settings, generator: Generator) -> dict[str, object]:
    stated = asdict(settings) | {"data": str(settings.data), "out": str(settings.out)}
    return {
        "model": generator.name,
        "about": dict(generator.about),
        "settings": stated,
        "code": code_version(),
    }
