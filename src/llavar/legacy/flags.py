"""Reading the flags of the original's commands, and saying what each became."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, NoReturn

from llavar.errors import ConfigError

_TRUE = frozenset({"true", "t", "yes", "y", "1"})
_FALSE = frozenset({"false", "f", "no", "n", "0"})


class Kind(StrEnum):
    """What a flag takes. A switch may stand alone or be followed by True or False."""

    TEXT = "text"
    WHOLE = "whole number"
    NUMBER = "number"
    SWITCH = "switch"


@dataclass(frozen=True, slots=True, kw_only=True)
class Flag:
    """A flag of the original: its default there, and what it is called or does today.

    ``only`` are the values that still have a meaning; any other is refused with ``instead``.
    """

    name: str
    kind: Kind = Kind.TEXT
    default: str | float | bool | None = None
    today: str = ""
    only: tuple[str | float | bool | None, ...] = ()
    instead: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Given:
    """The value of one flag, and whether it was written on the command line."""

    flag: Flag
    value: Any
    written: bool


class Arguments:
    """What a command line of the original says, flag by flag."""

    def __init__(self, command: str, given: Mapping[str, Given]) -> None:
        self.command, self._given = command, given

    def text(self, name: str) -> str:
        """The value of a text flag; "" where there is none."""
        return str(self._value(name) or "")

    def required(self, name: str) -> str:
        """The value of a flag that the command cannot do without.

        Raises:
            ConfigError: it is absent or empty.
        """
        value = self.text(name)
        if not value:
            raise ConfigError(f"{self.command} needs --{name}; give it as in the original's README")
        return value

    def whole(self, name: str) -> int:
        return int(self._value(name))

    def number(self, name: str) -> float:
        return float(self._value(name))

    def switch(self, name: str) -> bool:
        return bool(self._value(name))

    def written(self, name: str) -> bool:
        """Whether the flag stands on the command line."""
        return self._given[name].written

    def _value(self, name: str) -> Any:
        return self._given[name].value

    def mapping(self) -> list[str]:
        """A line for each flag that was written: what it became."""
        return [
            f"--{given.flag.name} {given.value}  ->  {given.flag.today}"
            for given in self._given.values()
            if given.written
        ]


class _Parser(argparse.ArgumentParser):
    """Errors as exceptions of ours instead of a usage text and an exit."""

    def error(self, message: str) -> NoReturn:
        raise ConfigError(
            f"legacy {self.prog}: {message}; see the flags with `llavar legacy {self.prog} --help`"
        )


def parse(command: str, flags: Sequence[Flag], argv: Sequence[str], *, about: str) -> Arguments:
    """Read ``argv`` as the original did: prefixes, bare switches, padded values; dashes or underscores.

    Raises:
        ConfigError: an unknown flag, a value of another kind, or one whose meaning is gone.
    """
    parser = _Parser(prog=command, description=about, allow_abbrev=True)
    for flag in flags:
        _add(parser, flag)
    namespace = vars(parser.parse_args([_dashed(word) for word in argv]))
    given = {flag.name: _given(command, flag, namespace[flag.name]) for flag in flags}
    return Arguments(command, given)


def _add(parser: argparse.ArgumentParser, flag: Flag) -> None:
    bare: dict[str, Any] = {"nargs": "?", "const": "True"} if flag.kind is Kind.SWITCH else {}
    text = flag.today.replace("%", "%%")
    parser.add_argument(_dashed(f"--{flag.name}"), dest=flag.name, metavar="VALUE", help=text, **bare)


def _dashed(word: str) -> str:
    """One spelling of a flag, so that a prefix of it stays unambiguous."""
    if not word.startswith("--"):
        return word
    name, equals, value = word.partition("=")
    return name.replace("_", "-") + equals + value


def _given(command: str, flag: Flag, raw: str | None) -> Given:
    if raw is None:
        return Given(flag=flag, value=flag.default, written=False)
    value = _read(command, flag, raw.strip())
    if flag.only and value not in flag.only:
        kept = " or ".join(str(one) for one in flag.only if one not in (None, ""))
        left = f", only {kept} is left" if kept else ""
        raise ConfigError(f"{command}: --{flag.name} {value} is gone{left}; {flag.instead}")
    return Given(flag=flag, value=value, written=True)


def _read(command: str, flag: Flag, text: str) -> str | float | bool:
    readers: dict[Kind, Callable[[str], Any]] = {
        Kind.TEXT: str,
        Kind.WHOLE: int,
        Kind.NUMBER: float,
        Kind.SWITCH: _truth,
    }
    try:
        return readers[flag.kind](text)
    except ValueError:
        raise ConfigError(f"{command}: --{flag.name} {text!r} is no {flag.kind}; give one") from None


def _truth(text: str) -> bool:
    if text.lower() in _TRUE | _FALSE:
        return text.lower() in _TRUE
    raise ValueError(text)


def show(command: str, lines: Iterable[str], today: str = "") -> None:
    """Print the mapping where it does not mix with a command's output."""
    print(f"llavar legacy {command}: what the flags are today", file=sys.stderr)
    for line in lines:
        print(f"  {line}", file=sys.stderr)
    if today:
        print(f"the same today: {today}", file=sys.stderr)
    sys.stderr.flush()
