"""Fetching: what is refused before a connection, and what a hostile or broken server can do."""

from __future__ import annotations

import ipaddress
import pickle
import socket
import ssl
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from llavar import net
from llavar.errors import ConfigError, FetchError
from llavar.net import Fetched, FetchPolicy

LOCAL = FetchPolicy(allow_private=True, total_seconds=10)
BODY = bytes(range(256)) * 1000


class Server(ThreadingHTTPServer):
    """A web server on loopback that remembers what it was asked."""

    daemon_threads = True
    seen: list[tuple[str, dict[str, str]]]

    @property
    def root(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"


class Handler(BaseHTTPRequestHandler):
    server: Server

    def do_GET(self) -> None:
        self.server.seen.append((self.path, {name.lower(): value for name, value in self.headers.items()}))
        name, _, argument = self.path.strip("/").partition("/")
        getattr(self, f"answer_{name.partition('?')[0]}")(argument)

    def reply(self, status: int, body: bytes = b"", **headers: str) -> None:
        self.send_response(status)
        for name, value in {"Content_Length": str(len(body)), **headers}.items():
            self.send_header(name.replace("_", "-"), value)
        self.end_headers()
        try:
            self.wfile.write(body)
        except OSError:
            self.close_connection = True

    def answer_picture(self, _: str) -> None:
        self.reply(200, BODY, Content_Type="Image/PNG; charset=binary")

    def answer_status(self, code: str) -> None:
        self.reply(int(code.partition("?")[0]))

    def answer_hop(self, count: str) -> None:
        self.reply(302, Location="/picture" if count == "1" else f"/hop/{int(count) - 1}")

    def answer_to(self, target: str) -> None:
        self.reply(307, Location=target)

    def answer_announced(self, length: str) -> None:
        self.reply(200, b"short", Content_Length=length)

    def answer_unannounced(self, length: str) -> None:
        self.send_response(200)
        self.end_headers()
        self.wfile.write(b"x" * int(length))

    def answer_packed(self, coding: str) -> None:
        self.reply(200, b"xxxx", Content_Encoding=coding)

    def log_message(self, format: str, *args: object) -> None:
        pass


@pytest.fixture
def server() -> Iterator[Server]:
    with Server(("127.0.0.1", 0), Handler) as running:
        running.seen = []
        thread = threading.Thread(target=running.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield running
        running.shutdown()
        thread.join()


@contextmanager
def raw_server(talk: Callable[[socket.socket], None]) -> Iterator[int]:
    """The port of a server that does as it likes with its first connection."""
    with socket.create_server(("127.0.0.1", 0)) as listening:

        def serve() -> None:
            connection, _ = listening.accept()
            # The client may have hung up, which is what these tests are about.
            with connection, suppress(OSError):
                talk(connection)

        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        yield listening.getsockname()[1]
        thread.join(timeout=10)


def answering(*addresses: str) -> Callable[[str, int], Sequence[str]]:
    return lambda host, port: addresses


def unreachable(host: str, port: int) -> Sequence[str]:
    raise AssertionError(f"nobody may ask for {host}:{port}")


def refusal(url: str, policy: FetchPolicy = LOCAL, resolver: net.Resolver = net.resolve) -> str:
    with pytest.raises(FetchError) as caught:
        net.fetch(url, policy=policy, resolver=resolver)
    sentence = str(caught.value)
    assert isinstance(caught.value, OSError)
    assert "\n" not in sentence
    assert sentence.endswith(".")
    assert pickle.loads(pickle.dumps(caught.value)).args == caught.value.args
    return sentence


# --------------------------------------------------------------------------------------- what works


def test_a_body_with_its_type_and_address(server: Server) -> None:
    found = net.fetch(f" {server.root}/picture?size=1#part\n", policy=LOCAL)
    assert found == Fetched(
        data=BODY, content_type="image/png", final_url=f"{server.root}/picture?size=1#part"
    )
    ((path, headers),) = server.seen
    assert path == "/picture?size=1"
    assert headers["host"] == f"127.0.0.1:{server.server_port}"
    assert headers["accept-encoding"] == "identity"
    assert headers["user-agent"] == "llavar"


def test_redirects_are_followed(server: Server) -> None:
    found = net.fetch(f"{server.root}/hop/5", policy=LOCAL)
    assert (found.data, found.final_url) == (BODY, f"{server.root}/picture")
    assert [path for path, _ in server.seen] == [f"/hop/{n}" for n in (5, 4, 3, 2, 1)] + ["/picture"]


def test_the_checked_address_is_the_one_connected_to(server: Server) -> None:
    """A name server that answers differently the second time (DNS rebinding) is not asked a second time."""
    asked: list[tuple[str, int]] = []

    def rebinding(host: str, port: int) -> Sequence[str]:
        asked.append((host, port))
        return ["127.0.0.1"] if len(asked) == 1 else ["169.254.169.254"]

    url = f"http://pictures.example:{server.server_port}/picture"
    assert net.fetch(url, policy=LOCAL, resolver=rebinding).data == BODY
    assert asked == [("pictures.example", server.server_port)]
    assert server.seen[0][1]["host"] == f"pictures.example:{server.server_port}"


def test_each_redirect_is_resolved_and_checked_again(server: Server) -> None:
    asked: list[str] = []

    def resolver(host: str, port: int) -> Sequence[str]:
        asked.append(host)
        return ["127.0.0.1"]

    url = f"http://one.example:{server.server_port}/to/http://two.example:{server.server_port}/picture"
    assert net.fetch(url, policy=LOCAL, resolver=resolver).data == BODY
    assert asked == ["one.example", "two.example"]


def test_the_next_address_is_tried_if_one_does_not_answer(server: Server) -> None:
    with socket.create_server(("127.0.0.2", 0)) as closed:
        port = closed.getsockname()[1]
    assert port != server.server_port
    url = f"http://pictures.example:{server.server_port}/picture"
    assert net.fetch(url, policy=LOCAL, resolver=answering("127.0.0.2", "127.0.0.1")).data == BODY


def test_a_name_in_another_script_is_sent_as_punycode(server: Server) -> None:
    net.fetch(
        f"http://bücher.example:{server.server_port}/picture", policy=LOCAL, resolver=answering("127.0.0.1")
    )
    assert server.seen[0][1]["host"].startswith("xn--bcher-kva.example")


def test_proxies_of_the_environment_are_not_used(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("http_proxy", "HTTP_PROXY", "ALL_PROXY", "all_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:1")
    assert net.fetch(f"{server.root}/picture", policy=LOCAL).data == BODY


def test_the_system_resolver_gives_addresses() -> None:
    assert "127.0.0.1" in net.resolve("127.0.0.1", 80)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("http://a/b.png", True),
        ("HTTPS://a", True),
        (" https://a", True),
        ("httpfolder/a.png", False),
        ("ftp://a", False),
        ("a.png", False),
        ("", False),
    ],
)
def test_is_url(text: str, expected: bool) -> None:
    assert net.is_url(text) is expected


# ------------------------------------------------------------------------- refused before a connection

PRIVATE = [
    "0.0.0.0",
    "0.1.2.3",
    "10.0.0.1",
    "100.64.0.1",
    "100.100.100.200",
    "127.0.0.1",
    "127.255.255.254",
    "168.63.129.16",
    "169.254.169.254",
    "172.16.0.1",
    "172.31.255.255",
    "192.0.0.192",
    "192.0.2.1",
    "192.168.1.1",
    "198.18.0.1",
    "203.0.113.7",
    "224.0.0.1",
    "239.255.255.255",
    "240.0.0.1",
    "255.255.255.255",
    "::",
    "::1",
    "::7f00:1",
    "::ffff:127.0.0.1",
    "::ffff:10.0.0.1",
    "::ffff:a9fe:a9fe",
    "64:ff9b::7f00:1",
    "64:ff9b::a9fe:a9fe",
    "64:ff9b:1::1",
    "100::1",
    "2001:db8::1",
    "2002:7f00:1::1",
    "2002:a9fe:a9fe::",
    "2001:0:4136:e378:8000:63bf:3fff:fdd2",  # Teredo around 192.0.2.45
    "fc00::1",
    "fd00:ec2::254",
    "fe80::1",
    "fe80::1%eth0",
    "fec0::1",
    "ff02::1",
]


@pytest.mark.parametrize("address", PRIVATE)
def test_addresses_that_are_not_public(address: str) -> None:
    host = f"[{address.replace('%', '%25')}]" if ":" in address else address
    assert "only public addresses" in refusal(f"http://{host}/x.png", FetchPolicy(), unreachable)
    sentence = refusal("http://pictures.example/x.png", FetchPolicy(), answering(address))
    assert str(ipaddress.ip_address(address)) in sentence
    assert "allow_private" in sentence


@pytest.mark.parametrize("public", ["93.184.216.34", "2606:2800:220:1:248:1893:25c8:1946"])
def test_one_private_address_among_public_ones_refuses_all(public: str) -> None:
    for addresses in ((public, "10.0.0.1"), ("10.0.0.1", public)):
        assert "10.0.0.1" in refusal("https://pictures.example/", FetchPolicy(), answering(*addresses))


@pytest.mark.parametrize(
    "address",
    ["1.1.1.1", "8.8.8.8", "93.184.216.34", "2606:4700::1111", "::ffff:8.8.8.8", "64:ff9b::808:808"],
)
def test_public_addresses_are_connected_to(address: str, monkeypatch: pytest.MonkeyPatch) -> None:
    import httpcore

    tried: list[tuple[str, int]] = []

    def connect(self: object, host: str, port: int, *rest: object) -> None:
        tried.append((host, port))
        raise httpcore.ConnectError("no network in tests")

    monkeypatch.setattr(httpcore.SyncBackend, "connect_tcp", connect)
    assert "no network in tests" in refusal("http://pictures.example/", FetchPolicy(), answering(address))
    assert tried == [(str(ipaddress.ip_address(address)), 80)]


@settings(deadline=None, max_examples=200)
@given(st.ip_addresses())
def test_every_address_that_python_calls_private_is_refused(
    address: ipaddress.IPv4Address | ipaddress.IPv6Address,
) -> None:
    private = address.is_private or address.is_multicast or address.is_loopback or address.is_link_local
    nat64 = address in ipaddress.ip_network("64:ff9b::/96") if address.version == 6 else False
    mapped = getattr(address, "ipv4_mapped", None) is not None
    if private and not nat64 and not mapped:
        assert "only public" in refusal("http://a.example/", FetchPolicy(), answering(str(address)))


@pytest.mark.parametrize(
    "host",
    [
        "2130706433",
        "0x7f000001",
        "0x7f.0.0.1",
        "0177.0.0.1",
        "127.1",
        "127.0.1",
        "017700000001",
        "127.0.0.1.",
        "0",
    ],
)
@pytest.mark.parametrize("policy", [FetchPolicy(), LOCAL])
def test_odd_spellings_of_addresses(host: str, policy: FetchPolicy) -> None:
    sentence = refusal(f"http://{host}/", policy, unreachable)
    assert "odd spelling" in sentence or "Invalid IPv4 address" in sentence


@pytest.mark.parametrize(
    ("url", "words"),
    [
        ("file:///etc/passwd", "'file'"),
        ("ftp://example.com/x.png", "'ftp'"),
        ("gopher://example.com:70/_x", "'gopher'"),
        ("data:image/png;base64,AAAA", "'data'"),
        ("javascript:alert(1)", "'javascript'"),
        ("/etc/passwd", "''"),
        ("cat.png", "''"),
        ("", "''"),
        ("http:///cat.png", "names no host"),
        ("http://", "names no host"),
        ("http://user:hunter2@example.com/", "user name or password"),
        ("http://example.com@127.0.0.1/", "user name or password"),
        ("http://127.0.0.1\\@example.com/", "user name or password"),
        ("http://example.com:0/", "port 0"),
        ("http://example.com:70000/", "port 70000"),
        ("http://example.com:port/", "no valid URL"),
        ("http://exa mple.com/", "no valid host name"),
        ("http://exa%00mple.com/", "no valid host name"),
        ("http://exa\nmple.com/", "no valid URL"),
        ("http://[::1/", "no valid URL"),
        ("http://１２７.0.0.1/", "no valid URL"),
        ("http://a/" + "b" * 70_000, "no valid URL"),
    ],
)
def test_urls_that_are_not_fetched(url: str, words: str) -> None:
    sentence = refusal(url, FetchPolicy(), unreachable)
    assert words in sentence
    assert "hunter2" not in sentence
    assert len(sentence) < 400


def test_names_without_an_address() -> None:
    def unknown(host: str, port: int) -> Sequence[str]:
        raise socket.gaierror(-2, "Name or service not known")

    assert "cannot be resolved" in refusal("http://nowhere.example/", FetchPolicy(), unknown)
    assert "has no address" in refusal("http://nowhere.example/", FetchPolicy(), answering())
    assert "no IP address" in refusal("http://nowhere.example/", FetchPolicy(), answering("nonsense"))
    assert "FetchError" not in refusal("http://" + "a" * 64 + ".example/", FetchPolicy())


# ------------------------------------------------------------------------------------ only some hosts


@pytest.mark.parametrize(
    ("host", "listed"),
    [
        ("example.org", True),
        ("EXAMPLE.org.", True),
        ("a.example.org", False),
        ("example.org.evil", False),
        ("badexample.org", False),
        ("a.cdn.example", True),
        ("a.b.cdn.example", True),
        ("cdn.example", False),
        ("acdn.example", False),
        ("", False),
    ],
)
def test_which_hosts_are_listed(host: str, listed: bool) -> None:
    assert net.is_listed(host, ("Example.org", ".cdn.example.")) is listed
    assert net.is_listed(host, ()) is False


def test_the_host_of_a_url() -> None:
    assert net.host_of(" HTTPS://B\u00fccher.Example.:8080/a?b#c") == "xn--bcher-kva.example"
    assert net.host_of("http://[2606:4700::1111]/") == "2606:4700::1111"
    for url in ("ftp://a.example/", "http://u:p@a.example/", "http://", "http://a b/", "a.png"):
        with pytest.raises(FetchError):
            net.host_of(url)


def test_hosts_that_are_not_listed_are_not_even_resolved() -> None:
    for hosts in (("example.org",), ()):
        sentence = refusal("http://other.example/?key=hush", FetchPolicy(hosts=hosts), unreachable)
        assert f"({'example.org' if hosts else 'none'})" in sentence
        assert "hush" not in sentence


def test_redirects_stay_among_the_listed_hosts(server: Server) -> None:
    policy = FetchPolicy(allow_private=True, hosts=("one.example", ".two.example"))
    base = f"http://one.example:{server.server_port}/to/"
    inside = f"{base}http://a.two.example:{server.server_port}/picture"
    assert net.fetch(inside, policy=policy, resolver=answering("127.0.0.1")).data == BODY
    for host in ("two.example", "127.0.0.1", "three.example"):
        outside = f"{base}http://{host}:{server.server_port}/picture"
        assert "may be fetched from" in refusal(outside, policy, answering("127.0.0.1"))
    assert [path.split("/")[1] for path, _ in server.seen] == ["to", "picture", "to", "to", "to"]


# --------------------------------------------------------------------------------------- redirects


def test_a_redirect_to_a_private_address_is_refused(server: Server) -> None:
    def resolver(host: str, port: int) -> Sequence[str]:
        return ["127.0.0.1"]

    # Only the second hop is judged strictly here, since only loopback is there to give the first.
    checked: list[str] = []
    strict = net._addresses

    def first_hop_allowed(url: object, policy: FetchPolicy, resolver: net.Resolver) -> list[str]:
        checked.append(str(url))
        return strict(url, LOCAL if len(checked) == 1 else FetchPolicy(), resolver)  # pyright: ignore

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(net, "_addresses", first_hop_allowed)
        sentence = refusal(
            f"{server.root}/to/http://169.254.169.254/latest/meta-data", FetchPolicy(), resolver
        )
    assert "169.254.169.254" in sentence
    assert "link-local" in sentence
    assert len(server.seen) == 1


@pytest.mark.parametrize(
    "target",
    ["file:///etc/passwd", "ftp://example.com/", "http://u:p@127.0.0.1/", "http://[::1/", "http://0x7f.1/"],
)
def test_redirects_to_what_is_not_fetched(server: Server, target: str) -> None:
    refusal(f"{server.root}/to/{target}")
    assert len(server.seen) == 1


def test_too_many_redirects(server: Server) -> None:
    assert "more than 5 times" in refusal(f"{server.root}/hop/6")
    assert len(server.seen) == 6
    none = FetchPolicy(allow_private=True, max_redirects=0)
    assert "more than 0 times" in refusal(f"{server.root}/hop/1", none)


def test_a_redirect_without_a_target_is_an_error(server: Server) -> None:
    assert "status 302" in refusal(f"{server.root}/status/302")


# ---------------------------------------------------------------------------------- limits and damage


@pytest.mark.parametrize("status", [204, 206, 304, 400, 403, 404, 429, 500, 503])
def test_other_answers_than_200(server: Server, status: int) -> None:
    assert f"status {status}" in refusal(f"{server.root}/status/{status}?signature=secret")


def test_a_query_is_not_repeated_in_errors(server: Server) -> None:
    assert "secret" not in refusal(f"{server.root}/status/404?signature=secret")


def test_a_body_of_exactly_the_limit(server: Server) -> None:
    for path in ("picture", f"unannounced/{len(BODY)}"):
        exact = FetchPolicy(allow_private=True, max_bytes=len(BODY))
        assert len(net.fetch(f"{server.root}/{path}", policy=exact).data) == len(BODY)
        below = FetchPolicy(allow_private=True, max_bytes=len(BODY) - 1)
        assert f"the limit is {len(BODY) - 1:,}" in refusal(f"{server.root}/{path}", below)


def test_an_announced_length_is_refused_before_the_body(server: Server) -> None:
    assert "99,999,999,999 bytes" in refusal(f"{server.root}/announced/99999999999")


def test_a_body_that_ends_early(server: Server) -> None:
    assert "cannot be fetched" in refusal(f"{server.root}/announced/100")


def test_packed_bodies_are_refused(server: Server) -> None:
    assert "packed as 'gzip'" in refusal(f"{server.root}/packed/gzip")
    assert net.fetch(f"{server.root}/packed/identity", policy=LOCAL).data == b"xxxx"


def test_nobody_listens() -> None:
    with socket.create_server(("127.0.0.1", 0)) as closed:
        port = closed.getsockname()[1]
    assert "cannot be fetched" in refusal(f"http://127.0.0.1:{port}/")


@pytest.mark.parametrize(
    "answer",
    [b"", b"garbage\r\n\r\n", b"HTTP/1.1 200", b"HTTP/1.1 200 OK\r\nX: " + b"y" * 200_000, b"\0" * 1000],
)
def test_answers_that_are_no_http(answer: bytes) -> None:
    def talk(connection: socket.socket) -> None:
        connection.recv(65_536)
        connection.sendall(answer)

    with raw_server(talk) as port:
        assert "cannot be fetched" in refusal(f"http://127.0.0.1:{port}/")


@pytest.mark.parametrize("start", [b"", b"HTTP/1.1 200 OK\r\n\r\n"])
def test_slow_drips_end_with_the_total_time(start: bytes) -> None:
    """Each byte comes in time, in the headers or in the body, but they never end."""
    hung_up = threading.Event()

    def talk(connection: socket.socket) -> None:
        connection.recv(65_536)
        connection.sendall(start)
        try:
            while True:
                connection.sendall(b"x")
                time.sleep(0.01)
        finally:
            hung_up.set()

    with raw_server(talk) as port:
        assert "in time" in refusal(
            f"http://127.0.0.1:{port}/", FetchPolicy(allow_private=True, total_seconds=0.3)
        )
        assert hung_up.wait(10)


def test_silence_ends_with_the_total_time() -> None:
    done = threading.Event()
    with raw_server(lambda connection: done.wait(10) and None) as port:
        assert "in time" in refusal(
            f"http://127.0.0.1:{port}/", FetchPolicy(allow_private=True, total_seconds=0.2)
        )
        done.set()


# ------------------------------------------------------------------------------------------------ TLS


def test_tls_asks_for_the_name_and_not_for_the_address() -> None:
    hello: list[bytes] = []

    def talk(connection: socket.socket) -> None:
        hello.append(connection.recv(65_536))

    with raw_server(talk) as port:
        sentence = refusal(f"https://pictures.example:{port}/", LOCAL, answering("127.0.0.1"))
    assert "cannot be fetched" in sentence
    assert hello[0][0] == 22  # a TLS handshake record
    assert b"pictures.example" in hello[0]


def test_certificates_are_verified(monkeypatch: pytest.MonkeyPatch) -> None:
    contexts: list[ssl.SSLContext] = []
    wrap = ssl.SSLContext.wrap_socket

    def watched(self: ssl.SSLContext, *args: object, **options: object) -> ssl.SSLSocket:
        contexts.append(self)
        assert options["server_hostname"] == "pictures.example"
        return wrap(self, *args, **options)  # pyright: ignore

    monkeypatch.setattr(ssl.SSLContext, "wrap_socket", watched)
    with raw_server(lambda connection: None) as port:
        refusal(f"https://pictures.example:{port}/", LOCAL, answering("127.0.0.1"))
    assert [(one.verify_mode, one.check_hostname) for one in contexts] == [(ssl.CERT_REQUIRED, True)]


# --------------------------------------------------------------------------------------------- settings


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("max_bytes", 0),
        ("total_seconds", 0),
        ("total_seconds", float("nan")),
        ("connect_seconds", -1),
        ("max_redirects", -1),
    ],
)
def test_policies_that_cannot_work(name: str, value: float) -> None:
    with pytest.raises(ConfigError, match=f"FetchPolicy.{name} is {value}"):
        FetchPolicy(**{name: value})  # pyright: ignore


def test_importing_net_imports_no_http_library() -> None:
    folder = str(Path(net.__file__).parents[1])
    code = f"import sys; sys.path.insert(0, {folder!r})\nimport llavar.net\n"
    code += "print({'httpx', 'httpcore', 'ssl'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"
