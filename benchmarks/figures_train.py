"""The section of docs/numbers.md on the speed of training, for benchmarks/figures.py."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

TRAIN = """\
## Training beside stock trainers

`{command}`; {machine}. Raw: `train.json`. Stage {stage}: tower of {tower:.1f}M parameters (frozen), projector, decoder of
{decoder:.1f}M, {head:.1%} of whose arithmetic is the head's; random weights, {precision}. Each trainer computes on {threads}
and has {workers} for its batches. Steps of {batch} rows, {peer_micro} of them at once in stock trainers (padded) and packs of
{max_length} tokens, {micro} at once, in ours; nothing is recomputed. A step to warm up, which is not counted, then
{rounds} rounds of {steps}; in a round trainers take turns, and who begins moves on by one. Rates are medians, in
brackets the slowest and the fastest round. Useful tokens are those of rows, without padding.

| load | trainer | useful tokens/s | s a step | waiting for data | peak memory | losses apart from ours |
|---|---|---|---|---|---|---|
{rows}

{goals}
{packed}
{without}
Not run: a GPU. So nothing here tells what Liger's kernels, the GPU's own attention for packed rows, or packing itself
gain where one row does not fill the device, nor the share of the peak at 7B and 13B; `--device cuda` measures these.
"""  # noqa: E501

WITHOUT = """\
Each gain by itself: ours on `{load}` with one of them taken away, in turns; {rounds} of {steps} that count, load {busy}
before; in brackets the rounds. Where other work ran, the processor's time says more.

| without | useful tokens/s | whole / this | processor time, this / whole | peak memory |
|---|---|---|---|---|
{rows}

{profile}{alone}
"""  # noqa: E501

NAMES = {
    "llavar": "all of them",
    "head": "logits of answers alone: of all tokens",
    "packing": "packed rows: padded",
    "recompute": "nothing computed twice: every layer",
    "eager": "attention row by row (`varlen`): `eager`",
    "sdpa": "attention row by row (`varlen`): `sdpa` with a mask",
    "tower": "tower without its last layer: whole",
    "none": "all of these at once",
    "trainer-1": "`trainer-1`",
}
GOALS = {"images": 1.3, "mixed": 2.0}
MOST_WAIT = 0.02
TOLD = 2e-4
"""By how much of a loss packed rows differ from single ones where only rounding does."""

LOADS = {"images": "a picture in each row", "mixed": "30 % of the rows text alone"}


def train(document: Any) -> str:
    """Rates of all trainers, what each gain is worth, and which goals are missed."""
    loads = {name: document[name] for name in GOALS if name in document}
    if not loads:
        return ""
    first = next(iter(loads.values()))
    settings, on = first["settings"], first["machine"]
    rows = [line for name, one in loads.items() for line in _rows(name, one)]
    without = _without(document["without"]) if "without" in document else ""
    return TRAIN.format(
        command=first["command"],
        machine=f"{on['cpu']}, {on['cores']} cores, Python {on['python']}, load {on['load_before']} before",
        stage=settings["stage"],
        tower=first["parameters"]["tower"] / 1e6,
        decoder=first["parameters"]["decoder"] / 1e6,
        head=first["head_share"],
        peer_micro=settings["peer_micro_batch"],
        micro=settings["micro_batch"],
        rows="\n".join(rows),
        goals="\n".join(line for name, one in loads.items() for line in _goals(name, one)),
        packed="".join(_packed(name, one) for name, one in loads.items()),
        threads=_count(settings["threads"], "core" if settings["threads"] == 1 else "thread"),
        workers=_count(settings["workers"], "process"),
        steps=_count(settings["steps"], "step"),
        without=without,
        **{name: settings[name] for name in ("precision", "batch", "max_length", "rounds")},
    )


def _count(count: int, what: str) -> str:
    if count == 1:
        return f"one {what}"
    return f"{count} {what}{'es' if what.endswith('s') else 's'}"


def _rows(load: str, document: Mapping[str, Any]) -> list[str]:
    lines: list[str] = []
    said = f"`{load}`: {LOADS[load]}; {document['useful_tokens_a_row']:.0f} tokens a row"
    for name, one in document["trainers"].items():
        if "left_out" not in one:
            apart = document.get("losses_apart", {}).get(name)
            lines.append(
                f"| {said} | {_versioned(name, one)} | {_rate(one)} | {one['seconds_a_step']:.2f} | "
                f"{one['waiting_share']:.1%} | {one['peak_mb'] / 1e3:.2f} GB | "
                f"{'' if apart is None else format(apart, '.2%')} |"
            )
            said = ""
    return lines


def _versioned(name: str, one: Mapping[str, Any]) -> str:
    if name == "llavar":
        return "llavar"
    package, called = {
        "trainer": ("transformers", "`Trainer`, padded"),
        "trl": ("trl", "TRL `SFTTrainer`, padded"),
        "factory": ("llamafactory", "LLaMA-Factory, padded"),
        "factory-packed": ("llamafactory", "LLaMA-Factory, `neat_packing`"),
        "factory-joined": ("llamafactory", "LLaMA-Factory, `packing`"),
    }[name]
    return f"{called} ({package} {one['versions'].get(package, '?')})"


def _rate(one: Mapping[str, Any]) -> str:
    return f"{one['useful_tokens_a_second']:,.0f} ({min(one['rates']):,.0f} to {max(one['rates']):,.0f})"


def _goals(load: str, document: Mapping[str, Any]) -> list[str]:
    """What was aimed at on this load, and whether it was reached."""
    trainers = document["trainers"]
    lines = [
        f"- `{load}`, {name}: not run: {one['left_out']}"
        for name, one in trainers.items()
        if "left_out" in one
    ]
    if "of_best" in document:
        goal, ratio = GOALS[load], document["of_best"]
        spread = f"{min(document['ratios']):.2f} to {max(document['ratios']):.2f}"
        agree = "agree" if document["losses_agree"] else "**do not agree**"
        lines.append(
            f"- `{load}`: {ratio:.2f} times the best peer ({document['best_peer']}; rounds {spread}); the "
            f"goal was {goal:g} times, {_said(ratio >= goal)}; in processor time "
            f"{document['processor_ratio']:.2f} times. Losses of all steps {agree} (within "
            f"{max(document['losses_apart'].values()):.2%}). Of what stock trainers compute on, "
            f"{document['padded_share_of_stock']:.0%} is padding; to leave it out gains "
            f"{1 / (1 - document['padded_share_of_stock']):.2f} times where time goes by tokens, and the "
            "rest is attention, head and tower."
        )
    if "rates" in trainers.get("llavar", {}):
        wait = trainers["llavar"]["waiting_share"]
        lines.append(
            f"- `{load}`: ours waits {wait:.1%} of the time for data; the goal was below 2 %, "
            f"{_said(wait < MOST_WAIT)}."
        )
    return lines


def _packed(load: str, document: Mapping[str, Any]) -> str:
    """What LLaMA-Factory's packing came to on this load, where it ran."""
    one = document["trainers"].get("factory-packed", {})
    if "rates" not in one:
        return ""
    apart = abs(one["losses"][0] / one["first_loss_of_rows"] - 1)
    kept = "are kept apart" if apart < TOLD else "**see each other**"
    return (
        f"- `{load}`: LLaMA-Factory packs all rows beforehand, so that its {one['packs']} packs a step hold "
        f"other rows than everyone else's steps. Rows {kept}: its first loss is {one['losses'][0]:.4f}, and "
        f"that of the same rows one at a time {one['first_loss_of_rows']:.4f}. Each pack is filled up to "
        "--max-length, and attention computes all of it under a mask.\n"
    )


def _said(met: bool) -> str:
    return "met" if met else "**missed**"


def _without(document: Mapping[str, Any]) -> str:
    rows = [
        f"| {NAMES[name]} | {_rate(one)} | {_gain(one)} | "
        f"{one.get('processor_gain', 1.0):.2f} | {one['peak_mb'] / 1e3:.2f} GB |"
        for name, one in document["trainers"].items()
        if "rates" in one
    ]
    shares = document["trainers"]["llavar"].get("profile", {})
    told = ", ".join(f"`{name}` {share:.0%}" for name, share in shares.items())
    profile = (
        f"Where the time of ours goes (torch's profiler, forwards and backwards): {told}.\n" if told else ""
    )
    return WITHOUT.format(
        load=document["load"],
        rounds=_count(len(document["trainers"]["llavar"].get("rates", ())), "round"),
        steps=_count(document["settings"]["steps"], "step"),
        busy=document["machine"]["load_before"],
        rows="\n".join(rows),
        profile=profile,
        alone=_alone(document["trainers"].get("trainer-1", {})),
    )


def _gain(one: Mapping[str, Any]) -> str:
    spread = one.get("gains", ())
    told = f" ({min(spread):.2f} to {max(spread):.2f})" if len(spread) > 1 else ""
    return f"{one.get('gain', 1.0):.2f}{told}"


def _alone(one: Mapping[str, Any]) -> str:
    """The stock trainer that pads nothing either: the peer that a reader should know of first."""
    if "gain" not in one:
        return ""
    return (
        "`trainer-1` is the stock trainer with one row at a time, which pads nothing either, and "
        f"{1 / one['gain']:.2f} times as fast as ours: where one row is work enough for the processor, as "
        "here, what packing gains can be had so. On a GPU, where it is not enough, this was not measured."
    )
