"""Fetching from a server that misbehaves in every way."""

from __future__ import annotations

import io
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from llavar.corpus.fetch import FetchSettings, FetchStage
from llavar.corpus.item import Item, Origin
from llavar.corpus.opening import OpenSettings, measured
from llavar.corpus.shards import Corpus, RunSettings
from llavar.corpus.stage import Outcome
from llavar.errors import ConfigError
from llavar.records import Reject


def picture(kind: str, size: tuple[int, int] = (64, 48)) -> bytes:
    held = io.BytesIO()
    image = Image.new("RGB", size, "#804020")
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned by 90 degrees
    exif[0x010E] = "a secret remark"
    image.save(held, kind, **({"exif": exif} if kind == "JPEG" else {}))
    return held.getvalue()


class Server(ThreadingHTTPServer):
    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.asked: Counter[str] = Counter()
        self.under_way = self.most = 0
        self.lock = threading.Lock()

    def url(self, path: str) -> str:
        return f"http://127.0.0.1:{self.server_port}{path}"


class Handler(BaseHTTPRequestHandler):
    server: Server

    def do_GET(self) -> None:
        with self.server.lock:
            self.server.asked[self.path] += 1
        with suppress(BrokenPipeError, ConnectionResetError):
            getattr(self, "do_" + self.path.split("/")[1], self.do_missing)()

    def reply(self, body: bytes, status: int = 200, **headers: str) -> None:
        self.send_response(status)
        for name, value in {"Content-Length": str(len(body)), **headers}.items():
            self.send_header(name.replace("_", "-"), value)
        self.end_headers()
        self.wfile.write(body)

    def do_png(self) -> None:
        self.reply(picture("PNG"))

    def do_counted(self) -> None:
        """Counts as under way until it is answered: whoever has the answer may ask again at once."""
        with self.server.lock:
            self.server.under_way += 1
            self.server.most = max(self.server.most, self.server.under_way)
        time.sleep(0.02)
        with self.server.lock:
            self.server.under_way -= 1
        self.reply(picture("PNG"))

    def do_jpeg(self) -> None:
        self.reply(picture("JPEG"))

    def do_big(self) -> None:
        self.reply(picture("JPEG", (900, 300)))

    def do_missing(self) -> None:
        self.reply(b"", 404)

    def do_empty(self) -> None:
        self.reply(b"")

    def do_html(self) -> None:
        self.reply(b"<html>no picture here</html>", Content_Type="image/png")

    def do_noai(self) -> None:
        self.reply(picture("PNG"), X_Robots_Tag="noindex, NoAI")

    def do_busy(self) -> None:
        """Works the third time."""
        if self.server.asked[self.path] < 3:
            self.reply(b"", 429, Retry_After="7")
        else:
            self.reply(picture("PNG"))

    def do_down(self) -> None:
        self.reply(b"", 503)

    def do_tomorrow(self) -> None:
        self.reply(b"", 503, Retry_After="86400")

    def do_endless(self) -> None:
        self.send_response(200)
        self.end_headers()
        while True:
            self.wfile.write(b"\0" * 65536)

    def do_short(self) -> None:
        self.send_response(200)
        self.send_header("Content-Length", "1000")
        self.end_headers()
        self.wfile.write(b"x")

    def do_loop(self) -> None:
        self.reply(b"", 302, Location="/loop")

    def log_message(self, format: str, *args: object) -> None:
        pass


@pytest.fixture
def server() -> Iterator[Server]:
    server = Server()
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield server
    server.shutdown()
    thread.join()
    server.server_close()


def items(server: Server, *paths: str) -> list[Item]:
    return [Item(id=path, origin=Origin(source="s", url=server.url(path))) for path in paths]


def stage(root: Path, **changes: Any) -> FetchStage:
    settings = {"allow_private": True, "max_bytes": 100_000, "seconds": 5.0} | changes
    return FetchStage(root=root, settings=FetchSettings(**settings), wait=lambda _seconds: None)


def outcomes(stage: FetchStage, given: list[Item]) -> list[Outcome]:
    found = dict(stage.run(given))
    return [found[place] for place in range(len(given))]


def test_each_picture_arrives_or_says_why_not(server: Server, tmp_path: Path):
    paths = ("/png", "/missing", "/empty", "/noai", "/endless", "/short", "/loop", "/down", "/png")
    found = outcomes(stage(tmp_path), items(server, *paths))
    kept = [one for one in found if isinstance(one, Item)]
    assert [one.id for one in kept] == ["/png", "/png"]
    file = kept[0].file
    assert file is not None
    assert (tmp_path / file.path).read_bytes() == picture("PNG")
    assert file.sha256 == file.original_sha256 == Path(file.path).name
    said = {one.id: (one.reason, one.detail) for one in found if isinstance(one, Reject)}
    assert said["/empty"][0] == "it has 0 bytes"
    assert said["/noai"] == ("its server asks not to train on it", "noindex, noai")
    assert "status 404" in said["/missing"][1]
    assert "the limit is 100,000" in said["/endless"][1]
    assert "status 503" in said["/down"][1]
    assert {path: said[path][0] for path in ("/missing", "/loop", "/short", "/down")} == {
        "/missing": "it cannot be fetched",
        "/loop": "it cannot be fetched",
        "/short": "it cannot be fetched at present",
        "/down": "it cannot be fetched at present",
    }
    assert (server.asked["/missing"], server.asked["/down"]) == (1, 3)


def test_what_works_later_is_tried_again_when_the_server_says(server: Server, tmp_path: Path):
    waits: list[float] = []
    patient = FetchStage(root=tmp_path, settings=FetchSettings(allow_private=True), wait=waits.append)
    (busy, tomorrow) = outcomes(patient, items(server, "/busy", "/tomorrow"))
    assert isinstance(busy, Item)
    assert waits == [7.0, 7.0]
    assert isinstance(tomorrow, Reject)
    assert server.asked["/tomorrow"] == 1  # nobody waits for a day


def test_servers_may_be_asked_to_ignore_the_wish(server: Server, tmp_path: Path):
    (one,) = outcomes(stage(tmp_path, respect_noai=False), items(server, "/noai"))
    assert isinstance(one, Item)


def test_this_machine_is_not_fetched_from_unless_the_recipe_says_so(server: Server, tmp_path: Path):
    (one,) = outcomes(stage(tmp_path, allow_private=False), items(server, "/png"))
    assert isinstance(one, Reject)
    assert "loopback" in one.detail
    assert not server.asked


@pytest.mark.parametrize(
    "url", ["file:///etc/passwd", "ftp://a.example/x", "http://", "no url", "http://[::1"]
)
def test_what_is_no_address_is_a_reject(url: str, tmp_path: Path):
    (one,) = outcomes(stage(tmp_path), [Item(id="a", origin=Origin(source="s", url=url))])
    assert isinstance(one, Reject)
    assert one.reason == "it cannot be fetched"


def test_few_at_a_time_from_one_host(server: Server, tmp_path: Path):
    outcomes(stage(tmp_path, at_once=8, per_host=2), items(server, *[f"/counted/{n}" for n in range(24)]))
    assert 0 < server.most <= 2
    assert len(server.asked) == 24


def test_pictures_on_the_disk_pass(tmp_path: Path):
    item = Item(id="a", origin=Origin(source="s", path="/somewhere/a.png"))
    assert outcomes(stage(tmp_path), [item]) == [item]


def test_fetched_pictures_are_encoded_anew_upright_and_bare(server: Server, tmp_path: Path):
    given = items(server, "/jpeg", "/png", "/html", "/big")
    fetched = [one for one in outcomes(stage(tmp_path), given) if isinstance(one, Item)]
    settings = OpenSettings(max_side=450)
    jpeg, png, html, big = (measured(one, root=tmp_path, settings=settings) for one in fetched)
    assert isinstance(html, Reject)
    assert "HTML" in html.detail
    assert isinstance(jpeg, Item)
    assert jpeg.file is not None
    assert (jpeg.file.width, jpeg.file.height) == (48, 64)
    assert jpeg.file.path.startswith("images/")
    data = (tmp_path / jpeg.file.path).read_bytes()
    assert b"a secret remark" not in data
    assert len(data) == jpeg.file.bytes
    assert jpeg.file.original_sha256 in jpeg.file.path
    assert isinstance(png, Item)
    assert png.file is not None
    assert png.file.path.endswith(".png")
    assert isinstance(big, Item)
    assert big.file is not None
    assert (big.file.width, big.file.height) == (150, 450)


@pytest.mark.parametrize("at_once", [1, 4])
def test_an_interrupted_shard_fetches_again_only_what_was_under_way(
    at_once: int, server: Server, tmp_path: Path
):
    @dataclass
    class Source:
        given: list[Item]
        settings: object = field(default=None)

        def fingerprint(self) -> str:
            return "same"

        def items(self) -> Iterator[Outcome]:
            return iter(self.given)

    source = Source(items(server, *[f"/png/{n}" for n in range(12)]))

    def stop(step: Any) -> None:
        if step.stage == "fetch" and step.done == 5:
            raise KeyboardInterrupt

    corpus = Corpus(tmp_path)
    fetch = stage(tmp_path, at_once=at_once)
    with pytest.raises(KeyboardInterrupt):
        corpus.run(source, [fetch], settings=RunSettings(shard_rows=8), on_step=stop)
    corpus.run(source, [fetch], settings=RunSettings(shard_rows=8))
    assert len(server.asked) == 12
    assert sum(server.asked.values()) <= 12 + at_once - 1  # the one whose handing on was interrupted is kept
    assert [one.id for shard in corpus.items("fetch") for one in shard] == [f"/png/{n}" for n in range(12)]


@pytest.mark.parametrize("name", ["max_bytes", "seconds", "attempts", "at_once", "per_host"])
def test_settings_that_cannot_work_are_refused(name: str):
    with pytest.raises(ConfigError, match=f"{name} of fetch is 0; give more than 0"):
        FetchSettings(**{name: 0})
