"""Does a corpus that is killed come out byte for byte? python benchmarks/kill_corpus.py [--kills 100]

Renders pictures (some broken, some equal) and makes a corpus of them with ``llavar corpus run`` and RapidOCR,
once without a kill, and once while it is killed with SIGKILL at random moments, again and again, together
with the processes that read. Then every Parquet file of every stage and every product has to be equal, byte
for byte, and each item has to be in exactly one place: among the rows that came through, or among the rejects
of one stage. Half of the kills wait until something was done since the last one, the others come at any
moment. Writes benchmarks/results/kill_corpus.json.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import platform
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "src"))

RECIPE = """
source: {{folder: pictures}}
shard_rows: 8
workers: {workers}
layout: {{min_height: 4}}
"""


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--kills", type=int, default=100)
    parser.add_argument("--pictures", type=int, default=160)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=ROOT / "benchmarks/results/kill_corpus.json")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="llavar-kill-corpus-") as held:
        found = compare(Path(held), arguments)
    arguments.out.parent.mkdir(parents=True, exist_ok=True)
    arguments.out.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
    print(json.dumps(found, indent=1))
    return int(bool(found["differences"]) or bool(found["misplaced"]))


def compare(folder: Path, arguments: argparse.Namespace) -> dict[str, object]:
    draw(folder / "pictures", arguments.pictures)
    recipe = folder / "recipe.yaml"
    recipe.write_text(RECIPE.format(workers=arguments.workers))
    started = time.perf_counter()
    if wait(start(recipe, folder / "straight")):
        raise SystemExit("the run that nobody killed failed; see above")
    straight = time.perf_counter() - started
    chance = random.Random(arguments.seed)
    began, runs, struck = time.perf_counter(), 0, Counter[str]()
    while True:
        process = start(recipe, folder / "killed")
        runs += 1
        stage = (
            strike(process, folder / "killed", chance, straight) if struck.total() < arguments.kills else ""
        )
        if stage:
            struck[stage] += 1
        elif wait(process) == 0:
            if struck.total() >= arguments.kills:
                break
            # It ended before it was struck: one stage more is to be made again.
            again(folder / "killed", chance)
        else:
            raise SystemExit("a run that was taken up again failed; see above")
    one, other = digests(folder / "straight"), digests(folder / "killed")
    differences = sorted(name for name in {*one, *other} if one.get(name) != other.get(name))
    return {
        "what": "llavar corpus run, killed at random moments, against a run that nobody killed",
        "machine": f"{platform.machine()}, {os.cpu_count()} cores, Python {platform.python_version()}",
        "pictures": arguments.pictures,
        "kills": struck.total(),
        "struck": dict(struck),
        "runs": runs,
        "seconds": round(time.perf_counter() - began, 1),
        "seconds_straight": round(straight, 1),
        "files_compared": len(one),
        "differences": differences,
        "misplaced": misplaced(folder / "killed"),
    }


def draw(folder: Path, count: int) -> None:
    from llavar.render.layouts import Style, scene
    from llavar.render.paint import paint

    folder.mkdir(parents=True)
    for number in range(count):
        path = folder / f"{number:04d}.png"
        if number % 20 == 7:
            path.write_bytes(b"\x89PNG and no more")
        elif number % 20 == 13:
            path.write_bytes((folder / f"{number - 1:04d}.png").read_bytes())
        else:
            paint(scene(f"kill-{number}", Style()), 224).save(path)


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
    """The stage whose files are the youngest."""
    stages = [path for path in (root / "stages").glob("*") if path.is_dir()] if root.exists() else []
    return max(stages, key=lambda path: path.stat().st_mtime).name if stages else "start"


def again(root: Path, chance: random.Random) -> None:
    """Take out a shard of a stage, so that there is work to be killed at."""
    shards = sorted(path for path in (root / "stages").rglob("*.parquet") if "scan" not in path.parts)
    chance.choice(shards).unlink()


def digests(root: Path) -> dict[str, str]:
    paths = [*(root / "stages").rglob("*.parquet"), *(root / "products").rglob("*.*")]
    texts = {str(path.relative_to(root)): path.read_bytes() for path in paths}
    return {name: hashlib.sha256(data).hexdigest() for name, data in texts.items()}


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
