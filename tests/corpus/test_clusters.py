"""Clusters: k-means, the three stages, the contact sheet."""

from __future__ import annotations

import importlib
import json
import re
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from llavar.cli import main
from llavar.corpus.clusters import (
    ClusterChoice,
    ClusterSettings,
    ClusterStage,
    FeatureStage,
    KeepSettings,
    KeepStage,
    assigned,
    cluster_stage,
    k_means,
    packed,
    parsed_centres,
    read_centres,
    vectors,
)
from llavar.corpus.descriptor import Descriptor, described
from llavar.corpus.item import Item, Origin, Scores
from llavar.corpus.stage import GatherStage, Outcome
from llavar.errors import ConfigError, DataError, NotFoundError
from llavar.records import Reject


@pytest.fixture
def helpers(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(str(Path(__file__).parent))
    return importlib.import_module("looking_helpers")


def groups(count: int, each: int, seed: int = 0) -> np.ndarray:
    """Points (count * each, 5) around far corners, one group after the other."""
    rng = np.random.default_rng(seed)
    corners = 10 * np.eye(count, 5)
    return (np.repeat(corners, each, axis=0) + rng.normal(0, 0.1, (count * each, 5))).astype(np.float32)


def test_groups_far_apart_are_the_clusters():
    points = groups(4, 30)
    centres = k_means(points, 4)
    nearest, distances = assigned(points, centres)
    assert sorted(Counter(nearest.tolist()).values()) == [30] * 4
    assert all(len(set(nearest[start : start + 30].tolist())) == 1 for start in range(0, 120, 30))
    assert distances.max() < 1


@settings(deadline=None, max_examples=60)
@given(
    st.integers(1, 30).flatmap(
        lambda n: st.lists(st.tuples(*[st.integers(-3, 3)] * 3), min_size=n, max_size=n)
    ),
    st.integers(1, 12),
    st.integers(0, 3),
)
def test_k_means_ends_in_means_of_what_is_nearest(rows: list[tuple[int, ...]], count: int, seed: int):
    points = np.array(rows, dtype=np.float32)
    centres = k_means(points, count, seed=seed)
    assert len(centres) == min(count, len(set(rows)))
    assert np.array_equal(centres, k_means(points, count, seed=seed))
    nearest, distances = assigned(points, centres)
    wanted = ((points[:, None] - centres[None]) ** 2).sum(axis=2)
    assert np.allclose(distances, wanted.min(axis=1), atol=1e-3)
    for place in set(nearest.tolist()):
        assert np.allclose(centres[place], points[nearest == place].mean(axis=0), atol=1e-3)


def test_every_point_has_its_own_cluster_where_there_are_enough():
    points = groups(3, 1)
    assert assigned(points, k_means(points, 9))[1].max() == pytest.approx(0, abs=1e-4)


# ------------------------------------------------------------------------------------------ features


def test_the_descriptor_tells_layouts_and_colours_apart():
    def bars(across: bool, colour: str) -> Image.Image:
        image = Image.new("RGB", (120, 80), colour)
        for place in range(0, 120, 20):
            image.paste("black", (0, place, 120, place + 8) if across else (place, 0, place + 8, 80))
        return image

    lying, standing, red = described(bars(True, "white")), described(bars(False, "white")), described(
        bars(True, "red")
    )  # fmt: skip
    again = described(bars(True, "white").resize((240, 160)))
    assert lying.shape == (219,)
    assert float(lying @ lying) == pytest.approx(1, abs=1e-5)
    assert lying @ again > 0.97
    assert lying @ standing < 0.9
    assert lying @ red < 0.9
    assert np.isfinite(described(Image.new("RGB", (1, 1)))).all()
    assert np.isfinite(described(Image.new("L", (3, 500), 255))).all()


def test_features_are_stored_in_two_bytes_and_come_back():
    values = np.linspace(-1, 1, 7, dtype=np.float32)
    item = featured("a", values)
    assert item.features is not None
    assert len(item.features.vector) == 7 * 4
    assert np.allclose(vectors([item, item]), values, atol=1e-3)
    with pytest.raises(DataError, match="compute the stage 'features' first"):
        vectors([Item(id="b", origin=Origin(source="s"))])
    with pytest.raises(DataError, match="of equal length"):
        vectors([item, featured("b", values[:3])])


def test_the_feature_stage_rejects_what_it_cannot_open(tmp_path: Path):
    Image.new("RGB", (40, 40), "red").save(tmp_path / "red.png")
    encode = FeatureStage(root=tmp_path, encoder=Descriptor()).maker()()
    red = encode(Item(id="a", origin=Origin(source="s", path="red.png")))
    assert isinstance(red, Item)
    assert vectors([red]).shape == (1, 219)
    gone = encode(Item(id="b", origin=Origin(source="s", path="gone.png")))
    assert isinstance(gone, Reject)
    assert (gone.stage, gone.reason) == ("features", "the picture cannot be opened")


# ------------------------------------------------------------------------------------------ stages


def featured(name: str, vector: np.ndarray, encoder: str = "e") -> Item:
    return Item(id=name, origin=Origin(source="s"), features=packed(encoder, vector))


def shards(points: np.ndarray, size: int = 7) -> list[list[Item]]:
    items = [featured(f"p{place}", point) for place, point in enumerate(points)]
    return [items[start : start + size] for start in range(0, len(items), size)]


def outcomes(stage: GatherStage, given_: list[list[Item]]) -> list[Outcome]:
    decision = stage.decide(given_)
    assert decision == stage.decide(given_)
    judge = stage.judge(decision)
    return [outcome for items in given_ for outcome in judge(items)]


def numbers(found: list[Outcome]) -> list[int]:
    return [one.scores.cluster for one in found if isinstance(one, Item) and one.scores]  # type: ignore[misc]


def test_every_item_gets_its_cluster_and_loses_its_features():
    stage = ClusterStage(settings=ClusterSettings(count=3, sample=60))
    found = outcomes(stage, shards(groups(3, 20)))
    assert all(isinstance(one, Item) and one.features is None for one in found)
    assert sorted(Counter(numbers(found)).values()) == [20, 20, 20]
    assert stage.judge(stage.decide(shards(groups(3, 20))))([]) == []


def test_a_sample_is_enough_and_does_not_depend_on_the_shards():
    stage = ClusterStage(settings=ClusterSettings(count=3, sample=25))
    points = groups(3, 40)
    found = outcomes(stage, shards(points))
    assert sorted(Counter(numbers(found)).values()) == [40, 40, 40]
    assert stage.decide(shards(points)) == stage.decide(shards(points, size=50))
    assert ClusterStage(settings=ClusterSettings(count=3, sample=25, seed=1)).decide(shards(points))


def test_no_items_make_no_clusters():
    stage = ClusterStage(settings=ClusterSettings(count=3))
    assert parsed_centres(stage.decide([[]])).centres == ()


def test_saved_centres_are_used_for_new_pictures_of_the_same_encoder(tmp_path: Path):
    points = groups(3, 20)
    decision = ClusterStage(settings=ClusterSettings(count=3)).decide(shards(points))
    (tmp_path / "clusters.json").write_bytes(decision)
    stage = cluster_stage(ClusterChoice(centres=tmp_path / "clusters.json"))
    assert stage.settings.centres != ""
    new = shards(groups(3, 4, seed=9))
    assert numbers(outcomes(stage, new)) == numbers(outcomes(stage, shards(points)))[::5]
    other = [[featured("x", points[0], encoder="another")]]
    with pytest.raises(ConfigError, match="of the encoder 'e' and the features of 'another'"):
        stage.decide(other)


@pytest.mark.parametrize("content", ["{", "{}", '{"encoder": "e", "centres": []}',
                                     '{"encoder": "e", "centres": [[1], [1, 2]]}'])  # fmt: skip
def test_a_file_without_centres_is_refused(content: str, tmp_path: Path):
    (tmp_path / "c.json").write_text(content)
    with pytest.raises(DataError, match=r"c\.json"):
        read_centres(tmp_path / "c.json")
    with pytest.raises(NotFoundError, match="there is no file"):
        read_centres(tmp_path / "none.json")


def clustered(count: int, number: int, name: str = "") -> list[Item]:
    return [
        Item(id=f"{name}{number}-{n}", origin=Origin(source="s"), scores=Scores(cluster=number))
        for n in range(count)
    ]


def test_picked_clusters_go_on_and_no_more_of_each_than_wanted():
    given_ = [clustered(30, 0), clustered(5, 1) + clustered(20, 2), clustered(30, 2, "more")]
    stage = KeepStage(settings=KeepSettings(keep=(1, 2), at_most=12))
    found = outcomes(stage, given_)
    assert Counter(numbers(found)) == {1: 5, 2: 12}
    reasons = Counter((one.reason, one.detail) for one in found if isinstance(one, Reject))
    assert reasons == {
        ("its cluster was not picked", "cluster 0"): 30,
        ("its cluster is full", "cluster 2, 12 go on"): 38,
    }
    kept = {one.id for one in found if isinstance(one, Item)}
    backwards = outcomes(stage, [items[::-1] for items in given_[::-1]])
    assert {one.id for one in backwards if isinstance(one, Item)} == kept


def test_more_than_a_heap_of_draws_comes_to_the_same():
    """Far more items than wanted: only the lowest draws are kept on the way."""
    items = clustered(5000, 0)
    at_once = outcomes(KeepStage(settings=KeepSettings(at_most=3)), [items])
    parts = [items[start : start + 100] for start in range(0, len(items), 100)]
    in_parts = outcomes(KeepStage(settings=KeepSettings(at_most=3)), parts)
    assert len(numbers(at_once)) == 3
    assert [type(one) for one in at_once] == [type(one) for one in in_parts]
    everything = KeepStage(settings=KeepSettings(at_most=None))
    assert len(numbers(outcomes(everything, [items]))) == 5000


@pytest.mark.parametrize(
    ("make", "wrong"),
    [
        (ClusterSettings, {"count": 0}),
        (ClusterSettings, {"count": 10, "sample": 9}),
        (KeepSettings, {"keep": ()}),
        (KeepSettings, {"keep": (-1,)}),
        (KeepSettings, {"at_most": 0}),
        (ClusterChoice, {"count": 0}),
        (ClusterChoice, {"at_most": 0}),
    ],
)
def test_settings_that_make_no_clusters_are_refused(make: Callable[..., object], wrong: dict[str, Any]):
    with pytest.raises(ConfigError):
        make(**wrong)


# ------------------------------------------------------------------------------------------ as a user


RECIPE = """
source: {{folder: pictures}}
shard_rows: 4
workers: 1
select: null
near: null
cluster: {cluster}
"""


@dataclass
class Place:
    folder: Path

    def run(self, cluster: str, *more: str) -> int:
        path = self.folder / "recipe.yaml"
        path.write_text(RECIPE.format(cluster=cluster))
        return main(["corpus", "run", str(path), "--out", str(self.folder / "c"), "--json", *more])


@pytest.fixture
def place(tmp_path: Path) -> Place:
    (tmp_path / "pictures").mkdir()
    for number in range(12):
        colour = ("white", "navy", "crimson")[number % 3]
        image = Image.new("RGB", (60 + number, 60), colour)
        image.paste("gray", (number, number, 30, 30))
        image.save(tmp_path / "pictures" / f"{colour}{number}.png")
    return Place(tmp_path)


def test_a_person_picks_from_the_sheet_and_only_the_pick_is_redone(
    place: Place, capsys: pytest.CaptureFixture[str]
):
    assert place.run("{count: 3}", "--until", "cluster") == 0
    made = json.loads(capsys.readouterr().out)
    assert [(one["stage"], one["kept"]) for one in made["stages"]][-2:] == [("features", 12), ("cluster", 12)]
    assert not (place.folder / "c" / "products").exists()
    assert main(["corpus", "cluster", str(place.folder / "c")]) == 0
    assert "3 clusters, the largest: 0 (4), 1 (4), 2 (4)" in capsys.readouterr().out
    page = (place.folder / "c" / "clusters.html").read_text()
    assert page.count("data:image/jpeg") == 12
    cluster = next(
        int(number)
        for number, part in re.findall(r"<h2>Cluster (\d)</h2>(.*?)</section>", page, re.S)
        if "navy1.png" in part
    )
    assert place.run(f"{{count: 3, keep: [{cluster}], at_most: 3}}", "--until", "keep") == 0
    stages = {one["stage"]: one for one in json.loads(capsys.readouterr().out)["stages"]}
    assert (stages["cluster"]["computed"], stages["keep"]["computed"], stages["keep"]["kept"]) == (0, 3, 3)
    assert place.run("{centres: c/clusters.json, at_most: null}", "--until", "keep") == 0
    stages = {one["stage"]: one for one in json.loads(capsys.readouterr().out)["stages"]}
    assert stages["keep"]["kept"] == 12


def test_a_sheet_needs_clusters_and_shows_what_is_gone(place: Place, capsys: pytest.CaptureFixture[str]):
    assert place.run("null", "--until", "exact") == 0
    assert main(["corpus", "cluster", str(place.folder / "c")]) == 2
    assert "has no clusters; run a recipe with cluster: {count: 100}" in capsys.readouterr().err
    assert place.run("{count: 2}", "--until", "cluster") == 0
    (place.folder / "pictures" / "navy1.png").unlink()
    assert main(["corpus", "cluster", str(place.folder / "c"), "--out", str(place.folder / "sheet")]) == 0
    assert "navy1.png (its file is gone)" in (place.folder / "sheet" / "clusters.html").read_text()


def test_a_stage_that_the_recipe_lacks_is_no_place_to_stop(place: Place, capsys: pytest.CaptureFixture[str]):
    assert place.run("null", "--until", "cluster") == 2
    assert "no stage 'cluster'; --until takes one of open, exact, ocr" in capsys.readouterr().err
