"""How fast is training, beside stock trainers? python benchmarks/train.py [--only NAME ...] [--steps 2]

    make peers                                  the environments of the peers, under .peers/
    python benchmarks/train.py                  a decoder of 26M parameters on a CPU, both loads
    python benchmarks/train.py --device cuda --shape 7b --stage 1 --peak-tflops 989
                                                7B or 13B shapes with random weights on a GPU

Ours, transformers' ``Trainer`` with a collator that pads (as the original LLaVA), TRL's ``SFTTrainer`` and
LLaMA-Factory train the same model from the same weights on the same rows in the same steps, in the same
precision, at the same rate; nothing is recomputed unless --recompute says so. Two loads: ``images``, the
lengths of LLaVAR's rows, each with a picture of 576 tokens, and ``mixed``, where 30 % of the rows are text
alone. Everyone decodes and normalises the pictures; rows are tokens already. Stock trainers take
--peer-micro-batch rows at once, padded, and we --micro-batch packs.

Each trainer is a process of its own. All of them wait, and are told in turn to do a round of --steps steps,
so that the machine's moods meet them alike; who begins moves on by one from round to round. The first round,
--warm steps, is not counted. Taken are useful tokens (those of rows, not padding) a second, the share of
waiting for data, the most memory that the process held (on a GPU: torch), and the loss of every step.
``of_best`` is our rate by the best peer's, round by round; ``processor_ratio`` is the same of the time that
the processor was used. With --peak-tflops also the share of the peak (MFU); its formula is in train_sums.py.

``factory-packed`` is LLaMA-Factory with ``neat_packing``: its own packer, over all rows, so that its steps
hold other rows than everyone else's. Its first loss is held against that of the same rows one at a time.
``factory-joined`` (only by --only) is its ``packing`` without ``neat``.

``without`` trains with one of our gains taken away at a time (see train_ours.py), on the first load;
``trainer-1`` there is the stock trainer with one row at a time, which pads nothing.
Writes benchmarks/results/train.json (train-DEVICE-SHAPE-STAGE.json for others); seconds are only worth their
name on an idle machine.

On a GPU trainers run one after the other, each with the GPU to itself; nothing is fetched, and weights are
drawn. --trl may name any Python with transformers and accelerate, if only ``trainer`` is wanted:

    python benchmarks/train.py --device cuda --shape 7b --stage 2 --recompute selective --batch 16 \\
        --only llavar trainer --trl "$(which python)" --without --peak-tflops 989
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT / "src"), str(Path(__file__).resolve().parent)]
from corpus_common import machine  # noqa: E402 - neighbours, wherever this is started from
from train_rows import (  # noqa: E402
    draw_rows,
    head_share,
    in_order,
    load_of,
    shape_of,
    write_model,
    write_pictures,
    write_rows,
)
from train_sums import OURS, Work, beside, gained, summed, work_of  # noqa: E402

from llavar.models.shape import LlavaShape  # noqa: E402
from llavar.train.estimate import count_parameters  # noqa: E402
from llavar.train.llava import DECODER, PROJECTOR, TOWER  # noqa: E402

LOADS = ("images", "mixed")
PEERS = ("trainer", "trl", "factory", "factory-packed")
BY_WISH = ("factory-joined",)
"""Peers that are run only if they are named."""

WITHOUT = ("head", "packing", "recompute", "eager", "sdpa", "tower", "none")


@dataclass(kw_only=True)
class Child:
    """A trainer in a process of its own. ``left_out`` is why there is none."""

    name: str
    process: subprocess.Popen[str] | None = None
    log: Path = Path()
    facts: dict[str, Any] = field(default_factory=dict)
    rounds: list[dict[str, Any]] = field(default_factory=list)
    left_out: str = ""

    def hear(self) -> None:
        """What it says next; one that says nothing more has failed."""
        assert self.process is not None
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        if not line:
            self.process.wait()
            last = [text for text in self.log.read_text(errors="replace").splitlines() if text.strip()][-1:]
            self.left_out = f"it ended with {self.process.returncode}: {' '.join(last)[:300]}"
            return
        said = json.loads(line)
        self.facts |= said.get("ready", {})
        if "steps" in said:
            self.rounds.append(said)

    def go(self) -> None:
        """One round, which is waited for."""
        if self.left_out:
            return
        assert self.process is not None
        assert self.process.stdin is not None
        with suppress(BrokenPipeError):
            self.process.stdin.write("go\n")
            self.process.stdin.flush()
        self.hear()

    def end(self) -> None:
        """It ends by itself after its last round, unless it has more to do; with it end its workers."""
        if self.process is None:
            return
        with suppress(subprocess.TimeoutExpired, BrokenPipeError):
            self.process.communicate(timeout=5)
        with suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.communicate()


def start(name: str, command: list[str], settings: dict[str, Any], folder: Path) -> Child:
    """A child that has loaded its model and waits."""
    out = folder / name
    out.mkdir(parents=True)
    child = Child(name=name, log=out / "log.txt")
    quiet = {"TOKENIZERS_PARALLELISM": "false", "HF_HUB_OFFLINE": "1", "DISABLE_VERSION_CHECK": "1"}
    threads = {"OMP_NUM_THREADS": str(settings["threads"]), "MKL_NUM_THREADS": str(settings["threads"])}
    hidden = {"CUDA_VISIBLE_DEVICES": ""} if settings["device"] == "cpu" else {}
    with child.log.open("w") as log:
        child.process = subprocess.Popen(
            [*command, json.dumps({**settings, "out": str(out / "run")})],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=log,
            text=True,
            env={**os.environ, **quiet, **threads, **hidden},
            start_new_session=True,
        )
    child.hear()
    return child


def commands(arguments: argparse.Namespace) -> dict[str, tuple[list[str], dict[str, Any], str]]:
    """By name: the command, what it is told beside the common settings, and why it cannot be run."""
    here = Path(__file__).resolve().parent
    ours, peers = str(here / "train_ours.py"), str(here / "train_peers.py")
    found: dict[str, tuple[list[str], dict[str, Any], str]] = {
        OURS: ([sys.executable, ours], {"variant": ""}, "")
    }
    for name in (*PEERS, *BY_WISH):
        python = arguments.factory if name.startswith("factory") else arguments.trl
        absent = "" if Path(python).is_file() else f"there is no {python}; make peers, or name a Python"
        found[name] = ([str(python), peers], {"peer": name}, absent)
    return found


def together(
    wanted: dict[str, tuple[list[str], dict[str, Any], str]], settings: dict[str, Any], folder: Path
) -> dict[str, Child]:
    """All of ``wanted`` in turns, round after round."""
    children: dict[str, Child] = {}
    with ExitStack() as stack:
        for name, (command, more, absent) in wanted.items():
            if absent:
                children[name] = Child(name=name, left_out=absent)
            else:
                children[name] = start(name, command, {**settings, **more}, folder)
            stack.callback(children[name].end)
            print(f"  {name}: {children[name].left_out or children[name].facts}", flush=True)
        for number in range(settings["rounds"] + 1):
            for child in turned(list(children.values()), number):
                child.go()
            print(f"  round {number} of {settings['rounds']}", flush=True)
    return children


def turned(children: Sequence[Child], number: int) -> list[Child]:
    """The order of round ``number``: who was first comes last in the next, so that no one is always after."""
    first = number % max(1, len(children))
    return [*children[first:], *children[:first]]


def apart(
    wanted: dict[str, tuple[list[str], dict[str, Any], str]], settings: dict[str, Any], folder: Path
) -> dict[str, Child]:
    """Each of ``wanted`` alone from its start to its end: a GPU holds no two of 7B."""
    found: dict[str, Child] = {}
    for name, command in wanted.items():
        found |= together({name: command}, settings, folder)
    return found


# All of it.


def main() -> None:
    arguments = _arguments()
    held: dict[str, Any] = json.loads(arguments.out.read_text()) if arguments.out.is_file() else {}
    shape = shape_of(arguments.shape)
    with tempfile.TemporaryDirectory(prefix="llavar-train-") as name:
        folder = Path(name)
        dtype = "float32" if arguments.device == "cpu" else "bfloat16"
        _write_model(shape, folder / "model", dtype)
        for load in arguments.loads:
            held[load] = _load(arguments, shape, load, folder)
            _keep(held, arguments.out)
        if arguments.without:
            held["without"] = _without(arguments, shape, folder)
            _keep(held, arguments.out)


def _load(arguments: argparse.Namespace, shape: LlavaShape, load: str, folder: Path) -> dict[str, Any]:
    """All trainers on one load."""
    print(load, flush=True)
    on = machine()
    settings, work = _material(arguments, shape, load, folder / load)
    chosen = arguments.only or (OURS, *PEERS)
    wanted = {name: command for name, command in commands(arguments).items() if name in chosen}
    run = together if arguments.device == "cpu" else apart
    children = run(wanted, settings, folder / load)
    found = {name: summed(child, work, arguments.peak_tflops * 1e12) for name, child in children.items()}
    document = {"machine": on, **_facts(arguments, shape, settings, work), "trainers": found, **beside(found)}
    _show(load, found, document)
    return document


def _without(arguments: argparse.Namespace, shape: LlavaShape, folder: Path) -> dict[str, Any]:
    """Ours with one gain taken away at a time, and the stock trainer that pads nothing."""
    load = (*arguments.loads, *LOADS)[0]
    print(f"without, {load}", flush=True)
    on = machine()
    arguments.rounds, arguments.steps = arguments.without_rounds, arguments.without_steps
    settings, work = _material(arguments, shape, load, folder / "without")
    known = commands(arguments)
    wanted = {OURS: (known[OURS][0], {"variant": "", "profile": arguments.device == "cpu"}, "")}
    wanted |= {name: (known[OURS][0], {"variant": name}, "") for name in arguments.without}
    if not arguments.only or "trainer" in arguments.only:
        command, more, absent = known["trainer"]
        wanted["trainer-1"] = (command, {**more, "peer_micro_batch": 1}, absent)
    run = together if arguments.device == "cpu" else apart
    children = run(wanted, settings, folder / "without")
    found = {name: summed(child, work, arguments.peak_tflops * 1e12) for name, child in children.items()}
    gained(found)
    _show("without", found, {})
    return {"machine": on, "load": load, **_facts(arguments, shape, settings, work), "trainers": found}


def _material(
    arguments: argparse.Namespace, shape: LlavaShape, load: str, folder: Path
) -> tuple[dict[str, Any], Work]:
    """Rows and pictures as files, and what every child is told."""
    folder.mkdir(parents=True, exist_ok=True)
    steps = arguments.warm + arguments.rounds * arguments.steps
    rows = draw_rows(
        load_of(load, arguments.stage),
        steps * arguments.batch,
        shape,
        longest=arguments.max_length,
        seed=LOADS.index(load),
    )
    ordered = in_order(rows, arguments.max_length, seed=0)
    write_rows(rows, folder / "rows.json")
    write_rows(ordered, folder / "ordered.json")
    pictures = folder.parent / "pictures"
    write_pictures(rows, pictures, shape.vision.image_size)
    names = ("device", "stage", "batch", "micro_batch", "peer_micro_batch", "max_length", "precision", "lr")
    names += ("attention", "recompute", "compiled", "liger", "threads", "workers", "warm", "steps", "rounds")
    settings = {name: getattr(arguments, name) for name in names}
    settings |= {
        "model": str(folder.parent / "model"),
        "rows": str(folder / "rows.json"),
        "ordered": str(folder / "ordered.json"),
        "pictures": str(pictures),
        "seed": 0,
    }
    work = work_of(ordered, shape, arguments.stage, arguments.batch, arguments.peer_micro_batch)
    return settings, work


def _write_model(shape: LlavaShape, folder: Path, dtype: str) -> None:
    import torch

    write_model(shape, folder, dtype=getattr(torch, dtype))


def _facts(
    arguments: argparse.Namespace, shape: LlavaShape, settings: dict[str, Any], work: Work
) -> dict[str, Any]:
    told = {name: value for name, value in settings.items() if name not in ("model", "rows", "ordered")}
    told.pop("pictures")
    counts = count_parameters(shape)
    return {
        "command": _command(sys.argv[1:]),
        "shape": arguments.shape,
        "settings": told,
        "parameters": {name: counts[name] for name in (TOWER, PROJECTOR, DECODER)},
        "head_share": round(head_share(shape), 4),
        "useful_tokens_a_row": round(sum(work.useful) / len(work.useful) / arguments.batch, 1),
        "padded_share_of_stock": round(1 - sum(work.useful) / sum(work.padded), 3),
    }


def _command(given: Sequence[str]) -> str:
    """What was asked for; where the peers lie is this machine's affair."""
    paths = ("--trl", "--factory", "--out")
    pairs = zip(given, ("", *given), strict=False)
    kept = [word for word, before in pairs if word not in paths and before not in paths]
    return " ".join(["python benchmarks/train.py", *kept])


def _keep(held: dict[str, Any], out: Path) -> None:
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_text(json.dumps(held, indent=1) + "\n", encoding="utf-8")


def _show(load: str, found: dict[str, dict[str, Any]], document: dict[str, Any]) -> None:
    for name, one in found.items():
        if "left_out" in one:
            print(f"{load:8} {name:10} left out: {one['left_out']}")
            continue
        text = f"{load:8} {name:10} {one['useful_tokens_a_second']:9.1f} useful tokens/s {one['rates']}"
        text += (
            f"  {one['seconds_a_step']:.2f} s/step, waiting {one['waiting_share']:.1%}, {one['peak_mb']} MB"
        )
        text += f", MFU {one['mfu']:.1%}" if "mfu" in one else ""
        print(text + (f", gain {one['gain']} ({one['processor_gain']})" if "gain" in one else ""))
    shown = ("best_peer", "of_best", "ratios", "processor_ratio", "losses_apart", "losses_agree")
    print({name: document[name] for name in shown if name in document}, flush=True)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--only", nargs="+", choices=(OURS, *PEERS, *BY_WISH), metavar="NAME")
    parser.add_argument("--loads", nargs="*", choices=LOADS, default=list(LOADS))
    parser.add_argument("--without", nargs="*", choices=WITHOUT, default=list(WITHOUT))
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--shape", choices=("test", "tiny", "small", "7b", "13b"), default="small")
    parser.add_argument("--stage", type=int, choices=(1, 2), default=2)
    parser.add_argument("--batch", type=int, default=8, help="rows of a step")
    parser.add_argument("--micro-batch", type=int, default=1, help="our packs at once")
    parser.add_argument("--peer-micro-batch", type=int, default=4, help="rows at once of stock trainers")
    parser.add_argument("--max-length", type=int, default=2048, help="tokens of a row and of a pack")
    parser.add_argument("--precision", choices=("bf16", "fp32"), default="bf16")
    parser.add_argument("--attention", choices=("eager", "sdpa", "flex", "varlen"), default="varlen")
    parser.add_argument("--recompute", choices=("none", "selective", "full"), default="none")
    parser.add_argument("--compile", action="store_true", dest="compiled", help="ours")
    parser.add_argument("--liger", action="store_true", help="ours")
    parser.add_argument("--lr", type=float, default=2e-4)
    parser.add_argument("--threads", type=int, default=1, help="of each trainer")
    parser.add_argument("--workers", type=int, default=1, help="of each trainer, to prepare batches")
    parser.add_argument("--warm", type=int, default=1, help="steps before the first round that counts")
    parser.add_argument("--steps", type=int, default=2, help="of a round")
    parser.add_argument("--rounds", type=int, default=3, help="that count")
    parser.add_argument("--without-steps", type=int, default=1, help="of a round where a gain is taken away")
    parser.add_argument("--without-rounds", type=int, default=2, help="that count there")
    parser.add_argument("--peak-tflops", type=float, default=0.0, help="of the device in bf16, for MFU")
    parser.add_argument("--trl", type=Path, default=ROOT / ".peers/trl/bin/python", metavar="PYTHON")
    parser.add_argument("--factory", type=Path, default=ROOT / ".peers/factory/bin/python", metavar="PYTHON")
    parser.add_argument("--out", type=Path)
    found = parser.parse_args()
    if found.batch % found.peer_micro_batch:
        parser.error(f"--batch {found.batch} is no multiple of --peer-micro-batch {found.peer_micro_batch}")
    if found.out is None:
        other = (found.device, found.shape, found.stage) != ("cpu", "small", 2)
        name = f"train-{found.device}-{found.shape}-{found.stage}.json" if other else "train.json"
        found.out = ROOT / "benchmarks" / "results" / name
    return found


if __name__ == "__main__":
    main()
