"""What a run says while it works, and its model card. Text only; nothing is decided here."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path

from torch import nn

from llavar.records import Reject
from llavar.train.config import LoopConfig, StageConfig
from llavar.train.estimate import Estimate, Machine, Memory, gigabytes
from llavar.train.llava import EpochPlan
from llavar.train.look import Look, Watched
from llavar.train.loop import Fitted, Rehearsed
from llavar.train.metrics import Tick
from llavar.train.run import Resumed
from llavar.train.scale import Scaled


def value(item: object) -> str:
    """A setting in few words."""
    return json.dumps(item, default=str) if isinstance(item, dict | str | list | tuple) else str(item)


def duration(seconds: float) -> str:
    """Seconds for people."""
    if seconds < 120:
        return f"{seconds:.3g} s"
    if seconds < 2 * 3600:
        return f"{seconds / 60:.0f} min"
    return f"{seconds / 3600:.1f} h" if seconds < 48 * 3600 else f"{seconds / 86400:.1f} days"


def rows(count: int, tokens: int, rejects: Sequence[Reject], supervised: int, where: Path) -> str:
    """How many rows there are, and what was left out, by reason."""
    said = f"{count:,} rows, {tokens:,} tokens, {supervised:,} of them supervised."
    if not rejects:
        return said
    reasons = Counter(reject.reason for reject in rejects).most_common()
    listed = ", ".join(f"{count} {reason}" for reason, count in reasons)
    return f"{said}\n{len(rejects)} row{'s' * (len(rejects) > 1)} left out ({listed}); each is in {where}."


def indexed(found: float, encoded: float) -> str:
    """What reading took, or that an earlier run did it."""
    if not found and not encoded:
        return "Their index is in the cache."
    return f"Indexed in {duration(found)}, every row encoded once in {duration(encoded)}."


def parts_table(
    parts: Mapping[str, Mapping[str, nn.Parameter]],
    stage: StageConfig,
    quantized: Mapping[str, int] | None = None,
) -> str:
    """A line for each part of the model: what is trained, and how.

    ``quantized`` are weights by part that are no elements of its parameters.
    """
    lines = [f"{'part':<11}{'parameters':>15}  learning rate  weight decay"]
    for name, parameters in parts.items():
        count = sum(parameter.numel() for parameter in parameters.values()) + (quantized or {}).get(name, 0)
        part = stage.parts.get(name)
        how = f"{part.lr:<13g}  {part.weight_decay:g}" if part else "frozen"
        if part and part.muon:
            how += f"  Muon at {part.muon:g}"
        lines.append(f"{name:<11}{count:>15,}  {how}")
    return "\n".join(lines)


def plan(epoch: EpochPlan, loop: LoopConfig, stage: StageConfig, processes: int) -> str:
    """Steps and padding."""
    how = "packs" if stage.packing else "padded rows"
    shared = f" on {processes} processes" if processes > 1 else ""
    return (
        f"{loop.steps:,} steps of {stage.batch} rows{shared}: {loop.steps / epoch.steps:.3g} epochs of "
        f"{epoch.steps:,} steps and {epoch.packs:,} {how}, {epoch.padding:.1%} padding. "
        f"The largest micro-batch has {epoch.most:,} tokens."
    )


def memory(needed: Memory, tokens: int) -> str:
    """What a device will hold, by what it is for."""
    items = ", ".join(f"{name} {gigabytes(size)}" for name, size in asdict(needed).items() if size)
    return (
        f"Memory of the model, counted, with {tokens:,} tokens at once: {gigabytes(needed.total)} ({items})."
    )


def rehearsed(tried: Rehearsed, whole: float, device: str) -> str:
    """What the dry run told."""
    who = "the GPU" if device == "cuda" else "the process"
    return (
        f"The largest micro-batch fits and takes {duration(tried.largest)}. Tried out, {who} held "
        f"{gigabytes(tried.peak)}; the steps will take about {duration(whole)}, looks and checkpoints apart."
    )


def tick(entry: Tick, steps: int) -> str:
    """One line of progress."""
    mfu = f", MFU {entry.mfu:.1%}" if entry.mfu is not None else ""
    return (
        f"step {entry.step}/{steps}  loss {entry.loss:.4f}  lr {entry.lr:.2e}  norm {entry.grad_norm:.3g}  "
        f"{entry.samples_per_second:.3g} samples/s  {entry.useful_tokens_per_second:.0f} tokens/s  "
        f"padding {entry.padding:.0%}  waiting {entry.wait:.0%}{mfu}  left {duration(entry.left)}"
    )


def resumed(found: Resumed, processes: int) -> str:
    """Where a run goes on, and whether with as many processes as before."""
    said = f"Goes on after step {found.step}"
    if found.processes in (0, processes):
        return f"{said}."
    return (
        f"{said}, which {_processes(found.processes)} finished, with {_processes(processes)}: the next rows "
        "are those that would have followed, and the numbers differ by round-off from now on."
    )


def _processes(count: int) -> str:
    return "1 process" if count == 1 else f"{count} processes"


def look(found: Look, watched: Watched | None) -> str:
    """What was seen of the model, with one of its answers."""
    said = [f"step {found.step}"]
    if found.loss is not None:
        said.append(f"held-out loss {found.loss:.4f}")
    if found.score is not None:
        said.append(f"{found.metric} {found.score:.3f} on {found.questions} questions")
    text = f"{'  '.join(said)}  ({duration(found.seconds)})"
    if watched and watched.samples:
        shown = max(watched.samples, key=lambda sample: sample.score)
        text += f"\n  {shown.question!r:.80} {shown.answer!r:.80} (right: {shown.references[0]!r:.80})"
    return text


def end(fitted: Fitted, steps: int) -> str:
    """How it ended."""
    if fitted.resumed_at == steps:
        return f"All {steps} steps were finished before."
    since = f" (from step {fitted.resumed_at})" if fitted.resumed_at else ""
    return f"Finished {steps} steps{since} in {duration(fitted.seconds)}."


def card(
    recipe: str,
    model: str,
    data: Sequence[str],
    stage: StageConfig,
    rejects: Sequence[Reject],
    fitted: Fitted,
    epoch: EpochPlan,
) -> str:
    """The model card of what a run made."""
    first, last = fitted.ticks[0], fitted.ticks[-1]
    settings = "\n".join(f"| {name} | {value(item)} |" for name, item in asdict(stage).items())
    return f"""---
pipeline_tag: image-text-to-text
library_name: transformers
---
# {recipe or "A trained model"}

A `LlavaForConditionalGeneration`, trained with `llavar train` from `{Path(model).name}` on
{", ".join(f"`{Path(name).name}`" for name in data)}: {epoch.rows} rows, {epoch.tokens} tokens an epoch,
{len(rejects)} rows left out. Its licence follows from that model and those data; state it before you share
it.

| | first entry | last entry |
|---|---|---|
| step | {first.step} | {last.step} |
| loss | {first.loss:.4f} | {last.loss:.4f} |

Training took {duration(last.seconds)} after its last start.

| setting | value |
|---|---|
{settings}
"""


def sheet(rows: Sequence[Scaled], assumed: str) -> str:
    """A stage on ever more GPUs, a line each."""
    priced = any(row.cost for row in rows)
    head = f"{'GPUs':>6}{'batch':>7}{'micro':>7}{'memory':>11}{'':>14}{'time':>10}{'GPU hours':>11}"
    lines = ["", head + (f"{'cost':>11}" if priced else "") + "  of a step: arithmetic, exchange"]
    for row in rows:
        fits = "fits" if row.fits else "does not fit"
        line = f"{row.gpus:>6}{row.batch:>7}{row.micro_batch:>7}{gigabytes(row.memory.total):>11}  {fits:<12}"
        line += f"{duration(row.seconds):>10}{row.gpu_hours:>11,.0f}"
        line += f"{row.cost:>11,.0f}" if priced else ""
        spent = f"{duration(row.computing)}, {duration(row.exchanging)} for {gigabytes(row.exchanged)} a GPU"
        lines.append(f"{line}  {spent}")
    return "\n".join([*lines, f"Assumed: {assumed}"])


def estimated(name: str, found: Estimate, machine: Machine, assumed: str) -> str:
    """The plan of a stage that is not run."""
    lines = [f"{name}: nothing is trained, this is an estimate.", ""]
    for part, count in found.counts.items():
        how = "trained" if part in found.trained else "frozen"
        lines.append(f"  {part:<11}{count:>15,} parameters  {how}")
    lines += ["", f"Memory of one GPU: {gigabytes(found.memory.total)}"]
    lines += [f"  {item:<12}{gigabytes(size):>10}" for item, size in asdict(found.memory).items()]
    lines += ["", f"What fits into {gigabytes(machine.memory)}, 5 % kept free:"]
    for option in found.options:
        fits = "fits" if option.fits else "does not fit"
        lines.append(f"  {gigabytes(option.memory.total):>10}  {fits:<13} {option.name}")
    lines += [
        "",
        f"Time: {found.samples:,.0f} samples, {found.flops:.3g} FLOPs, {duration(found.seconds)} on "
        f"{machine.gpus} GPU{'s' * (machine.gpus > 1)} at {machine.mfu:.0%} of {machine.peak / 1e12:.0f} "
        "TFLOP/s.",
        f"Assumed: {assumed}",
    ]
    return "\n".join(lines)
