"""The ``llavar`` command: arguments in, one call, a sentence out. Nothing here computes.

Every command is a module of this package with a function ``add``, which describes its arguments. Heavy
modules are imported by the function that runs the command, so that ``--help`` is immediate.
"""

from __future__ import annotations

import argparse
import io
import os
import sys
from collections.abc import Sequence
from typing import TextIO

from llavar.cli import (
    ask,
    chat,
    compare,
    convert,
    corpus,
    demo,
    doctor,
    eval,
    inspect,
    judge,
    legacy,
    nano,
    report,
    score,
    serve,
    tasks,
    train,
    tune,
)
from llavar.cli.arguments import Parser
from llavar.errors import LlavarError
from llavar.version import __version__

_INTERRUPTED = 130
_FAILED = 2
_COMMANDS = (
    demo,
    tune,
    ask,
    chat,
    serve,
    inspect,
    corpus,
    train,
    convert,
    nano,
    tasks,
    eval,
    score,
    compare,
    judge,
    report,
    legacy,
    doctor,
)
"""In the order in which ``--help`` lists them."""
_PASSES_ON = "serve"
"""The command that hands what follows ``--`` to another program (vLLM); elsewhere argparse sees to it."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; returns the exit status: 0, 2 for an error of ours, 130 for an interrupt."""
    arguments = _parsed(argv)
    out: TextIO = sys.stdout
    if isinstance(out, io.TextIOWrapper):
        # A terminal that cannot show a character gets its number instead of a traceback.
        out.reconfigure(errors="backslashreplace")
    try:
        status = int(arguments.command(arguments))
        _flush()  # here, where a closed pipe is still caught
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


def _flush() -> None:
    """Write out what was printed, unless this was started without a standard output."""
    if sys.stdout is not None:
        sys.stdout.flush()


def _parsed(argv: Sequence[str] | None) -> argparse.Namespace:
    """The arguments. What follows ``--`` is ``passed_on``, where a command passes it on."""
    words = list(sys.argv[1:] if argv is None else argv)
    passes = words[:1] == [_PASSES_ON] and "--" in words
    end = words.index("--") if passes else len(words)
    arguments = _parser().parse_args(words[:end])
    if words[:1] == [_PASSES_ON]:  # other commands take each of their arguments for a setting
        arguments.passed_on = tuple(words[end + 1 :])
    return arguments


def _failed(sentence: str) -> int:
    print(f"llavar: {' '.join(sentence.split())}", file=sys.stderr)
    return _FAILED


def _parser() -> argparse.ArgumentParser:
    parser = Parser(
        prog="llavar", description="Teach vision-language models to read the text in images (LLaVAR)."
    )
    parser.add_argument("--version", action="version", version=f"llavar {__version__}")
    commands = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)
    for command in _COMMANDS:
        command.add(commands)
    return parser
