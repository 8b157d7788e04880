"""Stages that work item by item, on a Ray cluster; the rest of a run stays where it was started.

Actors, one for each CPU (or GPU, for models on one), take a few items at a time and bring back what came of
them. Shards, journals and the manifest are the driver's: so what :mod:`llavar.corpus.shards` says of kills
holds here too, and the files are the same to the byte. Ray Data is not used: it has no limit of time for a
row, does a whole block again when one of its rows ends a process, and keeps checkpoints of its own.

Every node has to see the folder of the corpus, and the pictures, under the same paths, and to have the same
versions of what decides results (:class:`~llavar.corpus.cluster_node.Common`).
"""

from __future__ import annotations

import uuid
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any, Generic, Self

from llavar.corpus.cluster_node import TOKEN, Common, Done, Relay, landmarks, versions
from llavar.corpus.cluster_ray import Machines, machines
from llavar.corpus.crew import START_LIMIT, TRIES, Crew, Key, Lost, Maker, Result, Task
from llavar.corpus.crews import ItemCrew, ItemKey
from llavar.corpus.item import Item
from llavar.corpus.stage import Outcome
from llavar.errors import ConfigError

_CALL_SECONDS = 1.0
"""Work that a call should bring: the driver pays some 2 ms for a call, and a kill costs the call."""
_MOST = 64
"""Tasks in a call at most."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Cluster:
    """Crews on the nodes of a cluster."""

    machines: Machines
    root: Path
    folders: tuple[Path, ...] = ()
    token: str = field(default_factory=lambda: uuid.uuid4().hex)

    def __str__(self) -> str:
        found = self.machines
        nodes = "1 node" if found.nodes == 1 else f"{found.nodes} nodes"
        return f"{nodes} with {found.cpus} CPUs and {found.gpus} GPUs"

    def crew(
        self, maker: Maker[Callable[[Item], Outcome]], *, workers: int | None, time_limit: float
    ) -> ItemCrew:
        """Called by a run, which holds the folder of the corpus."""
        gpus = self._gpus(maker)
        (self.root / TOKEN).write_text(self.token)
        common = Common(
            root=self.root, token=self.token, landmarks=landmarks(self.folders), versions=versions()
        )
        return ClusterCrew[ItemKey, Item, Outcome](
            crew=Crew(
                maker=Relay(maker=maker, time_limit=time_limit, common=common),
                workers=workers or max(1, self.machines.gpus if gpus else self.machines.cpus),
                time_limit=TRIES * (time_limit + START_LIMIT),
                place=self.machines.place(gpus),
            )
        )

    def _gpus(self, maker: Maker[Callable[[Item], Outcome]]) -> int:
        """How many GPUs each actor needs."""
        device = str(getattr(maker, "device", "cpu"))
        if device.startswith("cuda:"):
            raise ConfigError(
                f"the device of {maker.name!r} is {device!r}, and on a cluster Ray says which GPU a process "
                "gets; write  device: cuda"
            )
        if device == "cuda" and not self.machines.gpus:
            raise ConfigError(
                f"{maker.name!r} is to run on {device!r} and the cluster has 0 GPUs; add a node that has "
                "one, or write  device: cpu"
            )
        return int(device == "cuda")

    def forget(self) -> None:
        """Remove the file that nodes look for, if it is this run's."""
        with suppress(OSError):
            if (self.root / TOKEN).read_text() == self.token:
                (self.root / TOKEN).unlink()


@contextmanager
def cluster(
    address: str, root: Path, *, folders: Sequence[Path] = (), workers: int | None = None
) -> Generator[Cluster, None, None]:
    """The Ray at ``address``; with an empty one that of ``RAY_ADDRESS``, or one that is started here.

    ``root`` is the folder of the corpus, ``folders`` hold its pictures. Leaving ends what was started here
    (also after an error or Ctrl-C) and nothing else.

    Raises:
        MissingExtraError: Ray is not installed.
        ConfigError: no Ray answers at the address.
    """
    with machines(address, workers) as found:
        joined = Cluster(machines=found, root=root.absolute(), folders=tuple(folders))
        try:
            yield joined
        finally:
            joined.forget()


@dataclass(slots=True, kw_only=True)
class ClusterCrew(Generic[Key, Task, Result]):
    """A crew of relays, each of which is given several tasks at a time where these are short."""

    crew: Crew[int, Sequence[Task], Done]

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.crew.close()

    def results(self, tasks: Iterable[tuple[Key, Task]]) -> Generator[tuple[Key, Result | Lost], None, None]:
        """As :meth:`llavar.corpus.crew.Crew.results`.

        A call that is lost with its actor, again and again, is taken apart: then only the task that did it
        is lost.
        """
        calls = _Calls[Key, Task](iter(tasks))
        for number, done in self.crew.results(calls):
            given = calls.under_way.pop(number)
            if isinstance(done, Lost):
                if len(given) == 1:
                    yield given[0][0], done
                calls.again.extend([one] for one in given if len(given) > 1)
                continue
            if done.error is not None:
                raise done.error
            calls.learn(done)
            yield from zip((key for key, _ in given), done.results, strict=True)


@dataclass(slots=True)
class _Calls(Generic[Key, Task]):
    """Tasks put together to calls of about a second; the crew asks for them one by one.

    It may say that there are no more, and have more later: those that are to be done again.
    """

    coming: Iterator[tuple[Key, Task]]
    again: deque[list[tuple[Key, Task]]] = field(default_factory=deque[Any])
    under_way: dict[int, list[tuple[Key, Task]]] = field(default_factory=dict[int, Any])
    size: int = 1
    number: int = 0

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> tuple[int, Sequence[Task]]:
        given = self.again.popleft() if self.again else list(islice(self.coming, self.size))
        if not given:
            raise StopIteration
        self.number += 1
        self.under_way[self.number] = given
        return self.number, [task for _, task in given]

    def learn(self, done: Done) -> None:
        """From how long one call took, how many tasks to put into the next ones."""
        if done.seconds > 0:
            wanted = int(_CALL_SECONDS * len(done.results) / done.seconds)
            self.size = max(1, min(_MOST, 2 * self.size, wanted))
