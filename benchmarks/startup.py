"""How long a user waits for the command to start: python benchmarks/startup.py

Runs each command several times in a process of its own, one after the other, and writes medians and all times
(wall clock, in seconds) to benchmarks/results/startup.json. Do not run anything else meanwhile.
"""

from __future__ import annotations

import argparse
import json
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repeat", type=int, default=7)
    parser.add_argument("--out", type=Path, default=ROOT / "benchmarks" / "results" / "startup.json")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        picture = _picture(Path(folder))
        commands = {
            "import llavar": [sys.executable, "-c", "import llavar"],
            "llavar --help": [sys.executable, "-m", "llavar", "--help"],
            "llavar ask (nano)": [sys.executable, "-m", "llavar", "ask", str(picture), "What does it say?"],
        }
        rows = {name: _times(command, arguments.repeat) for name, command in commands.items()}
    document = {"machine": _machine(), "seconds": rows}
    arguments.out.parent.mkdir(parents=True, exist_ok=True)
    arguments.out.write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")
    for name, row in rows.items():
        print(f"{name:20} {row}")


def _picture(folder: Path) -> Path:
    from llavar.render.layouts import Style, scene
    from llavar.render.paint import paint

    path = folder / "poster.png"
    paint(scene("startup", Style()), 384).save(path)
    return path


def _times(command: list[str], repeat: int) -> dict[str, object]:
    taken: list[float] = []
    for _ in range(repeat + 1):
        started = time.perf_counter()
        subprocess.run(command, check=True, capture_output=True, cwd=ROOT)
        taken.append(round(time.perf_counter() - started, 3))
    kept = taken[1:]  # the first one reads the files from disk
    return {"median": statistics.median(kept), "all": kept}


def _machine() -> str:
    import os

    return f"{platform.machine()}, {os.cpu_count()} cores, Python {platform.python_version()}"


if __name__ == "__main__":
    main()
