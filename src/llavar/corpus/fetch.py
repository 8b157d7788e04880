"""The stage ``fetch``: pictures behind URLs become files of the corpus.

Many at a time, few at a time from one host, each with a limit of bytes and of time, and only from public
addresses (:mod:`llavar.net`). What a server says to do later is tried again; a server that asks not to train
on its pictures (``X-Robots-Tag: noai``) is heard. A file is named after the hash of what came, so that equal
pictures lie on the disk once. After a kill only those are fetched again that were under way.
"""

from __future__ import annotations

import hashlib
import os
import threading
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass, replace
from enum import StrEnum
from itertools import islice
from pathlib import Path
from typing import ClassVar

from llavar import net
from llavar.corpus.item import Item, PictureFile
from llavar.corpus.stage import Outcome
from llavar.errors import ConfigError, FetchError
from llavar.records import Reject

STAGE = "fetch"
FOLDER = "fetched"

_NO_AI = ("noai", "noimageai")
_LONGEST_WAIT = 60.0


class FetchReason(StrEnum):
    """Why a picture is not there."""

    FAILED = "it cannot be fetched"
    LATER = "it cannot be fetched at present"
    """Its server did not answer in time, was busy, or could not be reached, however often it was asked."""
    NO_AI = "its server asks not to train on it"
    EMPTY = "it has 0 bytes"


@dataclass(frozen=True, slots=True, kw_only=True)
class FetchSettings:
    """What a picture may cost, and who is asked how often. Times in seconds."""

    max_bytes: int = 32 * 2**20
    seconds: float = 30.0
    """For one attempt, redirects included."""
    attempts: int = 3
    """For what may work later: timeouts, broken connections, status 408, 425, 429 and 5xx."""
    at_once: int = 32
    """Pictures under way at a time."""
    per_host: int = 4
    """Of these, from one host."""
    respect_noai: bool = True
    user_agent: str = "llavar"
    allow_private: bool = False
    """Also fetch from this machine and its network; never for lists of URLs that came from outside."""

    def __post_init__(self) -> None:
        for name in ("max_bytes", "seconds", "attempts", "at_once", "per_host"):
            if not getattr(self, name) > 0:
                raise ConfigError(f"{name} of fetch is {getattr(self, name)}; give more than 0")

    @property
    def policy(self) -> net.FetchPolicy:
        """For one attempt."""
        return net.FetchPolicy(
            max_bytes=self.max_bytes,
            total_seconds=self.seconds,
            connect_seconds=min(5.0, self.seconds),
            user_agent=self.user_agent,
            allow_private=self.allow_private,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class FetchStage:
    """Adds the file of each item that has a URL; items that lie on the disk already pass."""

    root: Path
    settings: FetchSettings = FetchSettings()
    wait: Callable[[float], None] = time.sleep
    """Between attempts; tests do not want to."""
    name: ClassVar[str] = STAGE
    version: ClassVar[int] = 2

    def run(self, items: Sequence[Item]) -> Iterator[tuple[int, Outcome]]:
        """Outcomes as they come, never more than ``at_once`` started and not handed on.

        Given up in the middle, it starts no more and waits for those under way.
        """
        (self.root / FOLDER).mkdir(parents=True, exist_ok=True)
        hosts = _Hosts(self.settings.per_host)
        pool = ThreadPoolExecutor(self.settings.at_once, thread_name_prefix="llavar-fetch")
        try:
            waiting, started = iter(enumerate(items)), dict[Future[Outcome], int]()
            while True:
                for place, item in islice(waiting, self.settings.at_once - len(started)):
                    started[pool.submit(self._one, item, hosts)] = place
                if not started:
                    return
                for done in wait(started, return_when=FIRST_COMPLETED).done:
                    yield started.pop(done), done.result()
        finally:
            pool.shutdown(cancel_futures=True)

    def is_gone(self, item: Item) -> bool:
        """Whether what was fetched has been removed since, by ``llavar corpus clean --fetched`` say."""
        return bool(item.origin.url) and item.file is not None and not (self.root / item.file.path).is_file()

    def _one(self, item: Item, hosts: _Hosts) -> Outcome:
        if item.origin.path or not item.origin.url:
            return item
        try:
            got = self._fetched(item.origin.url, hosts)
        except net.PassingError as error:
            return _reject(item, FetchReason.LATER, str(error))
        except FetchError as error:
            return _reject(item, FetchReason.FAILED, str(error))
        except Exception as error:  # noqa: BLE001 - one picture must not end the run
            return _reject(item, FetchReason.FAILED, f"{type(error).__name__}: {error}"[:500])
        if self.settings.respect_noai and any(word in got.robots for word in _NO_AI):
            return _reject(item, FetchReason.NO_AI, got.robots[:100])
        if not got.data:
            return _reject(item, FetchReason.EMPTY, item.origin.url[:200])
        return replace(item, file=self._kept(got.data))

    def _fetched(self, url: str, hosts: _Hosts) -> net.Fetched:
        host = net.host_of(url)
        for attempt in range(1, self.settings.attempts + 1):
            try:
                with hosts.one_of(host):
                    return net.fetch(url, policy=self.settings.policy)
            except net.PassingError as error:
                if attempt == self.settings.attempts or error.retry_after > _LONGEST_WAIT:
                    raise
                self.wait(max(error.retry_after, 0.5 * 2**attempt))
        raise AssertionError("the last attempt returns or raises")

    def _kept(self, data: bytes) -> PictureFile:
        digest = hashlib.sha256(data).hexdigest()
        path = Path(FOLDER) / digest[:2] / digest
        target = self.root / path
        if not target.exists():
            target.parent.mkdir(exist_ok=True)
            aside = target.with_name(f"{digest}.{threading.get_ident()}.part")
            with aside.open("wb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            aside.replace(target)
        return PictureFile(
            path=path.as_posix(), sha256=digest, width=0, height=0, bytes=len(data), original_sha256=digest
        )


class _Hosts:
    """Lets a few at a time through to each host."""

    def __init__(self, limit: int) -> None:
        self._lock = threading.Lock()
        self._of: defaultdict[str, threading.Semaphore] = defaultdict(lambda: threading.Semaphore(limit))

    def one_of(self, host: str) -> threading.Semaphore:
        with self._lock:
            return self._of[host]


def _reject(item: Item, reason: FetchReason, detail: str) -> Reject:
    return Reject(id=item.id, stage=STAGE, reason=reason, detail=detail)
