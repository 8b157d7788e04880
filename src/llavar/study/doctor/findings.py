"""What a check answers with."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from llavar.errors import LlavarError


class Level(StrEnum):
    """How bad a finding is."""

    OK = "ok"
    NOTE = "note"
    """Works, and one should know it."""
    PROBLEM = "problem"
    """Something will fail, or give wrong answers."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """One thing that was looked at: what was found, and, if it is not in order, what to do."""

    level: Level
    subject: str
    text: str
    remedy: str = ""

    def document(self) -> dict[str, str]:
        """For JSON."""
        return {
            "level": self.level.value,
            "subject": self.subject,
            "text": self.text,
            "remedy": self.remedy,
        }


def ok(subject: str, text: str) -> Finding:
    return Finding(level=Level.OK, subject=subject, text=text)


def note(subject: str, text: str, remedy: str = "") -> Finding:
    return Finding(level=Level.NOTE, subject=subject, text=text, remedy=remedy)


def problem(subject: str, text: str, remedy: str) -> Finding:
    return Finding(level=Level.PROBLEM, subject=subject, text=text, remedy=remedy)


def from_error(subject: str, error: LlavarError) -> Finding:
    """Errors of this package are one sentence whose end, after a semicolon, is the remedy."""
    text, _, remedy = " ".join(str(error).split()).rpartition("; ")
    return problem(subject, text or remedy, remedy if text else "fetch or write it again")
