"""What a tuning needs of disk, memory and time: said before it begins, and measured where there is a budget.

With ``--hours`` nothing is cut off in silence. What a picture costs to read, a question to answer and a step
to train is measured on the first few; from that follows how many are chosen, and the choice is said.
"""

from __future__ import annotations

import hashlib
import shutil
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from pydantic import TypeAdapter, ValidationError

from llavar import files
from llavar.corpus.crews import cpus
from llavar.corpus.ocr import STAGE as OCR
from llavar.corpus.open_shard import Step
from llavar.corpus.recipe import CorpusRecipe, stages_of
from llavar.corpus.shards import Corpus
from llavar.errors import ConfigError, StorageError
from llavar.models.stored import open_tensors
from llavar.study.cards import numbered
from llavar.study.report import duration
from llavar.study.tune_model import Base, device_name, memory_there
from llavar.study.tune_rows import Gathered
from llavar.train.config import Precision, StageConfig
from llavar.train.estimate import gigabytes

FILE = "plan.json"

READING, ASKING, SPARE = 0.3, 0.2, 0.05
"""Shares of the budget: for OCR, for answers before and after together, and for what nobody foresaw."""

LEAST_STEPS = 5
"""Fewer steps are no tuning."""

_PROBED = 8
_PER_PICTURE = 8_000
"""Bytes that a corpus keeps of a picture that was read, roughly."""
_STATE = 16
"""Bytes of a number of an adapter: itself, its gradient and two moments, in fp32."""
_CHECKPOINTS = 3
_TOWERS = ("vision", "visual", "tower")


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """What was chosen; 0 is not chosen yet. ``content`` tells one state of the pictures from another.

    ``read``: pictures that are read; ``asked``: held-out pictures that are asked about; ``steps``: of
    training; ``reasons``: sentences that say why.
    """

    hours: float | None = None
    content: str = ""
    read: int = 0
    asked: int = 0
    steps: int = 0
    reasons: tuple[str, ...] = ()


_PLAN = TypeAdapter(Plan)


def load(out: Path, hours: float | None, content: str, *, begun: bool) -> Plan:
    """The plan of a run; a new one where there is none, or it may still be made anew.

    Raises:
        ConfigError: training has ``begun`` by another plan, or on other pictures; or the file is damaged.
    """
    path = out / FILE
    fresh = Plan(hours=hours, content=content)
    if not path.is_file():
        return fresh
    try:
        held = _PLAN.validate_json(path.read_bytes())
    except ValidationError as error:
        raise ConfigError(f"{path} is damaged ({error.errors()[0]['msg']}); remove it") from None
    if (held.hours, held.content) == (hours, content):
        return held
    if begun and held.content != content:
        raise ConfigError(
            f"the pictures have changed since training began in {out}; use another --out, or remove it"
        )
    if begun:
        raise ConfigError(
            f"training in {out} has begun with --hours {held.hours}, now {hours}; go on with the former, or "
            "use another --out"
        )
    return fresh


def save(plan: Plan, out: Path) -> Plan:
    files.write_text(out / FILE, _PLAN.dump_json(plan, indent=1).decode() + "\n")
    return plan


# ------------------------------------------------------------------------------------------ beforehand


def adapter_numbers(base: Base, rank: int) -> int:
    """How many numbers an adapter of a rank has, counted from the shapes of the decoder's layers."""
    tensors = open_tensors(base.folder).values()
    return sum(
        rank * sum(tensor.shape)
        for tensor in tensors
        if len(tensor.shape) == 2
        and "layers." in tensor.name
        and not any(word in tensor.name for word in _TOWERS)
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Needs:
    """Bytes on the disk and in memory, and what is there of both."""

    disk: int
    disk_free: int
    memory: int
    memory_there: int


def needs_of(base: Base, stage: StageConfig, pictures: int, out: Path) -> Needs:
    """Counted, not measured; what one micro-batch computes comes on top of the memory.

    Raises:
        StorageError, ConfigError: the disk, or the memory, is too small for it.
    """
    assert stage.lora is not None
    numbers = adapter_numbers(base, stage.lora.rank)
    there = next(folder for folder in (out.absolute(), *out.absolute().parents) if folder.exists())
    width = 2 if stage.precision is Precision.BF16 else 4
    found = Needs(
        disk=base.stored + (4 + 12 * _CHECKPOINTS) * numbers + _PER_PICTURE * pictures,
        disk_free=shutil.disk_usage(there).free,
        memory=width * base.parameters + _STATE * numbers,
        memory_there=memory_there(),
    )
    if found.disk > found.disk_free and not (out / "train").exists():
        raise StorageError(
            f"the run needs about {gigabytes(found.disk)} in {out} and {gigabytes(found.disk_free)} are free "
            "there; make room, or use another --out"
        )
    if found.memory > found.memory_there:
        raise ConfigError(
            f"{base.name} needs {gigabytes(found.memory)} for its weights and the adapter, and "
            f"{device_name()} has {gigabytes(found.memory_there)}; name a smaller --model"
        )
    return found


def told(base: Base, needs: Needs, names: Sequence[str], folder: Path, out: Path) -> list[str]:
    """The same in sentences."""
    size = sum((folder / name).stat().st_size for name in names if (folder / name).is_file())
    way = "through its own processor" if base.own_processor else "as a Llava"
    return [
        f"{numbered(len(names), 'picture')} ({gigabytes(size)}) in {folder}; {base.name} ({base.kind}, "
        f"{base.parameters / 1e6:,.1f} million parameters, asked {way}) on {device_name()}.",
        f"Disk: about {gigabytes(needs.disk)} in {out}, of which the tuned model is "
        f"{gigabytes(base.stored)}; {gigabytes(needs.disk_free)} are free.",
        f"Memory: about {gigabytes(needs.memory)} for weights and adapter, and what a batch takes besides; "
        f"{gigabytes(needs.memory_there)} are there.",
    ]


# ------------------------------------------------------------------------------------------ reading


def many(count: int) -> bool:
    """Whether reading takes so long that its speed is worth a trial."""
    return count > 4 * probed()


def probed() -> int:
    """Pictures of a trial: a few for each process."""
    return max(_PROBED, 3 * cpus())


def reading_speed(root: Path, source: Gathered, recipe: CorpusRecipe) -> float:
    """Seconds that OCR takes for a picture, all processes together, by a few from all over the folder."""
    step = max(1, len(source.names) // probed())
    few = replace(source, names=source.names[::step][: probed()], asked=(), rejects=())
    times: list[float] = []

    def note(step: Step) -> None:
        if step.stage == OCR and step.done:
            times.append(time.monotonic())

    started = time.monotonic()
    shutil.rmtree(root, ignore_errors=True)
    Corpus(root).run(few, stages_of(recipe, root.absolute()), until=OCR, on_step=note)
    shutil.rmtree(root, ignore_errors=True)
    if len(times) < 2:
        return (time.monotonic() - started) / len(few.names)
    return (times[-1] - times[0]) / (len(times) - 1)


def choose_reading(plan: Plan, names: Sequence[str], each: float) -> Plan:
    """How many pictures are read, at ``each`` seconds for one.

    Raises:
        ConfigError: the budget is too small for any.
    """
    whole = each * len(names)
    if plan.hours is None:
        return replace(plan, read=len(names), reasons=(f"Reading takes about {duration(whole)}.",))
    room = READING * plan.hours * 3600
    count = min(len(names), int(room / each))
    if count < 2:
        raise ConfigError(
            f"--hours {plan.hours:g} leaves {duration(room)} for reading, and a picture takes "
            f"{duration(each)}; give --hours {max(0.01, 40 * each / READING / 3600):.2g} or more"
        )
    if count == len(names):
        said = f"Reading all {count:,} pictures takes about {duration(whole)}, which fits."
    else:
        said = (
            f"{count:,} of {len(names):,} pictures are read, drawn by lot: all of them would take about "
            f"{duration(whole)}, and {READING:.0%} of {plan.hours:g} h are for reading. More --hours read "
            "more."
        )
    return replace(plan, read=count, reasons=(said,))


def drawn(names: Sequence[str], count: int, seed: int) -> tuple[str, ...]:
    """So many of the names, by lot, in their order; more of them later keep these."""
    if count >= len(names):
        return tuple(names)
    lots = sorted(names, key=lambda name: hashlib.sha256(f"{seed} {name}".encode()).digest())
    chosen = set(lots[:count])
    return tuple(name for name in names if name in chosen)


# ------------------------------------------------------------------------------------------ answers


def choose_asking(plan: Plan, held_out: int, each: float) -> Plan:
    """How many held-out pictures are asked about, twice, at ``each`` seconds for one."""
    assert plan.hours is not None
    room = ASKING * plan.hours * 3600
    count = max(1, min(held_out, int(room / (2 * each))))
    if count == held_out:
        said = (
            f"Questions about {numbered(held_out, 'held-out picture')}, all of them, take about "
            f"{duration(2 * each * count)}."
        )
    else:
        said = (
            f"Questions are asked about {count} of {held_out} held-out pictures: all would take about "
            f"{duration(2 * each * held_out)}, and {ASKING:.0%} of {plan.hours:g} h are for that."
        )
    return replace(plan, asked=count, reasons=(*plan.reasons, said))


# ------------------------------------------------------------------------------------------ training


def choose_steps(plan: Plan, wanted: int, each: float, spent: float, later: float) -> Plan:
    """How many steps are trained, at ``each`` seconds for one.

    ``spent`` are the seconds of the run so far, ``later`` those that answers afterwards will take.

    Raises:
        ConfigError: the budget leaves time for hardly any.
    """
    assert plan.hours is not None
    budget = plan.hours * 3600
    room = budget * (1 - SPARE) - spent - later
    count = min(wanted, int(room / each)) if room > 0 else 0
    if count < min(LEAST_STEPS, wanted):
        least = (spent + later + LEAST_STEPS * each) / (1 - SPARE) / 3600
        raise ConfigError(
            f"--hours {plan.hours:g} leaves {duration(max(0.0, room))} for training after {duration(spent)} "
            f"so far, and a step takes {duration(each)}; give --hours {least * 1.1:.2g} or more, what is "
            "done is kept"
        )
    whole = duration(wanted * each)
    if count == wanted:
        said = f"All {wanted} steps take about {whole} and fit into the {plan.hours:g} h."
    else:
        said = (
            f"{count} of the {wanted} steps that would be usual for so many rows are trained: a step takes "
            f"{duration(each)}, all would take {whole}. More --hours train longer."
        )
    return replace(plan, steps=count, reasons=(*plan.reasons, said))
