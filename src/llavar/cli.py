"""The ``llavar`` command: arguments in, one call, a sentence out. Nothing here computes.

Heavy modules are imported by the command that needs them, so that ``--help`` is immediate.
"""

from __future__ import annotations

import argparse
import io
import json
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TextIO

from llavar import __version__
from llavar.errors import LlavarError

_INTERRUPTED = 130
_FAILED = 2
_SMALL = 50_000_000
"""Models below this many parameters answer sooner on one thread: more of them mostly wait for each other."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; returns the exit status: 0, 2 for an error of ours, 130 for an interrupt."""
    arguments = _parser().parse_args(argv)
    out: TextIO = sys.stdout
    if isinstance(out, io.TextIOWrapper):
        # A terminal that cannot show a character gets its number instead of a traceback.
        out.reconfigure(errors="backslashreplace")
    try:
        status = int(arguments.command(arguments))
        sys.stdout.flush()  # here, where a closed pipe is still caught
        return status
    except LlavarError as error:
        return _failed(str(error))
    except KeyboardInterrupt:
        print("\nllavar: interrupted; the same command goes on from what is finished", file=sys.stderr)
        return _INTERRUPTED
    except BrokenPipeError:
        # Whoever read our output has seen enough. Python would complain once more at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except OSError as error:
        place = f": {error.filename}" if error.filename else ""
        return _failed(
            f"{error.strerror or error}{place}; check the path, its permissions and the free space"
        )


def _failed(sentence: str) -> int:
    print(f"llavar: {' '.join(sentence.split())}", file=sys.stderr)
    return _FAILED


def _count(text: str) -> int:
    """A whole number of at least 1, for argparse."""
    if not text.isascii() or not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number of at least 1")
    return int(text)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="llavar", description="Teach vision-language models to read the text in images (LLaVAR)."
    )
    parser.add_argument("--version", action="version", version=f"llavar {__version__}")
    commands = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)
    _add_demo(commands)
    _add_ask(commands)
    _add_inspect(commands)
    _add_nano(commands)
    return parser


_Commands = argparse._SubParsersAction  # pyright: ignore[reportPrivateUsage]


def _add_demo(commands: _Commands[argparse.ArgumentParser]) -> None:
    parser = commands.add_parser(
        "demo",
        help="the whole system in minutes: pictures, OCR, training without and with text-rich rows, a report",
        description=(
            "Render a small corpus, read it with an OCR engine, train the nano base through both stages "
            "without and with the rows made from it, examine both models on held-out words, fonts and "
            "layouts, and write result.json and report.html. Stopped at any time, the same command goes on."
        ),
    )
    parser.add_argument(
        "--images", type=Path, metavar="DIR", help="a folder of your own pictures, read as well"
    )
    parser.add_argument(
        "--out", type=Path, default=Path("runs/demo"), help="folder of the run (default: %(default)s)"
    )
    parser.add_argument(
        "--seed", type=int, default=0, help="of pictures, rows and training (default: %(default)s)"
    )
    sizes = parser.add_argument_group("sizes (the defaults take eight to nine minutes on two cores)")
    for name, text in (
        ("text-pictures", "pictures that go through OCR"),
        ("control-pictures", "pictures of the control rows"),
        ("exam-pictures", "held-out pictures that both models are asked about"),
        ("stage1-steps", "training steps of stage 1"),
        ("stage2-steps", "training steps of stage 2"),
    ):
        sizes.add_argument(f"--{name}", type=_count, metavar="N", help=text)
    parser.set_defaults(command=_demo)


def _demo(arguments: argparse.Namespace) -> int:
    from llavar.study import demo

    names = ("text_pictures", "control_pictures", "exam_pictures", "stage1_steps", "stage2_steps")
    given = {name: value for name in names if (value := getattr(arguments, name)) is not None}
    settings = demo.DemoSettings(seed=arguments.seed, **given)
    demo.run(arguments.out, settings, own=arguments.images)
    return 0


def _add_ask(commands: _Commands[argparse.ArgumentParser]) -> None:
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
        help="nano, a model folder, the folder of a demo, or a hub id of a Llava (default: %(default)s)",
    )
    parser.add_argument(
        "--conversation", default="", metavar="NAME", help="another conversation than the model's own"
    )
    parser.add_argument("--max-new-tokens", type=_count, default=128, metavar="N")
    parser.add_argument(
        "--json", action="store_true", help="print an object with the answer, model and seconds"
    )
    parser.set_defaults(command=_ask)


def _ask(arguments: argparse.Namespace) -> int:
    import torch

    from llavar.study.reader import Reader, open_any

    picture = open_any(arguments.image)  # first, since a model may be a long download
    reader = Reader.load(arguments.model, template=arguments.conversation)
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
        }
        print(json.dumps(document, ensure_ascii=False))
    else:
        print(said.text)
    return 0


def _add_inspect(commands: _Commands[argparse.ArgumentParser]) -> None:
    parser = commands.add_parser(
        "inspect",
        help="show rows of instruction data as a model will see them, supervised tokens marked",
        description="Show rows of instruction data (LLaVA's JSON, or JSONL) as tokens, learned ones marked.",
    )
    parser.add_argument("data", type=Path, metavar="DATA.json")
    parser.add_argument(
        "--tokenizer", type=Path, metavar="DIR", help="folder of a tokenizer (default: nano's)"
    )
    parser.add_argument(
        "--conversation", default="", metavar="NAME", help="llava_v1, vicuna_v1_1, multimodal ..."
    )
    parser.add_argument(
        "--image-tokens", type=_count, metavar="N", help="tokens of a picture (default: 576; nano: 144)"
    )
    parser.add_argument(
        "--no-start-end", action="store_true", help="no <im_start> and <im_end> around pictures"
    )
    parser.add_argument("--max-length", type=_count, metavar="N", help="cut rows here, as training will")
    parser.add_argument("--limit", type=_count, metavar="N", help="show the first N rows only")
    parser.add_argument(
        "--json", action="store_true", help='a line a row: {"id", "input_ids", "labels"} or {"id", "error"}'
    )
    parser.set_defaults(command=_inspect)


def _inspect(arguments: argparse.Namespace) -> int:
    from llavar import chat
    from llavar.data.inspect import inspect
    from llavar.models.tokenizer import load_tokenizer, nano_tokenizer

    v0 = arguments.conversation in ("multimodal", "v0_train")
    start_end = not arguments.no_start_end
    own = arguments.tokenizer is None
    tokenizer = nano_tokenizer() if own else load_tokenizer(arguments.tokenizer, v0=v0, start_end=start_end)
    inspect(
        arguments.data,
        tokenizer=tokenizer,
        template=chat.get(arguments.conversation) if arguments.conversation else tokenizer.template(),
        image_tokens=arguments.image_tokens or (144 if own else 576),
        start_end=start_end,
        max_length=arguments.max_length,
        as_json=arguments.json,
        limit=arguments.limit,
        out=sys.stdout,
    )
    return 0


def _add_nano(commands: _Commands[argparse.ArgumentParser]) -> None:
    parser = commands.add_parser("nano", help="make the embedded model anew")
    verbs = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)
    build = verbs.add_parser(
        "build",
        help="train nano from nothing (about two hours)",
        description="Train nano from rendered pictures. Stopped, the same command goes on.",
    )
    build.add_argument("--out", type=Path, required=True, help="folder of the build")
    build.add_argument("--seed", type=int, default=0)
    build.add_argument("--threads", type=_count, default=1, help="fixed, since it changes the order of sums")
    for name in ("tower", "decoder", "stage1", "stage2"):
        build.add_argument(f"--{name}-steps", type=_count, metavar="N")
    build.add_argument(
        "--ship", type=Path, metavar="DIR", help="also copy the result to where a package keeps it"
    )
    build.set_defaults(command=_nano_build)


def _nano_build(arguments: argparse.Namespace) -> int:
    from llavar.study.nano import build

    names = ("tower_steps", "decoder_steps", "stage1_steps", "stage2_steps")
    given = {name: value for name in names if (value := getattr(arguments, name)) is not None}
    settings = build.BuildSettings(seed=arguments.seed, threads=arguments.threads, **given)
    build.run(arguments.out, settings)
    if arguments.ship:
        build.ship(arguments.out, arguments.ship)
    return 0


if __name__ == "__main__":
    sys.exit(main())
