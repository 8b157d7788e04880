"""Memory goes back to the system from time to time."""

from __future__ import annotations

import asyncio
import ctypes
from contextlib import suppress
from typing import Any

import pytest

from llavar.serve import memory


def test_memory_is_given_back_again_and_again(monkeypatch: pytest.MonkeyPatch) -> None:
    async def story() -> None:
        loop, times, third = asyncio.get_running_loop(), 0, asyncio.Event()

        def noted() -> None:
            nonlocal times
            times += 1
            if times == 3:
                loop.call_soon_threadsafe(third.set)

        monkeypatch.setattr(memory, "give_back", noted)
        giving = asyncio.create_task(memory.keep_giving_back(0.001))
        await asyncio.wait_for(third.wait(), 20)
        giving.cancel()
        with suppress(asyncio.CancelledError):
            await giving
        assert giving.cancelled()

    asyncio.run(story())


def test_glibc_is_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    class Library:
        asked: list[int]

        def malloc_trim(self, pad: int) -> None:
            self.asked.append(pad)

        def mallopt(self, option: int, value: int) -> None:
            self.asked += [option, value]

    library = Library()
    library.asked = []
    monkeypatch.setattr(ctypes, "CDLL", lambda name: library)
    memory.give_back()
    assert library.asked == [0]
    memory.return_large()
    assert library.asked[1:] == [-3, 8 * 2**20]


@pytest.mark.parametrize("failure", [AttributeError, OSError, TypeError])
def test_other_libraries_are_left_alone(monkeypatch: pytest.MonkeyPatch, failure: type[Exception]) -> None:
    def broken(name: Any) -> Any:
        raise failure

    monkeypatch.setattr(ctypes, "CDLL", broken)
    memory.give_back()
    memory.return_large()


def test_here() -> None:
    memory.give_back()
