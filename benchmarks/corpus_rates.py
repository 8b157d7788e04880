"""What a row costs in each stage of a corpus, in seconds of one processor: python benchmarks/corpus_rates.py

Parts, all of them by default (--only PART ...)::

    driver    stages that work in the driver's own process, on made-up rows with URL, hashes and a reading:
              seconds of a row with reading and writing its shards, bytes of it on the disk and in memory
    fetch     of the process that fetches, from a server on this machine
    open      decoding, hashing, fingerprint, and encoding anew, of JPEGs of 1280 x 1280 pixels
    classify  a model of the paper's classifier's shape (DiT-base), with random weights: these cost as much
    features  CLIP ViT-B/32, with random weights
    ocr       RapidOCR on pages full of text, brought down to a short edge of 384 pixels
    cluster   what the driver pays for an item that a cluster works on: with Ray on this machine (left out
              where it is not installed) and with processes of this machine, for items of 2 ms and of 1 s

Times are of processors (user and system), not of the clock: they mean the same on a machine that does other
things besides, though somewhat more than on an idle one. Results go into benchmarks/results/corpus_rates.json
as soon as they are there; benchmarks/corpus_plan.py makes a plan of them.
"""

from __future__ import annotations

import argparse
import hashlib
import importlib
import json
import os
import platform
import random
import subprocess
import sys
import tempfile
import time
import tracemalloc
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar

from llavar.corpus.clusters import FeatureStage
from llavar.corpus.crews import Crews, LocalCrews
from llavar.corpus.dedup import ExactStage, NearStage
from llavar.corpus.fetch import FetchSettings, FetchStage
from llavar.corpus.item import Fingerprint, Item, Origin, PictureFile
from llavar.corpus.opening import OpenStage
from llavar.corpus.rows import OcrStage, PairsStage, TemplateTeachStage
from llavar.corpus.select import MetadataStage, ModelStage, TextStage
from llavar.corpus.shards import SCAN, Corpus, RunSettings
from llavar.corpus.sources import Tables
from llavar.corpus.stage import Outcome, Stage
from llavar.errors import MissingExtraError
from llavar.records import Box, Line, Reading
from llavar.render import words
from llavar.render.layouts import Style, page, scene
from llavar.render.paint import paint

ROOT = Path(__file__).resolve().parent.parent
RESULTS = ROOT / "benchmarks/results/corpus_rates.json"
SIDE, QUALITY = 1280, 88
Work = Callable[[Item], Outcome]


# ------------------------------------------------------------------------------------------ the driver


@dataclass(frozen=True, slots=True, kw_only=True)
class MadeUp:
    """Rows as they are late in a corpus: URL, metadata, file, fingerprint, and a reading of a few lines."""

    count: int
    lines: int = 8

    @dataclass(frozen=True)
    class Settings:
        """Of the source."""

        count: int
        lines: int

    @property
    def settings(self) -> object:
        return self.Settings(self.count, self.lines)

    def fingerprint(self) -> str:
        return "made up"

    def items(self) -> Iterator[Outcome]:
        return (made_up(number, self.lines) for number in range(self.count))


def made_up(number: int, lines: int) -> Item:
    rng = random.Random(number)
    digest = hashlib.sha256(str(number).encode()).hexdigest()
    said = [
        Line(
            text=words.phrase(rng, held_out=False, length=24),
            box=Box(left=20.0, top=30.0 * row, right=300.0, bottom=30.0 * row + 20),
            confidence=rng.uniform(0.8, 1.0),
        )
        for row in range(lines)
    ]
    path = f"images/{digest[:2]}/{digest}.jpg"
    reading = Reading(image=path, size=(384, 384), lines=tuple(said), engine="e")
    return Item(
        id=digest[:24],
        origin=Origin(
            source="laion",
            url=f"https://cdn{rng.randrange(10**4)}.example.com/files/{digest[:20]}/picture-{number}.jpg",
            caption=words.phrase(rng, held_out=False, length=60),
            language="en",
            watermark=rng.random() * 0.7,
            unsafe=rng.random() * 0.4,
            similarity=0.3,
        ),
        file=PictureFile(path=path, sha256=digest, width=SIDE, height=SIDE, bytes=300_000),
        fingerprint=Fingerprint(pixels=digest[::-1], perceptual=rng.randbytes(32).hex()),
        readings=(reading,) if lines else (),
    )


def driver(count: int) -> dict[str, Any]:
    """Each stage on ``count`` rows; those before reading on rows without readings."""
    found: dict[str, Any] = {"rows": count, SCAN: _table(count)}
    early: list[Stage] = [MetadataStage(), ExactStage()]
    late: list[Stage] = [TextStage(), NearStage(), PairsStage(), TemplateTeachStage()]
    for lines, stages in ((0, early), (8, late)):
        with tempfile.TemporaryDirectory(prefix="llavar-rates-") as held:
            corpus, source = Corpus(Path(held)), MadeUp(count=count, lines=lines)
            corpus.run(source, stages, until=SCAN)
            for last, stage in enumerate(stages, 1):
                before = cpu()
                rows = corpus.run(source, stages, until=stage.name).stages[last].rows
                found[stage.name] = {
                    "cpu_seconds": round((cpu() - before) / rows, 7),
                    "bytes_a_row": _size(Path(held), stage.name) // rows,
                }
    found["memory"] = {stage.name: _memory(stage, count) for stage in (ExactStage(), NearStage())}
    return found


def _table(count: int) -> dict[str, Any]:
    """Reading a table like LAION's: time and bytes of a row, and what stays in memory of it."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    with tempfile.TemporaryDirectory(prefix="llavar-rates-") as held:
        path = Path(held) / "urls.parquet"
        rows = [made_up(number, 0).origin for number in range(count)]
        columns = {
            "URL": [row.url for row in rows],
            "TEXT": [row.caption for row in rows],
            "LANGUAGE": [row.language for row in rows],
            "pwatermark": [row.watermark for row in rows],
            "punsafe": [row.unsafe for row in rows],
            "similarity": [row.similarity for row in rows],
        }
        pq.write_table(pa.table(columns), path)
        tables, before = Tables(paths=(path,)), cpu()
        Corpus(Path(held) / "corpus").run(tables, [])
        took = cpu() - before
        tracemalloc.start()
        for _ in tables.items():
            pass
        _, peak = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        return {
            "cpu_seconds": round(took / count, 7),
            "bytes_a_row": _size(Path(held) / "corpus", SCAN) // count,
            "memory": round(peak / count),
        }


def _size(root: Path, stage: str) -> int:
    return sum(file.stat().st_size for file in (root / "stages" / stage).glob("*.parquet"))


def _memory(stage: ExactStage | NearStage, count: int) -> int:
    """Bytes in memory that the decision needs for a row, at its peak."""

    class Shards:
        """Made when they are asked for, as they are read from files."""

        def __iter__(self) -> Iterator[list[Item]]:
            return ([made_up(number, 4)] for number in range(count))

    tracemalloc.start()
    stage.decide(Shards())
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    return round(peak / count)


def cpu() -> float:
    """Seconds of processors: this process, and those that it has ended."""
    return sum(os.times()[:4])


# ------------------------------------------------------------------------------------------ pictures


def drawn(folder: Path, count: int, pages: int = 4) -> float:
    """Different JPEGs ``0.jpg`` ..., one in ``pages`` a page, the others scenes; their mean size in bytes."""
    folder.mkdir(parents=True)
    for number in range(count):
        draw = page if number % pages == pages - 1 else scene
        image = paint(draw(f"rate-{number}", Style(min_lines=3, wild=1.0)), SIDE)
        image.save(folder / f"{number}.jpg", "JPEG", quality=QUALITY)
    return sum(path.stat().st_size for path in folder.iterdir()) / count


def fetch(count: int) -> dict[str, Any]:
    with tempfile.TemporaryDirectory(prefix="llavar-rates-") as held:
        folder = Path(held)
        size = drawn(folder / "pictures", 20)
        with _served(folder / "pictures") as port:
            settings = FetchSettings(allow_private=True, per_host=32)
            urls = [f"http://127.0.0.1:{port}/{number % 20}.jpg?{number}" for number in range(count)]
            items = [Item(id=url, origin=Origin(source="s", url=url)) for url in urls]
            stage = FetchStage(root=folder / "corpus", settings=settings)
            before = time.process_time()
            outcomes = dict(stage.run(items))
            took = time.process_time() - before
    if not all(isinstance(outcome, Item) for outcome in outcomes.values()):
        raise SystemExit(f"not all of {count} pictures came")
    return {"pictures": count, "mean_bytes": round(size), "cpu_seconds": round(took / count, 6)}


@contextmanager
def _served(folder: Path) -> Iterator[int]:
    """A server of the pictures in a process of its own."""
    command = [sys.executable, "-c", _SERVER, str(folder)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None
        yield int(process.stdout.readline())
    finally:
        process.kill()
        process.communicate()


_SERVER = """
import asyncio, pathlib, sys
files = {path.name: path.read_bytes() for path in pathlib.Path(sys.argv[1]).iterdir()}
async def answer(reader, writer):
    try:
        while True:
            asked = await reader.readuntil(b"\\r\\n\\r\\n")
            body = files[asked.split(b" ", 2)[1].decode().lstrip("/").partition("?")[0]]
            head = "HTTP/1.1 200 OK\\r\\nContent-Type: image/jpeg\\r\\nContent-Length: "
            writer.write(head.encode() + str(len(body)).encode() + b"\\r\\n\\r\\n" + body)
            await writer.drain()
    except (asyncio.IncompleteReadError, ConnectionError):
        writer.close()
async def main():
    server = await asyncio.start_server(answer, "127.0.0.1", 0, backlog=256)
    print(server.sockets[0].getsockname()[1], flush=True)
    await server.serve_forever()
asyncio.run(main())
"""


def each(make: Callable[[Path], Any], count: int, pages: int = 4) -> dict[str, Any]:
    """A stage's function on ``count`` pictures after two to warm up, in this process."""
    with tempfile.TemporaryDirectory(prefix="llavar-rates-") as held:
        size = drawn(Path(held) / "pictures", count + 2, pages)
        work: Work = make(Path(held)).maker()()
        items = [_picture(f"pictures/{number}.jpg") for number in range(count + 2)]
        for item in items[:2]:
            work(item)
        before = time.process_time()
        outcomes = [work(item) for item in items[2:]]
        took = time.process_time() - before
        written = [path.stat().st_size for path in (Path(held) / "images").rglob("*.jpg")]
    found = {"pictures": count, "mean_bytes": round(size), "cpu_seconds": round(took / count, 4)}
    if written:
        found["mean_bytes_written"] = round(sum(written) / len(written))
    lines = [len(one.readings[0].lines) for one in outcomes if isinstance(one, Item) and one.readings]
    return found | ({"lines_a_picture": round(sum(lines) / len(lines), 1)} if lines else {})


def _picture(path: str) -> Item:
    """As after ``fetch``."""
    file = PictureFile(path=path, sha256="0" * 64, width=0, height=0, bytes=0)
    return Item(id=path, origin=Origin(source="s", url="http://example.com/" + path), file=file)


def _classifier(folder: Path) -> ModelStage:
    """DiT-base is a BEiT-base with absolute positions, and 16 classes of documents."""
    from transformers import BeitConfig, BeitForImageClassification, BeitImageProcessor

    from llavar.models.sight import HuggingFace

    config = BeitConfig(use_absolute_position_embeddings=True, num_labels=16)
    BeitForImageClassification(config).save_pretrained(folder / "model")
    BeitImageProcessor().save_pretrained(folder / "model")
    scorer = HuggingFace().classifier(str(folder / "model"), "LABEL_0", "cpu")
    return ModelStage(root=folder, scorer=scorer, min_text=0.0)


def _encoder(folder: Path) -> FeatureStage:
    from transformers import CLIPConfig, CLIPImageProcessor, CLIPModel

    from llavar.models.sight import HuggingFace

    CLIPModel(CLIPConfig()).save_pretrained(folder / "model")
    CLIPImageProcessor().save_pretrained(folder / "model")
    return FeatureStage(root=folder, encoder=HuggingFace().encoder(str(folder / "model"), "cpu"))


# ------------------------------------------------------------------------------------------ a cluster


@dataclass(frozen=True, slots=True, kw_only=True)
class Sleeping:
    """A stage that takes its time and no processor."""

    seconds: float
    settings: str = ""
    time_limit: float | None = 60.0
    name: ClassVar[str] = "sleep"
    version: ClassVar[int] = 1

    def maker(self) -> Sleeping:
        return self

    def __call__(self) -> Work:
        return self.slept

    def slept(self, item: Item) -> Outcome:
        time.sleep(self.seconds)
        return replace(item, description="slept")


def on_cluster(short: int, long: int) -> dict[str, Any]:
    from llavar.corpus.cluster import cluster

    sys.path.insert(0, str(Path(__file__).resolve().parent))
    found: dict[str, Any] = {"workers": 2}
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="llavar-rates-")))
        joined: list[str] = ["local"]
        started = time.perf_counter()
        with suppress(MissingExtraError):
            stack.enter_context(cluster("", folder, workers=2))  # those below join it
            found["seconds_to_start_ray"] = round(time.perf_counter() - started, 1)
            joined.append("ray")
        for name in joined:
            for kind, seconds, count in (("short", 0.002, short), ("long", 1.0, long)):
                few = count // 4
                took = {}
                for many in (few, count):
                    root = folder / f"{name}-{kind}-{many}"
                    who = stack.enter_context(cluster("", root)) if name == "ray" else LocalCrews()
                    took[many] = _driven(who, seconds, many, root)
                driver, clock = (took[count][part] - took[few][part] for part in (0, 1))
                found[f"{name}_{kind}"] = {
                    "items": count,
                    "seconds_of_an_item": seconds,
                    "driver_cpu_seconds": round(driver / (count - few), 6),
                    "seconds_by_the_clock": round(clock / (count - few), 6),
                }
    return found


def _driven(crews: Crews, seconds: float, count: int, root: Path) -> tuple[float, float]:
    """What the driver spends on a stage that others work on, shards and journal included; and the time."""
    # By the name of this module, under which nodes can import it.
    stage = importlib.import_module("corpus_rates").Sleeping(seconds=seconds)
    settings = RunSettings(workers=2, crews=crews)
    Corpus(root).run(MadeUp(count=count), [stage], settings=settings, until=SCAN)
    started, before = time.perf_counter(), time.process_time()
    Corpus(root).run(MadeUp(count=count), [stage], settings=settings)
    return time.process_time() - before, time.perf_counter() - started


# ------------------------------------------------------------------------------------------ all of it


def parts(scale: float) -> dict[str, Callable[[], dict[str, Any]]]:
    """Each part by its name; ``scale`` makes all of them smaller or larger."""

    def many(count: int) -> int:
        return max(4, round(scale * count))

    return {
        "driver": lambda: driver(many(8_000)),
        "fetch": lambda: fetch(many(400)),
        "open": lambda: each(lambda root: OpenStage(root=root), many(40)),
        "classify": lambda: each(_classifier, many(12)),
        "features": lambda: each(_encoder, many(24)),
        "ocr": lambda: each(lambda root: OcrStage(root=root), many(24), pages=1),
        "cluster": lambda: on_cluster(many(4000), many(24)),
    }


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--only", nargs="+", choices=list(parts(1.0)), metavar="PART")
    parser.add_argument("--scale", type=float, default=1.0, help="of the numbers of rows and pictures")
    parser.add_argument("--out", type=Path, default=RESULTS)
    arguments = parser.parse_args(argv)
    os.environ.update(dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1"))
    held: dict[str, Any] = json.loads(arguments.out.read_text()) if arguments.out.is_file() else {}
    for name, make in parts(arguments.scale).items():
        if arguments.only and name not in arguments.only:
            continue
        held[name] = {**make(), "machine": machine()}
        arguments.out.parent.mkdir(parents=True, exist_ok=True)
        arguments.out.write_text(json.dumps(held, indent=1) + "\n", encoding="utf-8")
        print(json.dumps({name: held[name]}, indent=1), flush=True)


def machine() -> str:
    load = f", load {os.getloadavg()[0]:.1f}" if hasattr(os, "getloadavg") else ""
    return f"{platform.machine()}, {os.cpu_count()} cores, Python {platform.python_version()}{load}"


if __name__ == "__main__":
    main()
