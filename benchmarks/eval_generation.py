"""Questions answered per second, ours against a loop of one: python benchmarks/eval_generation.py

The same nano model, questions and greedy decoding, four questions on each picture that our own renderer drew:

* ours: ``llavar.evals.run.evaluate`` with batches, each picture encoded once, every reply in the journal;
* loop: one question at a time with stock ``LlavaForConditionalGeneration.generate``, the picture opened,
  prepared and encoded for each, as ``llava/eval/model_vqa.py`` does it (which draws tokens; both are greedy
  here, so that answers can be compared).

Nano answers most of these questions with a word. So the same is measured once more with answers of exactly
24 tokens, about as long as LLaVAR's on the text-VQA sets (11 to 15 words): both go on past the end token.

Both run in turn, several times; loading is not timed. Writes medians of the wall clock and of the processor
time, which other work on the machine disturbs less, all times, and whether the answers are equal to
benchmarks/results/eval-generation.json.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import platform
import statistics
import tempfile
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
MAX_NEW_TOKENS = 48
LONG_ANSWER = 24


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--pictures", type=int, default=100)
    parser.add_argument("--questions", type=int, default=4, help="on each picture")
    parser.add_argument("--batch-size", type=int, default=32)
    parser.add_argument("--repeat", type=int, default=3)
    parser.add_argument("--threads", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--note", default="", help="what else the machine was doing")
    parser.add_argument("--out", type=Path, default=ROOT / "benchmarks" / "results" / "eval-generation.json")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        document = _measure(arguments, Path(folder))
    arguments.out.parent.mkdir(parents=True, exist_ok=True)
    arguments.out.write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")
    print(json.dumps(document, indent=1))


def _measure(arguments: argparse.Namespace, folder: Path) -> dict[str, Any]:
    import torch

    from llavar.generate.local import LocalGenerator
    from llavar.models import _hf
    from llavar.study.nano import weights
    from llavar.study.nano.questions import HELD_OUT, exam, write_pictures

    torch.set_num_threads(arguments.threads)
    asked = exam(arguments.pictures, seed="benchmark", style=HELD_OUT)
    write_pictures(asked.scenes, folder / "pictures", 384)
    questions = [
        question
        for _, group in itertools.groupby(asked.questions, key=lambda question: question.image)
        for question in itertools.islice(group, arguments.questions)
    ]
    ours = LocalGenerator.load(weights.folder("nano"), name="nano")
    stock = _hf.load_llava(weights.folder("nano"))
    endless = LocalGenerator(
        ours._model, replace(ours._tokenizer, eos=None), ours.setup, name="nano without an end token"
    )
    return {
        "machine": f"{platform.machine()}, {os.cpu_count()} cores, {arguments.threads} threads, "
        f"Python {platform.python_version()}, torch {torch.__version__}",
        "note": arguments.note,
        "questions": len(questions),
        "pictures": arguments.pictures,
        "batch_size": arguments.batch_size,
        "own_length": _compared(arguments, folder, questions, ours, stock, MAX_NEW_TOKENS),
        f"{LONG_ANSWER}_tokens": _compared(arguments, folder, questions, endless, stock, LONG_ANSWER),
    }


def _compared(
    arguments: argparse.Namespace, folder: Path, questions: Any, ours: Any, stock: Any, tokens: int
) -> dict[str, Any]:
    """Both in turn, on answers of at most ``tokens`` tokens."""
    from llavar.evals.run import evaluate

    wall: dict[str, list[float]] = {"ours": [], "loop": []}
    processor: dict[str, list[float]] = {"ours": [], "loop": []}
    said: dict[str, list[str]] = {}
    for turn in range(arguments.repeat):
        ours.forget()
        started, used = time.perf_counter(), time.process_time()
        predictions = evaluate(
            ours,
            questions,
            image_root=folder / "pictures",
            out=folder / f"{tokens}-{turn}.jsonl",
            batch_size=arguments.batch_size,
            max_new_tokens=tokens,
        )
        wall["ours"].append(time.perf_counter() - started)
        processor["ours"].append(time.process_time() - used)
        said["ours"] = [prediction.text for prediction in predictions]
        started, used = time.perf_counter(), time.process_time()
        said["loop"] = _loop(stock, ours, questions, folder / "pictures", folder / f"loop{turn}", tokens)
        wall["loop"].append(time.perf_counter() - started)
        processor["loop"].append(time.process_time() - used)
    median = {name: statistics.median(taken) for name, taken in wall.items()}
    cost = {name: statistics.median(taken) for name, taken in processor.items()}
    equal = sum(one == other for one, other in zip(said["ours"], said["loop"], strict=True))
    return {
        "questions_per_second": {name: round(len(questions) / taken, 2) for name, taken in median.items()},
        "times_faster": round(median["loop"] / median["ours"], 2),
        "times_less_processor_time": round(cost["loop"] / cost["ours"], 2),
        "equal_answers": equal,
        "characters_per_answer": round(statistics.mean(map(len, said["ours"])), 2),
        "seconds": {name: [round(value, 3) for value in taken] for name, taken in wall.items()},
        "processor_seconds": {name: [round(v, 3) for v in taken] for name, taken in processor.items()},
    }


def _loop(stock: Any, ours: Any, questions: Any, pictures: Path, out: Path, tokens: int) -> list[str]:
    """``model_vqa.py``'s loop on a stock model: prompt, picture, generate, cut, write, one after another."""
    import torch

    from llavar import chat, images

    tokenizer, setup = ours._tokenizer, ours.setup
    said: list[str] = []
    with out.open("w") as file:
        for question in questions:
            text = chat.prompt(chat.with_image(question.text, first=False), setup.template)
            text = chat.expand_images(text, setup.image_tokens, setup.start_end, patch=setup.patch)
            ids = torch.tensor([tokenizer.encode(text)])
            shown = images.pixels(pictures / question.image, transform=setup.transform, size=setup.size)
            with torch.inference_mode():
                made = stock.generate(
                    input_ids=ids,
                    attention_mask=torch.ones_like(ids),
                    pixel_values=torch.as_tensor(shown)[None],
                    max_new_tokens=tokens,
                    do_sample=False,
                    eos_token_id=tokenizer.eos_id,
                    pad_token_id=tokenizer.pad_id or 0,
                )
            answer = chat.clean_answer(tokenizer.decode(made[0, ids.shape[1] :].tolist()), setup.template)
            file.write(json.dumps({"question_id": question.id, "text": answer}) + "\n")
            said.append(answer)
    return said


if __name__ == "__main__":
    main()
