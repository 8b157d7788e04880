# pyright: basic
"""Ray: joined or started, and its actors as the hands of a crew. No other file knows Ray's interface."""

from __future__ import annotations

import importlib
import logging
import math
import os
import secrets
import signal
import socket
import threading
import time
from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Any

from llavar.corpus.crew import START_LIMIT, TRIES, Gone, Maker
from llavar.corpus.crews import cpus
from llavar.errors import ConfigError, LlavarError, MissingExtraError, ModelError

_STORE = 128 * 2**20
"""Bytes of shared memory for a Ray that is started here: items are small, and pictures do not pass it."""
_QUIET = {"RAY_USAGE_STATS_ENABLED": "0", "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0"}
"""Nothing is reported to anybody; and Ray before 2.60 warns each driver that leaves the other one unset."""
_KNOCK = 10.0
"""Seconds in which the head of a cluster has to answer."""
_LOOK = 5.0
"""Seconds after which one looks whether anybody has been given a CPU at all."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Machines:
    """The nodes of a Ray that this process belongs to, and what they have in all."""

    ray: Any
    nodes: int
    cpus: int
    gpus: int
    is_ours: bool
    """It was started here, and ends here."""

    def place(self, gpus: int) -> RayPlace:
        """``gpus`` are what each hand needs."""
        return RayPlace(ray=self.ray, gpus=gpus)


@contextmanager
def machines(address: str, workers: int | None = None) -> Generator[Machines, None, None]:
    """See :func:`llavar.corpus.cluster.cluster`. A Ray that this process has joined is used as it is."""
    address = address or os.environ.get("RAY_ADDRESS", "")
    told_to_end = signal.getsignal(signal.SIGTERM)
    with _environment(_QUIET if address else _QUIET | _alone()):
        ray = _ray()
        was_there = ray.is_initialized()
        if not was_there:
            _join(ray, address) if address else _start(ray, workers)
    try:
        has = ray.cluster_resources()
        yield Machines(
            ray=ray,
            nodes=sum(bool(node["Alive"]) for node in ray.nodes()),
            cpus=int(has.get("CPU", 0)),
            gpus=int(has.get("GPU", 0)),
            is_ours=not was_there and not address,
        )
    finally:
        if not was_there:
            ray.shutdown()  # ends what was started, or leaves what was joined
            if threading.current_thread() is threading.main_thread():
                signal.signal(signal.SIGTERM, told_to_end)  # which Ray takes over and keeps


def _alone() -> dict[str, str]:
    """Settings of a Ray that nobody else can reach: it listens on the loopback, and asks for a secret."""
    return {
        "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0",  # else all addresses; read when Ray is imported
        "RAY_AUTH_MODE": "token",
        "RAY_AUTH_TOKEN": secrets.token_hex(32),
        "RAY_worker_niceness": "0",  # as quick as processes without Ray; its default is 15
    }


@contextmanager
def _environment(wanted: Mapping[str, str]) -> Generator[None, None, None]:
    """With these variables, as far as the user has not set them."""
    ours = [name for name in wanted if name not in os.environ]
    os.environ.update((name, wanted[name]) for name in ours)
    try:
        yield
    finally:
        for name in ours:
            del os.environ[name]


def _ray() -> Any:
    try:
        return importlib.import_module("ray")
    except ImportError:
        raise MissingExtraError(
            "a cluster needs the package 'ray', which is not installed: run  pip install 'llavar[cluster]'"
        ) from None


def _start(ray: Any, workers: int | None) -> None:
    """A Ray of this machine alone."""
    ray.init(
        address="local",
        num_cpus=max(workers or 1, cpus()),
        object_store_memory=_STORE,
        include_dashboard=False,
        log_to_driver=False,
        logging_level=logging.ERROR,
    )


def _join(ray: Any, address: str) -> None:
    if "://" in address:
        raise ConfigError(
            f"the address of the cluster is {address!r}; give HOST:PORT of its head, and run this on one of "
            "its nodes, since the corpus is written from here"
        )
    try:
        _knock(address)
        ray.init(address=address, log_to_driver=False, logging_level=logging.ERROR)
    except (ConnectionError, OSError, RuntimeError, ValueError, ray.exceptions.RayError) as error:
        reason = " ".join(str(error).split())[:300]
        raise ConfigError(
            f"no Ray can be joined at {address!r} ({reason}); start one with  ray start --head  and give its "
            "HOST:PORT (and RAY_AUTH_TOKEN, if it asks for one), or no address for one of this machine alone"
        ) from error


def _knock(address: str) -> None:
    """Raises OSError: nobody answers there; Ray itself would try for minutes."""
    host, colon, port = address.rpartition(":")
    if colon and port.isdecimal():
        socket.create_connection((host.strip("[]"), int(port)), timeout=_KNOCK).close()


class Actor:
    """What Ray starts on a node: loads, and then does what it is given."""

    def __init__(self, maker: Maker[Callable[[Any], Any]]) -> None:
        self._maker = maker
        self._work: Callable[[Any], Any] | None = None

    def load(self) -> LlavarError | None:
        try:
            self._work = self._maker()
        except LlavarError as error:
            return error
        return None

    def work(self, task: Any) -> Any:
        assert self._work is not None, "it was given work before it had loaded"
        return self._work(task)


@dataclass(slots=True, eq=False)
class RayHand:
    """An actor, and the reference to what it says next."""

    ray: Any
    actor: Any
    said: Any
    hired: float
    begun: bool = False

    def give(self, task: Any) -> None:
        self.said = self.actor.work.remote(task)

    def hear(self) -> Any:
        """As :meth:`llavar.corpus.crew.Hand.hear`. What an actor raises itself is an error in it."""
        try:
            said = self.ray.get(self.said)
        except self.ray.exceptions.RayTaskError as error:
            return ModelError(f"an actor of the cluster failed: {_words(error)}")
        except self.ray.exceptions.RayError as error:
            words = _words(error)
            if "No module named" in words or "failed to import" in words:
                return ConfigError(
                    f"the nodes cannot import what the driver works with ({words}); install this llavar and "
                    "what it needs on every one of them"
                )
            raise Gone(f"a lost actor ({words})") from None
        self.begun = True
        return said

    def end(self) -> None:
        with suppress(RuntimeError, ValueError, self.ray.exceptions.RayError):  # Ray itself may be gone
            self.ray.kill(self.actor)


@dataclass(slots=True)
class RayPlace:
    """Actors of one CPU each. They may wait for it while any of them works: others may use the cluster."""

    ray: Any
    gpus: int = 0
    start_limit: float = math.inf
    spare: int = TRIES
    """A node may be lost while a model loads."""
    advice: str = "see Ray's logs of that node, in /tmp/ray/session_latest/logs"

    def hire(self, maker: Maker[Callable[[Any], Any]]) -> RayHand:
        kind = self.ray.remote(Actor).options(
            num_cpus=1, num_gpus=self.gpus, max_restarts=0, max_task_retries=0, scheduling_strategy="SPREAD"
        )
        actor = kind.remote(maker)
        return RayHand(ray=self.ray, actor=actor, said=actor.load.remote(), hired=time.monotonic())

    def wait(self, hands: Sequence[RayHand], seconds: float) -> Sequence[RayHand]:
        said = [hand.said for hand in hands]
        ready, _ = self.ray.wait(said, num_returns=1, timeout=min(seconds, _LOOK))
        if not ready:
            self._look(hands)
            return []
        ready, _ = self.ray.wait(said, num_returns=len(said), timeout=0)
        return [hand for hand in hands if hand.said in ready]

    def _look(self, hands: Sequence[RayHand]) -> None:
        """Raises ConfigError: nobody was given a CPU in all this time."""
        waited = time.monotonic() - min(hand.hired for hand in hands)
        if waited > START_LIMIT and not any(hand.begun for hand in hands):
            free = self.ray.available_resources()
            raise ConfigError(
                f"the cluster has started none of {len(hands)} actors in {waited:.0f} s: "
                f"{free.get('CPU', 0):g} CPUs and {free.get('GPU', 0):g} GPUs are free; wait for others, or "
                "add nodes"
            )


def _words(error: BaseException) -> str:
    """What Ray says, without its list of ids, in one line."""
    lines = [line for line in str(error).splitlines() if not line.startswith(("\t", "    "))]
    return " ".join(" ".join(lines).split())[:300]
