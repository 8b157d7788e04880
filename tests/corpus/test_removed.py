"""Taking pictures out of a corpus: everywhere, for good, and as if they had never been there."""

from __future__ import annotations

import functools
import hashlib
import http.server
import importlib
import json
import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from types import ModuleType

import pyarrow.parquet as pq
import pytest
from PIL import Image

from llavar.cli import main
from llavar.corpus.dedup import ExactStage, NearSettings, NearStage
from llavar.corpus.engines import rapidocr
from llavar.corpus.fetch import FetchSettings, FetchStage
from llavar.corpus.item import Item, Origin, PictureFile
from llavar.corpus.layout import LayoutSettings
from llavar.corpus.opening import OpenStage
from llavar.corpus.products import write_products
from llavar.corpus.removed import (
    Mark,
    Removal,
    RemovedStage,
    Wanted,
    Withdrawn,
    read_removed,
    remove,
    removed_stages,
    withheld,
)
from llavar.corpus.rows import OcrStage, PairsSettings, PairsStage, TemplateTeachStage
from llavar.corpus.shards import SCAN, Corpus, RunSettings
from llavar.corpus.sources import Folder, Tables
from llavar.corpus.stage import Source, Stage
from llavar.corpus.teaching.replies import STORE, Replies
from llavar.errors import ConfigError, DataError, NotFoundError
from llavar.llm import Reply
from llavar.records import Reject

WIDTHS = (60, 70, 80, 90, 100)


def picture(width: int) -> Image.Image:
    """Noise that no two widths share."""
    source = hashlib.shake_256(str(width).encode()).digest(width * 50 * 3)
    return Image.frombytes("RGB", (width, 50), source)


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    """Five pictures; one of them twice more, as equal pixels in another file and as a smaller copy."""
    folder = tmp_path / "pictures"
    folder.mkdir()
    for width in WIDTHS:
        picture(width).save(folder / f"a{width}.png")
    picture(70).save(folder / "b70.bmp")
    picture(70).save(folder / "c70.jpg", quality=90)
    return folder


@dataclass(frozen=True, slots=True)
class Maker:
    """Computes a corpus in this process, counting what OCR reads."""

    engines: ModuleType
    read: list[int]

    def __call__(self, root: Path, source: Source) -> None:
        corpus, stages = Corpus(root), self.stages(root, source)
        corpus.run(withheld(source, root), stages, settings=RunSettings(shard_rows=3))
        write_products(corpus, [SCAN, *(stage.name for stage in stages)])

    def stages(self, root: Path, source: Source) -> list[Stage]:
        read, fake = self.read, self.engines.FakeEngine

        class Counting(fake):
            def read(self, image: Image.Image) -> object:
                read.append(image.width)
                return super().read(image)

        fetching = FetchStage(root=root, settings=FetchSettings(allow_private=True))
        return [
            *([fetching] if isinstance(source, Tables) else []),
            OpenStage(root=root, time_limit=None),
            *removed_stages(root),
            ExactStage(),
            OcrStage(root=root, engines=(Counting,), time_limit=None),
            NearStage(settings=NearSettings(min_text=0)),
            PairsStage(settings=PairsSettings(layout=LayoutSettings(min_height=0))),
            TemplateTeachStage(),
        ]

    def remove(self, root: Path, source: Source, wanted: Wanted) -> Removal:
        return remove(root, wanted, lambda: self(root, source), lambda _: [])


@pytest.fixture
def make(engines: ModuleType) -> Maker:
    return Maker(engines, [])


def sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def state(root: Path) -> dict[str, str]:
    """Every file that a corpus is made of, but for the manifest and decisions under their keys."""
    found = [*root.glob("stages/**/*.parquet"), *root.glob("products/**/*.*"), root / "removed.jsonl"]
    found += [*root.glob("fetched/*/*"), *root.glob("images/*/*"), *root.glob("reuse/*")]
    return {str(path.relative_to(root)): sha256(path) for path in found}


def told(root: Path) -> str:
    """Everything that can be read in a corpus."""
    tables = [str(pq.read_table(path).to_pylist()) for path in sorted(root.glob("stages/**/*.parquet"))]
    texts = [
        path.read_bytes().decode(errors="replace")
        for path in sorted(root.rglob("*"))
        if path.is_file() and path.suffix in (".json", ".jsonl", ".bin", ".journal", ".sqlite")
    ]
    return "\n".join(tables + texts + [str(path) for path in root.rglob("*")])


# ------------------------------------------------------------------------------------------------ removing


def test_after_removing_the_corpus_is_as_if_the_picture_had_never_been_there(
    make: Maker, pictures: Path, tmp_path: Path
):
    source = Folder(path=pictures)
    one, other = tmp_path / "one", tmp_path / "other"
    make(one, source)
    digest = sha256(pictures / "a70.png")
    assert digest in told(one)
    assert len(make.read) == 6
    done = make.remove(one, source, Wanted(sha256=(digest,)))
    assert done.ids == ("a70.png", "b70.bmp", "c70.jpg"), "with both of its copies"
    assert done.left == tuple(str(pictures / name) for name in done.ids), "the user's own files stay"
    assert len(make.read) == 6, "nothing is read again"
    other.mkdir()
    (other / "removed.jsonl").write_bytes((one / "removed.jsonl").read_bytes())
    make(other, source)
    assert state(one) == state(other)
    said = told(one)
    for trace in ("a70.png", "b70.bmp", "c70.jpg", "wide 70"):
        assert trace not in said
    assert "a80.png" in said
    assert digest in (one / "removed.jsonl").read_text()


def test_a_copy_that_was_left_out_takes_the_one_that_stayed_with_it(
    make: Maker, pictures: Path, tmp_path: Path
):
    source = Folder(path=pictures)
    make(tmp_path / "corpus", source)
    done = make.remove(tmp_path / "corpus", source, Wanted(sha256=(sha256(pictures / "c70.jpg"),)))
    assert done.ids == ("a70.png", "b70.bmp", "c70.jpg")
    rows = json.loads((tmp_path / "corpus" / "products" / "stage1.json").read_text())
    assert len(rows) == 4


def test_what_was_removed_does_not_come_back_under_another_name(make: Maker, pictures: Path, tmp_path: Path):
    root, source = tmp_path / "corpus", Folder(path=pictures)
    make(root, source)
    make.remove(root, source, Wanted(sha256=(sha256(pictures / "a90.png"),)))
    picture(90).save(pictures / "again.bmp")
    (pictures / "z.png").write_bytes((pictures / "a90.png").read_bytes())
    make(root, source)
    ended = [one.reject for ended in Corpus(root).rejected("removed") for one in ended]
    assert [(one.id, one.reason) for one in ended] == [
        ("again.bmp", "removed on request"),
        ("z.png", "removed on request"),
    ]


def test_a_removal_that_was_stopped_goes_on(make: Maker, pictures: Path, tmp_path: Path):
    root, source = tmp_path / "corpus", Folder(path=pictures)
    wanted = Wanted(sha256=(sha256(pictures / "a90.png"),))
    make(root, source)

    def killed() -> None:
        Corpus(root).run(
            withheld(source, root), make.stages(root, source)[:2], settings=RunSettings(shard_rows=3)
        )
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        remove(root, wanted, killed, lambda _: [])
    assert list((root / "reuse").iterdir())
    make.remove(root, source, wanted)
    make(tmp_path / "fresh", source)
    make.remove(tmp_path / "fresh", source, wanted)
    assert state(root) == state(tmp_path / "fresh")
    assert "a90.png" not in told(root)


def test_what_is_not_there_yet_is_noted_and_never_comes_in(make: Maker, pictures: Path, tmp_path: Path):
    root, source = tmp_path / "corpus", Folder(path=pictures)
    make(root, source)
    picture(66).save(tmp_path / "later.png")
    done = make.remove(root, source, Wanted(sha256=(sha256(tmp_path / "later.png"),)))
    assert (done.ids, done.shards) == ((), 0)
    (tmp_path / "later.png").rename(pictures / "later.png")
    make(root, source)
    assert "later.png" not in (root / "products" / "names.jsonl").read_text()


# ------------------------------------------------------------------------------------------------ URLs


class _Quiet(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *_: object) -> None:
        """Say nothing."""


@pytest.fixture
def table(pictures: Path, tmp_path: Path) -> Iterator[Tables]:
    """The pictures behind URLs."""
    server = http.server.ThreadingHTTPServer(
        ("127.0.0.1", 0), functools.partial(_Quiet, directory=str(pictures))
    )
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    rows = [{"URL": f"http://127.0.0.1:{server.server_port}/a{width}.png"} for width in WIDTHS]
    (tmp_path / "urls.json").write_text(json.dumps(rows))
    yield Tables(paths=(tmp_path / "urls.json",))
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.mark.parametrize("by_url", [True, False])
def test_a_fetched_picture_goes_from_all_folders_and_is_never_fetched_again(
    by_url: bool, make: Maker, table: Tables, pictures: Path, tmp_path: Path
):
    root = tmp_path / "corpus"
    make(root, table)
    digest = sha256(pictures / "a80.png")
    url = next(
        item.origin.url for item in table.items() if isinstance(item, Item) and "a80" in item.origin.url
    )
    assert (root / "fetched" / digest[:2] / digest).is_file()
    wanted = Wanted(urls=(url,)) if by_url else Wanted(sha256=(digest,))
    done = make.remove(root, table, wanted)
    assert (len(done.ids), done.left) == (1, ())
    assert not list(root.glob(f"*/*/{digest}*"))
    assert url not in told(root)
    assert len(make.read) == 5
    assert len(json.loads((root / "products" / "stage1.json").read_text())) == 4
    assert len(list(root.glob("images/*/*"))) == 4
    kinds = {kind for kind, _ in read_removed(root).marks}
    assert kinds == {Mark.FILE, Mark.PIXELS, Mark.URL}


# ------------------------------------------------------------------------------------------------ the parts


def test_replies_of_a_teacher_about_the_picture_are_forgotten(make: Maker, pictures: Path, tmp_path: Path):
    root, source = tmp_path / "corpus", Folder(path=pictures)
    make(root, source)
    with Replies(root / STORE) as replies:
        for key in ("a60.png", "a90.png"):
            reply = Reply(
                text=f"about {key}",
                model="m",
                prompt_tokens=1,
                completion_tokens=1,
                finish="stop",
                seconds=0.0,
            )
            replies.put(key, reply, 0.0)
    wanted = Wanted(sha256=(sha256(pictures / "a90.png"),))
    remove(root, wanted, lambda: make(root, source), lambda item: [item.id])
    with Replies(root / STORE) as replies:
        assert replies.get("a90.png") is None
        assert replies.get("a60.png") is not None
    assert b"about a90" not in (root / STORE).read_bytes()


def item(id: str, url: str = "", digest: str = "0" * 64) -> Item:
    file = PictureFile(path="p", sha256=digest, width=1, height=1, bytes=1, original_sha256="f" * 64)
    return Item(id=id, origin=Origin(source="s", url=url), file=file)


def test_a_withheld_entry_tells_nothing_and_keeps_its_place(tmp_path: Path):
    (tmp_path / "t.json").write_text(json.dumps([{"URL": f"http://x.example/{n}"} for n in range(3)]))
    source = Tables(paths=(tmp_path / "t.json",))
    digest = hashlib.sha256(b"http://x.example/1").hexdigest()
    (tmp_path / "removed.jsonl").write_text(json.dumps({"kind": "url", "sha256": digest}))
    first, second, third = withheld(source, tmp_path).items()
    assert isinstance(first, Item)
    assert isinstance(third, Item)
    assert second == Reject(id=f"removed {digest[:16]}", stage="scan", reason="removed on request")
    assert withheld(source, tmp_path).fingerprint() != source.fingerprint()
    assert withheld(source, tmp_path / "other") is source


def test_the_stage_knows_a_picture_by_its_file_and_by_what_was_fetched():
    for digest in ("0" * 64, "f" * 64):
        stage = RemovedStage(withdrawn=Withdrawn(marks=frozenset({(Mark.FILE, digest)})))
        assert isinstance(stage.looked_at(item("a")), Reject)
    assert stage.looked_at(replace(item("a"), file=None)) == replace(item("a"), file=None)


@pytest.mark.parametrize("wrong", [("abc",), ("G" * 64,), ("0" * 63,)])
def test_what_is_no_hash_is_refused(wrong: Sequence[str]):
    with pytest.raises(ConfigError, match="is no SHA-256; give its 64"):
        Wanted(sha256=tuple(wrong))


def test_nothing_named_and_no_corpus_are_refused(tmp_path: Path):
    with pytest.raises(ConfigError, match="give --sha256 or --url"):
        Wanted()
    with pytest.raises(NotFoundError, match="holds no corpus"):
        remove(tmp_path, Wanted(urls=("http://x",)), lambda: None, lambda _: [])


@pytest.mark.parametrize("text", ["{", "{}", '{"kind": "face", "sha256": "0"}', "[]"])
def test_a_damaged_list_is_an_error_and_not_an_empty_list(text: str, tmp_path: Path):
    (tmp_path / "removed.jsonl").write_text(text)
    with pytest.raises(DataError, match="is damaged"):
        read_removed(tmp_path)


def test_the_command_takes_a_picture_out_of_what_a_recipe_made(
    pictures: Path,
    tmp_path: Path,
    engines: ModuleType,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
):
    fake = importlib.import_module("fake_engines").FakeEngine
    monkeypatch.setattr(rapidocr, "factory", lambda models, languages: fake)
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text("source: {folder: pictures}\nworkers: 1\nselect: null\nlayout: {min_height: 0}\n")
    root = tmp_path / "corpus"
    assert main(["corpus", "run", str(recipe), "--out", str(root), "--json"]) == 0
    before = json.loads(capsys.readouterr().out)["rows"]["stage1"]
    assert main(["corpus", "remove", str(root), "--sha256", sha256(pictures / "a60.png")]) == 0
    said = capsys.readouterr().out
    assert "removed a60.png" in said
    assert "a60.png lies outside of the corpus and was left where it is." in said
    rows = json.loads((root / "products" / "stage1.json").read_text())
    assert len(rows) == before - 1
    assert main(["corpus", "run", str(recipe), "--out", str(root), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["rows"]["stage1"] == before - 1
    assert main(["corpus", "remove", str(root), "--url", "http://x.example/1", "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == {"ids": [], "shards": 0, "left": []}
    assert main(["corpus", "remove", str(root), "--sha256", "x"]) == 2
