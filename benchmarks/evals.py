"""How long scoring takes: python benchmarks/evals.py score --data DIR

DIR holds LLaVAR's released answers (STVQA.json, ocrVQA.json, textVQA.json, docVQA.json; 20,349 in all). Every
metric scores all of them several times in one process: reading, metric, interval and baselines are timed
apart. Then the command is started from cold on one file, each time in a process of its own. Medians and all
times (wall clock, in seconds) go to benchmarks/results/evals-score.json. Do not run anything else meanwhile.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
RESULTS = ROOT / "benchmarks" / "results"
FILES = ("STVQA.json", "ocrVQA.json", "textVQA.json", "docVQA.json")
METRICS = (
    "mmocr",
    "mmocr-strict",
    "ocrbench",
    "textvqa",
    "stvqa",
    "anls",
    "exact",
    "relaxed",
    "token-f1",
    "cer",
)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    add_score(commands.add_parser("score", help="time the scoring of saved answers"))
    arguments = parser.parse_args()
    run: Callable[[argparse.Namespace], None] = arguments.run
    run(arguments)


# --- score ----------------------------------------------------------------------------------------------


def add_score(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--data", type=Path, required=True, metavar="DIR", help="folder of LLaVAR's four files"
    )
    parser.add_argument("--repeat", type=int, default=5)
    parser.add_argument("--out", type=Path, default=RESULTS / "evals-score.json")
    parser.set_defaults(run=score)


def score(arguments: argparse.Namespace) -> None:
    paths = [arguments.data / name for name in FILES]
    load = os.getloadavg()[0]
    reading = _repeated(lambda: _read(paths), arguments.repeat)
    rows = {name: _metric(paths, name, arguments.repeat) for name in METRICS}
    command = [sys.executable, "-m", "llavar", "score", str(paths[0]), "--metric", "mmocr", "--json"]
    cold = {
        "with baselines": _cold(command, arguments.repeat),
        "--no-baselines": _cold([*command, "--no-baselines"], arguments.repeat),
    }
    document = {
        "machine": machine(),
        "load average before": round(load, 2),
        "command": f"python benchmarks/evals.py score --data DIR --repeat {arguments.repeat}",
        "answers": _count(paths),
        "reading, s": reading,
        "scoring, s": rows,
        f"llavar score {FILES[0]} from cold, s": cold,
    }
    write(arguments.out, document)
    print(
        f"{document['answers']:,} answers, read in {reading['median']:.3f} s; median of {arguments.repeat}:"
    )
    print(f"{'':14}{'metric':>9}{'interval':>10}{'both':>8}{'spread':>18}{'baselines':>12}")
    for name, row in rows.items():
        both = row["metric + interval"]
        spread = f"{min(both['all']):.3f} to {max(both['all']):.3f}"
        single = "".join(
            f"{row[part]['median']:>{width}.3f}" for part, width in (("metric", 9), ("interval", 10))
        )
        print(f"{name:14}{single}{both['median']:>8.3f}{spread:>18}{row['baselines']['median']:>12.3f}")
    for name, row in cold.items():
        print(f"cold start, {name}: {row['median']:.3f}")


def _read(paths: Sequence[Path]) -> float:
    from llavar.evals.interchange import read_answers

    started = time.perf_counter()
    for path in paths:
        read_answers(path)
    return time.perf_counter() - started


def _count(paths: Sequence[Path]) -> int:
    from llavar.evals.interchange import read_answers

    return sum(len(read_answers(path).answers) for path in paths)


def _metric(paths: Sequence[Path], name: str, repeat: int) -> dict[str, dict[str, object]]:
    """Seconds for all files, by part."""
    from llavar.evals.interchange import read_answers
    from llavar.evals.score import score_answers

    files = [read_answers(path).answers for path in paths]
    runs: list[dict[str, float]] = []
    for _ in range(repeat + 1):
        timings = [score_answers(answers, name).timing for answers in files]
        parts = {part: sum(timing[part] for timing in timings) for part in timings[0]}
        runs.append({**parts, "metric + interval": parts["metric"] + parts["interval"]})
    return {part: _summary([run[part] for run in runs[1:]]) for part in runs[0]}


def _repeated(measure: Callable[[], float], repeat: int) -> dict[str, object]:
    measure()  # the first one reads the files from disk
    return _summary([measure() for _ in range(repeat)])


def _cold(command: Sequence[str], repeat: int) -> dict[str, object]:
    def once() -> float:
        started = time.perf_counter()
        subprocess.run(command, check=True, capture_output=True, cwd=ROOT)
        return time.perf_counter() - started

    return _repeated(once, repeat)


# --- for every subcommand -------------------------------------------------------------------------------


def _summary(seconds: Sequence[float]) -> dict[str, object]:
    return {"median": round(statistics.median(seconds), 4), "all": [round(each, 4) for each in seconds]}


def machine() -> dict[str, object]:
    """What the times depend on; no host name."""
    return {
        "cpu": _cpu(),
        "architecture": platform.machine(),
        "cores": os.cpu_count(),
        "python": platform.python_version(),
    }


def _cpu() -> str:
    cpuinfo = Path("/proc/cpuinfo")
    lines = cpuinfo.read_text(encoding="utf-8").splitlines() if cpuinfo.is_file() else []
    named = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(named, platform.processor())


def write(path: Path, document: object) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
