"""What an evaluation left in its folder, read back: results as they were recorded, answers, errors.

The layout is that of :mod:`llavar.study.evaluation`. A folder may come from anyone: every field is checked.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

from pydantic import FiniteFloat, TypeAdapter, ValidationError

from llavar.errors import DataError, LlavarError, NotFoundError
from llavar.evals import rows
from llavar.evals.interchange import read_answers
from llavar.records import Answered, Score

_T = TypeVar("_T")
_Texts = Mapping[str, str]


@dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    """A score with its 95 % interval; ``n`` is 0 where nobody recorded it."""

    score: FiniteFloat
    interval: tuple[FiniteFloat, FiniteFloat]
    n: int = 0

    @property
    def whole(self) -> Score:
        return Score(value=self.score, low=self.interval[0], high=self.interval[1], n=self.n)


@dataclass(frozen=True, slots=True, kw_only=True)
class Repeated:
    """Questions asked again alone, those answered as before, and the ids of the others."""

    n: int
    equal: int
    unequal: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Result:
    """``result.json`` of a task. ``score`` is None where there were no references, or a judge reviews."""

    metric: str
    n: int
    score: FiniteFloat | None
    failed: int
    interval: tuple[FiniteFloat, FiniteFloat] | None = None
    metric_version: str = ""
    metric_of: _Texts = field(default_factory=dict[str, str])
    better: str = "higher"
    empty: int = 0
    mean_length: FiniteFloat = 0.0
    baselines: Mapping[str, FiniteFloat] = field(default_factory=dict[str, float])
    categories: Mapping[str, Part] = field(default_factory=dict[str, Part])
    totals: Mapping[str, Part] = field(default_factory=dict[str, Part])
    also: Mapping[str, Part] = field(default_factory=dict[str, Part])
    notes: tuple[str, ...] = ()
    preset: str = ""
    prompt: _Texts = field(default_factory=dict[str, str])
    decoding: Mapping[str, FiniteFloat] = field(default_factory=dict[str, float])
    max_new_tokens: int = 0
    image_position: str = ""
    transform: str | None = None
    delete_newlines: bool = False
    limit: int | None = None
    batch_size: int = 0
    data: _Texts = field(default_factory=dict[str, str])
    seconds: FiniteFloat = 0.0
    wall_seconds: FiniteFloat = 0.0
    verified: Repeated | None = None
    model: str = ""
    about: _Texts = field(default_factory=dict[str, str])
    code: _Texts = field(default_factory=dict[str, str])
    date: str = ""
    pictures: str = ""

    @property
    def higher_is_better(self) -> bool:
        return self.better != "lower"

    @property
    def whole(self) -> Score | None:
        """The score with its interval."""
        if self.score is None:
            return None
        low, high = self.interval or (self.score, self.score)
        return Score(value=self.score, low=low, high=high, n=self.n)

    @property
    def best_baseline(self) -> tuple[str, float] | None:
        """The best of the answers that look at no picture."""
        ranked = sorted(
            self.baselines.items(), key=lambda item: item[1] if self.higher_is_better else -item[1]
        )
        return ranked[-1] if ranked else None

    @property
    def beats_baselines(self) -> bool:
        if self.score is None or self.best_baseline is None:
            return True
        trivial = self.best_baseline[1]
        return self.score > trivial if self.higher_is_better else self.score < trivial

    def how(self) -> dict[str, str]:
        """Everything that decided the answers, by name, in words."""
        drawn = ", ".join(f"{name} {value:g}" for name, value in self.decoding.items())
        return {
            "Model": self.model,
            **{name.capitalize().replace("_", " "): value for name, value in self.about.items()},
            "Preset": self.preset,
            "Decoding": "greedy" if self.decoding.get("temperature") == 0 else drawn,
            "Line after each question": self.prompt.get("suffix", "") or "none",
            "Picture": f"{self.image_position} the question" if self.image_position else "",
            "Transform": self.transform or "",
            "Most new tokens": str(self.max_new_tokens),
            "Line breaks in replies": "deleted" if self.delete_newlines else "kept",
            "Questions": f"the first {self.limit}" if self.limit else "all",
            "Batch size": str(self.batch_size),
            "Code": " ".join(self.code.values()),
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredTask:
    """A finished task. ``errors``: why a question has no answer, by its id."""

    name: str
    folder: Path
    result: Result
    answers: tuple[Answered, ...]
    errors: Mapping[str, str]

    @property
    def pictures(self) -> Path | None:
        """The folder that picture names are relative to, if the run recorded it."""
        return Path(self.result.pictures) if self.result.pictures else None


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredRun:
    """An evaluation's folder. ``unfinished``: (task, questions, replies so far); ``problems``: sentences."""

    path: Path
    model: str
    tasks: tuple[StoredTask, ...]
    unfinished: tuple[tuple[str, int, int], ...] = ()
    problems: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class _Named:
    """The settings of the last command that matter here."""

    tasks: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class _Head:
    """``run.json``."""

    model: str = ""
    settings: _Named = field(default_factory=_Named)


def is_run(path: Path) -> bool:
    """Whether ``llavar eval`` made the folder."""
    return any((path / name).is_file() for name in ("run.json", "results.json"))


def read_run(path: Path, only: Sequence[str] = ()) -> StoredRun:
    """The tasks in the folder, or ``only`` these. One that cannot be read becomes a sentence in ``problems``.

    Raises:
        NotFoundError: ``path`` holds no evaluation, or not all tasks that were named.
    """
    if not is_run(path):
        raise NotFoundError(f"{path} holds no evaluation: there is neither run.json nor results.json in it")
    head = _head(path / "run.json")
    folders = {file.parent.name: file.parent for file in sorted(path.glob("*/questions.jsonl"))}
    if missing := [name for name in only if name not in folders]:
        held = ", ".join(folders) or "none"
        raise NotFoundError(f"{path} holds no task {missing[0]!r:.80}; it holds {held:.400}")
    tasks: list[StoredTask] = []
    unfinished: list[tuple[str, int, int]] = []
    problems: list[str] = []
    named = (name for name in head.settings.tasks if name in folders)
    for name in only or dict.fromkeys([*named, *folders]):
        folder = folders[name]
        try:
            if (folder / "result.json").is_file():
                tasks.append(_task(folder))
            else:
                unfinished.append(
                    (name, _lines(folder / "questions.jsonl"), _lines(folder / "journal.jsonl"))
                )
        except (LlavarError, OSError) as error:
            problems.append(f"{name}: {error}")
    return StoredRun(
        path=path,
        model=head.model,
        tasks=tuple(tasks),
        unfinished=tuple(unfinished),
        problems=tuple(problems),
    )


def _head(path: Path) -> _Head:
    """A damaged file only costs the order of the tasks and the model's name."""
    try:
        return read_json(path, _Head)
    except (LlavarError, OSError):
        return _Head()


def _task(folder: Path) -> StoredTask:
    predictions = folder / "predictions.jsonl"
    loaded = read_answers(predictions, references=folder / "questions.jsonl")
    table = rows.parse(rows.decode(rows.read_bytes(predictions), predictions), predictions)
    return StoredTask(
        name=folder.name,
        folder=folder,
        result=read_json(folder / "result.json", Result),
        answers=loaded.answers,
        errors={row.text("question"): row.any_text("error") for row in table if row.any_text("error")},
    )


def read_json(path: Path, kind: type[_T]) -> _T:
    """A JSON object as a dataclass; fields that it does not have are ignored.

    Raises:
        DataError: a field is missing or of another type.
    """
    try:
        return TypeAdapter(kind).validate_json(path.read_bytes())
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"])) or "the file"
        raise DataError(
            f"{path} is damaged ({where:.100}: {first['msg']:.200}); the same llavar eval command writes it "
            "again and keeps the answers"
        ) from None


def _lines(path: Path) -> int:
    return path.read_bytes().count(b"\n") if path.is_file() else 0
