"""Does a corpus that is killed come out byte for byte? python benchmarks/kill_corpus.py [--kills 100]

Draws pictures, some of them broken, equal, or edited copies of others, serves them on this machine, and makes
a corpus of their addresses with ``llavar corpus run``: all stages that need no model from a hub, with
RapidOCR, the template teacher, and all kinds of products. Once without a kill, and once while it is killed
with SIGKILL at random moments, again and again, together with the processes that read. Then the files of all
stages and products and all fetched pictures have to be equal, byte for byte, and each item has to be in
exactly one place: among the rows that came through, or among the rejects of one stage. Half of the kills wait
until something was done since the last one, the others come at any moment. Writes
benchmarks/results/kill_corpus.json.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT / "src"), str(Path(__file__).resolve().parent)]
from corpus_common import Server, machine  # noqa: E402 - a neighbour, wherever this is started from

SIDE = 160
RECIPE = """
source: {{tables: [urls.jsonl], columns: {{url: url}}}}
shard_rows: 8
workers: {workers}
fetch: {{allow_private: true, attempts: 1}}
decontaminate: {{hashes: [known.jsonl]}}
cluster: {{count: 3, keep: [0, 1]}}
ocr: {{engines: [{engine}]}}
layout: {{min_height: 4}}
products: {{formats: [json, parquet, webdataset]}}
"""


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--kills", type=int, default=100)
    parser.add_argument("--pictures", type=int, default=96)
    parser.add_argument("--engine", default="rapidocr", help="of OCR; tesseract is quicker")
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=ROOT / "benchmarks/results/kill_corpus.json")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="llavar-kill-corpus-") as held:
        pictures = Path(held) / "pictures"
        draw(pictures, arguments.pictures)
        with Server(pictures) as port:
            found = compare(Path(held), arguments, port)
    arguments.out.parent.mkdir(parents=True, exist_ok=True)
    arguments.out.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
    print(json.dumps(found, indent=1))
    return int(bool(found["differences"]) or bool(found["misplaced"]))


def compare(folder: Path, arguments: argparse.Namespace, port: int) -> dict[str, object]:
    on = machine()
    recipe = prepare(folder, arguments, port)
    started = time.perf_counter()
    if wait(start(recipe, folder / "corpus")):
        raise SystemExit("the run that nobody killed failed")
    straight = time.perf_counter() - started
    # Reasons of rejects name paths: both are made in one place.
    (folder / "corpus").rename(folder / "straight")
    chance = random.Random(arguments.seed)
    began, runs, struck = time.perf_counter(), 0, Counter[str]()
    while True:
        process = start(recipe, folder / "corpus")
        runs += 1
        stage = (
            strike(process, folder / "corpus", chance, straight) if struck.total() < arguments.kills else ""
        )
        if stage:
            struck[stage] += 1
        elif wait(process) == 0:
            if struck.total() >= arguments.kills:
                break
            # It ended before it was struck: one stage more is to be made again.
            again(folder / "corpus", chance)
        else:
            raise SystemExit("a run that was taken up again failed")
    one, other = digests(folder / "straight"), digests(folder / "corpus")
    differences = sorted(name for name in {*one, *other} if one.get(name) != other.get(name))
    return {
        "what": "llavar corpus run, killed at random moments, against a run that nobody killed",
        "machine": on,
        "pictures": arguments.pictures,
        "engine": arguments.engine,
        "stages": stages_of(folder / "straight"),
        "kills": struck.total(),
        "struck": dict(struck),
        "runs": runs,
        "seconds": round(time.perf_counter() - began, 1),
        "seconds_straight": round(straight, 1),
        "files_compared": len(one),
        "differences": differences,
        "misplaced": misplaced(folder / "corpus"),
    }


def draw(folder: Path, count: int) -> None:
    """Of twenty pictures one is broken, one equal to another, and one another with a frame."""
    from PIL import Image, ImageOps

    from llavar.render.layouts import Style, scene
    from llavar.render.paint import paint

    folder.mkdir(parents=True)
    for number in range(count):
        path, before = folder / f"{number:04d}.png", folder / f"{number - 1:04d}.png"
        if number % 20 == 7:
            path.write_bytes(b"\x89PNG and no more")
        elif number % 20 == 13:
            path.write_bytes(before.read_bytes())
        elif number % 20 == 17:
            with Image.open(before) as image:
                ImageOps.expand(image, 8, "black").save(path)
        else:
            paint(scene(f"kill-{number}", Style()), SIDE).save(path)


def prepare(folder: Path, arguments: argparse.Namespace, port: int) -> Path:
    """The recipe, its addresses (one leads nowhere), and hashes of two pictures that have to stay out."""
    from llavar.corpus.decontaminate import write_hashes

    names = [f"{number:04d}.png" for number in range(arguments.pictures)]
    rows = ({"url": f"http://127.0.0.1:{port}/{name}"} for name in [*names, "nowhere.png"])
    (folder / "urls.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    known = folder / "known"
    known.mkdir()
    for name in names[1:3]:
        shutil.copy(folder / "pictures" / name, known / name)
    write_hashes(known, "known", folder / "known.jsonl")
    recipe = folder / "recipe.yaml"
    recipe.write_text(RECIPE.format(workers=arguments.workers, engine=arguments.engine))
    return recipe


def stages_of(root: Path) -> dict[str, int]:
    """How many items came through each stage."""
    from llavar.corpus.shards import existing

    return {stage.stage: stage.kept for stage in existing(root).chain()}


def start(recipe: Path, out: Path) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-m", "llavar", "corpus", "run", str(recipe), "--out", str(out)]
    environment = {**os.environ, "PYTHONPATH": str(ROOT / "src")}
    quiet = subprocess.DEVNULL
    return subprocess.Popen(command, env=environment, stdout=quiet, stderr=quiet, start_new_session=True)


def wait(process: subprocess.Popen[bytes]) -> int:
    return process.wait()


def strike(process: subprocess.Popen[bytes], root: Path, chance: random.Random, straight: float) -> str:
    """Kill the process and all that it started; what it was doing, or nothing if it had ended before."""
    before = marks(root)
    patient = chance.random() < 0.5
    at = time.monotonic() + chance.uniform(0.05, min(straight, 6.0))
    while process.poll() is None:
        if time.monotonic() >= at and (not patient or marks(root) != before):
            break
        time.sleep(0.002)
    if process.poll() is not None:
        return ""
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    return doing(root)


def marks(root: Path) -> tuple[int, int]:
    files = [path for path in root.rglob("*") if path.is_file()]
    return len(files), sum(path.stat().st_size for path in files if path.suffix == ".journal")


def doing(root: Path) -> str:
    """The stage, or the products, whose files are the youngest."""
    folders = [*(root / "stages").glob("*"), root / "products"] if root.exists() else []
    stages = [path for path in folders if path.is_dir()]
    return max(stages, key=lambda path: path.stat().st_mtime).name if stages else "start"


def again(root: Path, chance: random.Random) -> None:
    """Take out a shard of a stage, so that there is work to be killed at."""
    shards = sorted(path for path in (root / "stages").rglob("*.parquet") if "scan" not in path.parts)
    chance.choice(shards).unlink()


def digests(root: Path) -> dict[str, str]:
    """All files of stages, products and pictures; what a kill left half written is for nobody to read."""
    folders = ("products", "fetched", "images")
    paths = [*(root / "stages").rglob("*.parquet"), *(root / "stages").rglob("*.bin")]
    paths += [path for folder in folders for path in (root / folder).rglob("*") if path.is_file()]
    return {
        str(path.relative_to(root)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in paths
        if path.suffix != ".part"
    }


def misplaced(root: Path) -> list[str]:
    """Items that are not in exactly one place."""
    from llavar.corpus.shards import existing

    corpus = existing(root)
    chain = [summary.stage for summary in corpus.chain()]
    first = [item.id for items in corpus.items(chain[0]) for item in items]
    places = Counter(item.id for items in corpus.items(chain[-1]) for item in items)
    for stage in chain[1:]:
        places.update(one.item.id for ended in corpus.rejected(stage) for one in ended)
    return sorted(name for name in {*first, *places} if places[name] != 1 or name not in first)


if __name__ == "__main__":
    sys.exit(main())
