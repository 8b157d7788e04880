"""Model folders for other engines: ``llavar convert export``.

A target is a module of :mod:`llavar.models.export.targets` with an object ``TARGET``; its name is that of the
module. Adding one touches that file alone. No torch until one is loaded.
"""

from __future__ import annotations

import importlib
import pkgutil
from typing import TYPE_CHECKING

from llavar.errors import ConfigError
from llavar.models.export import targets

if TYPE_CHECKING:
    from llavar.models.export.base import Target


def names() -> tuple[str, ...]:
    """What can be exported to, in the order of the alphabet."""
    return tuple(sorted(found.name for found in pkgutil.iter_modules(targets.__path__)))


def load(name: str) -> Target:
    """The target called ``name``.

    Raises:
        ConfigError: there is none.
    """
    if name not in names():
        raise ConfigError(f"there is no export to {name!r:.60}; known are {', '.join(names())}")
    return importlib.import_module(f"{targets.__name__}.{name}").TARGET
