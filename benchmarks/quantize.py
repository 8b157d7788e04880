"""What 8 and 4 bits cost and save: python benchmarks/quantize.py

The shipped nano answers its held-out exam (pictures of unseen words, fonts and layouts) in
fp32, with int8 and with nf4, greedily, on this machine's CPU. Taken for each:

* ``decoder_bytes``, ``model_bytes``: parameters and buffers of the decoder's layers, and of everything;
* ``equal``: the share of answers that are those of fp32 to the character;
* ``scores``: the exam's own;
* ``logits``: at every token of fp32's answers (at most 32 of each), fed to each model after picture and
  question: the largest and the mean absolute difference to fp32's logits, that mean relative to their
  standard deviation, the mean total variation between the two distributions, and how often the likeliest
  token is another;
* ``cpu_seconds``: of the processor for all answers, loading not included; other programs disturb it little.

``shapes`` are the bytes of LLaVAR-13B and of its 7B sibling in fp16, with int8 and with nf4, added up over
tensors of those shapes without values. ``loading`` is measured: a model of 13B's widths with ``--layers``
layers, random values and fp16 on the disk is loaded, computed in bf16, each time in a process of its own;
``peak_anonymous`` is the highest RssAnon of it, asked every 5 ms, ``libraries`` that of a process that only
imports, and ``model_bytes`` what the model takes in the end. Results go to benchmarks/results/quantize.json.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from llavar.evals.exam import summarise
from llavar.generate.base import Request
from llavar.generate.local import LocalGenerator
from llavar.models import folder as folders
from llavar.models import lean, quantize, steps, stream
from llavar.models.lean import LeanLlava
from llavar.models.quantize import Quantization
from llavar.models.shape import LlavaShape, TextShape, VisionShape
from llavar.models.stream import Planned
from llavar.records import Prediction, Status
from llavar.study.nano import weights
from llavar.study.nano.questions import Exam, exam, write_pictures

ROOT = Path(__file__).resolve().parent.parent
SIZE = 96
MOST = 32
TOWER = VisionShape(image_size=336, patch_size=14, hidden=1024, layers=24, heads=16, mlp=4096)
SHAPES = {
    "7B": TextShape(
        vocab=32003, hidden=4096, layers=32, heads=32, kv_heads=32, mlp=11008, max_positions=2048
    ),
    "13B": TextShape(
        vocab=32003, hidden=5120, layers=40, heads=40, kv_heads=40, mlp=13824, max_positions=2048
    ),
}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--pictures", type=int, default=100)
    parser.add_argument("--layers", type=int, default=4)
    parser.add_argument("--child", nargs=2, help=argparse.SUPPRESS)
    parser.add_argument("--out", type=Path, default=ROOT / "benchmarks" / "results" / "quantize.json")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    if arguments.child:
        print(json.dumps(_load(*arguments.child)))
        return
    asked = exam(arguments.pictures)
    with tempfile.TemporaryDirectory() as folder:
        write_pictures(asked.scenes, Path(folder), SIZE)
        exact = _measure(None, asked, Path(folder))
        measured = {"fp32": exact}
        for kind in Quantization:
            measured[kind.value] = _measure(kind, asked, Path(folder), exact["answers"])
    document = {
        "command": f"python benchmarks/quantize.py --pictures {arguments.pictures}",
        "machine": {
            "python": platform.python_version(),
            "torch": torch.__version__,
            "cpu": platform.processor() or platform.machine(),
            "cores": os.cpu_count(),
            "threads": 1,
        },
        "model": "nano",
        "pictures": arguments.pictures,
        "questions": len(asked.questions),
        "results": {name: _compared(one, exact) for name, one in measured.items()},
        "shapes": {name: _sizes(text) for name, text in SHAPES.items()},
        "loading": {"layers": arguments.layers, **_loading(arguments.layers)},
    }
    arguments.out.parent.mkdir(parents=True, exist_ok=True)
    arguments.out.write_text(json.dumps(document, indent=2) + "\n")
    print(json.dumps(document["results"], indent=2))


def _measure(
    kind: Quantization | None, asked: Exam, pictures: Path, fed: list[str] | None = None
) -> dict[str, Any]:
    """``fed`` are the answers that are fed to the model to look at its logits; by default its own."""
    generator = LocalGenerator.load(weights.folder("nano"), quantize=kind)
    requests = [
        Request(image=pictures / question.image, question=question.text, max_new_tokens=96)
        for question in asked.questions
    ]
    started = time.process_time()
    answers = [generator.answer([request])[0] for request in requests]
    seconds = time.process_time() - started
    model: Any = generator._model
    said = [
        Prediction(question=question.id, status=Status.OK, text=text, seconds=0.0)
        for question, text in zip(asked.questions, answers, strict=True)
    ]
    scores = summarise(asked.questions, said, "nano").scores
    return {
        "answers": answers,
        "logits": _logits(generator, requests, fed or answers),
        "seconds": seconds,
        "decoder_bytes": quantize.bytes_of(model.get_submodule("language_model.model.layers")),
        "model_bytes": quantize.bytes_of(model),
        "scores": {name: round(score.value, 4) for name, score in scores.items()},
    }


@torch.inference_mode()
def _logits(generator: LocalGenerator, requests: list[Request], fed: list[str]) -> torch.Tensor:
    """(tokens, vocabulary): what each model expects at each token of the answers."""
    rows: list[torch.Tensor] = []
    for request, answer in zip(requests, fed, strict=True):
        ids = torch.tensor([generator._prompt(request)])
        seen = generator._seen([request.image]) if request.image is not None else None
        running = steps.begin(generator._model, ids, torch.ones_like(ids), seen)
        for token in generator._tokenizer.encode(f" {answer}</s>")[1 : 1 + MOST]:
            rows.append(running.logits[0])
            running.step(torch.tensor([token]))
    return torch.stack(rows)


def _compared(one: dict[str, Any], exact: dict[str, Any]) -> dict[str, Any]:
    difference = (one["logits"] - exact["logits"]).abs()
    variation = (one["logits"].softmax(-1) - exact["logits"].softmax(-1)).abs().sum(-1) / 2
    pairs = list(zip(one["answers"], exact["answers"], strict=True))
    return {
        "decoder_bytes": one["decoder_bytes"],
        "model_bytes": one["model_bytes"],
        "equal": round(sum(a == b for a, b in pairs) / len(pairs), 4),
        "scores": one["scores"],
        "logits": {
            "largest": round(float(difference.max()), 4),
            "mean": round(float(difference.mean()), 4),
            "mean_relative": round(float(difference.mean() / exact["logits"].std()), 5),
            "total_variation": round(float(variation.mean()), 5),
            "other_likeliest": round(
                float((one["logits"].argmax(-1) != exact["logits"].argmax(-1)).float().mean()), 5
            ),
            "tokens": len(difference),
        },
        "cpu_seconds": round(one["seconds"], 1),
    }


def _sizes(text: TextShape) -> dict[str, int]:
    shape = LlavaShape(vision=TOWER, text=text, image_token_id=32000)
    sizes: dict[str, int] = {}
    for kind in (None, *Quantization):
        with torch.device("meta"):
            model = LeanLlava(shape).half()
            if kind is not None:
                quantize.quantize(model, kind)
        sizes[kind.value if kind else "fp16"] = quantize.bytes_of(model)
    return sizes


def _loading(layers: int) -> dict[str, Any]:
    with tempfile.TemporaryDirectory() as folder:
        _write_wide(Path(folder), layers)
        found = {name: _peak(folder, name) for name in ("import", "bf16", *Quantization)}
    libraries = found.pop("import")["peak_anonymous"]
    return {"libraries": libraries, "models": found}


def _write_wide(folder: Path, layers: int) -> None:
    shape = LlavaShape(vision=TOWER, text=replace(SHAPES["13B"], layers=layers), image_token_id=32000)
    with torch.device("meta"):
        names = LeanLlava(shape).state_dict()
    plan = [
        Planned(name=name, shape=tuple(t.shape), dtype=torch.float16, make=_random(tuple(t.shape)))
        for name, t in names.items()
    ]
    folders.write_document(folder, "config.json", shape.config())
    stream.write(folder, plan)


def _random(shape: tuple[int, ...]) -> Callable[[], torch.Tensor]:
    return lambda: (torch.rand(shape) - 0.5).half() / 10


def _peak(folder: str, kind: str) -> dict[str, int]:
    command = [sys.executable, __file__, "--child", folder, kind]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    status, peak = Path(f"/proc/{process.pid}/status"), 0
    while process.poll() is None:
        lines = status.read_text().splitlines() if status.exists() else []
        anonymous = next((int(line.split()[1]) for line in lines if line.startswith("RssAnon")), 0)
        peak = max(peak, anonymous << 10)
        time.sleep(0.005)
    told = json.loads(process.communicate()[0])
    return {"peak_anonymous": peak, **told}


def _load(folder: str, kind: str) -> dict[str, int]:
    if kind == "import":
        return {}
    if kind == "bf16":
        model = lean.load(Path(folder), dtype=torch.bfloat16)
    else:
        model = quantize.load(Path(folder), Quantization(kind), dtype=torch.bfloat16)
    return {"model_bytes": quantize.bytes_of(model)}


if __name__ == "__main__":
    main()
