"""Does ``llavar serve`` stand twice the load that it can carry, and being killed?

    python benchmarks/serve_load.py [--minutes 10] [--kills 5]

Asks each of a set of questions about pictures once, alone: those answers are the right ones. Measures the
capacity with as many clients as there are slots, each asking again once it has its answer. Then requests
arrive at random times at twice that rate, whether or not earlier ones were answered (an open loop), half of
them streamed. Every accepted one has to get the right answer within the time that the queue explains, every
other one 429 with Retry-After; memory has to stay flat.

After that the server is killed with SIGKILL under load and started again: clients see refused, reset or
unfinished connections, and never an answer that is wrong or cut short but looks finished.

Client and server share the machine. Writes benchmarks/results/serve_load.json; exit status 1 if something was
found.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import random
import statistics
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

from serve_child import ROOT, Child, Question, Talk, Usage, answer_of, machine, questions, request, talk

STREAMED = 0.5
OVERLOAD = 2.0
SLACK = 2.0
"""The queue explains a wait of (slots + queue) / (answers a second); p99 may be as many times that."""
WINDOW = 10.0
"""Seconds over which answers are counted for that; the slowest of them, since machines are shared."""
MOST_MB_PER_MINUTE = 3.0
SETTLING = 0.3
"""Share of the run before memory is judged: caches of pictures and prefixes fill up first."""


@dataclass(slots=True, kw_only=True)
class Tally:
    """What clients saw. ``seconds`` are of right answers."""

    asked: int = 0
    seen: Counter[str] = field(default_factory=Counter[str])
    seconds: list[float] = field(default_factory=list[float])
    ended: list[float] = field(default_factory=list[float])
    """When right answers came."""
    faults: list[str] = field(default_factory=list[str])

    def note(self, said: Talk, right: str, seconds: float) -> str:
        """Count one response, and return its kind."""
        kind = kind_of(said, right)
        self.seen[kind] += 1
        if kind == "right":
            self.seconds.append(seconds)
            self.ended.append(time.monotonic())
        elif kind in ("wrong", "odd"):
            shown = said.raw[-500:]
            self.faults.append(f"{kind} answer, not {right!r}: {shown!r}")
        return kind


def kind_of(said: Talk, right: str) -> str:
    """What a client takes a response for. Only "wrong" and "odd" must never be."""
    if not said.heard:
        return said.failure or "closed without a response"
    (one, *more) = said.heard
    if more:
        return "odd"
    if not one.whole:
        return "cut short, and seen to be"
    if one.status == 429:
        return "busy" if one.headers.get("retry-after", "").isdigit() else "odd"
    if one.status == 503:
        return "unavailable"
    if one.status != 200:
        return "odd"
    answer = answer_of(one)
    if answer is None:
        return "cut short, and seen to be"
    return "right" if answer == right else "wrong"


@dataclass(frozen=True, slots=True, kw_only=True)
class Material:
    """Questions, their bodies (plain, streamed), and their right answers."""

    bodies: tuple[tuple[bytes, bytes], ...]
    right: tuple[str, ...]

    def draw(self, rng: random.Random) -> tuple[bytes, str]:
        number = rng.randrange(len(self.right))
        return self.bodies[number][rng.random() < STREAMED], self.right[number]


def prepared(port: int, asked: Sequence[Question]) -> Material:
    """The right answers, one at a time; streamed and whole have to be equal already here."""
    right: list[str] = []
    bodies: list[tuple[bytes, bytes]] = []
    for question in asked:
        both = tuple(request(body=question.body(stream=stream)) for stream in (False, True))
        answers = [answer_of(asyncio.run(talk(port, raw)).heard[0]) for raw in both]
        if answers[0] is None or answers[0] != answers[1]:
            raise SystemExit(f"asked alone, whole and streamed, the server says {answers}")
        right.append(answers[0])
        bodies.append((both[0], both[1]))
    return Material(bodies=tuple(bodies), right=tuple(right))


async def ask(port: int, material: Material, rng: random.Random, tally: Tally) -> str:
    raw, right = material.draw(rng)
    begun = time.perf_counter()
    tally.asked += 1
    said = await talk(port, raw)
    return tally.note(said, right, time.perf_counter() - begun)


async def closed_loop(port: int, material: Material, clients: int, seconds: float) -> tuple[float, Tally]:
    """Answers a second when each of ``clients`` asks again as soon as it was answered."""
    tally, rng, end = Tally(), random.Random(1), time.monotonic() + seconds

    async def client() -> None:
        while time.monotonic() < end:
            await ask(port, material, rng, tally)

    begun = time.monotonic()
    await asyncio.gather(*(client() for _ in range(clients)))
    return tally.seen["right"] / (time.monotonic() - begun), tally


async def open_loop(
    port: int, material: Material, rate: float, seconds: float, tally: Tally, stop: asyncio.Event
) -> None:
    """Requests at random times, ``rate`` a second, until ``seconds`` have passed or ``stop`` is set."""
    rng, running = random.Random(2), set[asyncio.Task[str]]()
    begun = due = time.monotonic()
    while due < begun + seconds and not stop.is_set():
        await asyncio.sleep(max(0.0, due - time.monotonic()))
        task = asyncio.create_task(ask(port, material, rng, tally))
        running.add(task)
        task.add_done_callback(running.discard)
        due += rng.expovariate(rate)
    await asyncio.gather(*running)


async def sampled(child: Child, samples: list[tuple[float, Usage]], stop: asyncio.Event) -> None:
    begun = time.monotonic()
    while not stop.is_set():
        samples.append((time.monotonic() - begun, child.usage()))
        await asyncio.sleep(1)


async def overloaded(
    child: Child, material: Material, rate: float, seconds: float
) -> tuple[Tally, list[tuple[float, Usage]]]:
    tally, stop, samples = Tally(), asyncio.Event(), list[tuple[float, Usage]]()
    watching = asyncio.create_task(sampled(child, samples, stop))
    await open_loop(child.port, material, rate, seconds, tally, asyncio.Event())
    stop.set()
    await watching
    return tally, samples


async def killed(
    child: Child, material: Material, rate: float, kills: int, seconds: float
) -> tuple[Tally, list[float]]:
    """SIGKILL under load, and a new start, ``kills`` times; the seconds that each start took."""
    tally, stop, starts = Tally(), asyncio.Event(), list[float]()
    load = asyncio.create_task(open_loop(child.port, material, rate, 1e9, tally, stop))
    rng = random.Random(3)
    for _ in range(kills):
        before = tally.seen["right"]
        await asyncio.sleep(rng.uniform(0.5, 1.5) * seconds)
        while tally.seen["right"] < before + 10:  # it works (again)
            await asyncio.sleep(0.1)
        child.kill()
        starts.append(await asyncio.to_thread(child.start))
    before = tally.seen["right"]
    while tally.seen["right"] < before + 10:
        await asyncio.sleep(0.1)
    stop.set()
    await load
    return tally, starts


# ------------------------------------------------------------------------------------------------ judging


def quantile(values: Sequence[float], share: float) -> float:
    ranked = sorted(values)
    return round(ranked[min(len(ranked) - 1, int(share * len(ranked)))], 3) if ranked else float("nan")


def slowest(ended: Sequence[float]) -> float:
    """Answers a second in the slowest window; over all of a run that is shorter than two."""
    times = sorted(ended)
    whole = int((times[-1] - times[0]) / WINDOW)
    if whole < 2:
        return len(times) / max(times[-1] - times[0], 1e-9)
    counts = Counter(int((at - times[0]) / WINDOW) for at in times)
    return max(1, min(counts[window] for window in range(whole))) / WINDOW


def slope(samples: Sequence[tuple[float, Usage]]) -> float:
    """Megabytes a minute of the resident memory, by least squares over the settled part."""
    settled = [one for one in samples if one[0] >= SETTLING * samples[-1][0]]
    if len(settled) < 3:
        return 0.0
    line = statistics.linear_regression([at for at, _ in settled], [usage.megabytes for _, usage in settled])
    return round(60 * line.slope, 3)


def judged(tally: Tally, bound: float, growth: float, long: bool) -> list[str]:
    """What is wrong with the run under load."""
    wrong = list(tally.faults)
    others = {
        kind: times for kind, times in tally.seen.items() if kind not in ("right", "busy", "wrong", "odd")
    }
    wrong += [f"lost requests: {others}"] if others else []
    wrong += [] if tally.seen["busy"] else ["nothing was refused, so there was no overload"]
    p99 = quantile(tally.seconds, 0.99)
    wrong += [f"p99 is {p99} s, and the queue explains {bound:.1f} s"] if not p99 <= SLACK * bound else []
    # Of a short run the slope says little.
    wrong += [f"memory grows by {growth} MB a minute"] if long and growth > MOST_MB_PER_MINUTE else []
    return wrong


def measured(minutes: float, kills: int, count: int, folder: Path) -> dict[str, object]:
    child = Child(folder / "log")
    starting = child.start()
    try:
        material = prepared(child.port, questions(count))
        metrics = child.metrics()
        slots, may_wait = int(metrics["llavar_slots"]), int(metrics["llavar_may_wait"])
        asyncio.run(closed_loop(child.port, material, slots, 3))  # until caches are warm
        capacity, calm = asyncio.run(closed_loop(child.port, material, slots, min(20, 20 * minutes)))
        wrong = list(calm.faults)
        loaded, samples = asyncio.run(overloaded(child, material, OVERLOAD * capacity, 60 * minutes))
        bound = (slots + may_wait) / slowest(loaded.ended)
        growth = slope(samples)
        wrong += judged(loaded, bound, growth, minutes >= 5)
        left = child.idle()
        struck, starts = (
            asyncio.run(killed(child, material, OVERLOAD * capacity, kills, 2.0)) if kills else (Tally(), [])
        )
        wrong += struck.faults
        child.idle()
        ended = child.stop()
    finally:
        if child.process.poll() is None:
            child.kill()
    wrong += [f"the server ended with status {ended}"] if ended else []
    wrong += ["the log holds a traceback"] if "Traceback" in child.log.read_text(errors="replace") else []
    accepted = loaded.seconds
    return {
        "command": f"python benchmarks/serve_load.py --minutes {minutes:g} --kills {kills}",
        "machine": machine(),
        "questions": count,
        "different_answers": len(set(material.right)),
        "seconds_to_start": round(starting, 2),
        "slots": slots,
        "may_wait": may_wait,
        "capacity_per_second": round(capacity, 2),
        "calm": {"p50": quantile(calm.seconds, 0.5), "p99": quantile(calm.seconds, 0.99)},
        "overload": {
            "minutes": minutes,
            "arrivals_per_second": round(loaded.asked / (60 * minutes), 2),
            "asked": loaded.asked,
            "seen": dict(loaded.seen),
            "answers_per_second": round(len(accepted) / (60 * minutes), 2),
            "answers_per_second_in_the_slowest_10_s": round(slowest(loaded.ended), 2),
            "p50": quantile(accepted, 0.5),
            "p99": quantile(accepted, 0.99),
            "longest": quantile(accepted, 1),
            "queue_explains": round(bound, 2),
            "left_over": {
                name: value for name, value in left.items() if "running" in name or "waiting" in name
            },
        },
        "memory": {
            "megabytes_per_minute": growth,
            "first": asdict(samples[0][1]),
            "settled": asdict(samples[int(SETTLING * len(samples))][1]),
            "last": asdict(samples[-1][1]),
            "megabytes_each_half_minute": [usage.megabytes for _, usage in samples[::30]],
            "most_megabytes": max(usage.megabytes for _, usage in samples),
        },
        "kills": {
            "kills": kills,
            "asked": struck.asked,
            "seen": dict(struck.seen),
            "seconds_to_start": starts,
        },
        "faults": wrong[:50],
        "fault_count": len(wrong),
    }


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--minutes", type=float, default=10.0)
    parser.add_argument("--kills", type=int, default=5)
    parser.add_argument("--questions", type=int, default=24)
    parser.add_argument("--out", type=Path, default=ROOT / "benchmarks" / "results" / "serve_load.json")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        document = measured(arguments.minutes, arguments.kills, arguments.questions, Path(folder))
    arguments.out.parent.mkdir(parents=True, exist_ok=True)
    arguments.out.write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")
    print(json.dumps(document, indent=1))
    return 1 if document["faults"] else 0


if __name__ == "__main__":
    sys.exit(main())
