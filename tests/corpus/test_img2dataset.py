"""What img2dataset leaves as a source: its two formats, what it noted, and files that it never wrote."""

from __future__ import annotations

import hashlib
import importlib
import io
import json
import os
import tarfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from llavar.cli import main
from llavar.corpus.decontaminate import DecontaminateStage, EvalHash, LeakReason
from llavar.corpus.dedup import ExactStage
from llavar.corpus.engines import rapidocr
from llavar.corpus.fetch import FetchStage
from llavar.corpus.img2dataset import Img2dataset, Img2datasetReason
from llavar.corpus.item import Download, Item, Rejected
from llavar.corpus.opening import OpenReason, OpenStage, measured
from llavar.corpus.removed import Wanted, remove, withheld
from llavar.corpus.shards import Corpus, RunSettings
from llavar.corpus.sources import Columns, ScanReason, Tables
from llavar.errors import ConfigError, DataError, NotFoundError
from llavar.records import Reject

Row = dict[str, Any]
Leave = Callable[..., Path]
SHA = "ab" * 32


def jpeg(width: int, kind: str = "JPEG") -> bytes:
    """Noise that no two widths share."""
    noise = hashlib.shake_256(str(width).encode()).digest(width * 50 * 3)
    held = io.BytesIO()
    Image.frombytes("RGB", (width, 50), noise).save(held, kind, quality=95)
    return held.getvalue()


def row(number: int, **other: object) -> Row:
    """What img2dataset 1.47.0 notes of a picture that it has fetched."""
    made: Row = {
        "pwatermark": 0.1,
        "caption": f"caption {number}",
        "url": f"http://x.example/{number}.jpg",
        "key": f"{number:09d}",
        "status": "success",
        "error_message": None,
        "width": 60 + number,
        "height": 50,
        "original_width": 600 + number,
        "original_height": 500,
        "exif": "{}",
        "sha256": hashlib.sha256(f"as it came {number}".encode()).hexdigest(),
    }
    return {**made, **other}


def failed(number: int, status: str, message: str) -> Row:
    nothing = dict.fromkeys(("width", "height", "original_width", "original_height", "exif", "sha256"))
    return row(number, status=status, error_message=message, **nothing)


ROWS = (
    row(0),
    failed(1, "failed_to_download", "HTTP Error 404: Not Found"),
    row(2),
    failed(3, "failed_to_resize", "Image decoding error"),
)


def members(rows: Sequence[Row], ending: str = "jpg") -> dict[str, bytes]:
    """The files of a shard, in the order of its tar."""
    found: dict[str, bytes] = {}
    for one in rows:
        if one["status"] == "success":
            found[f"{one['key']}.{ending}"] = jpeg(60 + int(one["key"]))
            found[f"{one['key']}.json"] = json.dumps(one, indent=4).encode()
            found[f"{one['key']}.txt"] = str(one["caption"]).encode()
    return found


def write_files(root: Path, files: Mapping[str, bytes], shard: str = "00000") -> Path:
    (root / shard).mkdir(parents=True, exist_ok=True)
    for name, data in files.items():
        (root / shard / name).write_bytes(data)
    return root


def write_tar(root: Path, files: Mapping[str, bytes], shard: str = "00000") -> Path:
    root.mkdir(parents=True, exist_ok=True)
    with tarfile.open(root / f"{shard}.tar", "w", format=tarfile.USTAR_FORMAT) as tar:
        for name, data in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(data)
            tar.addfile(member, io.BytesIO(data))
    return root


def write_table(root: Path, rows: Sequence[Row], shard: str = "00000") -> None:
    """In the order in which downloads ended."""
    pq.write_table(pa.Table.from_pylist(list(reversed(rows))), root / f"{shard}.parquet")


WRITERS = {"files": write_files, "webdataset": write_tar}


@pytest.fixture(params=WRITERS)
def write(request: pytest.FixtureRequest) -> Callable[..., Path]:
    return WRITERS[request.param]


@pytest.fixture
def left(write: Callable[..., Path], tmp_path: Path) -> Path:
    """Two pictures and two failures."""
    root = write(tmp_path / "left", members(ROWS))
    write_table(root, ROWS)
    (root / "00000_stats.json").write_text("{}")
    return root


def items(root: Path, **other: Any) -> list[Item]:
    return [entry for entry in Img2dataset(path=root, **other).items() if isinstance(entry, Item)]


def rejects(root: Path) -> dict[str, str]:
    """Reasons by id."""
    found: dict[str, str] = {}
    for entry in Img2dataset(path=root).items():
        if not isinstance(entry, Item):
            reject = entry.reject if isinstance(entry, Rejected) else entry
            assert reject.id not in found
            found[reject.id] = reject.reason
    return found


def make(root: Path, source: Img2dataset, until: str | None = None) -> Corpus:
    """Up to ``exact``, in this process."""
    corpus = Corpus(root)
    stages = [OpenStage(root=root, time_limit=None), ExactStage()]
    corpus.run(withheld(source, root), stages, settings=RunSettings(shard_rows=3), until=until)
    return corpus


def kept(corpus: Corpus, stage: str = "exact") -> list[Item]:
    return [item for shard in corpus.items(stage) for item in shard]


# ------------------------------------------------------------------------------------------ what it says


def test_a_picture_has_everything_that_was_noted_of_it(left: Path) -> None:
    first, second = items(left, name="mine")
    origin = first.origin
    assert (origin.source, origin.url, origin.caption) == ("mine", "http://x.example/0.jpg", "caption 0")
    assert (origin.watermark, origin.unsafe) == (0.1, -1.0)
    assert origin.download == Download(sha256=ROWS[0]["sha256"], width=600, height=500)
    assert second.origin.url == "http://x.example/2.jpg"


def test_both_formats_give_the_same_items(tmp_path: Path) -> None:
    found = [items(write(tmp_path / name, members(ROWS))) for name, write in WRITERS.items()]
    plain = [
        [replace(one, origin=replace(one.origin, path="", stamp="", member=None, source="")) for one in some]
        for some in found
    ]
    assert plain[0] == plain[1]
    assert [len(some) for some in found] == [2, 2]


def test_ids_are_those_of_a_table_with_the_same_urls(left: Path, tmp_path: Path) -> None:
    (tmp_path / "t.json").write_text(json.dumps([{"URL": one["url"]} for one in ROWS]))
    table = [entry.id for entry in Tables(paths=(tmp_path / "t.json",)).items()]
    assert [item.id for item in items(left)] == [table[0], table[2]]
    assert set(rejects(left)) == {table[1], table[3]}


def test_what_was_not_fetched_is_left_out_with_the_reason_and_what_is_known(left: Path) -> None:
    ended = [entry for entry in Img2dataset(path=left).items() if isinstance(entry, Rejected)]
    told = [(one.reject.reason, one.reject.detail, one.item.origin.url) for one in ended]
    assert told == [
        (Img2datasetReason.NOT_RESIZED, "Image decoding error", "http://x.example/3.jpg"),
        (Img2datasetReason.NOT_FETCHED, "HTTP Error 404: Not Found", "http://x.example/1.jpg"),
    ]
    assert all(one.item.id == one.reject.id and one.item.origin.caption for one in ended)


def test_columns_name_what_else_was_kept_and_not_url_and_caption(write: Any, tmp_path: Path) -> None:
    one = row(0, p_mark=0.7, LANGUAGE="de", similarity=0.3)
    columns = Columns(url="link", caption="words", watermark="p_mark")
    (found,) = items(write(tmp_path / "left", members([one])), columns=columns)
    origin = found.origin
    assert (origin.url, origin.caption, origin.language) == (one["url"], "caption 0", "de")
    assert (origin.watermark, origin.similarity) == (0.7, 0.3)


def test_a_picture_may_be_png_or_webp(write: Any, tmp_path: Path) -> None:
    root = write(tmp_path / "left", members([row(0)], "png"))
    write(root, members([row(10)], "webp"), "00001")
    assert [Path(item.origin.path).suffix for item in items(root)] == [".png", ".webp"]


# ------------------------------------------------------------------------------------------------ as a corpus


def test_pictures_are_opened_where_they_lie_and_encoded_anew(left: Path, tmp_path: Path) -> None:
    first, second = kept(make(tmp_path / "corpus", Img2dataset(path=left)))
    assert first.file is not None
    assert (first.file.width, first.file.height) == (60, 50)
    assert first.file.original_sha256 == hashlib.sha256(jpeg(60)).hexdigest()
    assert first.file.path.startswith(f"images/{first.file.original_sha256[:2]}/")
    assert (first.origin.stamp, first.origin.member) == ("", None)
    assert first.origin.download == Download(sha256=ROWS[0]["sha256"], width=600, height=500)
    assert not (tmp_path / "corpus" / "fetched").exists()
    assert second.fingerprint != first.fingerprint


def test_the_stage_that_fetches_leaves_them_alone(left: Path, tmp_path: Path) -> None:
    found = items(left)
    assert sorted(FetchStage(root=tmp_path).run(found)) == list(enumerate(found))


def test_a_url_that_comes_twice_has_two_ids_and_one_picture(write: Any, tmp_path: Path) -> None:
    url = "http://x.example/same.jpg"
    files = members([row(0, url=url), row(1, url=url)])
    files["000000001.jpg"] = files["000000000.jpg"]
    corpus = make(tmp_path / "corpus", Img2dataset(path=write(tmp_path / "left", files)))
    opened = [item.id for item in kept(corpus, "open")]
    assert opened[1] == f"{opened[0]}-2"
    assert [item.id for item in kept(corpus)] == opened[:1]


def test_stopped_behind_the_source_it_ends_as_if_made_at_once(left: Path, tmp_path: Path) -> None:
    for name, steps in (("one", (None,)), ("other", ("scan", "open", None))):
        for until in steps:
            make(tmp_path / name, Img2dataset(path=left), until)
    one, other = (
        [path.read_bytes() for path in sorted((tmp_path / name).glob("stages/*/*.parquet"))]
        for name in ("one", "other")
    )
    assert one == other


def test_a_changed_shard_is_noticed(left: Path, write: Any, tmp_path: Path) -> None:
    source = Img2dataset(path=left)
    before = source.fingerprint()
    assert len(kept(make(tmp_path / "corpus", source))) == 2
    more = (*ROWS, row(4))
    write(left, members(more))
    assert source.fingerprint() != before
    assert len(kept(make(tmp_path / "corpus", source))) == 3


def test_an_evaluation_picture_is_known_by_what_was_noted(left: Path, tmp_path: Path) -> None:
    opened = kept(make(tmp_path / "corpus", Img2dataset(path=left)))
    known = EvalHash(set="exam", sha256=ROWS[0]["sha256"], pixels="0" * 64, perceptual="0" * 64)
    stage = DecontaminateStage(known=(known,), max_bits=0)
    first, second = stage.judge(stage.decide([opened]))(opened)
    assert isinstance(first, Reject)
    assert (first.reason, first.detail, second) == (LeakReason.FILE, "exam", opened[1])


# ------------------------------------------------------------------------------------------------ removing


def taken_out(root: Path, source: Img2dataset, **wanted: tuple[str, ...]) -> Any:
    return remove(root, Wanted(**wanted), lambda: make(root, source) and None, lambda _: [])


@pytest.mark.parametrize("by", ["url", "noted hash", "hash of the file"])
def test_a_picture_is_removed_by_url_and_by_both_hashes(by: str, left: Path, tmp_path: Path) -> None:
    source, root = Img2dataset(path=left), tmp_path / "corpus"
    make(root, source)
    wanted = {
        "url": {"urls": (ROWS[0]["url"],)},
        "noted hash": {"sha256": (ROWS[0]["sha256"],)},
        "hash of the file": {"sha256": (hashlib.sha256(jpeg(60)).hexdigest(),)},
    }
    done = taken_out(root, source, **wanted[by])
    (path,) = done.left
    assert path.endswith("000000000.jpg")
    assert [item.origin.url for item in kept(Corpus(root))] == [ROWS[2]["url"]]
    assert len(list(root.glob("images/*/*"))) == 1
    told = "".join(str(pq.read_table(path).to_pylist()) for path in root.glob("stages/*/*.parquet"))
    assert ROWS[0]["url"] not in told
    assert ROWS[1]["url"] in told


def test_a_url_that_was_never_fetched_is_removed_as_well(left: Path, tmp_path: Path) -> None:
    source, root = Img2dataset(path=left), tmp_path / "corpus"
    make(root, source)
    assert len(taken_out(root, source, urls=(ROWS[1]["url"],)).ids) == 1
    told = "".join(str(pq.read_table(path).to_pylist()) for path in root.glob("stages/*/*.parquet"))
    assert ROWS[1]["url"] not in told
    assert len(kept(Corpus(root))) == 2


# ------------------------------------------------------------------------------------------------ hostile


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        (b"{", ScanReason.BROKEN),
        (b"[" * 100_000, ScanReason.BROKEN),
        (b"\xff\xfe", ScanReason.BROKEN),
        (b"[1]", ScanReason.BROKEN),
        (b"", ScanReason.BROKEN),
        (json.dumps(row(0, url=None)).encode(), ScanReason.NO_URL),
        (json.dumps(row(0, url=["http://x"])).encode(), ScanReason.NO_URL),
        (json.dumps(row(0, url="  ")).encode(), ScanReason.NO_URL),
        (json.dumps(row(0, exif="x" * 2**20)).encode(), Img2datasetReason.LARGE_JSON),
    ],
)
def test_a_picture_with_such_a_json_is_left_out(text: bytes, reason: str, write: Any, tmp_path: Path) -> None:
    files = {**members([row(0), row(1)]), "000000000.json": text}
    root = write(tmp_path / "left", files)
    write_table(root, [row(0), row(1)])
    assert list(rejects(root).values()) == [reason]
    assert [item.origin.url for item in items(root)] == ["http://x.example/1.jpg"]


def test_numbers_and_hashes_that_are_none_are_not_taken_over(write: Any, tmp_path: Path) -> None:
    wrong = row(0, sha256="no hash", original_width=2**70, original_height="500", pwatermark=10**400)
    other = row(1, sha256=7, original_width=-1, original_height=True, caption=["a"], pwatermark=float("nan"))
    first, second = items(write(tmp_path / "left", members([wrong, other])))
    assert first.origin.download == second.origin.download == Download()
    assert (first.origin.watermark, second.origin.watermark, second.origin.caption) == (-1.0, -1.0, "")


def test_what_utf8_cannot_hold_does_no_harm(left: Path, write: Any, tmp_path: Path) -> None:
    bad = row(0, url="http://x.example/\udcff", caption="\ud800", status="\udcff", error_message="\ud800")
    files = members([row(0)])
    files["000000000.json"] = json.dumps(bad).encode()
    corpus = make(tmp_path / "corpus", Img2dataset(path=write(tmp_path / "bad", files)), "scan")
    (one,) = [one for shard in corpus.rejected("scan") for one in shard]
    assert (one.reject.reason, one.reject.detail) == (Img2datasetReason.MISSING, "\\ud800")


def test_a_picture_without_json_and_a_json_without_picture(write: Any, tmp_path: Path) -> None:
    files = members([row(0), row(1), row(2)])
    del files["000000000.json"], files["000000001.jpg"]
    root = write(tmp_path / "left", files)
    write_table(root, [row(number) for number in range(4)])
    (good,) = items(root)
    assert good.origin.url == row(2)["url"]
    assert sorted(rejects(root).values()) == sorted(
        [Img2datasetReason.NO_JSON, Img2datasetReason.MISSING, Img2datasetReason.MISSING]
    )


def test_a_picture_that_its_json_calls_failed_is_left_out(write: Any, tmp_path: Path) -> None:
    files = members([row(0)])
    files["000000000.json"] = json.dumps(failed(0, "failed_to_download", "hash mismatch")).encode()
    assert list(rejects(write(tmp_path / "left", files)).values()) == [Img2datasetReason.NOT_FETCHED]


def test_files_of_other_names_are_left_out_one_by_one(write: Any, tmp_path: Path) -> None:
    odd = {"notes.txt": b"x", "000000009.exe": b"x", "000000007.jpg.json": b"{}"}
    assert (
        list(rejects(write(tmp_path / "left", {**members([row(0)]), **odd})).values())
        == [Img2datasetReason.NAME] * 3
    )


def test_two_pictures_under_one_key_are_one(write: Any, tmp_path: Path) -> None:
    root = write(tmp_path / "left", {"000000000.jpg": jpeg(60), **members([row(0)], "png")})
    assert [Path(item.origin.path).suffix for item in items(root)] == [".jpg"]
    assert rejects(root) == {next(iter(rejects(root))): Img2datasetReason.TWICE}


def test_links_in_a_folder_are_not_followed(tmp_path: Path) -> None:
    root = write_files(tmp_path / "left", members([row(0)]))
    (tmp_path / "secret.json").write_text(json.dumps(row(1)))
    (root / "00000" / "000000001.json").symlink_to(tmp_path / "secret.json")
    os.mkfifo(root / "00000" / "000000002.jpg")
    (root / "00000" / ".hidden").write_text("x")
    assert rejects(root) == {
        "00000/000000001.json": ScanReason.NOT_A_FILE,
        "00000/000000002.jpg": ScanReason.NOT_A_FILE,
    }


def test_links_and_ways_out_in_a_tar_are_not_followed(tmp_path: Path) -> None:
    root = tmp_path / "left"
    root.mkdir()
    with tarfile.open(root / "00000.tar", "w") as tar:
        for name, kind in (
            ("000000001.json", tarfile.SYMTYPE),
            ("000000002.jpg", tarfile.LNKTYPE),
            ("000000003.jpg", tarfile.DIRTYPE),
            ("000000004.jpg", tarfile.FIFOTYPE),
            ("../000000005.jpg", tarfile.REGTYPE),
            ("/000000006.jpg", tarfile.REGTYPE),
            ("a/000000007.jpg", tarfile.REGTYPE),
        ):
            member = tarfile.TarInfo(name)
            member.type, member.linkname = kind, "/etc/passwd"
            tar.addfile(member)
    reasons = list(rejects(root).values())
    assert reasons == [ScanReason.NOT_A_FILE] * 4 + [Img2datasetReason.NAME] * 3
    assert items(root) == []


@pytest.mark.parametrize("cut", ["in a header", "in the data", "before the end", "garbage"])
def test_a_torn_tar_gives_what_is_whole_and_says_so(cut: str, tmp_path: Path) -> None:
    root = write_tar(tmp_path / "left", members([row(0), row(1), row(2)]))
    path = root / "00000.tar"
    with tarfile.open(path) as tar:
        third = next(member for member in tar if member.name == "000000002.jpg")
        end = tar.offset if tar.getmembers() and not tar.next() else 0
    data = path.read_bytes()
    path.write_bytes(
        {
            "in a header": data[: third.offset + 100],
            "in the data": data[: third.offset_data + 50],
            "before the end": data[:end],
            "garbage": data[: third.offset] + b"x" * 10_000,
        }[cut]
    )
    urls = [item.origin.url for item in items(root)]
    assert urls[:2] == ["http://x.example/0.jpg", "http://x.example/1.jpg"]
    assert (len(urls) == 3) is (cut == "before the end")
    assert rejects(root)["00000.tar"] == Img2datasetReason.TORN


def test_a_member_of_negative_size_ends_the_tar(tmp_path: Path) -> None:
    """The next member would be this one again."""
    root = write_tar(tmp_path / "left", members([row(0)]))
    path = root / "00000.tar"
    head = tarfile.TarInfo("000000001.jpg").tobuf(tarfile.GNU_FORMAT)
    size = (256**12 - 512).to_bytes(12, "big")
    head = head[:124] + size + b" " * 8 + head[156:]
    total = sum(head)
    head = head[:148] + f"{total:06o}\0 ".encode() + head[156:]
    data = path.read_bytes()
    with tarfile.open(path) as tar:
        end = max(member.offset_data + -(-member.size // 512) * 512 for member in tar)
    path.write_bytes(data[:end] + head + bytes(1024))
    assert rejects(root) == {"00000.tar": Img2datasetReason.TORN}
    assert len(items(root)) == 1


def test_a_tar_that_shrinks_behind_the_scan_costs_its_pictures_alone(tmp_path: Path) -> None:
    root = write_tar(tmp_path / "left", members([row(0)]))
    (found,) = items(root)
    (root / "00000.tar").write_bytes(b"")
    outcome = measured(found, root=tmp_path, settings=OpenStage(root=tmp_path).settings)
    assert isinstance(outcome, Reject)
    assert outcome.reason == OpenReason.CANNOT_OPEN
    assert "00000.tar/000000000.jpg' is empty" in outcome.detail
    (root / "00000.tar").unlink()
    outcome = measured(found, root=tmp_path, settings=OpenStage(root=tmp_path).settings)
    assert isinstance(outcome, Reject)


def test_a_table_that_was_never_closed_is_told_of(left: Path) -> None:
    (left / "00000.parquet").write_bytes(b"PAR1 and no more")
    assert rejects(left) == {"00000.parquet": Img2datasetReason.TORN}
    assert len(items(left)) == 2


def test_shards_without_a_table_are_read(write: Any, tmp_path: Path) -> None:
    root = write(tmp_path / "left", members(ROWS))
    write(root, members([row(10_000)]), "00001")
    assert len(items(root)) == 3
    assert rejects(root) == {}


def test_folders_of_other_things_are_refused(tmp_path: Path) -> None:
    with pytest.raises(NotFoundError, match="does not exist"):
        list(Img2dataset(path=tmp_path / "gone").items())
    (tmp_path / "file").write_text("x")
    with pytest.raises(ConfigError, match="is a file"):
        Img2dataset(path=tmp_path / "file").fingerprint()
    write_table(tmp_path, ROWS)  # as the format parquet leaves
    with pytest.raises(DataError, match="--output_format files"):
        list(Img2dataset(path=tmp_path).items())


# ------------------------------------------------------------------------------------------------ commands


def test_a_recipe_makes_rows_of_it(
    left: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.syspath_prepend(str(Path(__file__).parent))
    fake = importlib.import_module("fake_engines").FakeEngine
    monkeypatch.setattr(rapidocr, "factory", lambda models, languages: fake)
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text("source: {img2dataset: left}\nworkers: 1\nlayout: {min_height: 0}\n")
    root = tmp_path / "corpus"
    assert main(["corpus", "run", str(recipe), "--out", str(root), "--json"]) == 0
    made = json.loads(capsys.readouterr().out)
    assert [stage["stage"] for stage in made["stages"]][:3] == ["scan", "metadata", "open"]
    assert made["rows"]["stage1"] == 2
    names = [json.loads(line) for line in (root / "products" / "names.jsonl").read_bytes().splitlines()]
    assert main(["corpus", "explain", str(root), names[0]["row"]]) == 0
    life = json.loads(capsys.readouterr().out)["item"]["origin"]
    assert (life["url"], life["caption"]) == (names[0]["url"], "caption 0")
    assert life["download"] == {"sha256": ROWS[0]["sha256"], "width": 600, "height": 500}
    left_out = [json.loads(line) for line in (root / "products" / "rejects.jsonl").read_bytes().splitlines()]
    urls = {one["item"]["origin"]["url"] for one in left_out if one["reject"]["stage"] == "scan"}
    assert urls == {ROWS[1]["url"], ROWS[3]["url"]}
    assert main(["corpus", "fetch", str(recipe), "--out", str(root)]) == 2
    assert "are there already" in capsys.readouterr().err
    assert main(["corpus", "remove", str(root), "--url", ROWS[0]["url"]]) == 0
    assert "000000000.jpg lies outside of the corpus" in capsys.readouterr().out


def test_a_recipe_has_one_source(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "r.yaml").write_text("source: {img2dataset: a, folder: b}\n")
    assert main(["corpus", "run", str(tmp_path / "r.yaml"), "--out", str(tmp_path / "c")]) == 2
    assert "name one of the three" in capsys.readouterr().err
