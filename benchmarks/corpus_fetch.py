"""Pictures a second from a server on this machine, fetched and encoded anew; a part of corpus.py.

``llavar corpus run --until open`` and img2dataset get the same addresses in processes of their own, as many
pictures under way at a time and as many processes, and both write what they decoded as JPEG of quality 95,
sides of at most 2,048 pixels. Ours besides takes hashes and a fingerprint of each picture, and reads what it
wrote once more. The server runs beside them and answers after a moment (``corpus_common.LATENCY``).
"""

from __future__ import annotations

import io
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from corpus_common import LATENCY, Server

from llavar.render.layouts import Style, scene
from llavar.render.paint import paint

AT_ONCE, SIDES = 32, (512, 768, 1024)
DRAWN, FEW, PATIENCE = 48, 8, 600.0
"""Pictures that are drawn (the others are these with another comment in the file), pictures of the run that
tells what starting costs, and seconds for a run."""
Command = Callable[[Path, Path], list[str]]
"""From the file of addresses and an empty folder to the command that fills it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Tool:
    """What fetches, and what its pictures are called. ``prepare`` writes what its command wants."""

    name: str
    command: Command
    written: str
    prepare: Callable[[Path, Path], None] = lambda _urls, _out: None


def fetching(count: int, *, repeat: int, peer: str) -> dict[str, Any]:
    """``repeat`` runs of each tool, in turn, over ``count`` pictures, and as many over a few."""
    tools = [Tool(name="llavar", command=_llavar, written="images/*/*.jpg", prepare=_recipe)]
    found: dict[str, Any] = {"pictures": count, "at_once": AT_ONCE, "latency": LATENCY, "repeat": repeat}
    if peer and Path(peer).exists():
        tools.append(Tool(name="img2dataset", command=_img2dataset(peer), written="*/*.jpg"))
        found["img2dataset_version"] = _version(peer)
    else:
        found["left_out"] = f"img2dataset did not run: --img2dataset names {peer or 'no environment'}"
    times: dict[str, dict[int, list[float]]] = {tool.name: {FEW: [], count: []} for tool in tools}
    with tempfile.TemporaryDirectory(prefix="llavar-fetch-") as held:
        folder = Path(held)
        mean_bytes = _draw(folder / "pictures", count)
        with Server(folder / "pictures") as port:
            for number in range(repeat):
                for many in (FEW, count):
                    urls = folder / f"{many}.jsonl"
                    lines = (json.dumps({"url": f"http://127.0.0.1:{port}/{one}.jpg"}) for one in range(many))
                    urls.write_text("\n".join(lines) + "\n")
                    for tool in tools if number % 2 == 0 else tools[::-1]:
                        times[tool.name][many].append(_timed(tool, urls, folder / "out", many))
    found["mean_kilobytes"] = round(mean_bytes / 1000)
    for name, by_count in times.items():
        few, all_of_them = (statistics.median(by_count[many]) for many in (FEW, count))
        found[name] = {
            "seconds": [round(one, 2) for one in by_count[count]],
            "seconds_of_a_few": [round(one, 2) for one in by_count[FEW]],
            "pictures_a_second": round(count / all_of_them, 1),
            "pictures_a_second_without_start": round((count - FEW) / (all_of_them - few), 1),
        }
    return found


def _draw(folder: Path, count: int) -> float:
    """Different files; their mean size in bytes."""
    folder.mkdir()
    drawn: list[bytes] = []
    for number in range(min(DRAWN, count)):
        held = io.BytesIO()
        image = paint(scene(f"fetch-{number}", Style(min_lines=2, wild=1.0)), SIDES[number % len(SIDES)])
        image.save(held, "JPEG", quality=88)
        drawn.append(held.getvalue())
    for number in range(count):
        comment = f"{number:08d}".encode()
        marked = b"\xff\xfe" + (len(comment) + 2).to_bytes(2, "big") + comment
        data = drawn[number % len(drawn)]
        (folder / f"{number}.jpg").write_bytes(data[:2] + marked + data[2:])
    return statistics.fmean(path.stat().st_size for path in folder.iterdir())


def _timed(tool: Tool, urls: Path, out: Path, many: int) -> float:
    """Seconds from the start of the command to its end. Ends the benchmark if a picture is missing."""
    shutil.rmtree(out, ignore_errors=True)
    out.mkdir()
    tool.prepare(urls, out)
    environment = os.environ | {"PYTHONPATH": "", "NO_ALBUMENTATIONS_UPDATE": "1"}
    started = time.perf_counter()
    done = subprocess.run(
        tool.command(urls, out),
        env=environment,
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=False,
    )
    seconds = time.perf_counter() - started
    written = sum(1 for _ in (out / "made").glob(tool.written))
    if done.returncode or written != many:
        raise SystemExit(
            f"{tool.name} wrote {written} of {many} pictures, status {done.returncode}: {done.stderr[-800:]}"
        )
    return seconds


# ------------------------------------------------------------------------------------------ the tools


def _recipe(urls: Path, out: Path) -> None:
    fetch = f"{{allow_private: true, at_once: {AT_ONCE}, per_host: {AT_ONCE}}}"
    text = f"source: {{tables: [{urls}], columns: {{url: url}}}}\nfetch: {fetch}\nselect: null\n"
    (out / "recipe.yaml").write_text(text)


def _llavar(_urls: Path, out: Path) -> list[str]:
    recipe, made = str(out / "recipe.yaml"), str(out / "made")
    return [sys.executable, "-m", "llavar", "corpus", "run", recipe, "--out", made, "--until", "open"]


def _img2dataset(peer: str) -> Command:
    """``peer`` is a Python that has it, the folder of its environment, or its command."""

    def command(urls: Path, out: Path) -> list[str]:
        processes = os.cpu_count() or 1
        many = sum(1 for _ in urls.open())
        options = {
            "url_list": urls,
            "input_format": "jsonl",
            "url_col": "url",
            "output_folder": out / "made",
            "output_format": "files",
            "processes_count": processes,
            "thread_count": max(1, AT_ONCE // processes),
            "number_sample_per_shard": -(-many // processes),
            "resize_mode": "keep_ratio_largest",
            "resize_only_if_bigger": True,
            "image_size": 2048,
            "encode_format": "jpg",
            "encode_quality": 95,
            "timeout": 30,
            "retries": 2,
            "enable_wandb": False,
        }
        return [*_start(peer), *(f"--{name}={value}" for name, value in options.items())]

    return command


def _start(peer: str) -> list[str]:
    path = Path(peer)
    if path.is_dir():
        return [str(path / "bin" / "img2dataset")]
    return [peer, "-m", "img2dataset.main"] if path.name.startswith("python") else [peer]


def _version(peer: str) -> str:
    """As its package says."""
    python = Path(peer)
    if python.is_dir() or not python.name.startswith("python"):
        python = (python / "bin" if python.is_dir() else python.parent) / "python"
    ask = "import importlib.metadata as m; print(m.version('img2dataset'))"
    done = subprocess.run([str(python), "-c", ask], capture_output=True, text=True, check=False)
    return done.stdout.strip() or "unknown"
