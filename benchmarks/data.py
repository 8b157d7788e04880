"""What a million rows cost to open: python benchmarks/data.py

Writes LLaVAR's first stage synthetically (1,017,690 rows: 595,375 captions and 422,315 of read text, with
names and lengths like real ones) and measures, each in a process of its own: finding the rows (once for
a file), encoding them in two workers (once for a tokenizer), opening them after that and reading a step of
them, four processes that do so at the same time, and json.load of the same file. Memory is what a process has
grown by over what its imports took: resident, and what it shares with nobody. Writes
benchmarks/results/data.json. Takes about 600 MB of disk below --folder and some minutes. Do not run anything
else meanwhile.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import platform
import random
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
CAPTIONS, READ = 595_375, 422_315
MIB = 2**20


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--share", type=float, default=1.0, help="of the rows, to try it out")
    parser.add_argument("--folder", type=Path, help="keeps file and indices (default: a temporary one)")
    parser.add_argument("--out", type=Path, default=ROOT / "benchmarks" / "results" / "data.json")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        folder = arguments.folder or Path(temporary)
        document = measured(folder, arguments.share)
    arguments.out.parent.mkdir(parents=True, exist_ok=True)
    arguments.out.write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")
    print(json.dumps(document, indent=1))


def measured(folder: Path, share: float) -> dict[str, Any]:
    path, cache = folder / "rows.json", folder / "cache"
    if not path.exists():
        folder.mkdir(parents=True, exist_ok=True)
        write(path, share)
    cache.mkdir(exist_ok=True)
    for old in cache.iterdir():
        old.unlink()
    alone = {name: _alone(task, path, cache) for name, task in TASKS.items()}
    return {
        "machine": _machine(),
        "rows": round(CAPTIONS * share) + round(READ * share),
        "megabytes": round(path.stat().st_size / 1e6, 1),
        **alone,
        "open_in_4_processes": _together(4, path, cache),
    }


def write(path: Path, share: float) -> None:
    rng = random.Random(0)
    words = ["".join(rng.choices("abcdefghijklmnopqrstuvwxyz", k=rng.randint(2, 9))) for _ in range(20_000)]
    asked = (
        "Provide a brief description of the given image.\n<image>",
        "<image>\nIdentify any text visible in the image provided.",
        "What text is shown here? Write it down as it stands.\n<image>",
    )
    counts = (round(CAPTIONS * share), round(READ * share))
    with path.open("w", encoding="utf-8") as out:
        for number in range(sum(counts)):
            long = number >= counts[0]
            name = f"GCC_train_{number + 9 * 10**8 * long:09d}"
            answer = " ".join(rng.choices(words, k=rng.randint(5, 60) if long else rng.randint(5, 16)))
            talk = [{"from": "human", "value": rng.choice(asked)}, {"from": "gpt", "value": answer}]
            row = {"id": name, "image": f"{name}.jpg", "conversations": talk}
            out.write(("[" if not number else ", ") + json.dumps(row))
        out.write("]")


# What is measured, each in a new process.


def _find(path: Path, cache: Path) -> dict[str, Any]:
    from llavar.data.index import open_rows

    def work() -> dict[str, Any]:
        rows = open_rows(path, folder=cache)
        return {"rows": len(rows)}

    return _grown(work)


def _encode(path: Path, cache: Path) -> dict[str, Any]:
    from llavar.data.index import open_rows
    from llavar.data.rows import measure

    encoder = _encoder()

    def work() -> dict[str, Any]:
        found = measure(open_rows(path, folder=cache), encoder, workers=2, folder=cache)
        return {"rejects": len(found.rejects), "tokens": int(found.lengths.sum())}

    return _grown(work)


def _open(path: Path, cache: Path) -> dict[str, Any]:
    return _grown(_opening(path, cache))


def _opening(path: Path, cache: Path) -> Callable[[], dict[str, Any]]:
    """Everything that the first step needs but pictures: rows, lengths, the order of the epoch, a batch."""
    import numpy as np

    from llavar.data.feed import Feed, FeedConfig
    from llavar.data.index import open_rows
    from llavar.data.rows import LazyRows, measure

    encoder = _encoder()
    config = FeedConfig(batch=128, parts=16, capacity=2048)

    def work() -> dict[str, Any]:
        started = time.perf_counter()
        source = open_rows(path, folder=cache)
        found = measure(source, encoder, folder=cache)
        if source.seconds or found.seconds:
            raise SystemExit("the indices were not kept")
        kept = np.flatnonzero(found.lengths > 0)
        pictures = np.ones(len(kept), np.int32)
        lengths = np.asarray(found.lengths)[kept]
        rows = LazyRows([source], encoder, numbers=kept, lengths=lengths, pictures=pictures, marks=[""])
        opened = time.perf_counter()
        first = [rows[index].id for index in (0, len(rows) // 2, len(rows) - 1)]
        feed = Feed(rows, _NoPictures(), config, pad_id=0)
        layout = feed.layout(0)
        ordered = time.perf_counter()
        read = sum(len(rows[number]) for part in layout for numbers in part for number in numbers)
        return {
            "open_seconds": round(opened - started, 3),
            "order_of_an_epoch_seconds": round(ordered - opened, 3),
            "tokens_of_the_first_step": read,
            "some_rows": first,
        }

    return work


class _NoPictures:
    is_features = False

    def get(self, names: Any) -> Any:
        raise AssertionError(names)


def _load(path: Path, _cache: Path) -> dict[str, Any]:
    held: list[Any] = []

    def work() -> dict[str, Any]:
        with path.open(encoding="utf-8") as file:
            held.append(json.load(file))
        return {"rows": len(held[0])}

    return _grown(work)


TASKS = {"find_rows": _find, "json_load": _load, "encode_rows_2_workers": _encode, "open": _open}


def _encoder() -> Any:
    from llavar import chat
    from llavar.data.rows import Encoder
    from llavar.models.tokenizer import nano_tokenizer

    tokenizer = nano_tokenizer()
    return Encoder(
        tokenizer=tokenizer,
        template=chat.get("llava_v1"),
        image_tokens=576,
        max_length=2048,
        unknown=tokenizer.unk_id,
        key="benchmark",
    )


# How it is measured.


def _grown(work: Callable[[], dict[str, Any]]) -> dict[str, Any]:
    before = _memory()
    started = time.perf_counter()
    said = work()
    seconds = time.perf_counter() - started
    after = _memory()
    grown = {f"{name}_growth_mib": round((after[name] - before[name]) / MIB, 1) for name in before}
    return {"seconds": round(seconds, 3), **grown, **said}


def _memory() -> dict[str, int]:
    """Bytes of this process: resident now and at most, and held by it alone."""
    fields: dict[str, int] = {}
    for line in Path("/proc/self/smaps_rollup").read_text().splitlines()[1:]:
        name, _, rest = line.partition(":")
        fields[name] = int(rest.split()[0]) * 1024
    status = Path("/proc/self/status").read_text()
    peak = int(status.partition("VmHWM:")[2].split()[0]) * 1024
    own = fields["Private_Clean"] + fields["Private_Dirty"]
    return {"resident": fields["Rss"], "own": own, "peak": peak}


def _alone(task: Callable[[Path, Path], dict[str, Any]], path: Path, cache: Path) -> dict[str, Any]:
    return _started(task, path, cache)()


def _together(count: int, path: Path, cache: Path) -> list[dict[str, Any]]:
    waiting = [_started(_open, path, cache) for _ in range(count)]
    return [wait() for wait in waiting]


def _started(
    task: Callable[[Path, Path], dict[str, Any]], path: Path, cache: Path
) -> Callable[[], dict[str, Any]]:
    context = multiprocessing.get_context("spawn")
    here, there = context.Pipe()
    process = context.Process(target=_child, args=(task, path, cache, there))
    process.start()
    there.close()

    def wait() -> dict[str, Any]:
        found = here.recv()
        process.join()
        return found

    return wait


def _child(task: Callable[[Path, Path], dict[str, Any]], path: Path, cache: Path, line: Any) -> None:
    line.send(task(path, cache))


def _machine() -> str:
    import os

    return f"{platform.machine()}, {os.cpu_count()} cores, Python {platform.python_version()}"


if __name__ == "__main__":
    main()
