"""``llavar convert build``."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

from llavar.cli.arguments import Commands

_DTYPES = ("float32", "float16", "bfloat16")


def add_build(verbs: Commands) -> None:
    parser = verbs.add_parser(
        "build",
        help="decoder + vision tower -> a new Llava whose projector is untrained",
        description="Put a decoder (Llama, Qwen 2, Qwen 3, Mistral) and a vision tower (CLIP, SigLIP) "
        "together, with a random projector between them, for stage 1 to train. Tensors pass one at a time.",
    )
    parser.add_argument("--decoder", required=True, metavar="DIR_OR_HUB", help="the language model")
    parser.add_argument("--vision-tower", required=True, metavar="DIR_OR_HUB", help="the CLIP or SigLIP")
    parser.add_argument("--out", type=Path, required=True, metavar="DIR", help="folder to write")
    parser.add_argument(
        "--projector",
        choices=("linear", "mlp"),
        default="linear",
        help="linear: the original's one layer (default); mlp: two with a GELU, as in LLaVA-1.5",
    )
    parser.add_argument("--seed", type=_seed, default=0, metavar="N", help="of the projector's random values")
    parser.add_argument("--dtype", choices=_DTYPES, help="of all weights (default: the decoder's)")
    parser.add_argument(
        "--conversation",
        default="",
        metavar="NAME",
        help="a named conversation (default: the decoder's own chat template; llava_v1 for a LLaMA or Vicuna "
        "that has none)",
    )
    parser.add_argument(
        "--no-start-end", action="store_true", help="add <im_patch> alone, without <im_start> and <im_end>"
    )
    parser.add_argument(
        "--select-layer",
        type=int,
        default=-2,
        metavar="N",
        help="which hidden state of the tower is projected (default: %(default)s)",
    )
    parser.add_argument(
        "--transform",
        choices=("pad", "fit", "crop"),
        default="pad",
        help="how pictures are made square (default: %(default)s)",
    )
    parser.add_argument("--json", action="store_true", help="print one object with what was done")
    parser.set_defaults(command=_build)


def _seed(text: str) -> int:
    if not text.isascii() or not text.isdecimal() or int(text) >= 2**63:
        raise argparse.ArgumentTypeError(f"{text!r} is no seed; give a whole number of at least 0")
    return int(text)


def _build(arguments: argparse.Namespace) -> int:
    import torch

    from llavar.images import Transform
    from llavar.models.build import build

    done = build(
        arguments.decoder,
        arguments.vision_tower,
        arguments.out,
        projector=arguments.projector,
        seed=arguments.seed,
        select_layer=arguments.select_layer,
        start_end=not arguments.no_start_end,
        conversation=arguments.conversation,
        dtype=getattr(torch, arguments.dtype) if arguments.dtype else None,
        transform=Transform(arguments.transform),
    )
    for note in done.notes:
        print(f"note: {note}", file=sys.stderr)
    if arguments.json:
        print(json.dumps(done.document(), ensure_ascii=False))
        return 0
    conversation = "its own chat template" if done.conversation == "own" else done.conversation
    print(
        f"{done.family} decoder, {done.image_tokens} tokens a picture, {done.parameters:,} parameters, "
        f"conversation: {conversation}; the projector is untrained\nwritten to {done.folder}"
    )
    return 0
