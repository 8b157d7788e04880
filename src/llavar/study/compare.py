"""Two models on the same questions: how far apart their scores are, and which answers make the difference.

A and B are runs of ``llavar eval``, or two files of answers that :mod:`llavar.evals.interchange` reads.
Scores are computed anew from the answers, both with the same code.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from llavar.errors import ConfigError, DataError, NotFoundError
from llavar.evals import metrics
from llavar.evals.interchange import read_answers
from llavar.evals.score import PAIRWISE, Compared, answer_values, compare_answers
from llavar.records import Answered, Score
from llavar.study.stored_run import Result, StoredRun, is_run, read_run

SIGNIFICANT = 0.05
"""Below this p, corrected for the number of tasks, a difference is called one."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Side:
    """One of the two that are compared. ``model`` is empty where a file does not say."""

    path: Path
    model: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Flip:
    """A question that one side has better than the other, with both answers and their scores."""

    first: Answered
    second: Answered
    values: tuple[float, float]


@dataclass(frozen=True, slots=True, kw_only=True)
class TaskComparison:
    """One task. ``up`` are the questions that B has better, ``down`` those that A has better.

    ``binary``: every answer is either right or wrong. ``corrected``: the p of the difference after Holm's
    correction for all tasks that are compared. ``settings``: (name, A's, B's) of what differs between the
    runs. ``pictures``: where the pictures were.
    """

    task: str
    compared: Compared
    up: tuple[Flip, ...]
    down: tuple[Flip, ...]
    binary: bool
    corrected: float
    notes: tuple[str, ...] = ()
    settings: tuple[tuple[str, str, str], ...] = ()
    pictures: Path | None = None

    @property
    def better(self) -> bool | None:
        """Whether B is better; None if that cannot be told from chance."""
        difference = self.compared.comparison.difference
        if self.corrected >= SIGNIFICANT or not difference:
            return None
        return (difference > 0) == metrics.higher_is_better(self.compared.metric)

    def document(self) -> dict[str, object]:
        """What goes into JSON; ``interval`` is [low, high] at 95 %."""
        found = self.compared.comparison
        return {
            "metric": self.compared.metric,
            "better": "higher" if metrics.higher_is_better(self.compared.metric) else "lower",
            "n": found.n if self.compared.metric.partition("@")[0] not in PAIRWISE else self.compared.first.n,
            "a": _plain(self.compared.first),
            "b": _plain(self.compared.second),
            "difference": found.difference,
            "interval": [found.low, found.high],
            "p": found.p,
            "p_holm": self.corrected,
            "mcnemar": self.compared.mcnemar,
            "up": len(self.up),
            "down": len(self.down),
            "up_ids": [flip.first.id for flip in self.up],
            "down_ids": [flip.first.id for flip in self.down],
            "settings": {name: [one, other] for name, one, other in self.settings},
            "notes": list(self.notes),
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class RunComparison:
    """All tasks that both sides have. ``notes`` say what is compared with nothing."""

    first: Side
    second: Side
    tasks: tuple[TaskComparison, ...]
    notes: tuple[str, ...] = ()

    def document(self) -> dict[str, object]:
        return {
            "a": {"path": str(self.first.path), "model": self.first.model},
            "b": {"path": str(self.second.path), "model": self.second.model},
            "tasks": {task.task: task.document() for task in self.tasks},
            "notes": list(self.notes),
        }


def _plain(score: Score) -> dict[str, object]:
    return {"n": score.n, "score": score.value, "interval": [score.low, score.high]}


def compare(
    first: Path,
    second: Path,
    *,
    tasks: Sequence[str] = (),
    metric: str = "",
    references: Path | None = None,
) -> RunComparison:
    """Compare what is in ``first`` (A) and ``second`` (B), question by question.

    Args:
        tasks: these alone; else all that both runs have.
        metric: in place of the one that the runs were scored by, or that the files' format is made for.
        references: of files of answers that hold none.

    Raises:
        NotFoundError: a path or a task is not there.
        ConfigError: a run is to be compared with a file, or the metric is unknown or not stated.
        DataError: files are damaged, have no question in common, or the references of one differ.
    """
    if metric:
        metrics.full_name(metric)  # a name that is wrong is said before long files are read
    for path in (first, second):
        if not path.exists():
            raise NotFoundError(f"there is nothing at {path}; name the folder of a run, or a file of answers")
    runs = is_run(first), is_run(second)
    if runs == (True, True):
        if references is not None:
            raise ConfigError(f"runs hold their own references; leave --references {references} out")
        return _runs(read_run(first, tasks), read_run(second, tasks), metric)
    if True in runs:
        one, other = (first, second) if runs[0] else (second, first)
        raise ConfigError(f"{one} is a run and {other} is none; give two runs, or two files of answers")
    if tasks:
        raise ConfigError(f"{first} and {second} are files of answers, which hold no tasks; leave --task out")
    return _files(first, second, metric, references)


def holm(values: Sequence[float]) -> list[float]:
    """p values corrected for their number, so that the chance of a single false alarm stays what it was
    (Holm 1979, "A simple sequentially rejective multiple test procedure")."""
    found, least = [0.0] * len(values), 0.0
    for rank, i in enumerate(sorted(range(len(values)), key=values.__getitem__)):
        least = max(least, min(1.0, (len(values) - rank) * values[i]))
        found[i] = least
    return found


def _corrected(tasks: Sequence[TaskComparison]) -> tuple[TaskComparison, ...]:
    values = holm([task.compared.comparison.p for task in tasks])
    return tuple(replace(task, corrected=value) for task, value in zip(tasks, values, strict=True))


# --- runs and files -------------------------------------------------------------------------------------


def _runs(a: StoredRun, b: StoredRun, metric: str) -> RunComparison:
    mine, theirs = ({task.name: task for task in run.tasks} for run in (a, b))
    notes = [f"{run.path}: {problem}" for run in (a, b) for problem in run.problems]
    for run in (a, b):
        notes += [
            f"{name} is not finished in {run.path} ({replies} replies, {n} questions)"
            for name, n, replies in run.unfinished
        ]
    for run, alone in ((a, mine.keys() - theirs.keys()), (b, theirs.keys() - mine.keys())):
        notes += [f"{len(alone)} tasks are finished in {run.path} only: {', '.join(sorted(alone))}"] * bool(
            alone
        )
    found: list[TaskComparison] = []
    for name in (name for name in mine if name in theirs):
        one, other = mine[name], theirs[name]
        chosen = metric or _common_metric(name, one.result, other.result)
        if not metric and one.result.score is None:
            notes.append(f"{name} has no score to compare ({chosen}); see llavar judge agree for reviews")
            continue
        found.append(
            _task(
                name,
                one.answers,
                other.answers,
                chosen,
                metric_of={} if metric else one.result.metric_of,
                settings=_differing(one.result, other.result),
                pictures=one.pictures or other.pictures,
            )
        )
    if not found:
        raise DataError(
            f"{a.path} and {b.path} have no finished task with a score in common; {'; '.join(notes)}"[:600]
        )
    return RunComparison(
        first=Side(path=a.path, model=a.model),
        second=Side(path=b.path, model=b.model),
        tasks=_corrected(found),
        notes=tuple(notes),
    )


def _common_metric(task: str, a: Result, b: Result) -> str:
    if (a.metric, a.metric_of) != (b.metric, b.metric_of):
        raise ConfigError(
            f"{task} was scored by {a.metric} in one run and by {b.metric} in the other; choose with --metric"
        )
    return a.metric


def _differing(a: Result, b: Result) -> tuple[tuple[str, str, str], ...]:
    one, other = a.how(), b.how()
    names = list(dict.fromkeys([*one, *other]))
    pairs = ((name, one.get(name, ""), other.get(name, "")) for name in names)
    return tuple(pair for pair in pairs if pair[1] != pair[2])


def _files(first: Path, second: Path, metric: str, references: Path | None) -> RunComparison:
    one = read_answers(first, references=references)
    other = read_answers(second, references=references)
    chosen = metric or one.metric
    if not chosen or (not metric and other.metric != chosen):
        raise ConfigError(
            f"{first} ({one.format}) and {second} ({other.format}) can be scored in several ways; give "
            f"--metric with one of {', '.join(metrics.NAMES)}"
        )
    found = _task(_stems(first, second), one.answers, other.answers, chosen)
    notes = [f"{path}: {note}" for path, each in ((first, one), (second, other)) for note in each.notes]
    return RunComparison(
        first=Side(path=first), second=Side(path=second), tasks=_corrected([found]), notes=tuple(notes)
    )


def _stems(first: Path, second: Path) -> str:
    return first.stem if first.stem == second.stem else f"{first.stem} and {second.stem}"


# --- one task -------------------------------------------------------------------------------------------


def _task(
    name: str,
    first: Sequence[Answered],
    second: Sequence[Answered],
    metric: str,
    *,
    metric_of: Mapping[str, str] | None = None,
    settings: tuple[tuple[str, str, str], ...] = (),
    pictures: Path | None = None,
) -> TaskComparison:
    pairs, notes = _paired(name, first, second, metric)
    ours = [mine for mine, _ in pairs]
    # What is scored together and what one picture makes dependent is taken from A, so that both agree.
    theirs = [
        replace(other, category=mine.category, group=mine.group, image=mine.image, references=mine.references)
        for mine, other in pairs
    ]
    compared = compare_answers(ours, theirs, metric, metric_of=metric_of)
    values = [answer_values(side, metric, metric_of=metric_of) for side in (ours, theirs)]
    flips = {
        mine.id: Flip(first=mine, second=other, values=(before, after))
        for (mine, other), before, after in zip(pairs, *values, strict=True)
    }
    return TaskComparison(
        task=name,
        compared=compared,
        up=tuple(flips[id] for id in compared.gained),
        down=tuple(flips[id] for id in compared.lost),
        binary=compared.mcnemar is not None,
        corrected=compared.comparison.p,
        notes=(*notes, *_at_odds(compared)),
        settings=settings,
        pictures=pictures,
    )


def _at_odds(compared: Compared) -> list[str]:
    """Where the two ways of looking at chance disagree, which happens with few pictures."""
    found = compared.comparison
    if (found.low > 0 or found.high < 0) == (found.p < SIGNIFICANT):
        return []
    where = "leaves out 0" if found.low > 0 or found.high < 0 else "holds 0"
    return [
        f"the interval of the difference {where} although p is {found.p:.3f}: they differ on too few "
        "pictures for either to be relied on"
    ]


_Pairs = list[tuple[Answered, Answered]]


def _paired(
    name: str, first: Sequence[Answered], second: Sequence[Answered], metric: str
) -> tuple[_Pairs, list[str]]:
    """The questions that both sides answered, in the order of the first, and what is odd about them."""
    theirs = {answer.id: answer for answer in second}
    pairs = [(answer, theirs[answer.id]) for answer in first if answer.id in theirs]
    if not pairs:
        raise DataError(
            f"{name}: no question is in both: A's ids are {_some(first)}, B's {_some(second)}; compare "
            "answers to the same questions"
        )
    known = {mine.id for mine, _ in pairs}
    notes = [
        f"{len(alone)} questions are in {side} only and left out (first: {_some(alone)})"
        for side, answers in (("A", first), ("B", second))
        if (alone := [answer for answer in answers if answer.id not in known])
    ]
    if metric.partition("@")[0] in PAIRWISE and notes:
        pairs, dropped = _whole_pairs(first, pairs)
        notes += [f"{dropped} more are left out, whose partner of the same picture is missing"] * bool(
            dropped
        )
        if not pairs:
            raise DataError(f"{name}: no pair of questions is in both; compare answers to the same questions")
    _same_references(name, pairs)
    notes += _odd(pairs, "the wording", lambda answer: " ".join(answer.question.split()))
    notes += _odd(pairs, "the picture", lambda answer: Path(answer.image).name)
    notes += _odd(pairs, "the category", lambda answer: answer.category)
    failed = [sum(answer.status != "ok" for answer in side) for side in zip(*pairs, strict=True)]
    if any(failed):
        notes.append(f"failed, and so wrong: {failed[0]} of A's answers, {failed[1]} of B's")
    return pairs, notes


def _whole_pairs(first: Sequence[Answered], pairs: _Pairs) -> tuple[_Pairs, int]:
    """Without the questions whose group lost another one, and how many those are."""
    known = {mine.id for mine, _ in pairs}
    broken = {_group(answer) for answer in first if answer.id not in known}
    sizes: dict[tuple[str, str], int] = {}
    for mine, _ in pairs:
        sizes[_group(mine)] = sizes.get(_group(mine), 0) + 1
    kept = [pair for pair in pairs if _group(pair[0]) not in broken and sizes[_group(pair[0])] > 1]
    return kept, len(pairs) - len(kept)


def _group(answer: Answered) -> tuple[str, str]:
    return answer.category, answer.group or answer.image


def _same_references(name: str, pairs: _Pairs) -> None:
    differing = [pair for pair in pairs if sorted(pair[0].references) != sorted(pair[1].references)]
    if differing:
        mine, other = differing[0]
        raise DataError(
            f"{name}: the references of {len(differing)} of {len(pairs)} questions differ (first: "
            f"{mine.id!r:.60} with {list(mine.references)!r:.80} and {list(other.references)!r:.80}); "
            "compare answers to the same questions"
        )


def _odd(pairs: _Pairs, what: str, look: Callable[[Answered], str]) -> list[str]:
    """A note if something that both state differs."""
    found = [
        (mine.id, look(mine), look(other))
        for mine, other in pairs
        if look(mine) and look(other) and look(mine) != look(other)
    ]
    if not found:
        return []
    id, one, other = found[0]
    return [
        f"{what} of {len(found)} of {len(pairs)} questions differs (first: {id!r:.60} with {one!r:.80} and "
        f"{other!r:.80})"
    ]


def _some(answers: Sequence[Answered]) -> str:
    return ", ".join(f"{answer.id!r:.40}" for answer in answers[:3]) + ", ..." * (len(answers) > 3)
