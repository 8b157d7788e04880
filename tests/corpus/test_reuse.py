"""What is kept where a recipe changes before a stage, and what that stage looks at does not."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import ModuleType

import pytest
from PIL import Image

from llavar.corpus.caption import CaptionStage
from llavar.corpus.clusters import ClusterChoice, FeatureStage, KeepStage, cluster_stage
from llavar.corpus.descriptor import Descriptor
from llavar.corpus.item import Item, Origin, PictureFile, Scores
from llavar.corpus.layout import LayoutSettings
from llavar.corpus.opening import OpenStage
from llavar.corpus.rows import OcrStage, PairsSettings, PairsStage
from llavar.corpus.shards import Corpus, RunSettings
from llavar.corpus.sources import Folder
from llavar.corpus.stage import AddingStage, Stage
from llavar.records import Reading

WIDTHS = (60, 61, 62, 63, 64, 65, 66)


@dataclass(slots=True, kw_only=True)
class Place:
    """A folder of pictures, and the widths of those that are read."""

    folder: Path
    engines: ModuleType
    read: list[int] = field(default_factory=list[int])

    def run(self, root: Path, choice: ClusterChoice | None, until: str | None = None) -> list[int]:
        """Compute what is missing; what was read for it."""
        self.read.clear()
        settings = RunSettings(shard_rows=3)
        Corpus(root).run(Folder(path=self.folder), self.stages(root, choice), settings=settings, until=until)
        return sorted(self.read)

    def stages(self, root: Path, choice: ClusterChoice | None) -> list[Stage]:
        read, fake = self.read, self.engines.FakeEngine

        class Counting(fake):
            def read(self, image: Image.Image) -> object:
                read.append(image.width)
                return super().read(image)

        features = FeatureStage(root=root, encoder=Descriptor(), time_limit=None)
        picked = (
            [] if choice is None else [features, cluster_stage(choice), KeepStage(settings=choice.pick())]
        )
        return [
            OpenStage(root=root, time_limit=None),
            *picked,
            OcrStage(root=root, engines=(Counting,), time_limit=None),
            PairsStage(settings=PairsSettings(layout=LayoutSettings(min_height=0))),
        ]


@pytest.fixture
def place(tmp_path: Path, engines: ModuleType) -> Place:
    folder = tmp_path / "pictures"
    folder.mkdir()
    for place, width in enumerate(WIDTHS):
        shade = 255 if place % 2 else 0  # two kinds
        Image.new("RGB", (width, 50), (shade, shade, place)).save(folder / f"{width}.png")
    return Place(folder=folder, engines=engines)


def files(root: Path) -> Iterator[tuple[str, bytes]]:
    for path in sorted(root.glob("stages/*/*.parquet")):
        yield str(path.relative_to(root)), path.read_bytes()


def clusters(root: Path) -> list[int | None]:
    items = (item for shard in Corpus(root).items("pairs") for item in shard)
    return [item.scores.cluster for item in items if item.scores is not None]


def test_other_clusters_read_nothing_again(place: Place, tmp_path: Path):
    root = tmp_path / "a"
    assert place.run(root, ClusterChoice(count=2)) == list(WIDTHS)
    before = clusters(root)
    assert place.run(root, ClusterChoice(count=5, seed=3)) == []
    assert clusters(root) != before
    place.run(tmp_path / "b", ClusterChoice(count=5, seed=3))
    assert list(files(root)) == list(files(tmp_path / "b"))
    assert not (root / "reuse").exists()


def test_clusters_where_there_were_none_read_nothing_again_and_neither_does_their_end(
    place: Place, tmp_path: Path
):
    root = tmp_path / "a"
    assert place.run(root, None) == list(WIDTHS)
    assert place.run(root, ClusterChoice(count=2)) == []
    assert place.run(root, None) == []
    assert "cluster" not in [stage.stage for stage in Corpus(root).chain()]
    assert not (root / "reuse").exists()


def test_more_clusters_that_are_kept_read_what_was_not_read(place: Place, tmp_path: Path):
    root = tmp_path / "a"
    number = Corpus(root)
    place.run(root, ClusterChoice(count=2), until="cluster")
    found = {item.id: item.scores for shard in number.items("cluster") for item in shard}
    first = {id for id, scores in found.items() if scores is not None and scores.cluster == 0}
    assert 0 < len(first) < len(WIDTHS)
    assert place.run(root, ClusterChoice(count=2, keep=(0,))) == sorted(int(id[:2]) for id in first)
    others = sorted(set(WIDTHS) - {int(id[:2]) for id in first})
    assert place.run(root, ClusterChoice(count=2, keep=(0, 1))) == others


def test_new_pictures_fit_clusters_anew_and_are_read_alone(place: Place, tmp_path: Path):
    root = tmp_path / "a"
    place.run(root, ClusterChoice(count=2))
    Image.new("RGB", (90, 50), "red").save(place.folder / "90.png")
    assert place.run(root, ClusterChoice(count=2)) == [90]


def test_stopped_between_clusters_and_reading_it_is_of_use_all_the_same(place: Place, tmp_path: Path):
    root = tmp_path / "a"
    place.run(root, ClusterChoice(count=2))
    for seed in (1, 2):
        assert place.run(root, ClusterChoice(count=4, seed=seed), until="keep") == []
    assert place.run(root, ClusterChoice(count=4, seed=2)) == []
    place.run(tmp_path / "b", ClusterChoice(count=4, seed=2))
    assert list(files(root)) == list(files(tmp_path / "b"))


def test_an_engine_that_is_another_reads_all_again(
    place: Place, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    root = tmp_path / "a"
    place.run(root, ClusterChoice(count=2))
    monkeypatch.setattr(place.engines.FakeEngine, "name", "fake 3")
    assert place.run(root, ClusterChoice(count=3)) == list(WIDTHS)


BASES: Sequence[tuple[Callable[[Path], AddingStage], bool]] = (
    (lambda root: OcrStage(root=root), False),
    (lambda root: FeatureStage(root=root, encoder=Descriptor()), False),
    (lambda root: CaptionStage(root=root, captioner=Descriptor()), True),  # pyright: ignore[reportArgumentType]
)


@pytest.mark.parametrize(("make", "reads_text"), BASES)
def test_what_decides_a_stage_that_looks_at_pictures(
    make: Callable[[Path], AddingStage], reads_text: bool, tmp_path: Path
):
    stage = make(tmp_path)
    assert isinstance(stage, AddingStage)
    file = PictureFile(path="a.png", sha256="0" * 64, width=1, height=1, bytes=1)
    item = Item(id="a", origin=Origin(source="s", path="a.png"), file=file)
    basis = stage.basis(item)
    assert stage.basis(replace(item, scores=Scores(cluster=3))) == basis
    assert stage.basis(replace(item, origin=Origin(source="s", caption="another"))) == basis
    assert stage.basis(replace(item, file=replace(file, sha256="1" * 64))) != basis
    assert stage.basis(replace(item, file=None)) != basis
    read = Reading(image="a.png", size=(1, 1), engine="fake 1", lines=())
    assert (stage.basis(replace(item, readings=(read,))) != basis) is reads_text
