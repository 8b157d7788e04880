"""What the commands share: the parser, the type of what they add themselves to, and types of arguments."""

from __future__ import annotations

import argparse
import sys
from typing import TYPE_CHECKING, NoReturn

if TYPE_CHECKING:
    Commands = argparse._SubParsersAction[argparse.ArgumentParser]  # pyright: ignore[reportPrivateUsage]
else:
    Commands = object  # the class takes no type arguments when it runs


class Parser(argparse.ArgumentParser):
    """Says what is wrong first: the usage of a command with many options would push it off the screen.

    Parsers of subcommands are of the same class.
    """

    def error(self, message: str) -> NoReturn:
        sentence = " ".join(message.split())
        print(f"llavar: {sentence}\nusage: {self.prog} --help tells what there is", file=sys.stderr)
        raise SystemExit(2)


def whole(text: str) -> int:
    """A whole number of at least 0, for argparse."""
    if not text.isascii() or not text.isdecimal():
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number of at least 0")
    return int(text)


def count(text: str) -> int:
    """A whole number of at least 1, for argparse."""
    if not text.isascii() or not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number of at least 1")
    return int(text)
