"""Fetch a URL that a stranger may have written.

Only http and https, only public addresses, and the address that was checked is the one that is connected to:
the name is resolved once, so that a second answer of its name server cannot lead elsewhere. Redirects are
followed by hand and checked again. Length and total time are capped. Used by ask, corpus and serve.
"""

from __future__ import annotations

import ipaddress
import re
import socket
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, Any, cast

from llavar.errors import ConfigError, FetchError

if TYPE_CHECKING:  # both take a tenth of a second to import, and most commands fetch nothing
    import ssl

    import httpcore
    import httpx

Address = ipaddress.IPv4Address | ipaddress.IPv6Address
Resolver = Callable[[str, int], Sequence[str]]
"""Host name and port to the addresses of the host as text; ``OSError`` if it has none."""

_HOST = re.compile(rb"[A-Za-z0-9._-]+|[0-9A-Fa-f.]*:[0-9A-Fa-f:.]+(%[A-Za-z0-9]+)?")
_REDIRECTS = (301, 302, 303, 307, 308)
_GLOBAL_UNICAST = ipaddress.IPv6Network("2000::/3")
_NAT64 = ipaddress.IPv6Network("64:ff9b::/96")
_METADATA = (ipaddress.IPv4Network("192.0.0.0/24"), ipaddress.IPv4Network("168.63.129.16/32"))
"""Services of clouds for their own machines that count as public addresses."""


@dataclass(frozen=True, slots=True, kw_only=True)
class FetchPolicy:
    """What may be fetched, and at what cost. Times in seconds."""

    max_bytes: int = 32 * 2**20
    """Length of the body; one that announces or sends more is refused."""
    total_seconds: float = 30.0
    """For everything, redirects included; a name server that hangs is noticed only when it answers."""
    connect_seconds: float = 5.0
    """For one connection and its TLS handshake."""
    max_redirects: int = 5
    allow_private: bool = False
    """Also fetch from this machine and its network. Never for URLs that came from outside."""
    user_agent: str = "llavar"
    hosts: tuple[str, ...] | None = None
    """Fetch only from these, redirects included: names as :func:`is_listed` takes them. None: from any."""

    def __post_init__(self) -> None:
        for name in ("max_bytes", "total_seconds", "connect_seconds"):
            if not getattr(self, name) > 0:
                raise ConfigError(f"FetchPolicy.{name} is {getattr(self, name)}, but must be greater than 0.")
        if self.max_redirects < 0:
            raise ConfigError(f"FetchPolicy.max_redirects is {self.max_redirects}, but must be at least 0.")


_POLICY = FetchPolicy()
_LATER = (408, 425, 429, 500, 502, 503, 504)


class PassingError(FetchError):
    """What may work later; ``retry_after`` is when the server wants to be asked again, in seconds, or 0."""

    def __init__(self, message: str, retry_after: float = 0.0) -> None:
        super().__init__(message)
        self.retry_after = retry_after

    def __reduce__(self) -> tuple[type[PassingError], tuple[str, float]]:
        return PassingError, (str(self), self.retry_after)


@dataclass(frozen=True, slots=True, kw_only=True)
class Fetched:
    """The body of an answer. ``content_type`` is what the server claims, lower case, without parameters.

    ``robots`` is its X-Robots-Tag in lower case: ``noai`` there asks not to train on it.
    """

    data: bytes
    content_type: str
    final_url: str
    robots: str = ""


def is_url(text: str) -> bool:
    """Whether ``text`` is meant as a URL to fetch and not as a path."""
    return text.lstrip().lower().startswith(("http://", "https://"))


def host_of(url: str) -> str:
    """The host of a URL that could be fetched: lower case, other scripts as Punycode, no final dot.

    Raises:
        FetchError: as :func:`fetch` does before it asks for an address.
    """
    return _plain(_parse(url).raw_host.decode("ascii"))


def is_listed(host: str, hosts: Sequence[str]) -> bool:
    """Whether one of ``hosts`` stands for ``host``: itself, or ``.example.org`` for all below it."""
    name = _plain(host)
    return any(name.endswith(one) if one.startswith(".") else name == one for one in map(_plain, hosts))


def resolve(host: str, port: int) -> tuple[str, ...]:
    """The addresses of ``host`` by the system's resolver, in its order of preference."""
    found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    return tuple(dict.fromkeys(str(entry[4][0]) for entry in found))


def fetch(url: str, *, policy: FetchPolicy = _POLICY, resolver: Resolver = resolve) -> Fetched:
    """The body at ``url``, or one sentence that says why not.

    Proxies of the environment are not used: through one, the address that was checked would not be the one
    that is connected to. Certificates are verified (``SSL_CERT_FILE`` is respected).

    Raises:
        FetchError: Not http(s), an address that is not public, an error of the network or of the server,
            too long or too slow.
    """
    deadline = _Deadline(policy.total_seconds)
    target = _parse(url)
    for _ in range(policy.max_redirects + 1):
        _check_host(target, policy)
        answer = _get(target, _addresses(target, policy, resolver), policy, deadline)
        if isinstance(answer, Fetched):
            return answer
        target = answer
    raise FetchError(
        f"{_shown(_parse(url))} was redirected more than {policy.max_redirects} times; give the last URL."
    )


# ------------------------------------------------------------------------------------- what may be fetched


def _parse(url: str) -> httpx.URL:
    import httpx

    try:
        parsed = httpx.URL(url.strip())
        host = parsed.raw_host
    except (httpx.InvalidURL, ValueError) as error:
        raise FetchError(f"{url[:100]!r} is no valid URL ({error}); check its spelling.") from error
    if parsed.scheme not in ("http", "https"):
        raise FetchError(f"The URL has the scheme {parsed.scheme!r}; only http and https are fetched.")
    if not host:
        raise FetchError(f"{url[:100]!r} names no host; check its spelling.")
    if not _HOST.fullmatch(host):
        raise FetchError(f"{url[:100]!r} has no valid host name; check the URL.")
    if parsed.userinfo:
        raise FetchError(f"The URL for {parsed.host!r} holds a user name or password; give it without.")
    if not 0 < _port(parsed) < 65536:
        raise FetchError(f"The URL for {parsed.host!r} has port {parsed.port}; it must be 1 to 65535.")
    return parsed


def _check_host(url: httpx.URL, policy: FetchPolicy) -> None:
    if policy.hosts is not None and not is_listed(url.raw_host.decode("ascii"), policy.hosts):
        raise FetchError(
            f"{_shown(url)} is not at a host that may be fetched from ({', '.join(policy.hosts) or 'none'})."
        )


def _plain(host: str) -> str:
    return host.lower().removesuffix(".")


def _addresses(url: httpx.URL, policy: FetchPolicy, resolver: Resolver) -> list[str]:
    """The addresses to connect to, each of them checked: one that is not public refuses them all."""
    host = url.raw_host.decode("ascii")
    found = [_address(text) for text in _look_up(url, host, resolver)]
    if not found:
        raise FetchError(f"{host!r} has no address; check the URL.")
    for address in found:
        kind = _not_public(address)
        if kind and not policy.allow_private:
            raise FetchError(
                f"{_shown(url)} leads to {address}, {kind}; only public addresses are fetched "
                "unless allow_private is set."
            )
    return [str(address) for address in found]


def _look_up(url: httpx.URL, host: str, resolver: Resolver) -> Sequence[str]:
    try:
        return [str(ipaddress.ip_address(host))]
    except ValueError:
        pass
    if _is_odd_ipv4(host):
        raise FetchError(f"{host!r} is an odd spelling of an IPv4 address; write it as four decimal numbers.")
    try:
        return resolver(host, _port(url))
    except (OSError, UnicodeError) as error:
        raise FetchError(f"{host!r} cannot be resolved ({error}); check the URL and the network.") from error


def _address(text: str) -> Address:
    try:
        return ipaddress.ip_address(text)
    except ValueError as error:
        raise FetchError(f"The resolver answered {text[:60]!r}, which is no IP address.") from error


def _is_odd_ipv4(host: str) -> bool:
    """Whether the C library reads 0x7f.1, 2130706433, 0177.0.0.1 or 127.1 as an address."""
    try:
        socket.inet_aton(host.rstrip("."))
    except (OSError, ValueError):
        return False
    return True


def _not_public(address: Address) -> str:
    """What kind of address this is if it is not a public one; else empty.

    The default is to refuse: IPv6 outside of global unicast, and everything that :mod:`ipaddress` does not
    call global. An IPv4 address inside of an IPv6 one is judged as itself.
    """
    if isinstance(address, ipaddress.IPv6Address):
        inner = address.ipv4_mapped or address.sixtofour or (address.teredo or (None, None))[1]
        if inner is None and address in _NAT64:
            inner = ipaddress.IPv4Address(int(address) & 0xFFFFFFFF)
        if inner is not None:
            return _not_public(inner)
    for is_kind, kind in (
        (address.is_unspecified, "an unspecified address"),
        (address.is_loopback, "a loopback address"),
        (address.is_link_local, "a link-local address"),
        (address.is_multicast, "a multicast address"),
        (not address.is_global, "a private or reserved address"),
        (address.is_reserved, "a reserved address"),
        (address.version == 6 and address not in _GLOBAL_UNICAST, "a reserved address"),
        (any(address in network for network in _METADATA), "a cloud's metadata address"),
    ):
        if is_kind:
            return kind
    return ""


def _port(url: httpx.URL) -> int:
    return url.port if url.port is not None else (443 if url.scheme == "https" else 80)


def _shown(url: httpx.URL) -> str:
    """A URL for a sentence: without the query, which may hold a signature, and not too long."""
    text = str(url.copy_with(query=None, fragment=None))
    return text if len(text) <= 200 else text[:197] + "..."


# --------------------------------------------------------------------------------------------- fetching


def _get(
    url: httpx.URL, addresses: Sequence[str], policy: FetchPolicy, deadline: _Deadline
) -> Fetched | httpx.URL:
    """One request: the body, or where the server redirects to."""
    import httpcore

    secure = url.scheme == "https"
    pool = httpcore.ConnectionPool(
        ssl_context=_certificates() if secure else None,
        max_connections=1,
        network_backend=cast("httpcore.NetworkBackend", _Pinned(addresses, policy, deadline)),
    )
    headers = [
        (b"Host", url.netloc),
        (b"User-Agent", policy.user_agent.encode("ascii", "replace")),
        (b"Accept", b"image/*,*/*;q=0.5"),
        # Packed bodies could unfold without limit, and pictures gain nothing from it.
        (b"Accept-Encoding", b"identity"),
    ]
    target = httpcore.URL(scheme=url.raw_scheme, host=url.raw_host, port=_port(url), target=url.raw_path)
    try:
        with pool, pool.stream("GET", target, headers=headers) as response:
            fields = {name.lower(): value.decode("utf-8", "replace") for name, value in response.headers}
            if response.status in _REDIRECTS and b"location" in fields:
                return _redirected(url, fields[b"location"])
            _check_answer(url, response.status, fields, policy)
            data = _body(url, response.iter_stream(), policy)
    except httpcore.TimeoutException as error:
        raise PassingError(
            f"{_shown(url)} did not answer in time ({policy.connect_seconds:g} s to connect, "
            f"{policy.total_seconds:g} s in all); try again or raise the limits."
        ) from error
    except (httpcore.NetworkError, httpcore.ProtocolError, httpcore.UnsupportedProtocol) as error:
        reason = " ".join(str(error).split())[:160] or type(error).__name__
        raise PassingError(f"{_shown(url)} cannot be fetched ({reason}); check the URL.") from error
    kind = fields.get(b"content-type", "").partition(";")[0].strip().lower()
    robots = fields.get(b"x-robots-tag", "").lower()
    return Fetched(data=data, content_type=kind, final_url=str(url), robots=robots)


@cache
def _certificates() -> ssl.SSLContext:
    """Read once: it takes longer than many a fetch. Connections share it safely."""
    import httpx

    return httpx.create_ssl_context()


def _redirected(url: httpx.URL, location: str) -> httpx.URL:
    import httpx

    try:
        return _parse(str(url.join(location)))
    except (httpx.InvalidURL, ValueError) as error:
        raise FetchError(f"{_shown(url)} redirects to {location[:100]!r}, which is no valid URL.") from error
    except FetchError as error:
        raise FetchError(f"{_shown(url)} redirects to a URL that is not fetched: {error}") from error


def _check_answer(url: httpx.URL, status: int, fields: dict[bytes, str], policy: FetchPolicy) -> None:
    if status != 200:
        sentence = f"{_shown(url)} answered with status {status} and not 200; check the URL."
        wait = fields.get(b"retry-after", "")
        raise PassingError(sentence, _seconds(wait)) if status in _LATER else FetchError(sentence)
    coding = fields.get(b"content-encoding", "identity").strip().lower()
    if coding not in ("", "identity"):
        raise FetchError(
            f"{_shown(url)} answered with a body packed as {coding[:40]!r}, which is not unpacked; "
            "fetch it by other means."
        )
    announced = fields.get(b"content-length", "0")
    if announced.isdigit() and int(announced) > policy.max_bytes:
        raise _too_long(url, f"{int(announced):,} bytes", policy)


def _seconds(text: str) -> float:
    """A Retry-After in seconds; a date counts as none."""
    return float(text) if text.isascii() and text.isdigit() and len(text) < 7 else 0.0


def _body(url: httpx.URL, chunks: Iterable[bytes], policy: FetchPolicy) -> bytes:
    data = bytearray()
    for chunk in chunks:
        data += chunk
        if len(data) > policy.max_bytes:
            raise _too_long(url, f"more than {policy.max_bytes:,} bytes", policy)
    return bytes(data)


def _too_long(url: httpx.URL, length: str, policy: FetchPolicy) -> FetchError:
    return FetchError(
        f"{_shown(url)} sends {length}, and the limit is {policy.max_bytes:,}; raise max_bytes to allow it."
    )


class _Deadline:
    """The time left of a fetch. Each operation gets no more than that, so slow drips end in time too."""

    def __init__(self, seconds: float) -> None:
        self._end = time.monotonic() + seconds

    def left(self, at_most: float | None = None) -> float:
        """Seconds for the next operation; raises if none are left."""
        import httpcore

        remaining = self._end - time.monotonic()
        if remaining <= 0:
            raise httpcore.ReadTimeout("the time for the whole fetch is over")
        return remaining if at_most is None else min(remaining, at_most)


class _Pinned:
    """A network backend of httpcore that connects to the checked addresses, whatever host it is asked for.

    The host of the URL stays in the Host header, in the TLS handshake and in the check of the certificate.
    """

    def __init__(self, addresses: Sequence[str], policy: FetchPolicy, deadline: _Deadline) -> None:
        self._addresses, self._policy, self._deadline = addresses, policy, deadline

    def connect_tcp(
        self,
        host: str,  # noqa: ARG002 - replaced by the checked addresses
        port: int,
        timeout: float | None = None,  # noqa: ARG002 - the policy's
        local_address: str | None = None,
        socket_options: Iterable[httpcore.SOCKET_OPTION] | None = None,
    ) -> httpcore.NetworkStream:
        import httpcore

        failure: Exception = httpcore.ConnectError("no address")
        for address in self._addresses:
            seconds = self._deadline.left(self._policy.connect_seconds)
            try:
                stream = httpcore.SyncBackend().connect_tcp(
                    address, port, seconds, local_address, socket_options
                )
            except (httpcore.ConnectError, httpcore.ConnectTimeout) as error:
                failure = error
            else:
                return cast("httpcore.NetworkStream", _Timed(stream, self._policy, self._deadline))
        raise failure


class _Timed:
    """A network stream of httpcore, none of whose operations outlasts the fetch."""

    def __init__(self, stream: httpcore.NetworkStream, policy: FetchPolicy, deadline: _Deadline) -> None:
        self._stream, self._policy, self._deadline = stream, policy, deadline

    def read(self, max_bytes: int, timeout: float | None = None) -> bytes:
        return self._stream.read(max_bytes, self._deadline.left(timeout))

    def write(self, buffer: bytes, timeout: float | None = None) -> None:
        self._stream.write(buffer, self._deadline.left(timeout))

    def close(self) -> None:
        self._stream.close()

    def start_tls(
        self,
        ssl_context: ssl.SSLContext,
        server_hostname: str | None = None,
        timeout: float | None = None,  # noqa: ARG002 - the policy's
    ) -> httpcore.NetworkStream:
        seconds = self._deadline.left(self._policy.connect_seconds)
        stream = self._stream.start_tls(ssl_context, server_hostname, seconds)
        return cast("httpcore.NetworkStream", _Timed(stream, self._policy, self._deadline))

    def get_extra_info(self, info: str) -> Any:
        return self._stream.get_extra_info(info)
