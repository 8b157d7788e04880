"""Benchmarks, read from their official annotation files. Nothing is read at import, nothing is downloaded.

Every module of this package that has a tuple ``BENCHMARKS`` adds the benchmarks in it; a new family is one
new file. ``docs/tasks.md`` says what each of them asks and where its files come from.
"""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Mapping
from functools import cache
from types import MappingProxyType

from llavar.errors import ConfigError
from llavar.evals.tasks.base import Benchmark, Expected, Loaded

__all__ = ["Benchmark", "Expected", "Loaded", "get", "names"]


def names() -> tuple[str, ...]:
    """The names of all benchmarks, in alphabetical order."""
    return tuple(_all())


def get(name: str) -> Benchmark:
    """The benchmark of that name.

    Raises:
        ConfigError: there is none; the message lists those that are close, or all.
    """
    known = _all()
    if name in known:
        return known[name]
    from difflib import get_close_matches

    close = get_close_matches(name.lower(), known, n=5, cutoff=0.6)
    if close:
        raise ConfigError(
            f"there is no task {name!r:.80}; did you mean {', '.join(close)}? llavar tasks lists all"
        )
    raise ConfigError(f"there is no task {name!r:.80}; the tasks are {', '.join(known)}")


@cache
def _all() -> Mapping[str, Benchmark]:
    found: dict[str, Benchmark] = {}
    for module in pkgutil.iter_modules(__path__):
        family = importlib.import_module(f"{__name__}.{module.name}")
        benchmarks: tuple[Benchmark, ...] = getattr(family, "BENCHMARKS", ())
        for benchmark in benchmarks:
            if benchmark.name in found:
                raise AssertionError(f"two benchmarks are named {benchmark.name}")
            found[benchmark.name] = benchmark
    return MappingProxyType(dict(sorted(found.items())))
