"""What is wrong with this machine, or with a checkpoint, and what to do about it: ``llavar doctor``.

Every check answers with a :class:`Finding`. Weights are known by their headers; of their values only a few
small tensors are read. Nothing is changed and nothing is fetched.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from llavar.errors import NotFoundError
from llavar.study.doctor.checkpoint import Kind, examine
from llavar.study.doctor.environment import environment, room
from llavar.study.doctor.findings import Finding, Level
from llavar.version import __version__

__all__ = ["Diagnosis", "Finding", "Kind", "Level", "diagnose"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Diagnosis:
    """Everything that was found; ``kind`` is what lies at ``path``, if a path was given."""

    environment: tuple[Finding, ...]
    path: Path | None = None
    kind: str = ""
    checkpoint: tuple[Finding, ...] = ()

    @property
    def findings(self) -> tuple[Finding, ...]:
        return (*self.environment, *self.checkpoint)

    @property
    def problems(self) -> int:
        """How many findings are problems."""
        return sum(finding.level is Level.PROBLEM for finding in self.findings)

    def document(self) -> dict[str, object]:
        """For JSON."""
        return {
            "llavar": __version__,
            "path": None if self.path is None else str(self.path),
            "kind": self.kind or None,
            "problems": self.problems,
            "findings": [finding.document() for finding in self.findings],
        }


def diagnose(path: Path | None = None) -> Diagnosis:
    """Look at the environment and, if one is given, at a checkpoint: a folder or a file of weights.

    Raises:
        NotFoundError: there is nothing at ``path``.
    """
    if path is None:
        return Diagnosis(environment=tuple(environment(Path.cwd())))
    if not path.exists():
        raise NotFoundError(f"there is nothing at {path}; name a model folder or a file of weights")
    found = examine(path)
    place = path if path.is_dir() else path.parent
    return Diagnosis(
        environment=tuple(environment(place)),
        path=path,
        kind=found.kind,
        checkpoint=(*found.findings, *room(found.nbytes)),
    )
