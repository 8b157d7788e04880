"""``llavar ask``."""

from __future__ import annotations

import argparse
import json

from llavar.cli.arguments import Commands, count

_SMALL = 50_000_000
"""Models below this many parameters answer sooner on one thread: more of them mostly wait for each other."""


def add(commands: Commands) -> None:
    parser = commands.add_parser(
        "ask",
        help="ask a model one question about one picture",
        description="Ask a model one question about one picture, a file or a URL.",
    )
    parser.add_argument("image", metavar="IMAGE_OR_URL")
    parser.add_argument("question")
    parser.add_argument(
        "--model",
        default="nano",
        metavar="DIR_OR_HUB_ID",
        help="nano, a model folder, the folder of a demo or tuning, or a hub id (default: %(default)s)",
    )
    parser.add_argument(
        "--conversation", default="", metavar="NAME", help="another conversation than the model's own"
    )
    parser.add_argument(
        "--quantize",
        choices=("int8", "nf4"),
        default="",
        help="keep the decoder's weights in 8 or 4 bits, for less memory (default: as they are stored)",
    )
    parser.add_argument("--max-new-tokens", type=count, default=128, metavar="N")
    parser.add_argument(
        "--json", action="store_true", help="print an object with the answer, model, seconds and quantization"
    )
    parser.set_defaults(command=_ask)


def _ask(arguments: argparse.Namespace) -> int:
    import torch

    from llavar.study.reader import Reader, open_any

    picture = open_any(arguments.image)  # first, since a model may be a long download
    reader = Reader.load(arguments.model, template=arguments.conversation, quantize=arguments.quantize)
    if reader.parameters < _SMALL:
        torch.set_num_threads(1)
    said = reader.answer(picture, arguments.question, max_new_tokens=arguments.max_new_tokens)
    if arguments.json:
        document = {
            "image": arguments.image,
            "question": arguments.question,
            "answer": said.text,
            "model": said.model,
            "seconds": round(said.seconds, 3),
            "quantization": arguments.quantize or None,
        }
        print(json.dumps(document, ensure_ascii=False))
    else:
        print(said.text)
    return 0
