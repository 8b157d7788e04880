"""``llavar convert``: checkpoints of the original in and out, deltas and adapters."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Generator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from llavar.cli.arguments import Commands
from llavar.cli.convert_build import add_build
from llavar.cli.convert_export import add_export

if TYPE_CHECKING:
    from llavar.models import delta, lora
    from llavar.models.stream import Progress

_UNITS = {"KB": 10**3, "MB": 10**6, "GB": 10**9}
_DTYPES = ("float32", "float16", "bfloat16")
_LAYOUTS = ("fold", "identity")
_TRANSFORMS = ("pad", "fit", "crop")


def add(commands: Commands) -> None:
    parser = commands.add_parser(
        "convert",
        help="bring checkpoints of the original LLaVA to today's layout and back; deltas, LoRA",
        description="Convert checkpoints. Tensors pass one at a time, so 13B needs about 1 GB of memory.",
    )
    verbs = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)
    for verb in _VERBS:
        verb(verbs)


def _add_from_llava(verbs: Commands) -> None:
    parser = verbs.add_parser(
        "from-llava",
        help="the original's layout -> a folder that transformers, vLLM and SGLang load",
        description="Convert a checkpoint of the original LLaVA (v0, v1, LLaVAR; LLaMA decoders, one linear "
        "projector). The result appears under --out when it is whole and passed its self-test: every tensor "
        "compared, the projector against W x + b and, up to 500 million parameters, a forward pass.",
    )
    parser.add_argument(
        "src",
        metavar="SRC",
        help="folder or hub id of a full checkpoint; with --base, the folder of a delta, or a projector's "
        "file (mm_projector.bin, llava-13b-pretrain.bin)",
    )
    parser.add_argument("--out", type=Path, required=True, metavar="DIR", help="folder to write")
    parser.add_argument(
        "--vision-tower",
        metavar="DIR_OR_HUB",
        help="the CLIP tower (default: what config.json names; a path there is looked for from SRC upwards)",
    )
    parser.add_argument("--base", type=Path, metavar="DIR", help="the LLaMA that a delta or projector is of")
    parser.add_argument(
        "--layout",
        choices=_LAYOUTS,
        default="fold",
        help="how the one projector layer is kept in the stock two: fold (default; right in every engine, "
        "needs a decoder twice as wide as the tower), identity (any width; vLLM needs an override, which "
        "the card gives)",
    )
    parser.add_argument(
        "--conversation",
        default="",
        metavar="NAME",
        help="llava_v1, multimodal ... (default: as the original, by 'v1', 'v0' or 'mpt' in the folder's "
        "name; else by the vocabulary)",
    )
    parser.add_argument(
        "--transform",
        choices=_TRANSFORMS,
        help="how pictures are made square (default: the config's, or pad)",
    )
    parser.add_argument(
        "--no-start-end",
        action="store_true",
        help="for a projector's file: add <im_patch> alone, without <im_start> and <im_end>",
    )
    parser.add_argument("--dtype", choices=_DTYPES, help="of all weights (default: each keeps its own)")
    parser.add_argument("--no-self-test", action="store_true", help="do not load and compare the result")
    _add_common(parser)
    parser.set_defaults(command=_from_llava)


def _from_llava(arguments: argparse.Namespace) -> int:
    import torch

    from llavar.images import Transform
    from llavar.models.convert import Options, from_llava
    from llavar.models.shape import ProjectorLayout

    options = Options(
        layout=ProjectorLayout(arguments.layout),
        conversation=arguments.conversation,
        transform=Transform(arguments.transform) if arguments.transform else None,
        start_end=not arguments.no_start_end,
        dtype=getattr(torch, arguments.dtype) if arguments.dtype else None,
        self_test=not arguments.no_self_test,
        **_shards(arguments),
    )
    with _bar() as progress:
        done = from_llava(
            arguments.src,
            arguments.out,
            vision_tower=arguments.vision_tower,
            base=arguments.base,
            options=options,
            progress=progress,
            say=_say,
        )
    tested = "not tested (--no-self-test)" if done.tested is None else done.tested.sentence()
    _report(arguments, done.document(), f"{tested}\nwritten to {done.folder}, with README.md and checksums")
    return 0


def _add_to_llava(verbs: Commands) -> None:
    parser = verbs.add_parser(
        "to-llava",
        help="a converted folder -> the original's layout, or its projector alone",
        description="Convert back to the original's names, config.json and tokenizer files, in safetensors. "
        "tokenizer.model is copied where it is there; it cannot be made from tokenizer.json.",
    )
    parser.add_argument("model", metavar="HF_DIR", help="folder or hub id in the stock layout")
    parser.add_argument("--out", type=Path, required=True, metavar="DIR", help="folder to write")
    parser.add_argument(
        "--projector-only",
        action="store_true",
        help="write mm_projector.bin alone, into --out or as --out if that ends in .bin",
    )
    parser.add_argument(
        "--vision-tower",
        default="",
        metavar="NAME",
        help="what config.json calls the tower, e.g. openai/clip-vit-large-patch14-336 (default: the tower "
        "is written to OUT/vision_tower and called that)",
    )
    _add_common(parser)
    parser.set_defaults(command=_to_llava)


def _to_llava(arguments: argparse.Namespace) -> int:
    from llavar.models.convert import to_llava, to_projector

    if arguments.projector_only:
        done = to_projector(arguments.model, arguments.out)
    else:
        with _bar() as progress:
            done = to_llava(
                arguments.model,
                arguments.out,
                vision_tower=arguments.vision_tower,
                progress=progress,
                **_shards(arguments),
            )
    for note in done.notes:
        _say(f"note: {note}")
    document = {"path": str(done.path), "tensors": done.tensors, "notes": list(done.notes)}
    _report(arguments, document, f"{done.tensors} tensors written to {done.path}")
    return 0


def _add_apply_delta(verbs: Commands) -> None:
    parser = verbs.add_parser(
        "apply-delta",
        help="LLaMA + delta -> the full checkpoint, in the original's layout",
        description="Add a delta to its base, bit for bit as the original did. 'from-llava --base' does this "
        "and the conversion at once.",
    )
    parser.add_argument("--base", type=Path, required=True, metavar="DIR", help="the LLaMA it is of")
    parser.add_argument("--delta", type=Path, required=True, metavar="DIR")
    parser.add_argument("--out", type=Path, required=True, metavar="DIR", help="folder to write")
    _add_common(parser)
    _add_checksums(parser)
    parser.set_defaults(command=_apply_delta)


def _apply_delta(arguments: argparse.Namespace) -> int:
    from llavar.models import delta

    with _bar() as progress:
        done = delta.apply(
            arguments.base,
            arguments.delta,
            arguments.out,
            progress=progress,
            checksums=arguments.checksums,
            **_shards(arguments),
        )
    return _added(arguments, done)


def _add_make_delta(verbs: Commands) -> None:
    parser = verbs.add_parser(
        "make-delta",
        help="full checkpoint - LLaMA -> delta, in the original's layout",
        description="Write what apply-delta must add to the base to get the target bit for bit.",
    )
    parser.add_argument("--base", type=Path, required=True, metavar="DIR", help="the LLaMA")
    parser.add_argument("--target", type=Path, required=True, metavar="DIR", help="the LLaVA made from it")
    parser.add_argument("--out", type=Path, required=True, metavar="DIR", help="folder to write")
    _add_common(parser)
    _add_checksums(parser)
    parser.set_defaults(command=_make_delta)


def _make_delta(arguments: argparse.Namespace) -> int:
    from llavar.models import delta

    with _bar() as progress:
        done = delta.make(
            arguments.base,
            arguments.target,
            arguments.out,
            progress=progress,
            checksums=arguments.checksums,
            **_shards(arguments),
        )
    return _added(arguments, done)


def _added(arguments: argparse.Namespace, done: delta.Merged) -> int:
    fields = {"summed": done.summed, "dropped": list(done.dropped), "exact": done.exact}
    what = f"{done.summed} taken together with the base's, {len(done.dropped)} dropped"
    return _written(arguments, done, fields, what)


def _add_merge_lora(verbs: Commands) -> None:
    parser = verbs.add_parser(
        "merge-lora",
        help="model + LoRA adapter -> a model with the adapter in its weights",
        description="Merge an adapter of peft (with LLaVA's non_lora_trainables.bin, if it has one) into a "
        "model, in the layout and the dtypes of that model.",
    )
    parser.add_argument("model", metavar="MODEL", help="folder or hub id of the model")
    parser.add_argument("adapter", type=Path, metavar="ADAPTER", help="folder with adapter_config.json")
    parser.add_argument("--out", type=Path, required=True, metavar="DIR", help="folder to write")
    _add_common(parser)
    _add_checksums(parser)
    parser.set_defaults(command=_merge_lora)


def _merge_lora(arguments: argparse.Namespace) -> int:
    from llavar.models import folder, lora
    from llavar.models.stream import MAX_SHARD_BYTES

    model = folder.resolve(arguments.model, binaries=True)
    with _bar() as progress:
        done = lora.merge(
            model,
            arguments.adapter,
            arguments.out,
            progress=progress,
            checksums=arguments.checksums,
            max_shard_bytes=arguments.max_shard_bytes or MAX_SHARD_BYTES,
        )
    fields = {"merged": done.merged, "replaced": list(done.replaced)}
    what = f"{done.merged} took an adapter, {len(done.replaced)} were replaced whole"
    return _written(arguments, done, fields, what)


def _written(
    arguments: argparse.Namespace, done: delta.Merged | lora.Merged, fields: Mapping[str, object], what: str
) -> int:
    for warning in done.warnings:
        _say(f"warning: {warning}")
    document = {
        "out": str(done.out),
        "tensors": done.tensors,
        **fields,
        "files": {file.name: {"bytes": file.size, "sha256": file.sha256} for file in done.files},
        "warnings": list(done.warnings),
    }
    size = sum(file.size for file in done.files)
    sums = "".join(f"\n{file.sha256}  {file.name}" for file in done.files if file.sha256)
    _report(
        arguments,
        document,
        f"{done.tensors} tensors ({what}), {size / 1e9:.2f} GB, written to {done.out}{sums}",
    )
    return 0


_VERBS: tuple[Callable[[Commands], None], ...] = (
    _add_from_llava,
    _add_to_llava,
    _add_apply_delta,
    _add_make_delta,
    _add_merge_lora,
    add_build,
    lambda verbs: add_export(verbs, _size, _bar),
)
"""In the order in which ``--help`` lists them; another one is added here."""


# ---------------------------------------------------------------- what the verbs share


def _add_common(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--max-shard-bytes", type=_size, metavar="N", help="most that a file of weights has, e.g. 5GB (10GB)"
    )
    parser.add_argument("--json", action="store_true", help="print one object with what was done")


def _add_checksums(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--checksums", action="store_true", help="give the sha256 of each file written (twice the work)"
    )


def _size(text: str) -> int:
    """A number of bytes, with or without a unit."""
    number, factor = text.upper(), 1
    for unit, value in _UNITS.items():
        if number.endswith(unit):
            number, factor = number.removesuffix(unit).strip(), value
    if not number.isascii() or not number.isdecimal() or int(number) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is no size; write it as 5000000000, 500MB or 5GB")
    return int(number) * factor


def _shards(arguments: argparse.Namespace) -> dict[str, int]:
    return {} if arguments.max_shard_bytes is None else {"max_shard_bytes": arguments.max_shard_bytes}


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def _report(arguments: argparse.Namespace, document: Mapping[str, object], text: str) -> None:
    print(json.dumps(document, ensure_ascii=False) if arguments.json else text)


@contextmanager
def _bar() -> Generator[Progress | None]:
    """A bar of the bytes written, on a terminal; nothing elsewhere."""
    if not sys.stderr.isatty():
        yield None
        return
    from rich.console import Console
    from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TransferSpeedColumn

    columns = (TextColumn("writing"), BarColumn(), DownloadColumn(), TransferSpeedColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task("writing", total=None)
        yield lambda done, total: bar.update(task, completed=done, total=total)
