"""Requests, retries, and the reading of what comes back."""

from __future__ import annotations

import hashlib
import json
import random
import re
import threading
import time
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from contextlib import contextmanager
from email.utils import parsedate_to_datetime
from types import TracebackType
from typing import TYPE_CHECKING, Any, cast

from llavar.errors import FetchError, LlavarError
from llavar.llm.limits import Budget, Cache
from llavar.llm.protocol import KEY_VARIABLE, Delta, Endpoint, Json, Message, Reply, whole
from llavar.llm.stream import DONE, events

if TYPE_CHECKING:  # takes a tenth of a second to import
    import httpx

_AGAIN = (408, 409, 425, 429)
"""Statuses below 500 that may pass by themselves."""
_FIRST_PAUSE = 0.5
_LONGEST_PAUSE = 60.0
# Its own generator: the global one belongs to whoever seeded it, and requests are made from threads.
_SPREAD = random.Random()
"""Seconds; a server that asks for a longer wait (Retry-After) is asked again after this one."""
_LONGEST_MESSAGE = 300
_MAX_BYTES = 16 * 2**20
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069]+")
_LOOPBACK = ("127.0.0.1", "::1", "localhost")


class _Again(Exception):
    """A request failed in a way that may pass. ``wait``: seconds that the server asks for."""

    def __init__(self, reason: str, wait: float = 0.0) -> None:
        super().__init__(reason)
        self.wait = wait


class Client:
    """Asks one endpoint. Safe to share between threads; close it, or use it in a ``with`` statement."""

    def __init__(
        self,
        endpoint: Endpoint,
        *,
        cache: Cache | None = None,
        budget: Budget | None = None,
        max_bytes: int = _MAX_BYTES,
        pause: Callable[[float], None] = time.sleep,
    ) -> None:
        self.endpoint = endpoint
        self._cache = cache
        self._budget = budget or Budget()
        self._max_bytes = max_bytes
        self._pause = pause
        self._lock = threading.Lock()
        self._http: httpx.Client | None = None
        self._limit_name = "max_tokens"

    def __enter__(self) -> Client:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close connections; a later call opens them anew."""
        with self._lock:
            if self._http is not None:
                self._http.close()
            self._http = None

    def chat(
        self,
        messages: Sequence[Message],
        *,
        max_tokens: int,
        temperature: float = 0.0,
        top_p: float = 1.0,
        seed: int | None = None,
        stop: tuple[str, ...] = (),
        fresh: bool = False,
    ) -> Reply:
        """The reply to ``messages``, of at most ``max_tokens`` tokens.

        ``top_p``, ``seed`` and ``stop`` are sent only where they are set, since not every server knows them.
        ``fresh``: ask even if the cache knows a reply, and keep the new one.

        Raises:
            FetchError: The server cannot be reached, refuses, or gives what is no reply.
            BudgetError: Nothing of the budget is left. Cached replies need none.
        """
        payload = self._payload(messages, max_tokens, temperature, top_p, seed, stop)
        key = self._address(payload)
        known = self._cache.get(key) if self._cache and not fresh else None
        if known is not None:
            return known
        reply = self._ask(payload)
        if self._cache:
            self._cache.put(key, reply)
        return reply

    def stream(
        self,
        messages: Sequence[Message],
        *,
        max_tokens: int,
        temperature: float = 0.0,
        top_p: float = 1.0,
        seed: int | None = None,
        stop: tuple[str, ...] = (),
    ) -> Generator[Delta]:
        """As :meth:`chat`, piece by piece, never from the cache.

        Closing the generator closes the connection, by which servers notice that nobody listens any more.
        What may pass is asked again only as long as nothing has come; ``timeout`` is that of the wait
        between two pieces.

        Raises:
            FetchError: as :meth:`chat`, or the answer broke off. BudgetError: nothing of the budget is left.
        """
        payload = self._payload(messages, max_tokens, temperature, top_p, seed, stop) | {"stream": True}
        reason, begun = "", False
        for attempt in range(self.endpoint.attempts):
            self._budget.take()
            try:
                for delta in self._deltas(payload):
                    begun = True
                    yield delta
                return
            except _Again as error:
                reason = str(error)
                if begun:
                    raise FetchError(
                        f"{self.endpoint.base_url} broke off in its answer ({reason}); ask again"
                    ) from error
                if attempt + 1 < self.endpoint.attempts:
                    self._pause(_wait(attempt, error.wait))
        raise self._unanswered(reason)

    def _payload(
        self,
        messages: Sequence[Message],
        max_tokens: int,
        temperature: float,
        top_p: float,
        seed: int | None,
        stop: tuple[str, ...],
    ) -> Json:
        payload: Json = {
            "model": self.endpoint.model,
            "messages": [message.document() for message in messages],
            "max_tokens": max_tokens,
            "temperature": temperature,
        }
        payload |= {} if top_p == 1.0 else {"top_p": top_p}
        payload |= {} if seed is None else {"seed": seed}
        payload |= {"stop": [whole(text) for text in stop]} if stop else {}
        return payload

    def _address(self, payload: Json) -> str:
        content = json.dumps([self.endpoint.base_url, payload], sort_keys=True)
        return hashlib.sha256(content.encode()).hexdigest()

    def _ask(self, payload: Json) -> Reply:
        start = time.perf_counter()
        reason = ""
        for attempt in range(self.endpoint.attempts):
            self._budget.take()
            try:
                return self._parse(self._post(payload), payload, start)
            except _Again as error:
                reason = str(error)
                if attempt + 1 < self.endpoint.attempts:
                    self._pause(_wait(attempt, error.wait))
        raise self._unanswered(reason)

    def _unanswered(self, reason: str) -> FetchError:
        return FetchError(
            f"{self.endpoint.base_url} gave no reply in {self.endpoint.attempts} attempts ({reason}); "
            "check that the server runs, or allow more time or attempts"
        )

    def _post(self, payload: Json) -> bytes:
        """The body of a successful answer."""
        sent = self._sent(payload)
        deadline = time.monotonic() + self.endpoint.timeout
        with self._response(sent) as response:
            data = self._read(response, deadline)
        return data if response.is_success else self._refused(response, data, payload, sent)

    def _sent(self, payload: Json) -> Json:
        return {(self._limit_name if name == "max_tokens" else name): v for name, v in payload.items()}

    @contextmanager
    def _response(self, sent: Json) -> Generator[httpx.Response]:
        """An answer of which only the head was read; what goes wrong with it becomes an error of ours."""
        import httpx

        body = json.dumps(sent, ensure_ascii=False).encode()
        url = f"{self.endpoint.base_url}/chat/completions"
        try:
            with self._session().stream("POST", url, content=body, headers=self._headers()) as response:
                yield response
        except httpx.TimeoutException as error:
            raise _Again(f"no answer within {self.endpoint.timeout:g} s") from error
        except httpx.RequestError as error:
            raise _Again(self._clean(str(error)) or type(error).__name__) from error
        except LlavarError:
            raise
        except (httpx.InvalidURL, UnicodeError, ValueError) as error:
            raise FetchError(f"{url!r} cannot be asked ({self._clean(str(error))}); check the URL") from error

    def _deltas(self, payload: Json) -> Iterator[Delta]:
        """One attempt at an answer in pieces."""
        sent = self._sent(payload)
        finish = ""
        with self._response(sent) as response:
            deadline = time.monotonic() + self.endpoint.timeout
            if not response.is_success:
                chunks = iter([self._refused(response, self._read(response, deadline), payload, sent)])
            elif "json" not in response.headers.get("content-type", ""):
                chunks = response.iter_bytes()
            else:  # a server that does not stream
                reply = self._parse(self._read(response, deadline), payload, time.perf_counter())
                yield Delta(text=reply.text, finish=reply.finish or "stop")
                return
            for event in events(chunks, limit=self._max_bytes):
                if event == DONE:
                    break
                delta = self._delta(event)
                finish = delta.finish or finish
                if delta.text or delta.finish:
                    yield delta
        if not finish:
            raise _Again("the stream ended without an end")

    def _delta(self, event: bytes) -> Delta:
        try:
            document: Any = json.loads(event)
            choices: list[Json] = document["choices"]
            if not choices:  # the last event of servers that report usage
                return Delta(text="")
            content = choices[0]["delta"].get("content")
            return Delta(text=whole(content or ""), finish=str(choices[0].get("finish_reason") or ""))
        except (ValueError, RecursionError, KeyError, IndexError, TypeError, AttributeError) as error:
            raise FetchError(
                f"{self.endpoint.base_url} sent what is no piece of an answer "
                f"({self._complaint(event)[1]}); ask again, or another server"
            ) from error

    def _refused(self, response: httpx.Response, data: bytes, payload: Json, sent: Json) -> bytes:
        code, message = self._complaint(data)
        said = f"HTTP {response.status_code}" + (f": {message}" if message else "")
        if "max_completion_tokens" in message and "max_tokens" in sent:
            self._limit_name = "max_completion_tokens"  # what OpenAI's newer models call it
            self._budget.take()
            return self._post(payload)
        passing = response.status_code in _AGAIN or response.status_code >= 500
        if passing and code != "insufficient_quota":
            raise _Again(said, _retry_after(response.headers.get("retry-after", "")))
        advice = {
            401: f"check {KEY_VARIABLE}",
            403: f"check {KEY_VARIABLE}",
            404: "check the URL (it usually ends in /v1) and the model's name",
        }.get(response.status_code, "change the request, or ask another server")
        raise FetchError(f"{self.endpoint.base_url} refused the request ({said}); {advice}")

    def _read(self, response: httpx.Response, deadline: float) -> bytes:
        data = bytearray()
        for chunk in response.iter_bytes():
            data += chunk
            if len(data) > self._max_bytes:
                raise FetchError(
                    f"{self.endpoint.base_url} answered with more than {self._max_bytes} bytes; "
                    "check that it is a chat server, or ask for fewer tokens"
                )
            if time.monotonic() > deadline:
                raise _Again(f"the answer was not complete within {self.endpoint.timeout:g} s")
        return bytes(data)

    def _session(self) -> httpx.Client:
        import httpx

        with self._lock:
            if self._http is None:
                # A proxy of the environment cannot reach this machine's own servers. Redirects are not
                # followed: they would carry the key to a host that nobody named.
                self._http = httpx.Client(
                    timeout=self.endpoint.timeout,
                    limits=httpx.Limits(max_connections=None, max_keepalive_connections=64),
                    trust_env=httpx.URL(self.endpoint.base_url).host not in _LOOPBACK,
                    follow_redirects=False,
                )
            return self._http

    def _headers(self) -> dict[str, str]:
        key = self.endpoint.key()
        headers = {"Content-Type": "application/json", "Accept": "application/json", "User-Agent": "llavar"}
        return headers | ({"Authorization": f"Bearer {key}"} if key else {})

    def _complaint(self, data: bytes) -> tuple[str, str]:
        """(code, message) of an error, from any of the shapes that servers use."""
        try:
            found: Any = json.loads(data)
        except (ValueError, RecursionError):
            return "", self._clean(data[:2000].decode("utf-8", "replace"))
        error: Any = found
        for name in ("error", "detail", "message"):
            if isinstance(error, dict) and name in error:
                error = cast(Json, error)[name]
        code = ""
        if isinstance(found, dict) and isinstance(cast(Json, found).get("error"), dict):
            code = str(cast(Json, found)["error"].get("code", ""))
        return code, self._clean(error if isinstance(error, str) else json.dumps(error))

    def _clean(self, text: str) -> str:
        """Another program's words for a sentence of ours: one line, short, without the key."""
        key = self.endpoint.key()
        text = whole(text).replace(key, "***") if key else whole(text)
        text = " ".join(_CONTROL.sub(" ", text).split())
        return text if len(text) <= _LONGEST_MESSAGE else text[:_LONGEST_MESSAGE] + "..."

    def _parse(self, data: bytes, payload: Json, start: float) -> Reply:
        try:
            document: Any = json.loads(data)
        except (ValueError, RecursionError) as error:
            raise _Again("the answer is not JSON") from error
        try:
            choice: Mapping[str, Any] = document["choices"][0]
            finish = str(choice.get("finish_reason") or "")
            text = _text(choice["message"]["content"], finish)
            usage: Mapping[str, Any] = document.get("usage") or {}
            prompt, completion = (
                max(0, int(usage.get(n) or 0)) for n in ("prompt_tokens", "completion_tokens")
            )
        except (KeyError, IndexError, TypeError, ValueError, AttributeError) as error:
            raise FetchError(
                f"{self.endpoint.base_url} answered with what is no chat completion "
                f"({self._complaint(data)[1]}); check the URL and the model's name"
            ) from error
        sent = sum(len(json.dumps(m["content"])) for m in payload["messages"]) + int(payload["max_tokens"])
        self._budget.add_tokens(prompt + completion or sent)
        return Reply(
            text=text,
            model=whole(str(document.get("model") or self.endpoint.model)),
            prompt_tokens=prompt,
            completion_tokens=completion,
            finish=finish,
            seconds=time.perf_counter() - start,
        )


def _text(content: object, finish: str) -> str:
    """The text of a reply; ``null`` is one without text where the server says why it has none."""
    if isinstance(content, str):
        return whole(content)
    if isinstance(content, list):
        parts = cast(list[Json], content)
        return whole("".join(str(part["text"]) for part in parts if part.get("type") == "text"))
    if content is None and finish in ("length", "content_filter"):
        return ""
    raise TypeError(f"content is {type(content).__name__}")


def _wait(attempt: int, asked: float) -> float:
    """Seconds to pause: doubling, spread so that threads do not return together, never less than asked."""
    usual = _FIRST_PAUSE * 2**attempt * _SPREAD.uniform(0.75, 1.25)
    return min(max(usual, asked), _LONGEST_PAUSE)


def _retry_after(value: str) -> float:
    """Seconds from a Retry-After header, a number or a date; 0 if it says nothing usable."""
    value = value.strip()
    if re.fullmatch(r"\d{1,9}(\.\d{1,6})?", value, re.ASCII):
        return float(value)
    try:
        moment = parsedate_to_datetime(value)
        return max(0.0, moment.timestamp() - time.time())
    except (ValueError, TypeError, OverflowError, IndexError, OSError):
        return 0.0
