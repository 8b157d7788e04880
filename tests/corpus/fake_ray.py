"""A stand-in for Ray, without processes."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any


class RayError(Exception):
    """As ``ray.exceptions.RayError``."""


class RayTaskError(RayError):
    """As ``ray.exceptions.RayTaskError``."""


@dataclass(eq=False)
class Reference:
    """What a call will have given."""

    actor: FakeActor
    call: Callable[[], Any]
    task: Any = None


@dataclass(eq=False)
class FakeActor:
    ray: FakeRay
    inside: Any
    number: int
    dead: bool = False

    def __getattr__(self, method: str) -> Any:
        def remote(*given: Any) -> Reference:
            return Reference(self, lambda: getattr(self.inside, method)(*given), *given)

        return SimpleNamespace(remote=remote)


@dataclass
class FakeRay:
    """As much of Ray as is used, in this process: a call is done when one asks for what it gave."""

    unstarted: bool = False
    """No actor ever gets a CPU."""
    lost_loading: int = 0
    """So many actors are lost before they have loaded."""
    poison: Sequence[int] = ()
    """Tasks that an actor is lost on, each time."""
    once: list[int] = field(default_factory=list)
    """Tasks that an actor is lost on the first time."""
    stuck: Sequence[int] = ()
    """Tasks that nothing comes of, ever."""
    says: str = "The actor died.\n\tactor_id: 17\nIts node is gone."
    refuses: Exception | None = None
    """Raised by ``init``."""
    has: dict[str, float] = field(default_factory=lambda: {"CPU": 4.0})
    initialized: bool = False
    inits: list[dict[str, Any]] = field(default_factory=list)
    options: list[dict[str, Any]] = field(default_factory=list)
    actors: list[FakeActor] = field(default_factory=list)
    calls: list[Any] = field(default_factory=list)
    environment: dict[str, str] = field(default_factory=dict)
    exceptions: Any = field(
        default_factory=lambda: SimpleNamespace(RayError=RayError, RayTaskError=RayTaskError)
    )

    def is_initialized(self) -> bool:
        return self.initialized

    def init(self, **settings: Any) -> None:
        if self.refuses is not None:
            raise self.refuses
        self.inits.append(settings)
        self.environment = {name: value for name, value in os.environ.items() if name.startswith("RAY_")}
        self.initialized = True

    def shutdown(self) -> None:
        self.initialized = False

    def cluster_resources(self) -> dict[str, float]:
        return self.has

    def available_resources(self) -> dict[str, float]:
        return {"CPU": 0.0}

    def nodes(self) -> list[dict[str, Any]]:
        return [{"Alive": True}, {"Alive": True}, {"Alive": False}]

    def remote(self, kind: type) -> Any:
        def make(*given: Any) -> FakeActor:
            self.actors.append(FakeActor(self, kind(*given), len(self.actors)))
            return self.actors[-1]

        def options(**wanted: Any) -> Any:
            self.options.append(wanted)
            return SimpleNamespace(remote=make)

        return SimpleNamespace(options=options)

    def wait(self, said: Sequence[Reference], *, num_returns: int, timeout: float) -> Any:
        heard = [one for one in said if not self.unstarted and not set(one.task or ()) & set(self.stuck)]
        return heard[:num_returns], [one for one in said if one not in heard[:num_returns]]

    def get(self, said: Reference) -> Any:
        if said.task is None and said.actor.number < self.lost_loading:
            raise RayError(self.says)
        self.calls.append(said.task)
        struck = [one for one in self.once if one in (said.task or ())]
        if set(said.task or ()) & set(self.poison) or struck:
            self.once = [one for one in self.once if one not in struck]
            raise RayError(self.says)
        return said.call()

    def kill(self, actor: FakeActor) -> None:
        assert not actor.dead, "an actor was ended twice"
        actor.dead = True
