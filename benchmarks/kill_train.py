"""Does a run that is killed go on bit by bit? python benchmarks/kill_train.py [--kills 50] [--stage 1|2]

Trains a model of a hundred thousand parameters through ``llavar train`` in child processes, kills them with
SIGKILL at random moments, starts the same command again until the run has ended, and compares it with a run
that nobody killed: every number of the log but times, every checkpoint, and the weights of the finished
model, all bit by bit. Three of ten kills wait until a checkpoint is being written, four until steps are made,
and three come at any moment: while the run starts, in a step, while the model is written. Both stages, one
process and two, batches made in the training process and by loader workers. Writes
benchmarks/results/kill_train.json.

Children are forked from this process, which has imported torch, so that a start takes a second or two and
not ten; all else is what the command does. Two processes get the environment that torchrun gives them, and
when one was killed the other gets the SIGTERM that torchrun sends.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import platform
import random
import shutil
import signal
import socket
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent

MEASURED = (
    *("samples_per_second", "tokens_per_second", "useful_tokens_per_second", "wait", "seconds", "left"),
    *("mfu", "memory_gb"),
)
"""Fields of the log that tell what the machine did; all others have to be equal."""

WORDS = ("STOP", "GO", "EXIT", "OPEN 24 h", "Mind the gap", "NO", "Sale 50%")
GRACE = 20.0
"""Seconds until a process that lost the others is killed too, which counts as a fault."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Scenario:
    """What is trained, in how many processes, with how many loader workers each."""

    stage: int
    world: int = 1
    workers: int = 0
    kills: int = 0

    @property
    def name(self) -> str:
        return f"stage {self.stage}, {self.world} process{'es' * (self.world > 1)}, {self.workers} workers"


@dataclass(slots=True, kw_only=True)
class Outcome:
    """What came of a scenario. ``moments`` counts kills by what they struck."""

    kills: int = 0
    runs: int = 0
    moments: Counter[str] = field(default_factory=Counter[str])
    differences: list[str] = field(default_factory=list[str])


class Material:
    """A tiny model, 26 rows, four held out, and their pictures, in ``folder``."""

    def __init__(self, folder: Path, *, steps: int = 24) -> None:
        self.folder, self.steps = folder, steps
        wait_for(forked(lambda: make_material(folder), folder / "material.log"))

    def command(self, scenario: Scenario, out: Path) -> list[str]:
        data, model = str(self.folder / "rows.json"), str(self.folder / "tiny")
        argv = ["train", f"nano-stage{scenario.stage}", "--model", model, "--data", data]
        argv += ["--images", str(self.folder), "--out", str(out), "--steps", str(self.steps)]
        argv += ["--batch", "4", "--micro-batch", "2", "--max-length", "128", "--save-every", "3"]
        argv += ["--log-every", "2", "--keep", "99", "--packing", "--workers", str(scenario.workers)]
        argv += ["--validate", str(self.folder / "held.json"), "--validate-every", "7"]
        return argv


def make_material(folder: Path) -> None:
    """Runs in a child, so that this process never computes with torch before it forks."""
    import torch
    from PIL import Image, ImageDraw

    from llavar.models import _hf as hf
    from llavar.models.shape import LlavaShape, TextShape, VisionShape
    from llavar.models.tokenizer import nano_tokenizer

    tokens = nano_tokenizer()
    text = TextShape(
        vocab=tokens.vocab_size, hidden=64, layers=2, heads=4, kv_heads=2, mlp=96, max_positions=512
    )
    shape = LlavaShape(
        vision=VisionShape(image_size=16, patch_size=8, hidden=32, layers=2, heads=2, mlp=48),
        text=text,
        image_token_id=tokens.image_patch_id,
        vision_feature_layer=-1,
    )
    hf.save_llava(hf.build_llava(shape, seed=2), folder / "tiny", dtype=torch.float32)
    tokens.save(folder / "tiny")
    rows: list[dict[str, object]] = []
    for number in range(30):
        picture = Image.new("RGB", (40, 30), "white")
        ImageDraw.Draw(picture).rectangle((2, 2 + number % 9, 10 + number, 20), fill="black")
        picture.save(folder / f"{number}.png")
        seen = number % 4 > 0
        asked = "<image>\nWhat does it say?" if seen else f"Say word {number}."
        talk = [{"from": "human", "value": asked}, {"from": "gpt", "value": WORDS[number % len(WORDS)]}]
        rows.append({"id": str(number), "conversations": talk} | ({"image": f"{number}.png"} if seen else {}))
    (folder / "rows.json").write_text(json.dumps(rows[:-4]), encoding="utf-8")
    (folder / "held.json").write_text(json.dumps(rows[-4:]), encoding="utf-8")


# Processes.


def forked(work: Any, log: Path, environment: Mapping[str, str] | None = None) -> int:
    """Run ``work`` in a copy of this process; returns its number."""
    pid = os.fork()
    if pid:
        return pid
    status = 1
    try:
        os.environ.update(environment or {})
        said = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        os.dup2(said, 1)
        os.dup2(said, 2)
        status = int(work() or 0)
    except BaseException:  # noqa: BLE001 - nothing may return into the copy of the parent
        import traceback

        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status)


def wait_for(pid: int) -> None:
    _, status = os.waitpid(pid, 0)
    if status:
        raise SystemExit(f"a child ended with status {status}")


class Started:
    """The processes of one start of the command."""

    def __init__(self, command: Sequence[str], world: int, log: Path) -> None:
        from llavar.cli import main

        shared = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free_port()), "WORLD_SIZE": str(world)}
        self.statuses: dict[int, int] = {}
        self.pids = [
            forked(
                lambda: main(command),
                log,
                {**shared, "RANK": str(rank), "LOCAL_RANK": str(rank)} if world > 1 else {},
            )
            for rank in range(world)
        ]

    @property
    def running(self) -> list[int]:
        for pid in self.pids:
            if pid not in self.statuses and (found := os.waitpid(pid, os.WNOHANG))[0]:
                self.statuses[pid] = os.waitstatus_to_exitcode(found[1])
        return [pid for pid in self.pids if pid not in self.statuses]

    def end(self) -> bool:
        """Wait for all, and ask those to stop that outlive another; False if one had to be killed."""
        asked = 0.0
        while running := self.running:
            if len(running) < len(self.pids) and any(self.statuses.values()):
                if not asked:
                    asked = time.monotonic()
                    self.send(running, signal.SIGTERM)
                elif time.monotonic() - asked > GRACE:
                    self.send(running, signal.SIGKILL)
                    for pid in running:
                        self.statuses[pid] = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
                    return False
            time.sleep(0.002)
        return True

    @staticmethod
    def send(pids: Sequence[int], number: signal.Signals) -> None:
        for pid in pids:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, number)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


# Killing.


def killed(started: Started, out: Path, rng: random.Random, whole: float) -> bool:
    """Kill it at a moment drawn from ``rng``; False if it ended before. ``whole`` is what a run takes."""
    kind = rng.choices(("any", "steps", "checkpoint"), (3, 4, 3))[0]
    if kind == "any":
        struck = reached(started, lambda: False, rng.uniform(0, whole))
    elif kind == "steps":
        logged, wanted = set[tuple[int, int]](), 2 + rng.randrange(6)
        # The log is first rewound, and then grows by a line at a time.
        struck = reached(started, lambda: len(seen(out / "metrics.jsonl", logged)) >= wanted, 9 * whole)
        time.sleep(rng.uniform(0, 0.05))
    else:
        written, passed = set(being_written(out)), rng.randrange(9)
        known = len(written)
        struck = reached(
            started, lambda: len(written.update(being_written(out)) or written) > known + passed, 9 * whole
        )
    running = started.running
    if not struck or not running:
        return False
    # Of several processes sometimes one alone, as when memory runs out.
    started.send(running if rng.random() < 0.5 else [rng.choice(running)], signal.SIGKILL)
    return True


def reached(started: Started, here: Callable[[], bool], seconds: float) -> bool:
    """Wait until it is ``here`` or ``seconds`` have passed; False if a process ended before."""
    until = time.monotonic() + seconds
    while time.monotonic() < until and not here():
        if len(started.running) < len(started.pids):
            return False
        time.sleep(0.0003)
    return True


def seen(path: Path, before: set[tuple[int, int]]) -> set[tuple[int, int]]:
    """The states that a file was seen in."""
    with contextlib.suppress(FileNotFoundError):
        found = path.stat()
        before.add((found.st_mtime_ns, found.st_size))
    return before


def being_written(out: Path) -> list[tuple[str, int]]:
    """Checkpoints that are not whole, and when they were last written to."""
    found: list[tuple[str, int]] = []
    with contextlib.suppress(FileNotFoundError):
        for entry in os.scandir(out / "checkpoints"):  # asked thousands of times a second
            if entry.name.endswith(".partial"):
                with contextlib.suppress(FileNotFoundError):
                    found.append((entry.name, entry.stat().st_mtime_ns))
    return found


@dataclass(frozen=True, slots=True, kw_only=True)
class Before:
    """What a start finds: the last step of the log, and what earlier kills left half written."""

    step: int
    written: tuple[tuple[str, int], ...]


def found_by_a_start(out: Path) -> Before:
    return Before(step=last_step(out), written=tuple(being_written(out)))


def moment(out: Path, before: Before, steps: int) -> str:
    """What a kill struck, from what it left."""
    if set(being_written(out)) - set(before.written):
        return "a checkpoint half written"
    if (out / "model").exists() or checkpoint_steps(out)[-1:] == [steps]:
        return "after the last step, the model unfinished"
    return "in a step, or between two" if last_step(out) > before.step else "before a new step was logged"


def last_step(out: Path) -> int:
    lines = (out / "metrics.jsonl").read_text().splitlines() if (out / "metrics.jsonl").exists() else []
    for line in reversed(lines):
        with contextlib.suppress(ValueError):
            return int(json.loads(line)["step"])
    return 0


def checkpoint_steps(out: Path) -> list[int]:
    return sorted(int(path.stem.removeprefix("step-")) for path in (out / "checkpoints").glob("step-*.pt"))


# Comparing.


def differences(one: Path, other: Path) -> list[str]:
    """What differs between an uninterrupted run and another, in few words each."""
    found: list[str] = []
    first, second = ([strip(line) for line in lines(run / "metrics.jsonl")] for run in (one, other))
    if first != second:
        odd = next((a for a, b in zip(first, second, strict=False) if a != b), "their number")
        found.append(f"the log, at {odd}")
    for name in ("validation.jsonl", "samples.jsonl"):
        first, second = ([strip(line) for line in lines(run / name)] for run in (one, other))
        if first != second:
            found.append(name)
    # A process that lost another saves its last step besides.
    if missing := set(checkpoint_steps(one)) - set(checkpoint_steps(other)):
        found.append(f"checkpoints {sorted(missing)} are missing")
    for step in sorted(set(checkpoint_steps(one)) & set(checkpoint_steps(other))):
        name = f"checkpoints/step-{step:08d}.pt"
        if not same(read(one / name), read(other / name)):
            found.append(name)
    weights = sorted((one / "model").glob("*.safetensors"))
    for path in weights:
        if path.read_bytes() != (other / "model" / path.name).read_bytes():
            found.append(f"model/{path.name}")
    if not weights:
        found.append("no weights to compare")
    for path in one.glob("mm_projector.bin"):
        if not same(read(path), read(other / path.name)):
            found.append(path.name)
    return found


def lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def strip(entry: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in entry.items() if name not in MEASURED}


def read(path: Path) -> Any:
    import torch

    return torch.load(path, weights_only=True)


def same(one: Any, other: Any) -> bool:
    """Equal in structure and in every bit of every tensor."""
    import torch

    if isinstance(one, torch.Tensor):
        if not isinstance(other, torch.Tensor) or one.dtype != other.dtype or one.shape != other.shape:
            return False
        return one.numpy().tobytes() == other.numpy().tobytes()
    if isinstance(one, dict):
        return one.keys() == other.keys() and all(same(value, other[key]) for key, value in one.items())
    if isinstance(one, list | tuple):
        return len(one) == len(other) and all(same(a, b) for a, b in zip(one, other, strict=True))
    return type(one) is type(other) and one == other


# The whole.


def straight(material: Material, scenario: Scenario, out: Path) -> float:
    """The run that nobody kills; returns its seconds."""
    begun = time.monotonic()
    started = Started(material.command(scenario, out), scenario.world, out.with_suffix(".log"))
    started.end()
    if any(started.statuses.values()):
        raise SystemExit(f"the run without kills failed: {tail(out.with_suffix('.log'))}")
    return time.monotonic() - begun


def tail(log: Path) -> str:
    return "\n".join(log.read_text(errors="replace").splitlines()[-12:])


def tortured(
    material: Material, scenario: Scenario, reference: Path, whole: float, folder: Path, rng: random.Random
) -> Outcome:
    """Runs that are killed until ``scenario.kills`` have struck, each compared once it has ended."""
    outcome = Outcome()
    while outcome.kills < scenario.kills:
        out = folder / f"run{outcome.runs}"
        outcome.runs += 1
        while True:
            before = found_by_a_start(out)
            started = Started(material.command(scenario, out), scenario.world, out.with_suffix(".log"))
            strikes = outcome.kills < scenario.kills and killed(started, out, rng, whole)
            if not started.end():
                outcome.differences.append("a process that lost the others did not end")
            if not strikes:
                break
            outcome.kills += 1
            outcome.moments[moment(out, before, material.steps)] += 1
        if any(started.statuses.values()):
            outcome.differences.append(f"it did not go on: {tail(out.with_suffix('.log'))}")
            break
        outcome.differences += [f"run {outcome.runs}: {what}" for what in differences(reference, out)]
        shutil.rmtree(out)
    return outcome


def scenarios(kills: int, stages: Sequence[int], workers: int | None) -> list[Scenario]:
    """Seven of ten kills on one process, three of ten on two; shared among stages and numbers of workers."""
    counts = (0, 2) if workers is None else (workers,)
    alone = [(stage, 1, count) for count in counts for stage in stages]
    pairs = [(stage, 2, counts[0]) for stage in stages]
    shares = [0.7 * kills / len(alone)] * len(alone) + [0.3 * kills / len(pairs)] * len(pairs)
    made: list[Scenario] = []
    given = total = 0.0
    for (stage, world, count), share in zip([*alone, *pairs], shares, strict=True):
        total += share
        made.append(Scenario(stage=stage, world=world, workers=count, kills=round(total) - round(given)))
        given = total
    return [scenario for scenario in made if scenario.kills]


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--kills", type=int, default=50)
    parser.add_argument("--stage", type=int, choices=(1, 2), help="one stage only (both)")
    parser.add_argument("--workers", type=int, metavar="N", help="loader workers (0 and 2)")
    parser.add_argument("--seed", type=int, default=0, help="of the moments; the machine adds its own chance")
    parser.add_argument("--out", type=Path, default=ROOT / "benchmarks" / "results" / "kill_train.json")
    arguments = parser.parse_args()
    os.environ["OMP_NUM_THREADS"] = "1"  # a forked copy of a thread pool would wait for ever
    sys.path.insert(0, str(ROOT / "src"))
    warm()
    stages = (arguments.stage,) if arguments.stage else (1, 2)
    begun, rng = time.monotonic(), random.Random(arguments.seed)
    with tempfile.TemporaryDirectory() as name:
        rows = run_all(Path(name), scenarios(arguments.kills, stages, arguments.workers), rng)
    document = {
        "command": "python " + " ".join(["benchmarks/kill_train.py", *sys.argv[1:]]),
        "machine": machine(),
        "kills": sum(row["kills"] for row in rows),
        "runs": sum(row["runs"] for row in rows),
        "moments": dict(sum((Counter(row["moments"]) for row in rows), Counter[str]())),
        "bit_identical": not any(row["differences"] for row in rows),
        "compared": "the log but for times, the log of validation, every checkpoint of the uninterrupted "
        "run, the model, mm_projector.bin",
        "seconds": round(time.monotonic() - begun),
        "scenarios": rows,
    }
    arguments.out.parent.mkdir(parents=True, exist_ok=True)
    arguments.out.write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")
    print(f"{document['kills']} kills, bit identical: {document['bit_identical']}; {arguments.out}")
    if not document["bit_identical"]:
        raise SystemExit(1)


def warm() -> None:
    """Import what every start needs, once."""
    import torch

    torch.set_num_threads(1)
    import transformers.models.clip.modeling_clip
    import transformers.models.llama.modeling_llama
    import transformers.models.llava.modeling_llava  # noqa: F401

    import llavar.recipes.catalogue
    import llavar.study.training
    import llavar.train.job  # noqa: F401


def run_all(folder: Path, asked: Sequence[Scenario], rng: random.Random) -> list[dict[str, Any]]:
    material = Material(folder)
    references: dict[tuple[int, int], Path] = {}
    rows: list[dict[str, Any]] = []
    for number, scenario in enumerate(asked):
        place = folder / f"scenario{number}"
        place.mkdir()
        begun = time.monotonic()
        whole = straight(material, scenario, place / "straight")
        # The first one is without workers, because their number must change nothing either.
        reference = references.setdefault((scenario.stage, scenario.world), place / "straight")
        differing = differences(reference, place / "straight")
        found = tortured(material, scenario, reference, whole, place, rng)
        found.differences += [f"without kills: {what}" for what in differing]
        rows.append(
            {
                "stage": scenario.stage,
                "processes": scenario.world,
                "workers": scenario.workers,
                "kills": found.kills,
                "runs": found.runs,
                "moments": dict(found.moments),
                "seconds": round(time.monotonic() - begun),
                "seconds_without_kills": round(whole, 1),
                "differences": found.differences,
            }
        )
        print(f"{scenario.name}: {found.kills} kills in {found.runs} runs, {dict(found.moments)}", flush=True)
        for what in found.differences:
            print(f"  DIFFERS: {what}", flush=True)
    return rows


def machine() -> dict[str, object]:
    import torch

    return {"cpus": os.cpu_count(), "python": platform.python_version(), "torch": torch.__version__}


if __name__ == "__main__":
    main()
