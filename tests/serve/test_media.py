"""What strangers give as a picture: opened, or refused with a sentence that does not repeat it."""

from __future__ import annotations

import asyncio
import base64
import io
import struct
import threading
import zlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import quote

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageSequence

from llavar import images, net
from llavar.errors import ConfigError, FetchError, ImageError, LlavarError
from llavar.generate.dialogue import BusyError
from llavar.net import Fetched, FetchPolicy
from llavar.serve import media
from llavar.serve.media import Intake, MediaPolicy

SMALL = MediaPolicy(max_bytes=100_000, max_pixels=1_000_000)
LISTED = replace(SMALL, domains=("pictures.example", ".cdn.example"))


def picture(width: int = 8, height: int = 4, kind: str = "PNG", **options: object) -> bytes:
    image, buffer = Image.new("RGB", (width, height), "white"), io.BytesIO()
    image.putpixel((0, 0), (200, 10, 20))
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def data_url(data: bytes, kind: str = "image/png") -> str:
    return f"data:{kind};base64,{base64.b64encode(data).decode()}"


def opened(url: str, policy: MediaPolicy = SMALL, fetch: media.Fetch = net.fetch) -> Image.Image:
    async def once() -> Image.Image:
        return await intake.open(url)

    intake = Intake(policy, fetch=fetch)
    try:
        return asyncio.run(once())
    finally:
        intake.close()


def refusal(
    url: str,
    policy: MediaPolicy = SMALL,
    fetch: media.Fetch = net.fetch,
    kind: type[LlavarError] | tuple[type[LlavarError], ...] = (ConfigError, ImageError, FetchError),
) -> str:
    with pytest.raises(kind) as caught:
        opened(url, policy, fetch)
    sentence = str(caught.value)
    assert sentence.endswith(".")
    assert "\n" not in sentence
    assert len(sentence) < 500
    return sentence


def nobody(url: str, *, policy: FetchPolicy) -> Fetched:
    raise AssertionError(f"nobody may fetch {url}")


# ------------------------------------------------------------------------------------------- data URLs

PNG = picture()


@pytest.mark.parametrize(
    "url",
    [
        data_url(PNG),
        data_url(PNG, "image/jpeg"),  # clients often say JPEG of everything
        data_url(PNG, "IMAGE/PNG;name=a.png"),
        data_url(PNG).replace("data:", " DATA:"),
        data_url(PNG).replace(";base64", " ;BASE64 "),
        "data:image/png;base64," + base64.encodebytes(PNG).decode(),
        "data:image/png;base64," + quote(base64.b64encode(PNG)),
        "data:image/png," + quote(PNG),
        "data:image/png;charset=utf-8," + "".join(f"%{byte:02x}" for byte in PNG),
    ],
)
def test_data_urls_of_every_spelling(url: str) -> None:
    image = opened(url, fetch=nobody)
    assert (image.mode, image.size, image.getpixel((0, 0))) == ("RGB", (8, 4), (200, 10, 20))


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP", "GIF", "BMP", "TIFF"])
def test_formats_as_data(kind: str) -> None:
    assert opened(data_url(picture(kind=kind), f"image/{kind.lower()}")).size == (8, 4)


def test_the_picture_is_upright() -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    assert opened(data_url(picture(kind="JPEG", exif=exif.tobytes()), "image/jpeg")).size == (4, 8)


@pytest.mark.parametrize(
    ("url", "words"),
    [
        ("data:", "no comma"),
        ("data:image/png", "no comma"),
        ("data:image/png;base64", "no comma"),
        ("data:" + "A" * 5000, "no comma"),
        ("data:image/png;" + "a=b;" * 90 + "base64,AAAA", "no comma"),
        ("data:,AAAA", "of no type"),
        ("data:;base64,AAAA", "of no type"),
        ("data:image;base64,AAAA", "of no type"),
        ("data:image/;base64,AAAA", "of no type"),
        ("data:image/p\nng;base64,AAAA", "of no type"),
        ("data:text/html;base64,PGh0bWw+", "of the type text/html"),
        ("data:text/html,<script>alert(1)</script>", "of the type text/html"),
        ("data:application/pdf;base64,JVBERi0=", "of the type application/pdf"),
        ("data:image/png;base64,", "is empty"),
        ("data:image/png;base64,A", "no sound base64"),
        ("data:image/png;base64,AAA", "no sound base64"),
        ("data:image/png;base64,AA=A", "no sound base64"),
        ("data:image/png;base64,AAAA====", "no sound base64"),
        ("data:image/png;base64,AA-_", "no sound base64"),
        ("data:image/png;base64,AA*A", "no sound base64"),
        ("data:image/png;base64,AA\x00A", "no sound base64"),
        ("data:image/png;base64,AAAÄ", "characters that no URL has"),
        ("data:image/png;base64,\ud800", "characters that no URL has"),
        ("data:image/png;base64,%4", "broken %"),
        ("data:image/png,%zz", "broken %"),
        ("data:image/png;base64,PHN2ZyB4bWxucz0iIi8+", "is SVG"),
        ("data:image/svg+xml,%3Csvg%20onload=alert(1)%3E", "is SVG"),
        ("data:image/png,%3Chtml%3E", "an HTML page"),
        ("data:image/png,%25PDF-1.7", "a PDF document"),
        ("data:image/png,PK%03%04", "an archive"),
    ],
)
def test_broken_data_urls(url: str, words: str) -> None:
    assert words in refusal(url, kind=ImageError)


def test_the_byte_limit_is_checked_before_base64_is_decoded(monkeypatch: pytest.MonkeyPatch) -> None:
    exact = MediaPolicy(max_bytes=len(PNG))
    assert opened(data_url(PNG), exact).size == (8, 4)
    assert opened("data:image/png;base64," + base64.encodebytes(PNG).decode(), exact).size == (8, 4)
    assert opened("data:image/png," + quote(PNG), exact).size == (8, 4)

    def never(*_: object, **__: object) -> bytes:
        raise AssertionError("decoded before its length was checked")

    monkeypatch.setattr("binascii.a2b_base64", never)
    monkeypatch.setattr(media, "unquote_to_bytes", lambda text: text.encode())
    for most in (len(PNG) // 4, len(PNG) - 3):
        assert "the limit" in refusal(data_url(PNG), MediaPolicy(max_bytes=most), kind=ImageError)
    monkeypatch.setattr(media, "unquote_to_bytes", never)
    shorter = MediaPolicy(max_bytes=len(PNG) - 1)
    assert "the limit" in refusal("data:image/png," + quote(PNG), shorter, kind=ImageError)


def test_one_byte_more_than_the_limit_is_refused() -> None:
    assert "the limit" in refusal(data_url(PNG), MediaPolicy(max_bytes=len(PNG) - 1), kind=ImageError)


@settings(deadline=None, max_examples=150)
@given(
    data=st.binary(min_size=12, max_size=200), magic=st.sampled_from([b"", b"\x89PNG\r\n\x1a\n", b"GIF89a"])
)
def test_random_bytes_are_refused_without_being_repeated(data: bytes, magic: bytes) -> None:
    with suppress(ImageError):
        opened(data_url(magic + data))
        return
    sentence = refusal(data_url(magic + data), kind=ImageError)
    assert base64.b64encode(data)[4:-4].decode() not in sentence
    assert repr(data)[2:-1] not in sentence
    assert "begins with" not in sentence


@settings(deadline=None, max_examples=200)
@given(st.text(max_size=300) | st.from_regex(r"(data|http|https|file|ftp):[ -~]{0,80}", fullmatch=True))
def test_any_text_is_a_picture_or_a_sentence(url: str) -> None:
    with suppress(ConfigError, ImageError, FetchError):
        opened(url, LISTED, lambda url, *, policy: Fetched(data=PNG, content_type="", final_url=url))


@settings(deadline=None, max_examples=100)
@given(st.data())
def test_cut_and_damaged_jpegs(data: st.DataObject) -> None:
    whole = bytearray(picture(64, 48, "JPEG"))
    for _ in range(data.draw(st.integers(0, 4))):
        whole[data.draw(st.integers(0, len(whole) - 1))] = data.draw(st.integers(0, 255))
    cut = bytes(whole[: data.draw(st.integers(0, len(whole)))])
    with suppress(ImageError):
        assert opened(data_url(cut, "image/jpeg")).mode == "RGB"


@pytest.mark.parametrize("kind", ["JPEG", "PNG"])
def test_half_a_picture_is_refused(kind: str) -> None:
    whole = picture(400, 300, kind)
    assert "cut short" in refusal(
        data_url(whole[: len(whole) // 2], f"image/{kind.lower()}"), kind=ImageError
    )


# ------------------------------------------------------------------------------------------------ bombs


def chunk(kind: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))


def png(width: int, height: int, *chunks: bytes, rows: bytes = b"\0" * 64) -> bytes:
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 1, 0, 0, 0, 0))
    body = chunk(b"IDAT", zlib.compress(rows, 9)) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + header + b"".join(chunks) + body


@pytest.mark.parametrize(
    "data",
    [
        png(20_000, 20_000, rows=b"\0" * 20_000 * 2501),
        png(2**31 - 1, 2**31 - 1),
        png(1_000_001, 1),
        b"GIF89a" + struct.pack("<HHBBB", 65_535, 65_535, 0, 0, 0) + b",\0\0\0\0\1\0\1\0\0\2\2D\1\0;",
        b"BM" + struct.pack("<IHHIIiiHHIIIIII", 54, 0, 0, 54, 40, 60_000, 60_000, 1, 24, 0, 0, 0, 0, 0, 0),
        b"P6 50000 50000 255\n",
    ],
    ids=["50 MB of zeros", "claims 4 exabytes", "a line", "GIF", "BMP", "PPM"],
)
def test_bombs_are_refused_by_their_header(data: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    def never(*_: object) -> None:
        raise AssertionError("decoded before its size was checked")

    monkeypatch.setattr("PIL.ImageFile.ImageFile.load", never)
    sentence = refusal(data_url(data), kind=ImageError)
    assert "the limit is 1.0" in sentence or "damaged" in sentence or "Pillow's own limit" in sentence


def test_of_many_frames_only_the_first_is_decoded() -> None:
    frames = [Image.new("L", (300, 300), number % 250) for number in range(500)]
    buffer = io.BytesIO()
    frames[0].save(buffer, "GIF", save_all=True, append_images=frames[1:], duration=20)
    data = buffer.getvalue()
    assert sum(1 for _ in ImageSequence.Iterator(Image.open(io.BytesIO(data)))) == 500
    assert opened(data_url(data, "image/gif"), MediaPolicy()).size == (300, 300)


def test_comments_that_unfold_to_megabytes_are_left_out() -> None:
    text = chunk(b"zTXt", b"a\0\0" + zlib.compress(b"x" * 60_000_000, 9))
    rows = (b"\0" + b"\xff") * 8
    assert opened(data_url(png(8, 8, text, rows=rows))).size == (8, 8)


# --------------------------------------------------------------------------------------- what is not taken


@pytest.mark.parametrize(
    "url",
    [
        "file:///etc/passwd",
        "FILE:///etc/passwd",
        "file://localhost/etc/passwd",
        "ftp://pictures.example/a.png",
        "gopher://pictures.example/",
        "blob:https://pictures.example/1",
        "javascript:alert(1)",
        "about:blank",
        "C:\\pictures\\a.png",
        "view-source:http://pictures.example",
    ],
)
@pytest.mark.parametrize("policy", [SMALL, LISTED])
def test_other_schemes(url: str, policy: MediaPolicy) -> None:
    sentence = refusal(url, policy, nobody, ConfigError)
    assert f"'{url.partition(':')[0].lower()}:'" in sentence
    assert "data:image/png;base64" in sentence
    assert "passwd" not in sentence


@pytest.mark.parametrize(
    "url",
    [
        "",
        " ",
        "/etc/passwd",
        "../../etc/passwd",
        "a.png",
        "//pictures.example/a.png",
        "\\\\host\\a.png",
        "~/a",
        "java\nscript:alert(1)",
        "\0file:///etc/passwd",
        base64.b64encode(PNG).decode(),
    ],
)
@pytest.mark.parametrize("policy", [SMALL, LISTED])
def test_what_is_no_url(url: str, policy: MediaPolicy) -> None:
    sentence = refusal(url, policy, nobody, ConfigError)
    assert "no URL" in sentence
    assert not url.strip() or url not in sentence


def test_without_a_domain_nothing_is_fetched() -> None:
    sentence = refusal("https://pictures.example/a.png?key=hush", SMALL, nobody, ConfigError)
    assert "--allow-domain" in sentence
    assert "data URL" in sentence
    assert "pictures.example" in sentence
    assert "hush" not in sentence


@pytest.mark.parametrize(
    "url",
    [
        "https://example.com/a.png",
        "https://example/a.png",
        "https://pictures.example.com/a.png",
        "https://evil-pictures.example/a.png",
        "https://cdn.example/a.png",  # only what is below it
        "https://xcdn.example/a.png",
        "http://127.0.0.1/a.png",
        "http://[::1]/a.png",
        "http://[::ffff:127.0.0.1]/a.png",
        "http://2130706433/",
        "http://0x7f.1/",
        "http://localhost/",
        "http://169.254.169.254/latest/meta-data/",
        "http://pictures.example@127.0.0.1/",
        "http://pictures.example:80@127.0.0.1/",
        "http://127.0.0.1\\@pictures.example/",
        "http://127.0.0.1#@pictures.example/",
        "http://127.0.0.1?.cdn.example/",
        "http:///pictures.example/",
        "http:pictures.example",
        "http://pictures.example:99999/",
        "http://pictures.example%00.evil.example/",
        "http://pictures。example.evil.example/",
    ],
)
def test_hosts_that_are_not_listed(url: str) -> None:
    refusal(url, LISTED, nobody, (ConfigError, FetchError))


@pytest.mark.parametrize(
    "url",
    [
        "https://pictures.example/a.png",
        "HTTPS://Pictures.Example./a.png",
        "http://pictures.example:8080/a.png",
        "https://a.cdn.example/",
        "https://a.b.CDN.example/",
    ],
)
def test_hosts_that_are_listed(url: str) -> None:
    asked: list[tuple[str, FetchPolicy]] = []

    def fetch(url: str, *, policy: FetchPolicy) -> Fetched:
        asked.append((url, policy))
        return Fetched(data=PNG, content_type="text/html", final_url=url)

    assert opened(url, LISTED, fetch).size == (8, 4)
    ((fetched, policy),) = asked
    assert fetched == url
    assert (policy.hosts, policy.max_bytes, policy.allow_private) == (LISTED.domains, SMALL.max_bytes, False)


def test_a_listed_host_with_a_private_address_is_refused() -> None:
    def fetch(url: str, *, policy: FetchPolicy) -> Fetched:
        return net.fetch(url, policy=policy, resolver=lambda host, port: ["10.0.0.7"])

    assert "only public addresses" in refusal("https://pictures.example/", LISTED, fetch, FetchError)


# --------------------------------------------------------------------------------------------- fetching


class Handler(BaseHTTPRequestHandler):
    """``/picture``, ``/text``, ``/long``, and ``/to/URL`` redirects there."""

    def do_GET(self) -> None:
        where, _, target = self.path.strip("/").partition("/")
        body = {"text": b"hello, a secret", "long": b"x" * 200_000}.get(where, PNG)
        self.send_response(302 if where == "to" else 200)
        self.send_header("Content-Length", str(len(body)))
        self.send_header("Location", target) if where == "to" else None
        self.end_headers()
        with suppress(OSError):  # whoever refuses a long body hangs up
            self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:
        pass


@pytest.fixture
def host() -> Iterator[Callable[[str], str]]:
    """URLs of a server on loopback, which stands for every name."""
    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield lambda name: f"http://{name}:{server.server_port}"
        server.shutdown()
        thread.join()


def from_loopback(url: str, *, policy: FetchPolicy) -> Fetched:
    def resolver(host: str, port: int) -> Sequence[str]:
        assert net.is_listed(host, LISTED.domains), f"nobody may ask for {host}"
        return ["127.0.0.1"]

    return net.fetch(url, policy=replace(policy, allow_private=True), resolver=resolver)


def test_a_fetched_picture_and_redirects_among_listed_hosts(host: Callable[[str], str]) -> None:
    there = f"{host('pictures.example')}/picture"
    for url in (there, f"{host('a.cdn.example')}/to/{there}"):
        assert opened(url, LISTED, from_loopback).size == (8, 4)


@pytest.mark.parametrize("elsewhere", ["evil.example", "127.0.0.1", "cdn.example", "[::1]"])
def test_redirects_to_other_hosts_are_refused(host: Callable[[str], str], elsewhere: str) -> None:
    url = f"{host('pictures.example')}/to/{host(elsewhere)}/picture"
    assert "host that may be fetched from" in refusal(url, LISTED, from_loopback, FetchError)


def test_what_a_listed_host_sends_instead_of_a_picture(host: Callable[[str], str]) -> None:
    sentence = refusal(f"{host('pictures.example')}/text", LISTED, from_loopback, ImageError)
    assert "no picture of a supported kind" in sentence
    assert "hello" not in sentence
    assert "the limit" in refusal(f"{host('pictures.example')}/long", LISTED, from_loopback, FetchError)


# ------------------------------------------------------------------------- time, threads, cancellation


class Slow:
    """A fetch that waits until it is let go, and counts how many wait."""

    def __init__(self) -> None:
        self.go, self.lock = threading.Event(), threading.Lock()
        self.begun, self.inside, self.most = threading.Semaphore(0), 0, 0

    def __call__(self, url: str, *, policy: FetchPolicy) -> Fetched:
        with self.lock:
            self.inside += 1
            self.most = max(self.most, self.inside)
        self.begun.release()
        assert self.go.wait(30)
        with self.lock:
            self.inside -= 1
        return Fetched(data=PNG, content_type="", final_url=url)


def test_time_is_limited_and_the_thread_is_free_afterwards() -> None:
    slow = Slow()

    async def story() -> None:
        intake = Intake(replace(LISTED, seconds=0.05, fetches=1), fetch=slow)
        for _ in range(3):  # the first one's turn comes, the others wait for it in vain
            with pytest.raises(FetchError, match=r"after 0\.05 s"):
                await intake.open("https://pictures.example/")
        assert (slow.most, slow.inside) == (1, 1)
        slow.go.set()
        patient = Intake(LISTED, fetch=slow)
        assert (await patient.open("https://pictures.example/")).size == (8, 4)
        intake.close()
        patient.close()

    asyncio.run(story())


def test_slow_hosts_do_not_hold_up_data_and_are_fetched_a_few_at_a_time() -> None:
    slow = Slow()

    async def story() -> None:
        intake = Intake(replace(LISTED, fetches=2), fetch=slow)
        waiting = [asyncio.create_task(intake.open("https://pictures.example/")) for _ in range(10)]
        assert (await intake.open(data_url(PNG))).size == (8, 4)
        slow.go.set()
        assert [(await one).size for one in waiting] == [(8, 4)] * 10
        assert slow.most == 2
        intake.close()

    asyncio.run(story())


def test_cancelled_requests_leave_at_once_and_never_make_more_threads() -> None:
    slow = Slow()

    async def story() -> None:
        intake = Intake(replace(LISTED, fetches=2), fetch=slow)
        for _ in range(20):
            task = asyncio.create_task(intake.open("https://pictures.example/"))
            await asyncio.sleep(0)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
        await asyncio.to_thread(slow.begun.acquire)
        last = asyncio.create_task(intake.open("https://pictures.example/"))
        await asyncio.sleep(0)
        assert slow.most <= 2
        slow.go.set()
        assert (await last).size == (8, 4)
        intake.close()

    asyncio.run(story())
    assert slow.most <= 2


def test_a_closed_intake_says_so_and_its_threads_end() -> None:
    others = set(threading.enumerate())

    async def story() -> None:
        intake = Intake(LISTED, fetch=nobody)
        await intake.open(data_url(PNG))
        intake.close()
        intake.close()
        for url in (data_url(PNG), "https://pictures.example/"):
            with pytest.raises(BusyError, match="shutting down"):
                await intake.open(url)

    asyncio.run(story())
    for thread in set(threading.enumerate()) - others:
        if thread.name.startswith("llavar-"):
            thread.join(timeout=10)
            assert not thread.is_alive()


def test_only_so_many_pixels_are_open_at_a_time() -> None:
    """Pictures count until nobody has them any more, and then the next one is opened."""
    url = data_url(picture(100, 100))

    async def story() -> None:
        intake = Intake(MediaPolicy(max_pixels=10_000))
        kept = [await intake.open(url) for _ in range(2)]
        third = asyncio.create_task(intake.open(url))
        done, _ = await asyncio.wait([third], timeout=0.05)
        assert not done
        kept.pop()
        assert (await third).size == (100, 100)
        intake.close()

    asyncio.run(story())


def test_pictures_in_cycles_do_not_keep_others_out() -> None:
    url = data_url(picture(100, 100))

    async def story() -> None:
        intake = Intake(MediaPolicy(max_pixels=10_000))
        for _ in range(6):
            ring: list[object] = [await intake.open(url)]
            ring.append(ring)
        intake.close()

    asyncio.run(story())


def test_without_room_a_request_is_told_to_come_again() -> None:
    room = media._Room(10_000, 0.01)
    held = room.held(lambda: picture(100, 100), images.Limits())
    with pytest.raises(BusyError, match="fit into memory"):
        room.held(lambda: PNG, images.Limits())
    del held
    assert room.held(lambda: PNG, images.Limits()).size == (8, 4)


def test_memory_is_given_back_after_large_pictures(monkeypatch: pytest.MonkeyPatch) -> None:
    given_back = threading.Semaphore(0)
    monkeypatch.setattr(media, "_give_back", given_back.release)
    monkeypatch.setattr(media, "_LARGE", 10_000)
    monkeypatch.setattr(media, "_TIDY_SECONDS", 0.0)

    async def story() -> None:
        intake = Intake(SMALL)
        await intake.open(data_url(picture(99, 100)))
        for _ in range(2):
            await intake.open(data_url(picture(100, 100)))
            await asyncio.to_thread(given_back.acquire)
        assert not given_back.acquire(blocking=False)
        intake.close()

    asyncio.run(story())
    media._give_back()


# ---------------------------------------------------------------------------------------------- settings


@pytest.mark.parametrize("name", ["max_bytes", "max_pixels", "seconds", "fetches"])
def test_policies_that_cannot_work(name: str) -> None:
    with pytest.raises(ConfigError, match=f"MediaPolicy.{name} is 0"):
        MediaPolicy(**{name: 0})  # pyright: ignore[reportArgumentType]


@pytest.mark.parametrize(
    "domain",
    [
        *(
            "",
            ".",
            "*",
            "*.example.org",
            "https://example.org",
            "example.org/a",
            "example.org:80",
            "a b",
            "a..b",
        ),
        *("-a.example", "u@example.org", "bücher.example", "a\n", "[::1]"),
    ],
)
def test_domains_that_are_none(domain: str) -> None:
    with pytest.raises(ConfigError, match="give a host alone"):
        MediaPolicy(domains=(domain,))


@pytest.mark.parametrize(
    "domain",
    ["example.org", ".example.org", "EXAMPLE.org", "xn--bcher-kva.example", "8.8.8.8", "2606:4700::1111"],
)
def test_domains_that_may_be_listed(domain: str) -> None:
    assert domain in MediaPolicy(domains=(domain,)).taken
