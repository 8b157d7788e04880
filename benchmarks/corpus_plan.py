"""What a corpus from 170 million URLs takes: python benchmarks/corpus_plan.py [--worker-cores 512 ...]

Prints a table of stages (rows in and kept, seconds of a core for a row, core-hours, hours on the given
machines, terabytes), what the whole costs, and all numbers that went in. Each of these says what it is:

    measured   seconds and bytes of a row, from benchmarks/results/corpus_rates.json (corpus_rates.py) and,
               where it is there, benchmarks/results/corpus.json (corpus.py); the defaults below otherwise
    paper's    what the paper, or LAION, says of its own data
    assumed    everything else: shares that stages keep, how long a URL takes, sizes, prices

All of them are options. The URLs are split into parts, each a corpus of its own with a driver; the parts
share the cores of one cluster. Stages follow each other, and a stage on the cluster takes as long as its
workers or its driver need, whichever is slower. --docs puts the tables into docs/corpus.md, and the numbers
into benchmarks/results/corpus_plan.json.
"""

from __future__ import annotations

import argparse
import json
import textwrap
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields
from enum import StrEnum
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
RESULTS = ROOT / "benchmarks/results"
PAGE = ROOT / "docs/corpus.md"
BEGIN, END = "<!-- plan: python benchmarks/corpus_plan.py --docs -->", "<!-- end of the plan -->"


class From(StrEnum):
    """Where a number comes from."""

    ASSUMED = "assumed"
    PAPER = "the paper's"
    LAION = "LAION's"
    MEASURED = "measured"


def _is(source: From, what: str, default: float) -> Any:
    return field(default=default, metadata={"from": source, "what": what})


@dataclass(frozen=True, slots=True, kw_only=True)
class Rates:
    """Of one row on one core, in seconds and bytes. The defaults are what was measured on 2 x86 cores."""

    scan: float = _is(From.MEASURED, "driver: reading a table (s)", 3.0e-5)
    metadata: float = _is(From.MEASURED, "driver: looking at the columns (s)", 5.1e-5)
    fetch: float = _is(From.MEASURED, "driver: fetching, processor alone (s)", 1.5e-3)
    open: float = _is(From.MEASURED, "worker: opening and encoding 1280 x 1280 (s)", 0.036)
    exact: float = _is(From.MEASURED, "driver: equal files and pixels (s)", 6.5e-5)
    classify: float = _is(From.MEASURED, "worker: text-rich or not (DiT-base) (s)", 0.49)
    features: float = _is(From.MEASURED, "worker: CLIP ViT-B/32 (s)", 0.18)
    gather: float = _is(From.MEASURED, "driver: clusters and their choice (as equal files) (s)", 6.5e-5)
    ocr: float = _is(From.MEASURED, "worker: RapidOCR at 384 pixels (s)", 0.22)
    near: float = _is(From.MEASURED, "driver: edited copies (s)", 6.0e-4)
    rows: float = _is(From.MEASURED, "driver: both rows of training data (s)", 1.4e-3)
    handed: float = _is(From.MEASURED, "driver: an item of a full call to a worker (s)", 4.5e-4)
    called: float = _is(From.MEASURED, "driver: an item that is a call by itself (s)", 2.9e-3)
    early_bytes: float = _is(From.MEASURED, "a row of a shard before reading (bytes)", 253)
    late_bytes: float = _is(From.MEASURED, "a row of a shard with reading and rows (bytes)", 736)
    encoded: float = _is(From.MEASURED, "bytes of a picture encoded anew over those fetched", 1.63)
    scan_memory: float = _is(From.MEASURED, "memory of the driver for a row in `scan` (bytes)", 244)
    exact_memory: float = _is(From.MEASURED, "memory of the driver for a row in `exact` (bytes)", 246)


@dataclass(frozen=True, slots=True, kw_only=True)
class Setup:
    """What is wanted, on which machines, and what is assumed of the world."""

    urls: float = _is(From.LAION, "URLs of its high-resolution part", 170e6)
    in_metadata: float = _is(From.ASSUMED, "kept by `metadata` (watermark < 0.8, unsafe < 0.5)", 0.80)
    fetched: float = _is(From.ASSUMED, "of URLs that still give a picture", 0.65)
    opened: float = _is(From.ASSUMED, "kept by `open`", 0.98)
    unequal: float = _is(From.ASSUMED, "kept by `exact`", 0.93)
    text_rich: float = _is(From.ASSUMED, "kept by `select` (p(text) > 0.8)", 0.05)
    picked: float = _is(From.PAPER, "clusters picked: 14 of 100 (taken as equal in size)", 0.14)
    readable: float = _is(From.ASSUMED, "kept by `ocr` and by the checks of rows", 0.95)
    target: float = _is(From.PAPER, "pictures of stage 1, from which follows what `near` keeps", 422_315)
    url_seconds: float = _is(From.ASSUMED, "mean time until a URL has answered or failed (s)", 1.5)
    at_once: float = _is(From.ASSUMED, "`fetch: {at_once}`: pictures under way for each driver", 256)
    shard_rows: float = _is(From.ASSUMED, "`shard_rows`", 10_000)
    slowest: float = _is(From.ASSUMED, "wait for a shard's last URL, with `seconds: 10, attempts: 2` (s)", 21)
    picture_bytes: float = _is(From.ASSUMED, "a picture as fetched (bytes)", 350e3)
    parts: float = _is(From.ASSUMED, "parts, each with a driver machine", 8)
    driver_cores: float = _is(From.ASSUMED, "cores of a driver machine (two are used)", 4)
    worker_cores: float = _is(From.ASSUMED, "cores of all workers together", 512)
    core_hour: float = _is(From.ASSUMED, "price of a core for an hour ($)", 0.04)
    terabyte_month: float = _is(From.ASSUMED, "price of shared storage for a terabyte and month ($)", 80)
    months: float = _is(From.ASSUMED, "months that pictures are kept", 0.5)


class Where(StrEnum):
    """Who computes a stage."""

    DRIVER = "driver"
    WORKERS = "workers"
    NETWORK = "driver (waits)"


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """A stage of the plan. ``seconds`` are of one core for one row; ``terabytes`` are what it adds."""

    stage: str
    where: Where
    rows: float
    kept: float
    seconds: float
    core_hours: float
    hours: float
    terabytes: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """All stages, and what they cost."""

    steps: tuple[Step, ...]
    hours: float
    core_hours: float
    terabytes: float
    driver_gigabytes: float
    """Memory that each driver needs for what it remembers of all rows."""
    gigabits: float
    """That all drivers together fetch in a second, bits."""
    machines_cost: float
    storage_cost: float
    without_model_core_hours: float
    """Core-hours where no classifier is used and OCR reads every picture that was opened."""


def plan(rates: Rates, setup: Setup) -> Plan:
    """The stages in the order of a recipe with a classifier and clusters."""
    steps = tuple(_steps(rates, setup))
    by_name = {step.stage: step for step in steps}
    hours = sum(step.hours for step in steps)
    working = sum(step.hours for step in steps if step.where is Where.WORKERS)
    machines = setup.parts * setup.driver_cores * hours + setup.worker_cores * working
    terabytes = sum(step.terabytes for step in steps)
    chosen, fetched = by_name["select"], by_name["fetch"]
    others = sum(step.core_hours for step in steps if step.stage not in ("select", "features", "ocr"))
    return Plan(
        steps=steps,
        hours=hours,
        core_hours=sum(step.core_hours for step in steps),
        terabytes=terabytes,
        driver_gigabytes=max(setup.urls * rates.scan_memory, by_name["exact"].rows * rates.exact_memory)
        / setup.parts
        / 1e9,
        gigabits=fetched.kept * setup.picture_bytes * 8 / (fetched.hours * 3600) / 1e9,
        machines_cost=machines * setup.core_hour,
        storage_cost=terabytes * setup.months * setup.terabyte_month,
        without_model_core_hours=others + chosen.rows * rates.ocr / 3600,
    )


def _steps(rates: Rates, setup: Setup) -> Iterator[Step]:
    near = setup.target / _before_near(setup)
    shares = {
        "scan": (Where.DRIVER, 1.0, rates.scan, rates.early_bytes),
        "metadata": (Where.DRIVER, setup.in_metadata, rates.metadata, rates.early_bytes),
        "fetch": (Where.NETWORK, setup.fetched, rates.fetch, rates.early_bytes + setup.picture_bytes),
        "open": (Where.WORKERS, setup.opened, rates.open, _image_bytes(rates, setup)),
        "exact": (Where.DRIVER, setup.unequal, rates.exact, rates.early_bytes),
        "select": (Where.WORKERS, setup.text_rich, rates.classify, rates.early_bytes),
        "features": (Where.WORKERS, 1.0, rates.features, rates.early_bytes + 1024),
        "cluster, keep": (Where.DRIVER, setup.picked, 2 * rates.gather, 2 * rates.early_bytes),
        "ocr": (Where.WORKERS, setup.readable, rates.ocr, rates.late_bytes),
        "near": (Where.DRIVER, near, rates.near, rates.late_bytes),
        "pairs, teach": (Where.DRIVER, 1.0, rates.rows, 2 * rates.late_bytes),
    }
    rows = setup.urls
    for stage, (where, keep, seconds, stored) in shares.items():
        yield Step(
            stage=stage,
            where=where,
            rows=rows,
            kept=rows * keep,
            seconds=seconds,
            core_hours=rows * (seconds + _driven(rates, where, seconds)) / 3600,
            hours=_hours(rates, setup, where, rows, seconds),
            terabytes=rows * keep * stored / 1e12,
        )
        rows *= keep


def _before_near(setup: Setup) -> float:
    kept = setup.urls * setup.in_metadata * setup.fetched * setup.opened * setup.unequal
    return kept * setup.text_rich * setup.picked * setup.readable


def _image_bytes(rates: Rates, setup: Setup) -> float:
    return rates.early_bytes + rates.encoded * setup.picture_bytes


def _driven(rates: Rates, where: Where, seconds: float) -> float:
    """Of the driver, for a row that a worker takes ``seconds`` for: calls bring about a second of work."""
    if where is not Where.WORKERS:
        return 0.0
    tasks = max(1.0, min(64.0, 1.0 / seconds))
    return rates.handed + (rates.called - rates.handed) / tasks


def _hours(rates: Rates, setup: Setup, where: Where, rows: float, seconds: float) -> float:
    each = rows / setup.parts
    if where is Where.DRIVER:
        return each * seconds / 3600
    if where is Where.WORKERS:
        return max(rows * seconds / setup.worker_cores, each * _driven(rates, where, seconds)) / 3600
    a_shard = max(setup.shard_rows * setup.url_seconds / setup.at_once, setup.shard_rows * seconds)
    return each / setup.shard_rows * (a_shard + setup.slowest) / 3600


# ------------------------------------------------------------------------------------------ inputs


def measured(folder: Path = RESULTS) -> Rates:
    """From the files of results, as far as they are there."""
    rates, corpus = (_read(folder / name) for name in ("corpus_rates.json", "corpus.json"))
    found: dict[str, float] = {}

    def take(name: str, *path: str) -> None:
        value: Any = rates
        for part in path:
            value = value.get(part, {})
        if isinstance(value, int | float):
            found[name] = float(value)

    for name in ("scan", "metadata", "exact", "near"):
        take(name, "driver", name, "cpu_seconds")
    for name in ("fetch", "open", "classify", "features", "ocr"):
        take(name, name, "cpu_seconds")
    take("gather", "driver", "exact", "cpu_seconds")
    take("handed", "cluster", "ray_short", "driver_cpu_seconds")
    take("called", "cluster", "ray_long", "driver_cpu_seconds")
    take("early_bytes", "driver", "exact", "bytes_a_row")
    take("late_bytes", "driver", "teach", "bytes_a_row")
    take("exact_memory", "driver", "memory", "exact")
    take("scan_memory", "driver", "scan", "memory")
    known = rates.get("driver", {})
    if "pairs" in known:
        found["rows"] = known["pairs"]["cpu_seconds"] + known["teach"]["cpu_seconds"]
    if "mean_bytes_written" in rates.get("open", {}):
        found["encoded"] = rates["open"]["mean_bytes_written"] / rates["open"]["mean_bytes"]
    engines: Mapping[str, Any] = corpus.get("ocr", {}).get("engines", {})
    read = [one["seconds_a_picture"] for name, one in engines.items() if name.startswith("rapidocr")]
    if read:  # pages full of text: more than the pictures of corpus_rates.py have
        found["ocr"] = max([*read, found.get("ocr", 0.0)])
    return Rates(**found)


def _read(path: Path) -> dict[str, Any]:
    return json.loads(path.read_text()) if path.is_file() else {}


# ------------------------------------------------------------------------------------------ tables


def table(made: Plan) -> str:
    lines = [
        "| stage | where | rows in | kept | core-ms a row | core-hours | hours | TB |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for step in made.steps:
        took = (
            f"{1000 * step.seconds:.3g} | {step.core_hours:,.0f} | {step.hours:,.1f} | {step.terabytes:,.2f}"
        )
        rows = f"{_many(step.rows)} | {_many(step.kept)}"
        lines.append(f"| `{step.stage}` | {step.where} | {rows} | {took} |")
    total = f"**{made.core_hours:,.0f}** | **{made.hours:,.0f}** | **{made.terabytes:,.0f}**"
    return "\n".join([*lines, f"| **all** | | | | | {total} |"])


def _many(rows: float) -> str:
    return f"{rows / 1e6:,.1f} M" if rows >= 1e6 else f"{rows:,.0f}"


def inputs(rates: Rates, setup: Setup) -> str:
    """A paragraph for each kind of number, in lines of at most 120 columns."""
    said: dict[From, list[str]] = {kind: [] for kind in From}
    for given in (setup, rates):
        for one in fields(given):
            said[one.metadata["from"]].append(_said(one.metadata["what"], getattr(given, one.name)))
    paragraphs = (f"**{kind[0].upper() + kind[1:]}.** {'; '.join(what)}." for kind, what in said.items())
    return "\n\n".join("\n".join(textwrap.wrap(one, 120, break_on_hyphens=False)) for one in paragraphs)


def _said(what: str, value: float) -> str:
    if what.endswith(" (s)") and value < 1:
        return f"{what.removesuffix(' (s)')}: {1000 * value:.3g} ms"
    return f"{what}: {_value(value)}"


def _value(value: float) -> str:
    if value >= 1e6:
        return f"{value / 1e6:g} M"
    return f"{value:,.0f}" if value >= 1000 else f"{value:.3g}"


def summary(made: Plan, setup: Setup) -> str:
    """Lines of at most 120 columns."""
    said = (
        f"{made.hours:,.0f} hours ({made.hours / 24:.1f} days) on {setup.parts:.0f} drivers and "
        f"{setup.worker_cores:,.0f} worker cores: ${made.machines_cost:,.0f} for machines, "
        f"${made.storage_cost:,.0f} for {made.terabytes:,.0f} TB over {setup.months:g} months. The drivers "
        f"fetch {made.gigabits:.1f} Gbit/s together; each remembers {made.driver_gigabytes:.1f} GB of rows. "
        "Without a classifier, with OCR reading all that was opened, it is "
        f"{made.without_model_core_hours:,.0f} core-hours instead of {made.core_hours:,.0f}."
    )
    return "\n".join(textwrap.wrap(said, 120, break_on_hyphens=False))


def text(rates: Rates, setup: Setup) -> str:
    made = plan(rates, setup)
    return "\n\n".join([table(made), summary(made, setup), inputs(rates, setup)])


def with_plan(page: str, said: str) -> str:
    """The page with the text between its two marks replaced."""
    before, begin, rest = page.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end:
        raise SystemExit(f"the page has no place for the plan between {BEGIN} and {END}")
    return f"{before}{BEGIN}\n{said}\n{END}{after}"


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    for given, held in ((Setup(), "setup"), (measured(), "rates")):
        for one in fields(given):
            what = f"{one.metadata['what']} ({one.metadata['from'].value}; {getattr(given, one.name):g})"
            name = "--" + one.name.replace("_", "-")
            parser.add_argument(
                name, type=float, default=getattr(given, one.name), dest=f"{held}.{one.name}", help=what
            )
    parser.add_argument("--docs", action="store_true", help="write the tables into docs/corpus.md")
    arguments = vars(parser.parse_args(argv))
    rates = Rates(**{one.name: arguments[f"rates.{one.name}"] for one in fields(Rates)})
    setup = Setup(**{one.name: arguments[f"setup.{one.name}"] for one in fields(Setup)})
    said = text(rates, setup)
    if arguments["docs"]:
        held = {"rates": asdict(rates), "setup": asdict(setup), "plan": asdict(plan(rates, setup))}
        (RESULTS / "corpus_plan.json").write_text(json.dumps(held, indent=1) + "\n", encoding="utf-8")
        PAGE.write_text(with_plan(PAGE.read_text(encoding="utf-8"), said), encoding="utf-8")
    print(said)


if __name__ == "__main__":
    main()
