"""What came of a training benchmark: rates, shares of the peak, and trainers beside each other.

**MFU** is the arithmetic that a step needs, by its seconds and the peak of the device. What it needs is
counted from the shape and the lengths of the rows, not from what a trainer computes: padding and what is
computed twice count nothing.

    tokens * P * N  +  pictures * (2 * tower * (patches + 1) + 4 * projector * image tokens)

``N`` are the decoder's parameters without the embedding, which multiplies nothing; the head counts for every
token, as other layers do, though ours applies it to answers alone. Each parameter takes 2 FLOPs a token
forwards, 2 backwards through it, and 2 for its own gradient: ``P`` is 4 in stage 1, where the decoder is
frozen, and 6 in stage 2. The tower is frozen and goes forwards alone. So ``mfu`` is that of ``llavar train``
(:func:`llavar.train.estimate.cost_of`). ``mfu_scores`` also counts what attention computes between the tokens
of a row, in both stages:

    rows' length^2 * 6 * layers * heads * width of a head

two products forwards and four backwards, 2 FLOPs each, over the half of all pairs that look at each other.
"""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from train_rows import Row

from llavar.models.shape import LlavaShape
from llavar.train.estimate import cost_of
from llavar.train.llava import DECODER, PROJECTOR

OURS = "llavar"
AGREE = 0.01
"""By how much of a loss two trainers may differ in a step and still be said to learn the same."""

SCORES = 6.0
"""FLOPs for two tokens of a row, a layer and a number of their keys: two products, three times, causal."""


class Ran(Protocol):
    """A trainer that has ended: what it said of itself, its rounds, and why there are none."""

    @property
    def facts(self) -> dict[str, Any]: ...
    @property
    def rounds(self) -> list[dict[str, Any]]: ...
    @property
    def left_out(self) -> str: ...


@dataclass(frozen=True, kw_only=True)
class Work:
    """What is in every step: useful tokens, arithmetic in FLOPs, padded tokens of a stock collator, and the
    FLOPs of attention scores.
    """

    useful: list[int]
    flops: list[float]
    padded: list[int]
    scores: list[float] = field(default_factory=list[float])

    def of(self, useful: Sequence[int]) -> Work:
        """Of a trainer whose steps hold other rows: as much arithmetic for a token as there is here."""
        tokens, flops = sum(self.useful), sum(self.flops)
        per, more = flops / tokens, sum(self.scores) / tokens
        return Work(
            useful=list(useful),
            flops=[count * per for count in useful],
            padded=[],
            scores=[count * more for count in useful],
        )


def work_of(rows: Sequence[Row], shape: LlavaShape, stage: int, batch: int, micro: int) -> Work:
    """Of ``rows`` in steps of ``batch``; a stock collator pads ``micro`` of them at once."""
    cost = cost_of(shape, (PROJECTOR,) if stage == 1 else (PROJECTOR, DECODER))
    per = SCORES * shape.text.layers * shape.text.heads * shape.text.head_dim
    steps = [rows[at : at + batch] for at in range(0, len(rows), batch)]
    useful = [sum(len(row.ids) for row in step) for step in steps]
    pictures = [sum(bool(row.image) for row in step) for step in steps]
    padded = [
        sum(
            max(len(row.ids) for row in step[at : at + micro]) * len(step[at : at + micro])
            for at in range(0, len(step), micro)
        )
        for step in steps
    ]
    return Work(
        useful=useful,
        flops=[u * cost.token + p * cost.picture for u, p in zip(useful, pictures, strict=True)],
        padded=padded,
        scores=[per * sum(len(row.ids) ** 2 for row in step) for step in steps],
    )


def summed(child: Ran, work: Work, peak_flops: float) -> dict[str, Any]:
    """Rates of the rounds that count, and seconds and loss of all steps."""
    if child.left_out:
        return {"left_out": child.left_out}
    facts = dict(child.facts)
    work = work.of(facts.pop("useful")) if "useful" in facts else work
    counted = child.rounds[1:]
    firsts = [sum(len(one["steps"]) for one in child.rounds[: number + 1]) for number in range(len(counted))]
    parts = [slice(at, at + len(one["steps"])) for at, one in zip(firsts, counted, strict=True)]
    seconds = [_sum(one, "seconds") for one in counted]
    rates = [sum(work.useful[part]) / took for part, took in zip(parts, seconds, strict=True)]
    steps = [step for one in child.rounds for step in one["steps"]]
    found = {
        **facts,
        "useful_tokens_a_second": round(statistics.median(rates), 1),
        "rates": [round(rate, 1) for rate in rates],
        "tokens": [sum(work.useful[part]) for part in parts],
        "seconds_a_step": round(statistics.median(s["seconds"] for o in counted for s in o["steps"]), 3),
        "processor_seconds": [round(_sum(one, "processor"), 3) for one in counted],
        "waiting_share": round(
            max(_sum(one, "waited") / took for one, took in zip(counted, seconds, strict=True)), 4
        ),
        "peak_mb": round(max(one["peak"] for one in child.rounds) / 1e6),
        "losses": [round(step["loss"], 5) for step in steps],
        "steps": [[round(step[name], 3) for name in ("seconds", "processor", "waited")] for step in steps],
    }
    if peak_flops:
        plain = [sum(work.flops[part]) / took for part, took in zip(parts, seconds, strict=True)]
        scores = [sum(work.scores[part]) / took for part, took in zip(parts, seconds, strict=True)]
        whole = [a + b for a, b in zip(plain, scores, strict=True)]
        found["mfu"] = round(statistics.median(plain) / peak_flops, 3)
        found["mfu_scores"] = round(statistics.median(whole) / peak_flops, 3)
    return found


def _sum(one: Mapping[str, Any], name: str) -> float:
    return sum(step[name] for step in one["steps"])


def beside(found: Mapping[str, dict[str, Any]]) -> dict[str, Any]:
    """Ours against the best peer, round by round, and how far losses are apart.

    A trainer whose steps hold other rows has its first loss beside that of its own rows one at a time.
    """
    rated = {name: one for name, one in found.items() if "rates" in one}
    peers = {name: one for name, one in rated.items() if name != OURS}
    if OURS not in rated or not peers:
        return {}
    best = max(peers, key=lambda name: peers[name]["useful_tokens_a_second"])
    ratios = [a / b for a, b in zip(rated[OURS]["rates"], peers[best]["rates"], strict=True)]
    apart = {name: round(_apart(one, rated[OURS]), 5) for name, one in peers.items()}
    return {
        "best_peer": best,
        "of_best": round(statistics.median(ratios), 3),
        "ratios": [round(ratio, 3) for ratio in ratios],
        "processor_ratio": _less(rated[OURS], rated[best]),
        "losses_apart": apart,
        "losses_agree": max(apart.values()) <= AGREE,
    }


def _apart(one: Mapping[str, Any], ours: Mapping[str, Any]) -> float:
    if "first_loss_of_rows" in one:
        pairs = [(one["losses"][0], one["first_loss_of_rows"])]
    else:
        pairs = list(zip(one["losses"], ours["losses"], strict=True))
    return max(abs(a - b) / abs(b) for a, b in pairs)


def gained(found: Mapping[str, dict[str, Any]]) -> None:
    """Add to every trainer what ours gains over it, in time and in the processor's time."""
    whole = found.get(OURS, {})
    for name, one in found.items():
        if name != OURS and "rates" in one and "rates" in whole:
            ratios = [a / b for a, b in zip(whole["rates"], one["rates"], strict=True)]
            one["gain"] = round(statistics.median(ratios), 3)
            one["gains"] = [round(ratio, 3) for ratio in ratios]
            one["processor_gain"] = _less(whole, one)


def _less(one: Mapping[str, Any], other: Mapping[str, Any]) -> float:
    """How often the processor's time for a useful token of ``one`` goes into that of ``other``.

    Other work changes it less than the time by the clock.
    """
    pairs = zip(_by_token(one), _by_token(other), strict=True)
    return round(statistics.median(b / max(a, 1e-9) for a, b in pairs), 3)


def _by_token(one: Mapping[str, Any]) -> list[float]:
    """The processor's seconds of each round by its useful tokens."""
    shares = zip(one["processor_seconds"], one["tokens"], strict=True)
    return [seconds / tokens for seconds, tokens in shares]
