"""Removing what a corpus no longer needs, and having it again; corpora are equal wherever they lie."""

from __future__ import annotations

import hashlib
import io
import json
import threading
from collections import Counter
from collections.abc import Iterator, Mapping
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import ModuleType

import pytest
from PIL import Image

from llavar.cli import main
from llavar.corpus.cleaning import Cleaned, Waste, clean
from llavar.corpus.dedup import ExactStage
from llavar.corpus.fetch import FetchSettings, FetchStage
from llavar.corpus.layout import LayoutSettings
from llavar.corpus.opening import OpenSettings, OpenStage
from llavar.corpus.products import life_of, write_products
from llavar.corpus.removed import Wanted, remove, removed_stages, withheld
from llavar.corpus.rows import OcrStage, PairsSettings, PairsStage
from llavar.corpus.shards import SCAN, Corpus, RunSettings
from llavar.corpus.sources import Tables
from llavar.corpus.stage import Source, Stage
from llavar.errors import ConfigError, NotFoundError

WIDTHS = (60, 70, 80, 90, 100)


def png(width: int, seed: int = 0) -> bytes:
    noise = hashlib.shake_256(f"{width}:{seed}".encode()).digest(width * 50 * 3)
    held = io.BytesIO()
    Image.frombytes("RGB", (width, 50), noise).save(held, "PNG")
    return held.getvalue()


class Server(ThreadingHTTPServer):
    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.files = {f"/{width}.png": png(width) for width in WIDTHS}
        self.files |= {"/small.png": png(20), "/page.png": b"<html>no picture</html>"}
        self.asked: Counter[str] = Counter()


class Handler(BaseHTTPRequestHandler):
    server: Server

    def do_GET(self) -> None:
        self.server.asked[self.path] += 1
        body = self.server.files.get(self.path)
        self.send_response(404 if body is None else 200)
        self.send_header("Content-Length", str(len(body or b"")))
        self.end_headers()
        self.wfile.write(body or b"")

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


@pytest.fixture
def source(server: Server, tmp_path: Path) -> Tables:
    rows = [{"URL": f"http://127.0.0.1:{server.server_port}{path}"} for path in server.files]
    (tmp_path / "urls.json").write_text(json.dumps(rows))
    return Tables(paths=(tmp_path / "urls.json",))


def compute(root: Path, source: Source, engines: ModuleType, opening: OpenSettings | None = None) -> Corpus:
    """All stages in this process, and the products."""
    corpus = Corpus(root)
    stages: list[Stage] = [
        FetchStage(root=root, settings=FetchSettings(allow_private=True, attempts=1)),
        OpenStage(root=root, settings=opening or OpenSettings(), time_limit=None),
        *removed_stages(root),
        ExactStage(),
        OcrStage(root=root, engines=(engines.FakeEngine,), time_limit=None),
        PairsStage(settings=PairsSettings(layout=LayoutSettings(min_height=0))),
    ]
    corpus.run(withheld(source, root), stages, settings=RunSettings(shard_rows=3))
    write_products(corpus, [SCAN, *(stage.name for stage in stages)])
    return corpus


def files(root: Path, *kinds: str) -> Mapping[str, bytes]:
    """Files below folders of a corpus by their paths, without what says how long something took."""
    found = [path for kind in kinds for path in (root / kind).rglob("*") if path.is_file()]
    return {path.relative_to(root).as_posix(): path.read_bytes() for path in sorted(found)}


def by_kind(done: tuple[Cleaned, ...]) -> dict[Waste, Cleaned]:
    return {one.kind: one for one in done}


def rejects(root: Path) -> dict[str, tuple[str, str, str]]:
    lines = map(json.loads, (root / "products" / "rejects.jsonl").read_text().splitlines())
    found = [(line["item"]["origin"]["url"].rpartition("/")[2], line["reject"]) for line in lines]
    return {name: (one["stage"], one["reason"], one["detail"]) for name, one in found}


# ------------------------------------------------------------------------------------------------ places


def test_corpora_at_different_places_are_equal_to_the_byte(
    source: Tables, engines: ModuleType, tmp_path: Path
):
    roots = (tmp_path / "a", tmp_path / "far" / "away" / "with-a-long-name" / "b")
    for root in roots:
        compute(root, source, engines)
    one, other = (files(root, "stages", "products", "images", "fetched") for root in roots)
    assert one == other
    assert not [name for name, data in one.items() if str(tmp_path).encode() in data]
    stage, reason, detail = rejects(roots[0])["page.png"]
    assert (stage, reason) == ("open", "the picture cannot be opened")
    assert "'fetched/" in detail
    assert "HTML" in detail


def test_a_picture_that_vanished_is_called_by_its_place_in_the_corpus(
    source: Tables, engines: ModuleType, tmp_path: Path
):
    roots = (tmp_path / "a", tmp_path / "elsewhere")
    for root in roots:
        corpus = Corpus(root)
        fetch = FetchStage(root=root, settings=FetchSettings(allow_private=True, attempts=1))
        chain: list[Stage] = [fetch, OpenStage(root=root, time_limit=None)]
        corpus.run(source, chain)
        (image, *_) = sorted(root.glob("images/*/*"))
        image.unlink()
        corpus.run(source, [*chain, OcrStage(root=root, engines=(engines.FakeEngine,), time_limit=None)])
        (gone,) = [one.reject for ended in corpus.rejected("ocr") for one in ended]
        assert image.relative_to(root).as_posix() in gone.detail
    assert files(roots[0], "stages") == files(roots[1], "stages")


# ------------------------------------------------------------------------------------------------ cleaning


def test_raw_downloads_go_when_that_is_said_and_all_else_stays(
    source: Tables, engines: ModuleType, server: Server, tmp_path: Path
):
    root = tmp_path / "corpus"
    compute(root, source, engines)
    asked, before = server.asked.total(), files(root, "stages", "products", "images")
    raw = files(root, "fetched")
    kept = by_kind(clean(root))[Waste.FETCHED]
    assert (kept.files, kept.bytes, kept.removed) == (len(raw), sum(map(len, raw.values())), False)
    assert files(root, "fetched") == raw
    assert by_kind(clean(root, fetched=True, dry=True))[Waste.FETCHED] == kept
    gone = by_kind(clean(root, fetched=True))[Waste.FETCHED]
    assert (gone.files, gone.bytes, gone.removed) == (kept.files, kept.bytes, True)
    assert not (root / "fetched").exists()
    corpus = compute(root, source, engines)
    assert files(root, "stages", "products", "images") == before
    assert server.asked.total() == asked
    life = json.loads(life_of(corpus, json.loads((root / "products" / "stage1.json").read_text())[0]["id"]))
    assert life["item"]["origin"]["url"].startswith("http://127.0.0.1")


def test_what_is_opened_anew_is_fetched_again_and_left_out_if_it_is_another(
    source: Tables, engines: ModuleType, server: Server, tmp_path: Path
):
    root = tmp_path / "corpus"
    compute(root, source, engines)
    clean(root, fetched=True)
    del server.files["/70.png"]
    server.files["/80.png"] = png(80, seed=1)
    compute(root, source, engines, OpenSettings(min_side=40))
    assert len(json.loads((root / "products" / "stage1.json").read_text())) == 3
    found = rejects(root)
    lost = "its file was removed and cannot be had again"
    assert found["70.png"][:2] == found["80.png"][:2] == ("open", lost)
    assert "404" in found["70.png"][2]
    assert found["80.png"][2] == "its URL gives another picture now"
    assert found["small.png"][:2] == ("open", "too small")
    raw = {path.name for path in root.glob("fetched/*/*")}
    assert {hashlib.sha256(png(width)).hexdigest() for width in (60, 90, 100)} <= raw


def test_new_urls_fetch_nothing_that_was_opened_before(
    source: Tables, engines: ModuleType, server: Server, tmp_path: Path
):
    root = tmp_path / "corpus"
    compute(root, source, engines)
    clean(root, fetched=True)
    server.files["/110.png"] = png(110)
    rows = json.loads((tmp_path / "urls.json").read_text())
    rows.append({"URL": f"http://127.0.0.1:{server.server_port}/110.png"})
    (tmp_path / "urls.json").write_text(json.dumps(rows))
    server.asked.clear()
    compute(root, source, engines)
    assert server.asked == {"/110.png": 1}
    assert len(json.loads((root / "products" / "stage1.json").read_text())) == 6


def test_a_picture_is_removed_from_a_clean_corpus_as_from_any(
    source: Tables, engines: ModuleType, server: Server, tmp_path: Path
):
    root = tmp_path / "corpus"
    compute(root, source, engines)
    clean(root, fetched=True)
    server.asked.clear()
    digest = hashlib.sha256(png(90)).hexdigest()
    done = remove(root, Wanted(sha256=(digest,)), lambda: compute(root, source, engines), lambda _: [])
    assert len(done.ids) == 1
    assert not server.asked
    assert len(json.loads((root / "products" / "stage1.json").read_text())) == 4
    assert not list(root.glob(f"*/*/{digest}*"))


def test_unfinished_files_and_stages_of_other_recipes_go(source: Tables, engines: ModuleType, tmp_path: Path):
    root = tmp_path / "corpus"
    compute(root, source, engines)
    before = files(root, "stages", "products", "images", "fetched")
    (root / "images" / "ab").mkdir(exist_ok=True)
    (root / "images" / "ab" / "x.png.part").write_bytes(b"12345")
    (root / "stages" / "near").mkdir()
    (root / "stages" / "near" / "000000.parquet").write_bytes(b"123")
    (root / "reuse").mkdir()
    for stage in ("near", "ocr"):
        (root / "reuse" / f"{stage}-000000.json").write_bytes(b"{}")
    done = by_kind(clean(root))
    assert (done[Waste.UNFINISHED].files, done[Waste.UNFINISHED].bytes) == (1, 5)
    assert (done[Waste.STAGES].files, done[Waste.STAGES].bytes) == (2, 5)
    assert [path.name for path in (root / "reuse").iterdir()] == ["ocr-000000.json"]
    assert not (root / "stages" / "near").exists()
    assert files(root, "stages", "products", "images", "fetched") == before


def test_downloads_that_are_still_needed_are_not_removed(source: Tables, engines: ModuleType, tmp_path: Path):
    root = tmp_path / "corpus"
    fetch = FetchStage(root=root, settings=FetchSettings(allow_private=True, attempts=1))
    Corpus(root).run(source, [fetch, OpenStage(root=root, time_limit=None)], until="fetch")
    with pytest.raises(ConfigError, match="0 of 7 pictures that were fetched have been opened"):
        clean(root, fetched=True)
    assert len(list(root.glob("fetched/*/*"))) == 7
    assert by_kind(clean(root))[Waste.FETCHED].files == 7
    with pytest.raises(NotFoundError, match="holds no corpus"):
        clean(tmp_path / "nothing")
    with Corpus(root).claimed(), pytest.raises(ConfigError, match="another process computes the corpus"):
        clean(root)


def test_the_command_says_what_it_frees(
    source: Tables, engines: ModuleType, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    root = tmp_path / "corpus"
    compute(root, source, engines)
    size = sum(path.stat().st_size for path in root.glob("fetched/*/*"))
    assert main(["corpus", "clean", str(root)]) == 0
    said = capsys.readouterr().out
    assert "downloads in fetched/: 7 of " in said
    assert "only while their URLs answer" in said
    assert "0 bytes freed" in said
    assert main(["corpus", "clean", str(root), "--fetched", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["freed"] == size
    assert main(["corpus", "status", str(root)]) == 0
    assert "fetched/ was removed" in capsys.readouterr().out
    assert main(["corpus", "clean", str(root), "--fetched"]) == 0
    assert "downloads in fetched/: none" in capsys.readouterr().out


# ------------------------------------------------------------------------------------------------ thinning


def wide(root: Path, source: Source, engines: ModuleType, height: int) -> Corpus:
    """Rows of those pictures whose lines are of at least this height, as a model sees them."""
    corpus = Corpus(root)
    stages: list[Stage] = [
        FetchStage(root=root, settings=FetchSettings(allow_private=True, attempts=1)),
        OpenStage(root=root, time_limit=None),
        OcrStage(root=root, engines=(engines.FakeEngine,), time_limit=None),
        PairsStage(settings=PairsSettings(layout=LayoutSettings(min_height=height))),
    ]
    corpus.run(source, stages, settings=RunSettings(shard_rows=3))
    write_products(corpus, [SCAN, *(stage.name for stage in stages)])
    return corpus


@pytest.fixture
def thin(source: Tables, server: Server, engines: ModuleType, tmp_path: Path) -> Path:
    """A corpus of the one row whose lines are high enough; the pictures of the others are gone."""
    held = io.BytesIO()
    Image.new("RGB", (120, 200), "red").save(held, "PNG")
    server.files["/90.png"] = held.getvalue()
    root = tmp_path / "corpus"
    wide(root, source, engines, height=150)
    server.asked.clear()
    assert len(list(root.glob("images/*/*"))) == 5
    found = by_kind(clean(root))[Waste.REJECTED]
    assert (found.files, found.removed) == (4, False)
    assert by_kind(clean(root, rejected=True))[Waste.REJECTED].removed
    assert len(list(root.glob("images/*/*"))) == 1
    return root


def test_products_hold_no_picture_without_a_row_and_nothing_is_done_for_what_was_removed(
    thin: Path, source: Tables, server: Server, engines: ModuleType
):
    before = files(thin, "stages", "products", "images")
    assert len(list((thin / "products" / "images").iterdir())) == 1
    wide(thin, source, engines, height=150)
    assert files(thin, "stages", "products", "images") == before
    assert by_kind(clean(thin, rejected=True))[Waste.REJECTED].files == 0
    assert not server.asked


def test_rows_that_a_changed_recipe_wants_have_their_pictures_opened_again(
    thin: Path, source: Tables, server: Server, engines: ModuleType, tmp_path: Path
):
    wide(thin, source, engines, height=0)
    wide(tmp_path / "other", source, engines, height=0)
    kinds = ("stages", "products", "images")
    assert files(thin, *kinds) == files(tmp_path / "other", *kinds)
    assert len(json.loads((thin / "products" / "stage1.json").read_text())) == 5


def test_with_downloads_gone_as_well_they_are_fetched_again_and_left_out_if_they_are_others(
    thin: Path, source: Tables, server: Server, engines: ModuleType
):
    clean(thin, fetched=True)
    del server.files["/70.png"]
    server.files["/80.png"] = png(80, seed=1)
    wide(thin, source, engines, height=0)
    assert len(json.loads((thin / "products" / "stage1.json").read_text())) == 3
    found = rejects(thin)
    lost = "its file was removed and cannot be had again"
    assert found["70.png"][:2] == found["80.png"][:2] == ("pairs", lost)
    assert "404" in found["70.png"][2]
    assert "90.png" not in found


def test_a_picture_that_is_another_when_it_is_opened_again_is_left_out(
    thin: Path, source: Tables, engines: ModuleType
):
    raw = hashlib.sha256(png(70)).hexdigest()
    (thin / "fetched" / raw[:2] / raw).write_bytes(png(80, seed=2))
    wide(thin, source, engines, height=0)
    assert rejects(thin)["70.png"][2] == "what it was made of is another picture now"


def test_pictures_stay_while_stages_are_not_done(source: Tables, engines: ModuleType, tmp_path: Path):
    root = tmp_path / "corpus"
    fetch = FetchStage(root=root, settings=FetchSettings(allow_private=True, attempts=1))
    chain: list[Stage] = [fetch, OpenStage(root=root, time_limit=None), ExactStage()]
    Corpus(root).run(source, chain, until="open")
    with pytest.raises(ConfigError, match="the stage 'exact' is not done"):
        clean(root, rejected=True)
    assert by_kind(clean(root))[Waste.REJECTED].files == 0
    assert main(["corpus", "clean", str(root), "--rejected"]) == 2
