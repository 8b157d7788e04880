"""``llavar convert export``."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable
from contextlib import AbstractContextManager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from llavar.cli.arguments import Commands

if TYPE_CHECKING:
    from llavar.models.export.base import Exported, Options
    from llavar.models.stream import Progress

_OUTTYPES = ("f32", "f16", "q8_0")


def add_export(
    verbs: Commands,
    size: Callable[[str], int],
    bar: Callable[[], AbstractContextManager[Progress | None]],
) -> None:
    """``size`` reads a number of bytes, ``bar`` shows progress, as the other verbs do."""
    from llavar.models.export import names

    parser = verbs.add_parser(
        "export",
        help="a model folder -> one for vLLM, SGLang, llama.cpp (GGUF) or the Hugging Face hub",
        description="Write a model for another engine. The result appears under --out when it is whole, was "
        "loaded again and compared with the model. Nothing is uploaded unless --push says so.",
    )
    parser.add_argument("model", metavar="MODEL", help="folder or hub id in the stock layout")
    parser.add_argument("--to", required=True, choices=names(), help="what it is for")
    parser.add_argument(
        "--out", type=Path, required=True, metavar="DIR", help="folder to write; new or empty"
    )
    parser.add_argument(
        "--outtype", choices=_OUTTYPES, help="gguf: how large tensors are kept (default: f16)"
    )
    parser.add_argument(
        "--license", default="", metavar="ID", help="hub: the card's licence (default: the model's card's)"
    )
    parser.add_argument(
        "--base-model", action="append", default=[], metavar="OWNER/NAME", help="hub: what it was made from"
    )
    parser.add_argument(
        "--dataset", action="append", default=[], metavar="NAME", help="hub: what it was trained on"
    )
    parser.add_argument(
        "--push", default="", metavar="OWNER/NAME", help="hub: upload there, with your login (hf auth login)"
    )
    parser.add_argument(
        "--private",
        action="store_true",
        help="with --push: a repository of that name is private if it is made",
    )
    parser.add_argument(
        "--max-shard-bytes", type=size, metavar="N", help="most that a file of weights has, e.g. 5GB (10GB)"
    )
    parser.add_argument("--json", action="store_true", help="print one object with what was done")
    parser.set_defaults(command=partial(_export, bar))


def _options(arguments: argparse.Namespace) -> Options:
    from llavar.models.export.base import Options, OutType
    from llavar.models.stream import MAX_SHARD_BYTES

    return Options(
        outtype=OutType(arguments.outtype) if arguments.outtype else None,
        license=arguments.license,
        base_models=tuple(arguments.base_model),
        datasets=tuple(arguments.dataset),
        push=arguments.push,
        private=arguments.private,
        max_shard_bytes=arguments.max_shard_bytes or MAX_SHARD_BYTES,
    )


def _export(bar: Callable[[], AbstractContextManager[Progress | None]], arguments: argparse.Namespace) -> int:
    from llavar.models.export.run import run

    options = _options(arguments)
    with bar() as progress:
        done = run(
            arguments.model,
            arguments.out,
            arguments.to,
            options,
            progress=progress,
            say=lambda text: print(text, file=sys.stderr, flush=True),
        )
    print(json.dumps(done.document(), ensure_ascii=False) if arguments.json else _told(done))
    return 0


def _told(done: Exported) -> str:
    files = "".join(f"\n{file.sha256}  {file.size:>14,}  {file.name}" for file in done.files)
    pushed = f"\nuploaded to {done.pushed}" if done.pushed else ""
    return (
        f"{done.checked.sentence}{files}\n{done.size / 1e9:.3f} GB written to {done.folder}{pushed}\n"
        f"next: {done.command}"
    )
