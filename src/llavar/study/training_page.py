"""The page of a training run: loss and its company step by step, what was left out, and the settings.

Reads what a run writes while it works (``metrics.jsonl``, ``config.json``, ``rejects.jsonl``), as data alone,
so that runs of other versions and runs that are still going can be looked at.
"""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import cast

from llavar import html
from llavar.errors import DataError
from llavar.html import Child, Markup
from llavar.study import cards
from llavar.study.report import duration

LOG, CONFIG, REJECTS = "metrics.jsonl", "config.json", "rejects.jsonl"

_LISTED = 100
"""Rows left out that the page names one by one."""

_MOST = 1e30
"""A larger value of the log counts as not finite: charts cannot be drawn near the end of what floats hold."""

_CHARTS = (
    ("lr", "Learning rate", ""),
    ("grad_norm", "Gradient norm, before clipping", ""),
    ("samples_per_second", "Throughput", "samples/s"),
    ("useful_tokens_per_second", "Throughput without padding", "tokens/s"),
    ("padding", "Padding, share of the tokens", ""),
    ("wait", "Waiting for data, share of the time", ""),
    ("mfu", "Share of the peak arithmetic", ""),
    ("memory_gb", "Memory, most that was held", "GB"),
)
"""Field of the log, title, unit. Those that are never above zero are left out."""

Entry = Mapping[str, float]


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainingRun:
    """A run's folder as read. ``settings``: (name, value), ``rejects``: (id, stage, reason, detail)."""

    path: Path
    log: tuple[Entry, ...]
    settings: tuple[tuple[str, str], ...]
    rejects: tuple[tuple[str, str, str, str], ...]
    notes: tuple[str, ...] = ()

    def setting(self, name: str) -> str:
        return dict(self.settings).get(name, "")


def is_training(path: Path) -> bool:
    """Whether ``llavar train`` made the folder."""
    return all((path / name).is_file() for name in (LOG, CONFIG))


def read_training(path: Path) -> TrainingRun:
    """What the folder holds.

    Raises:
        DataError: a file is no text, the settings are no JSON object, or a line of the log is none.
    """
    rejects, _ = _lines(path / REJECTS)
    entries, torn = _lines(path / LOG)
    fields = ("id", "stage", "reason", "detail")
    log = [{key: _number(value) for key, value in entry.items()} for entry in entries]
    stepless = sum(not math.isfinite(entry.get("step", math.nan)) for entry in log)
    notes = ["The last line of the log is torn and left out."] if torn else []
    notes += [f"{stepless} lines of the log name no step and are left out."] if stepless else []
    return TrainingRun(
        path=path,
        log=tuple(entry for entry in log if math.isfinite(entry.get("step", math.nan))),
        settings=tuple(_flat(_object(path / CONFIG))),
        rejects=tuple(
            cast("tuple[str, str, str, str]", tuple(str(row.get(name, "")) for name in fields))
            for row in rejects
        ),
        notes=tuple(notes),
    )


def training_page(run: TrainingRun) -> str:
    """The page as text."""
    recipe = run.setting("recipe") or "Training"
    return html.page(
        f"{recipe}: {run.path.absolute().name}",
        html.grid(_tiles(run.log)) if run.log else html.paragraph("No step is logged yet.", kind="verdict"),
        html.bullets(run.notes) if run.notes else None,
        _curves(run.log) if run.log else None,
        _rejects(run.rejects),
        html.section("Settings", html.facts((name, value) for name, value in run.settings if value)),
        lead=f"From {run.setting('model') or 'an unnamed model'} on {run.setting('data') or 'unnamed data'}.",
        footer="Written by llavar report. Nothing on this page is loaded from elsewhere.",
    )


# --- reading --------------------------------------------------------------------------------------------


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise DataError(f"{path} is not UTF-8 at byte {error.start}; it was not written by a run") from None


def _parsed(text: str, place: str) -> dict[str, object]:
    try:
        found: object = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise DataError(f"{place} is not valid JSON ({error!s:.100}); remove it") from None
    if not isinstance(found, dict):
        raise DataError(f"{place} is {found!r:.40}, not an object; remove it")
    return cast("dict[str, object]", found)


def _object(path: Path) -> dict[str, object]:
    return _parsed(_text(path), str(path))


def _lines(path: Path) -> tuple[list[dict[str, object]], bool]:
    """The objects of a file of lines, and whether a kill tore the last one."""
    if not path.is_file():
        return [], False
    # Not splitlines: JSON strings may hold U+2028 and its like.
    whole, _, rest = _text(path).rpartition("\n")
    numbered = enumerate(whole.split("\n"), start=1)
    return [_parsed(line, f"line {n} of {path}") for n, line in numbered if line.strip()], bool(rest.strip())


def _number(value: object) -> float:
    """NaN for everything that cannot be drawn: no number, or one beyond all reason."""
    if isinstance(value, int | float) and abs(value) <= _MOST:
        return float(value)
    return math.nan


def _flat(settings: Mapping[str, object], before: str = "") -> Iterator[tuple[str, str]]:
    """Nested settings as ``stage batch``."""
    # What is nested comes last.
    for name, value in sorted(settings.items(), key=lambda item: isinstance(item[1], dict)):
        label = f"{before}{name.replace('_', ' ')}"
        if isinstance(value, dict):
            yield from _flat(cast("dict[str, object]", value), f"{label} ")
        elif isinstance(value, list):
            yield label, ", ".join(map(str, cast("list[object]", value)))
        elif isinstance(value, bool):
            yield label, "yes" if value else "no"
        else:
            yield label, "" if value is None else str(value)


# --- parts of the page ----------------------------------------------------------------------------------


def _tiles(log: Sequence[Entry]) -> Iterator[Markup]:
    last = log[-1]
    left = last.get("left", math.nan)
    going = f"about {duration(left)} left when it was logged" if left > 0 else None
    state = "the last step is done" if left == 0 else going
    yield html.tile("Steps", f"{last['step']:,.0f}", state)
    some = max(1, len(log) // 20)
    begun, ended = _mean(log[:some], "loss"), _mean(log[-some:], "loss")
    if begun is not None and ended is not None:
        change = f"{begun:.3g} \N{RIGHTWARDS ARROW} {ended:.3g}"
        yield html.tile(
            "Loss", change, f"mean of the first and of the last {cards.numbered(some, 'logged step')}"
        )
    if last.get("seconds", 0.0) > 0:
        yield html.tile("Time", duration(last["seconds"]), "since the last start")
    rate = _mean(log, "samples_per_second")
    if rate is not None:
        wait = _mean(log, "wait")
        note = f"{wait:.0%} of the time spent waiting for data" if wait is not None else ""
        yield html.tile("Samples a second", html.number(round(rate, 2)), note or None)


def _mean(log: Sequence[Entry], field: str) -> float | None:
    values = [entry[field] for entry in log if math.isfinite(entry.get(field, math.nan))]
    return sum(values) / len(values) if values else None


def _curves(log: Sequence[Entry]) -> Markup:
    smooth = max(1, len(log) // 20)
    charts = [_chart(log, "loss", "Loss", "", smooth)]
    for field, title, unit in _CHARTS:
        if any(entry.get(field, 0) > 0 for entry in log):
            charts.append(_chart(log, field, title, unit, 1 if field == "lr" else smooth))
    return html.section(
        "Step by step",
        html.grid(charts, across=2),
        intro="Bold: a running mean; thin: as logged. Loss is the mean over the supervised tokens since the "
        "entry before.",
    )


def _chart(log: Sequence[Entry], field: str, title: str, unit: str, smooth: int) -> Markup:
    points = tuple((entry["step"], entry[field]) for entry in log if field in entry)
    return html.line_chart([html.Series(label="", points=points)], title=title, y_label=unit, smooth=smooth)


def _rejects(rejects: Sequence[tuple[str, str, str, str]]) -> Markup:
    if not rejects:
        return html.section("Left out", html.paragraph("No row was left out.", kind="note"))
    counts = Counter(f"{stage}: {reason}" for _, stage, reason, _ in rejects)
    more = f" (the first {_LISTED} of {len(rejects):,})" if len(rejects) > _LISTED else ""
    listed: list[Sequence[Child]] = list(rejects[:_LISTED])
    return html.section(
        "Left out",
        html.bars(
            [(name, float(n)) for name, n in counts.most_common(20)],
            title=f"{cards.numbered(len(rejects), 'row')} by step and reason",
        ),
        html.details(f"Each of them{more}", html.table(("Id", "Step", "Reason", "Detail"), listed)),
    )
