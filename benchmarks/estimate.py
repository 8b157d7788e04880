"""Is what a run foretells true? python benchmarks/estimate.py [--steps 24] [--repeat 3]

Trains nano with ``llavar train``, stage 1 and stage 2, each time in a process of its own, on pictures that
are drawn here, and compares what ``expected.json`` held before the first step with what came: seconds of all
steps (from the log), the most memory of the process while the steps ran (the system's account), and what the
process grew by beyond its imports against the memory that is counted for the model. Checkpoints, looks and
reading the data are in neither side. Writes benchmarks/results/estimate.json.

Seconds are foretold from up to eight steps that are tried out, so they are as true as the machine is steady:
run it with nothing else at work.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent

CHILD = """
import sys
import llavar.study.training, llavar.train.job
import transformers.models.llava.modeling_llava, transformers.models.clip.modeling_clip
import transformers.models.llama.modeling_llama
from llavar.cli import main
held = [line for line in open("/proc/self/status") if line.startswith("VmRSS")][0]
print(int(held.split()[1]) * 1024, flush=True)
sys.exit(main(sys.argv[1:]))
"""


def draw(folder: Path, pictures: int) -> None:
    """Rows about text in pictures, of the lengths that nano's own have."""
    from llavar.study.nano.questions import exam, write_pictures

    drawn = exam(pictures, seed="estimate")
    write_pictures(drawn.scenes, folder, 96)
    rows = [
        {
            "id": question.id,
            "image": question.image,
            "conversations": [
                {"from": "human", "value": f"<image>\n{question.text}"},
                {"from": "gpt", "value": question.references[0]},
            ],
        }
        for question in drawn.questions
    ]
    (folder / "rows.json").write_text(json.dumps(rows), encoding="utf-8")


def measure(stage: int, precision: str, steps: int, folder: Path, out: Path) -> dict[str, Any]:
    argv = ["train", f"nano-stage{stage}", "--data", str(folder / "rows.json"), "--images", str(folder)]
    argv += ["--out", str(out), "--steps", str(steps), "--precision", precision]
    argv += ["--log-every", "1", "--save-every", "100000"]
    environment = {**os.environ, "PYTHONPATH": str(ROOT / "src")}
    done = subprocess.run(
        [sys.executable, "-c", CHILD, *argv], capture_output=True, text=True, env=environment, check=False
    )
    if done.returncode:
        raise SystemExit(done.stderr[-2000:])
    before = int(done.stdout.split()[0])
    expected = json.loads((out / "expected.json").read_text())
    log = [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]
    peak = max(entry["memory_gb"] for entry in log) * 1e9
    return {
        "seconds": {"expected": round(expected["seconds"], 2), "measured": round(log[-1]["seconds"], 2)},
        "process_mb": {"expected": round(expected["peak"] / 1e6), "measured": round(peak / 1e6)},
        "model_mb": {"counted": round(expected["model"] / 1e6), "grown": round((peak - before) / 1e6)},
    }


def ratios(rows: list[dict[str, Any]]) -> dict[str, Any]:
    """What was expected, as a share of what came."""
    pairs = (("seconds", "expected", "measured"), ("process_mb", "expected", "measured"))
    found: dict[str, Any] = {}
    for name, one, other in (*pairs, ("model_mb", "counted", "grown")):
        values = [row[name][one] / row[name][other] for row in rows]
        found[name] = {"median": round(statistics.median(values), 3), "all": [round(v, 3) for v in values]}
    return found


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--steps", type=int, default=24)
    parser.add_argument("--repeat", type=int, default=3)
    parser.add_argument("--out", type=Path, default=ROOT / "benchmarks" / "results" / "estimate.json")
    arguments = parser.parse_args()
    sys.path.insert(0, str(ROOT / "src"))
    results: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        draw(folder, 100)
        for stage, precision in ((1, "bf16"), (2, "bf16"), (1, "fp32"), (2, "fp32")):
            rows = [
                measure(stage, precision, arguments.steps, folder, folder / f"{stage}-{precision}-{turn}")
                for turn in range(arguments.repeat)
            ]
            results.append({"stage": stage, "precision": precision, "ratio": ratios(rows), "runs": rows})
            print(stage, precision, results[-1]["ratio"], flush=True)
    document = {
        "command": "python " + " ".join(["benchmarks/estimate.py", *sys.argv[1:]]),
        "machine": {"cpus": os.cpu_count(), "python": platform.python_version(), "load": os.getloadavg()[0]},
        "steps": arguments.steps,
        "results": results,
    }
    arguments.out.write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
