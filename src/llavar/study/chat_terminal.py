"""The terminal of ``llavar chat``: lines in, answers out as they come, commands in between.

Answers go to the standard output and nothing else does, so that it can be piped; everything that is said
about them goes to the standard error.
"""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Iterator, Mapping
from contextlib import closing, suppress
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import TextIO

from llavar.errors import ConfigError, LlavarError
from llavar.generate.dialogue import Finish
from llavar.study.chatting import Shown, Talk

_UNANSWERED = 1
"""Exit status where a question from a pipe got no answer."""

_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]")
"""What would move the cursor, change colours or turn text around; line ends and tabs may pass."""


class Command(StrEnum):
    """What may be typed instead of a question."""

    IMAGE = "/image"
    NEW = "/new"
    SYSTEM = "/system"
    SAVE = "/save"
    HELP = "/help"
    QUIT = "/quit"


HELP = """\
/image PATH_OR_URL   show a picture with the next question
/new                 forget everything that was said and shown
/system TEXT         another system text from the next question on; without TEXT the model's own
/save FILE.json      write the conversation as a row of LLaVA's format
/help                these lines
/quit                end (Ctrl-D does too)
Ctrl-C stops an answer; what came of it stays in the conversation.
A line that begins with a blank is a question, whatever comes next."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Streams:
    """Where lines come from and where everything goes."""

    lines: TextIO
    out: TextIO
    notes: TextIO

    @property
    def live(self) -> bool:
        """Whether a person types."""
        return self.lines.isatty()


def standard_streams() -> Streams:
    """Those of the process. Bytes of a pipe that are no UTF-8 become a sentence later, not a traceback."""
    with suppress(ImportError):  # not every Python has it
        import readline  # noqa: F401  # pyright: ignore[reportUnusedImport] - lines can be edited and recalled
    if hasattr(sys.stdin, "reconfigure"):
        sys.stdin.reconfigure(errors="surrogateescape")  # pyright: ignore[reportUnknownMemberType, reportAttributeAccessIssue]
    return Streams(lines=sys.stdin, out=sys.stdout, notes=sys.stderr)


class Terminal:
    """Runs one conversation."""

    def __init__(self, talk: Talk, streams: Streams, environment: Mapping[str, str] = os.environ) -> None:
        self._talk, self._streams = talk, streams
        dumb = "NO_COLOR" in environment or environment.get("TERM") == "dumb"
        self._coloured = streams.notes.isatty() and not dumb
        self._unanswered = 0

    def run(self) -> int:
        """Until the input ends or ``/quit``. The exit status: 1 if a question from a pipe got no answer.

        Raises:
            KeyboardInterrupt: in a pipe. A person ends an answer, or a line, by it.
        """
        if self._streams.live:
            self._note(f"{self._talk.name}; ask, or type /help. Ctrl-C stops an answer, Ctrl-D ends.")
        for line in self._lines():
            try:
                if not self._handle(line):
                    break
            except LlavarError as error:
                self._note(f"llavar: {' '.join(str(error).split())}")
            except KeyboardInterrupt:  # while a picture is fetched, say
                if not self._streams.live:
                    raise
                self._note("\n(stopped)")
        return _UNANSWERED if self._unanswered and not self._streams.live else 0

    def _lines(self) -> Iterator[str]:
        """What is typed or piped, without line ends and blank lines."""
        while True:
            try:
                line = self._read()
            except KeyboardInterrupt:
                if not self._streams.live:
                    raise
                self._note("\n(Ctrl-D or /quit ends)")
                continue
            if not line:
                break
            if line.strip():
                yield line.rstrip("\r\n")
        if self._streams.live:
            self._note("")

    def _read(self) -> str:
        """A line with its end; "" is the end of the input."""
        if not self._streams.live:
            return self._streams.lines.readline()
        if self._streams.lines is sys.stdin and self._streams.out.isatty():
            try:
                return input("> ") + "\n"
            except EOFError:
                return ""
        print("> ", end="", file=self._streams.notes, flush=True)
        return self._streams.lines.readline()

    def _handle(self, line: str) -> bool:
        """Whether the conversation goes on."""
        if not line.startswith("/"):
            self._ask(line.strip())
            return True
        word, _, rest = line.partition(" ")
        try:
            command = Command(word)
        except ValueError as error:
            raise ConfigError(
                f"{word!r:.60} is no command; known are {', '.join(Command)}. "
                "A question that begins with a slash needs a blank before it"
            ) from error
        return self._obey(command, rest.strip())

    def _obey(self, command: Command, rest: str) -> bool:
        if command in (Command.IMAGE, Command.SAVE) and not rest:
            wanted = "PATH_OR_URL" if command is Command.IMAGE else "FILE.json"
            raise ConfigError(f"{command} names nothing; write {command} {wanted}")
        if command is Command.IMAGE:
            self._show(_unquoted(rest))
        elif command is Command.NEW:
            self._talk.new()
            self._note("a new conversation, without a picture")
        elif command is Command.SYSTEM:
            self._talk.system = _sayable(rest)
            self._note("the system text is " + ("this one from now on" if rest else "the model's own again"))
        elif command is Command.SAVE:
            self._save(Path(_unquoted(rest)))
        elif command is Command.HELP:
            self._note(HELP)
        return command is not Command.QUIT

    def _show(self, source: str) -> None:
        shown = Shown.open(source)
        self._talk.show(shown)
        width, height = shown.picture.size
        self._note(f"{shown.source}: {width} x {height} pixels, shown with the next question")

    def _save(self, path: Path) -> None:
        beside = self._talk.save(path)
        answers = f"{self._talk.answers} answer" + "s" * (self._talk.answers != 1)
        self._note(f"{answers} saved to {path}" + "".join(f", a picture to {file}" for file in beside))

    def _ask(self, question: str) -> None:
        before = self._talk.answers
        self._unanswered += 1
        begun = False
        finish = None
        try:
            with closing(self._talk.ask(_sayable(question))) as pieces:
                for piece in pieces:
                    text = piece.text if begun else piece.text.lstrip()
                    begun = begun or bool(text)
                    finish = piece.finish or finish
                    self._print(text)
        except KeyboardInterrupt:
            if not self._streams.live:
                raise
            finish = Finish.CANCELLED
        finally:
            if begun:
                self._print("\n")
        self._unanswered -= self._talk.answers > before
        self._ended(finish, kept=self._talk.answers > before)

    def _ended(self, finish: Finish | None, *, kept: bool) -> None:
        """A word about an answer that is not whole."""
        if finish is Finish.CANCELLED and kept:
            self._note("(stopped)")
        elif not kept:
            said = "stopped" if finish is Finish.CANCELLED else "an empty answer"
            self._note(f"({said}; the question was taken back)")
        elif finish is Finish.LENGTH:
            self._note("(cut: --max-new-tokens allows a longer answer, unless the model takes no more)")

    def _print(self, text: str) -> None:
        print(_CONTROL.sub("", text), end="", file=self._streams.out, flush=True)

    def _note(self, text: str) -> None:
        text = _CONTROL.sub("", text.encode("utf-8", "replace").decode())
        print(f"\x1b[2m{text}\x1b[0m" if self._coloured else text, file=self._streams.notes, flush=True)


def _unquoted(text: str) -> str:
    """A path as it was dropped onto a terminal."""
    if len(text) > 1 and text[0] == text[-1] and text[0] in "'\"":
        return text[1:-1]
    return text


def _sayable(text: str) -> str:
    """Raises:
    ConfigError: the bytes that were typed or piped are no UTF-8.
    """
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise ConfigError("the line is not UTF-8; write it in UTF-8") from error
    return text
