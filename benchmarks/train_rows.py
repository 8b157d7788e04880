"""What is trained on in the training benchmark: a model with random weights, rows of given lengths, pictures.

Rows are tokens from the start, so that no tokenizer differs: a prompt, for most of them a picture of 576
tokens, a question, and an answer that is learned. Tokens are drawn as words are (Zipf), so that the loss
falls. Pictures are JPEG files of the tower's size: everyone decodes and normalises them, and nobody has to
resize them.
"""

from __future__ import annotations

import json
import math
import random
import shutil
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import NormalDist

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from llavar.chat import IMAGE_PATCH
from llavar.data.pack import order
from llavar.models import _hf as hf
from llavar.models.shape import LlavaShape, ProjectorLayout, TextShape, VisionShape
from llavar.models.tokenizer import load_tokenizer
from llavar.recipes.llavar import llavar_7b_stage1, llavar_13b_stage1
from llavar.records import IGNORE
from llavar.study.nano import weights

PROMPT, QUESTION, SHORTEST = 40, 18, 8
"""Tokens of LLaVA's system prompt, of a question (paper, table 1: 15 to 17), and of the shortest answer."""

_FIRST = 200
"""Tokens below are those of the tokenizer that the folder comes with, special ones among them."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Load:
    """Lengths of rows. ``text`` are the tokens of a row without its picture: their mean and deviation
    (log-normal). A share of ``text_only`` rows has no picture, and else the same lengths.
    """

    text: tuple[float, float]
    text_only: float = 0.0


STAGE2 = Load(text=(320.0, 150.0))
"""The 158K and 16K conversations of stage 2: 850 to 950 tokens a row with the picture."""

STAGE1 = Load(text=(84.0, 30.0))
"""Captions and noisy readings of stage 1: about 660 tokens a row with the picture."""


def load_of(name: str, stage: int) -> Load:
    """``images`` or ``mixed``."""
    load = STAGE1 if stage == 1 else STAGE2
    return replace(load, text_only=0.3) if name == "mixed" else load


def shape_of(name: str) -> LlavaShape:
    """``small`` for a CPU, ``7b``, ``13b``; the smaller ``tiny`` and ``test`` show that things work.

    The projector is LLaVA-1.5's of two layers, since stock trainers would not keep a single one single.
    """
    if name in ("7b", "13b"):
        shape = (llavar_7b_stage1() if name == "7b" else llavar_13b_stage1()).shape
        return replace(shape, projector=ProjectorLayout.MLP)
    width, heads, layers, vocab, pixels = {
        "small": (768, 6, 3, 768, 336),
        "tiny": (384, 3, 3, 384, 336),
        "test": (192, 3, 2, 384, 112),
    }[name]
    return LlavaShape(
        vision=VisionShape(
            image_size=pixels, patch_size=14, hidden=width // 6, layers=6, heads=2, mlp=4 * (width // 6)
        ),
        text=TextShape(
            vocab=vocab,
            hidden=width,
            layers=layers,
            heads=heads,
            kv_heads=heads,
            mlp=width * 8 // 3,
            max_positions=2048,
        ),
        image_token_id=load_tokenizer(weights.folder("nano")).image_patch_id,
        projector=ProjectorLayout.MLP,
    )


def head_share(shape: LlavaShape) -> float:
    """Of the decoder's arithmetic, the head's, if it is applied to every token."""
    text = shape.text
    head = text.vocab * text.hidden
    layer = 2 * text.hidden**2 + 2 * text.hidden * text.kv_heads * text.head_dim + 3 * text.hidden * text.mlp
    return head / (head + text.layers * layer)


def write_model(shape: LlavaShape, folder: Path, *, dtype: torch.dtype, seed: int = 7) -> None:
    """A whole stock folder with random weights, made tensor by tensor, so that 13B fits into memory."""
    model = hf.skeleton(shape)
    generator = torch.Generator().manual_seed(seed)
    state = {name: _drawn(name, value, dtype, generator) for name, value in model.state_dict().items()}
    hf.save_llava(model, folder, state=state)
    nano = weights.folder("nano")
    for name in ("tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "chat_template.jinja"):
        shutil.copyfile(nano / name, folder / name)
    for path in (*folder.glob("*.jinja"), *folder.glob("*.json")):
        # LLaMA-Factory looks for pictures under the name that they have in llava-hf's tokenizers.
        path.write_text(path.read_text(encoding="utf-8").replace(IMAGE_PATCH, "<image>"), encoding="utf-8")


def _drawn(name: str, like: Tensor, dtype: torch.dtype, generator: torch.Generator) -> Tensor:
    """As the models begin, roughly: norms are 1, biases 0, and everything else is small.

    Numbers are those of bf16, whatever they are kept in, since some trainers load nothing else.
    """
    if name.endswith("bias"):
        return torch.zeros(like.shape, dtype=dtype)
    if "norm" in name or "layrnorm" in name:
        return torch.ones(like.shape, dtype=dtype)
    return torch.randn(like.shape, generator=generator).mul_(0.02).bfloat16().to(dtype)


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """Token ids, labels, and the name of the picture (empty: none)."""

    ids: tuple[int, ...]
    labels: tuple[int, ...]
    image: str = ""


def draw_rows(load: Load, count: int, shape: LlavaShape, *, longest: int = 2048, seed: int = 0) -> list[Row]:
    """``count`` rows; every picture is one of its own.

    Lengths are the quantiles of their distribution, shuffled, and so many rows are text alone as should be:
    a few rows are then as many are.
    """
    rng = random.Random(f"train:{seed}")
    ranks = np.arange(1, shape.text.vocab - _FIRST + 1)
    chances = 1 / ranks / (1 / ranks).sum()
    numbers = np.random.default_rng(seed)
    mean, deviation = load.text
    spread = math.sqrt(math.log(1 + (deviation / mean) ** 2))
    least = PROMPT + QUESTION + SHORTEST
    quantiles = [NormalDist().inv_cdf((number + 0.5) / count) for number in range(count)]
    silent = [number < round(load.text_only * count) for number in range(count)]
    rng.shuffle(quantiles)
    rng.shuffle(silent)
    rows: list[Row] = []
    for number, (quantile, text_only) in enumerate(zip(quantiles, silent, strict=True)):
        tokens = 0 if text_only else shape.image_tokens
        drawn = round(math.exp(math.log(mean) - spread**2 / 2 + spread * quantile))
        text = min(max(drawn, least), longest - tokens)
        words = (_FIRST + numbers.choice(len(ranks), text, p=chances)).tolist()
        asked = PROMPT + QUESTION
        ids = (*words[:PROMPT], *[shape.image_token_id] * tokens, *words[PROMPT:])
        labels = (*[IGNORE] * (asked + tokens), *words[asked:])
        rows.append(Row(ids=ids, labels=labels, image="" if text_only else f"{number}.jpg"))
    return rows


def in_order(rows: list[Row], capacity: int, seed: int) -> list[Row]:
    """As our feed takes them in its first epoch."""
    lengths = np.fromiter((len(row.ids) for row in rows), np.int32)
    return [rows[number] for number in order(lengths, capacity, seed=seed)]


def write_rows(rows: list[Row], path: Path) -> None:
    found = [{"input_ids": row.ids, "labels": row.labels, "image": row.image} for row in rows]
    path.write_text(json.dumps(found), encoding="utf-8")


def write_pictures(rows: list[Row], folder: Path, size: int) -> None:
    """Soft shapes with some noise, as large as a JPEG of a photograph is."""
    folder.mkdir(parents=True, exist_ok=True)
    for row in rows:
        if row.image and not (folder / row.image).exists():
            numbers = np.random.default_rng(int(row.image.partition(".")[0]))
            coarse = Image.fromarray(numbers.integers(0, 256, (12, 12, 3), dtype=np.uint8))
            soft = np.asarray(coarse.resize((size, size), Image.Resampling.BICUBIC), np.int16)
            noisy = soft + numbers.integers(-12, 13, soft.shape, dtype=np.int16)
            picture = Image.fromarray(noisy.clip(0, 255).astype(np.uint8))
            picture.save(folder / row.image, quality=90)
