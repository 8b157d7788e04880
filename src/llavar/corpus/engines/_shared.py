"""What the adapters of engines have in common."""

from __future__ import annotations

import hashlib
import importlib.metadata
import importlib.util
from collections.abc import Iterable, Sequence
from pathlib import Path

from llavar.errors import ConfigError, MissingExtraError, NotFoundError
from llavar.records import Box


def version(package: str) -> str:
    """Of an installed package, or "absent"."""
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return "absent"


def require(package: str, install: str) -> None:
    """Raises MissingExtraError: the package is not installed; ``install`` is what pip is to be told."""
    if importlib.util.find_spec(package) is None:
        raise MissingExtraError(
            f"reading pictures needs the package {package!r}, which is not installed: "
            f"run  pip install {install}"
        )


def require_folder(models: Path | None, engine: str, holds: str) -> Path:
    """The folder of models that a user named.

    Raises:
        ConfigError: none is named; the engine would go to the network for its models.
        NotFoundError: it does not exist.
    """
    if models is None:
        raise ConfigError(
            f"the OCR engine {engine!r} would download its models, which is not done here: name a folder "
            f"that holds {holds}, as  {{name: {engine}, models: DIR}}"
        )
    if not models.is_dir():
        raise NotFoundError(f"the folder {str(models)!r} of models for {engine!r} does not exist: check it")
    return models


def digest(files: Iterable[Path]) -> str:
    """Eight digits of the content of ``files``, so that other models are another engine."""
    held = hashlib.sha256()
    for path in sorted(files):
        with path.open("rb") as file:
            held.update(path.name.encode() + hashlib.file_digest(file, "sha256").digest())
    return held.hexdigest()[:8]


def hull(quad: Iterable[Sequence[float]], size: tuple[int, int]) -> Box:
    """The upright hull of points (x, y), within a picture of ``size``."""
    points = [(float(point[0]), float(point[1])) for point in quad]
    xs = [min(max(x, 0.0), float(size[0])) for x, _ in points]
    ys = [min(max(y, 0.0), float(size[1])) for _, y in points]
    return Box(left=min(xs), top=min(ys), right=max(xs), bottom=max(ys))


def share(value: float) -> float:
    """A confidence brought into 0 to 1; what is no number counts as 0."""
    return min(1.0, max(0.0, float(value))) if value == value else 0.0
