"""What is done about a cluster's actors and nodes, with a stand-in for Ray and without."""

from __future__ import annotations

import importlib
import os
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from llavar.cli import main
from llavar.corpus import cluster_node, cluster_ray
from llavar.corpus.cluster import Cluster, ClusterCrew
from llavar.corpus.cluster_node import TOKEN, Common, Done, Relay, landmarks, versions
from llavar.corpus.cluster_ray import Machines, RayPlace, machines
from llavar.corpus.crew import TRIES, Crew, Loss, Lost
from llavar.errors import (
    ConfigError,
    LlavarError,
    MissingExtraError,
    ModelError,
    NotFoundError,
    StorageError,
)

HERE = Path(__file__).parent


@pytest.fixture
def work(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(str(HERE))
    return importlib.import_module("cluster_work")


@pytest.fixture
def crew_work(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(str(HERE))
    return importlib.import_module("crew_work")


@pytest.fixture
def fakes(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(str(HERE))
    return importlib.import_module("fake_ray")


def crew_on(ray: Any, maker: Any, workers: int = 2, time_limit: float = 30.0) -> ClusterCrew[Any, Any, Any]:
    crew = Crew[int, Any, Done](maker=maker, workers=workers, time_limit=time_limit, place=RayPlace(ray=ray))
    return ClusterCrew(crew=crew)


def doubles(crew: ClusterCrew[Any, Any, Any], count: int = 40) -> dict[str, Any]:
    with crew:
        found = list(crew.results((f"t{number}", number) for number in range(count)))
    assert len(found) == len({key for key, _ in found}) == count
    return dict(found)


def test_every_task_has_one_outcome_and_short_ones_travel_together(fakes: ModuleType, work: ModuleType):
    ray = fakes.FakeRay()
    found = doubles(crew_on(ray, work.Doubling()), 600)
    assert found == {f"t{number}": 2 * number for number in range(600)}
    sizes = [len(call) for call in ray.calls if call]
    assert sizes[:2] == [1, 1]
    assert max(sizes) == 64
    assert len(ray.actors) == 2
    assert all(actor.dead for actor in ray.actors)


def test_long_tasks_travel_alone(fakes: ModuleType, work: ModuleType, monkeypatch: pytest.MonkeyPatch):
    def slowly(numbers: Sequence[int]) -> Done:
        return Done(results=tuple(numbers), seconds=1.1 * len(numbers))

    monkeypatch.setattr(work, "doubled", slowly)
    ray = fakes.FakeRay()
    doubles(crew_on(ray, work.Doubling()))
    assert {len(call) for call in ray.calls if call} == {1}


def test_a_lost_actor_is_replaced_and_its_tasks_are_done_by_another(fakes: ModuleType, work: ModuleType):
    ray = fakes.FakeRay(once=[0, 4, 8])  # early, while there is work for one more
    assert doubles(crew_on(ray, work.Doubling())) == {f"t{number}": 2 * number for number in range(40)}
    assert len(ray.actors) == 2 + 3


def test_what_takes_down_every_actor_is_lost_and_nothing_that_travelled_with_it(
    fakes: ModuleType, work: ModuleType
):
    ray = fakes.FakeRay(poison=[30])
    found = doubles(crew_on(ray, work.Doubling()))
    lost = found.pop("t30")
    assert lost == Lost(why=Loss.DIED, detail="a lost actor (The actor died. Its node is gone.), 3 times")
    assert found == {f"t{number}": 2 * number for number in range(40) if number != 30}
    struck = [call for call in ray.calls if call and 30 in call]
    assert [len(call) for call in struck[-TRIES:]] == [1] * TRIES
    assert len(struck[0]) > 1


def test_a_call_that_nothing_comes_of_is_ended_and_taken_apart(fakes: ModuleType, work: ModuleType):
    ray = fakes.FakeRay(stuck=[30])
    found = doubles(crew_on(ray, work.Doubling(), time_limit=0.05))
    assert found.pop("t30") == Lost(why=Loss.TIME_LIMIT, detail="0.05 s")
    assert found == {f"t{number}": 2 * number for number in range(40) if number != 30}


def test_nodes_may_be_lost_while_models_load_but_not_all_the_time(fakes: ModuleType, work: ModuleType):
    assert len(doubles(crew_on(fakes.FakeRay(lost_loading=TRIES), work.Doubling(), workers=1))) == 40
    with pytest.raises(
        ModelError, match="'doubling' ended with a lost actor .* before it had loaded: see Ray"
    ):
        doubles(crew_on(fakes.FakeRay(lost_loading=TRIES + 1), work.Doubling(), workers=1))


@pytest.mark.parametrize("error", [ModelError("no weights"), NotFoundError("no folder")])
def test_what_an_actor_says_while_it_loads_ends_the_run(
    fakes: ModuleType, work: ModuleType, error: LlavarError
):
    ray = fakes.FakeRay()
    with pytest.raises(type(error), match=str(error)):
        doubles(crew_on(ray, work.Doubling(fails=error)))
    assert all(actor.dead for actor in ray.actors)


def test_an_error_that_concerns_no_task_ends_the_run(
    fakes: ModuleType, work: ModuleType, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(work, "doubled", lambda numbers: Done(error=ModelError("on the node n1: too old")))
    with pytest.raises(ModelError, match="on the node n1: too old"):
        doubles(crew_on(fakes.FakeRay(), work.Doubling()))


def test_a_fault_inside_an_actor_is_no_reject(
    fakes: ModuleType, work: ModuleType, monkeypatch: pytest.MonkeyPatch
):
    def broken(numbers: Sequence[int]) -> Done:
        raise fakes.RayTaskError("AssertionError: odd")

    monkeypatch.setattr(work, "doubled", broken)
    with pytest.raises(ModelError, match="an actor of the cluster failed: AssertionError: odd"):
        doubles(crew_on(fakes.FakeRay(), work.Doubling()))


def test_nodes_without_llavar_are_named_as_such(fakes: ModuleType, work: ModuleType):
    ray = fakes.FakeRay(
        lost_loading=1, says="The actor died.\n  ModuleNotFoundError: No module named 'llavar'"
    )
    with pytest.raises(ConfigError, match="the nodes cannot import .* install this llavar"):
        doubles(crew_on(ray, work.Doubling()))


def test_a_cluster_that_gives_nobody_a_cpu_is_an_error(
    fakes: ModuleType, work: ModuleType, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(cluster_ray, "START_LIMIT", -1.0)
    with pytest.raises(ConfigError, match="started none of 2 actors in 0 s: 0 CPUs and 0 GPUs are free"):
        doubles(crew_on(fakes.FakeRay(unstarted=True), work.Doubling()))


def test_a_run_that_is_given_up_ends_its_actors(fakes: ModuleType, work: ModuleType):
    ray = fakes.FakeRay()
    with crew_on(ray, work.Doubling()) as crew:
        results = crew.results(enumerate(range(100)))
        next(results)
        results.close()
        assert ray.actors
        assert all(actor.dead for actor in ray.actors)


# ------------------------------------------------------------------------------------------ joining


@pytest.fixture
def fake_ray(fakes: ModuleType, monkeypatch: pytest.MonkeyPatch) -> Any:
    ray = fakes.FakeRay()
    for name in [name for name in os.environ if name.startswith("RAY_")]:
        monkeypatch.delenv(name)
    monkeypatch.setitem(sys.modules, "ray", ray)
    return ray


def test_without_an_address_a_ray_of_this_machine_alone_is_started_and_ended(fake_ray: Any):
    with machines("", workers=7) as found:
        assert fake_ray.initialized
        assert (found.nodes, found.cpus, found.gpus, found.is_ours) == (2, 4, 0, True)
    assert not fake_ray.initialized
    (settings,) = fake_ray.inits
    assert settings["address"] == "local"
    assert settings["num_cpus"] == max(7, len(os.sched_getaffinity(0)))
    assert settings["include_dashboard"] is False
    assert found.ray.environment["RAY_USAGE_STATS_ENABLED"] == "0"
    assert found.ray.environment["RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER"] == "0"
    assert len(found.ray.environment["RAY_AUTH_TOKEN"]) == 64
    assert "RAY_AUTH_TOKEN" not in os.environ


@pytest.mark.parametrize("by_variable", [True, False])
def test_an_address_is_joined_and_left(by_variable: bool, fake_ray: Any, monkeypatch: pytest.MonkeyPatch):
    if by_variable:
        monkeypatch.setenv("RAY_ADDRESS", "auto")
    with machines("" if by_variable else "auto") as found:
        assert not found.is_ours
    assert not fake_ray.initialized
    assert [settings["address"] for settings in fake_ray.inits] == ["auto"]
    assert "num_cpus" not in fake_ray.inits[0]


def test_a_ray_that_was_joined_before_is_left_alone(fake_ray: Any):
    fake_ray.initialized = True
    with machines("") as found:
        assert not found.is_ours
    assert fake_ray.initialized
    assert not fake_ray.inits


@pytest.mark.parametrize(
    ("address", "refuses", "sentence"),
    [
        ("ray://head:10001", None, "is 'ray://head:10001'; give HOST:PORT"),
        ("auto", ConnectionError("nobody\nthere"), r"no Ray can be joined at 'auto' \(nobody there\)"),
        ("auto", RuntimeError("Version mismatch"), r"\(Version mismatch\); start one"),
        ("127.0.0.1:1", None, r"joined at '127.0.0.1:1' \(.*refused\)"),
    ],
)
def test_a_cluster_that_cannot_be_joined_is_an_error(
    address: str, refuses: Exception | None, sentence: str, fake_ray: Any
):
    fake_ray.refuses = refuses
    with pytest.raises(ConfigError, match=sentence), machines(address):
        pytest.fail("it was joined")


def test_without_ray_there_is_a_sentence(
    work: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(MissingExtraError, match="pip install 'llavar\\[cluster\\]'"), machines(""):
        pytest.fail("there is no Ray")
    recipe = work.pictures(tmp_path)
    assert main(["corpus", "run", str(recipe), "--out", str(tmp_path / "c"), "--cluster"]) == 2
    assert "pip install 'llavar[cluster]'" in capsys.readouterr().err


def gpu_cluster(ray: Any, root: Path, gpus: int) -> Cluster:
    return Cluster(machines=Machines(ray=ray, nodes=3, cpus=48, gpus=gpus, is_ours=False), root=root)


def test_models_on_a_gpu_get_one_each(fakes: ModuleType, tmp_path: Path, work: ModuleType):
    joined = gpu_cluster(fakes.FakeRay(), tmp_path, gpus=2)
    assert str(joined) == "3 nodes with 48 CPUs and 2 GPUs"
    crew: Any = joined.crew(work.Doubling(device="cuda"), workers=None, time_limit=5.0)
    assert (crew.crew.workers, crew.crew.place.gpus) == (2, 1)
    crew = joined.crew(work.Doubling(), workers=None, time_limit=5.0)
    assert (crew.crew.workers, crew.crew.place.gpus) == (48, 0)
    crew = joined.crew(work.Doubling(), workers=5, time_limit=5.0)
    assert crew.crew.workers == 5
    place = RayPlace(ray=joined.machines.ray, gpus=1)
    place.hire(work.Doubling())
    assert joined.machines.ray.options[-1]["num_gpus"] == 1
    joined.forget()
    assert not (tmp_path / TOKEN).exists()


@pytest.mark.parametrize(
    ("device", "gpus", "sentence"),
    [("cuda", 0, "the cluster has 0 GPUs"), ("cuda:1", 2, "write  device: cuda")],
)
def test_devices_that_no_node_has_are_refused(
    fakes: ModuleType, device: str, gpus: int, sentence: str, tmp_path: Path, work: ModuleType
):
    with pytest.raises(ConfigError, match=sentence):
        gpu_cluster(fakes.FakeRay(), tmp_path, gpus).crew(
            work.Doubling(device=device), workers=None, time_limit=5.0
        )


def test_stages_with_models_say_where_these_run(tmp_path: Path, work: ModuleType):
    from llavar.corpus.caption import CaptionStage
    from llavar.corpus.clusters import FeatureStage
    from llavar.corpus.descriptor import Descriptor
    from llavar.corpus.select import ModelStage

    model = work.Doubling(device="cuda")
    stages = [
        CaptionStage(root=tmp_path, captioner=model),
        FeatureStage(root=tmp_path, encoder=model),
        ModelStage(root=tmp_path, scorer=model),
    ]
    assert [stage.maker().device for stage in stages] == ["cuda"] * 3
    assert FeatureStage(root=tmp_path, encoder=Descriptor()).device == "cpu"


# ------------------------------------------------------------------------------------------ nodes


@pytest.fixture
def common(tmp_path: Path) -> Common:
    """What a node has that sees everything."""
    folder = tmp_path / "pictures" / "inside"
    folder.mkdir(parents=True)
    for number in range(5):
        (folder / f"{number}.png").write_bytes(b"x" * number)
    root = tmp_path / "corpus"
    root.mkdir()
    (root / TOKEN).write_text("the driver's")
    return Common(root=root, token="the driver's", landmarks=landmarks([folder.parent]), versions=versions())


def test_a_node_that_has_what_the_driver_has_is_let_to_work(common: Common):
    assert len(common.landmarks) == 3
    assert {"llavar", "pillow", "torch"} <= dict(common.versions).keys()
    common.check()
    assert [path.name for path in common.root.iterdir()] == [TOKEN]


def test_a_node_that_does_not_see_the_corpus_is_refused(common: Common):
    elsewhere = replace(common, root=common.root / "other")
    with pytest.raises(
        NotFoundError, match="does not see the corpus in .*; put it on storage that every node"
    ):
        elsewhere.check()
    (common.root / TOKEN).write_text("of an older run")
    with pytest.raises(NotFoundError, match="does not see the corpus"):
        common.check()


def test_a_node_that_sees_other_pictures_is_refused(common: Common):
    path = common.landmarks[0][0]
    path.write_bytes(b"another picture")
    with pytest.raises(NotFoundError, match=f"does not see the picture {path} as the driver does"):
        common.check()
    path.unlink()
    with pytest.raises(NotFoundError, match="does not see the picture"):
        common.check()


def test_a_node_that_cannot_write_is_refused(common: Common, monkeypatch: pytest.MonkeyPatch):
    def refuse(path: Path) -> None:
        raise PermissionError(13, "Read-only file system")

    monkeypatch.setattr(Path, "touch", refuse)
    with pytest.raises(StorageError, match="cannot write into .* \\(Read-only file system\\)"):
        common.check()


def test_a_node_with_other_versions_is_refused_and_one_without_a_package_is_not(
    common: Common, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(cluster_node, "versions", lambda: (("llavar", dict(common.versions)["llavar"]),))
    common.check()
    monkeypatch.setattr(cluster_node, "versions", lambda: (("pillow", "1.0"),))
    with pytest.raises(ConfigError, match="has pillow 1.0 and the driver .*; install one version everywhere"):
        common.check()


def test_a_relay_deals_with_what_hangs_dies_or_fails_as_one_machine_does(
    crew_work: ModuleType, common: Common, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(cluster_node, "_forget_main", lambda: None)  # here it is pytest's
    relay = Relay(maker=crew_work.Doubling(), time_limit=3.0, common=common)
    assert relay.name == "doubling"
    do = relay()
    first = do([4])
    assert (first.results, first.seconds) == ((8,), 0.0)
    done = do([5, -1, -2, -3, 6])
    do.__self__.crew.close()
    assert done.seconds > 3
    assert done.results == (
        10,
        Lost(why=Loss.TIME_LIMIT, detail="3 s"),
        Lost(why=Loss.DIED, detail="exit code 7, 3 times"),
        Lost(why=Loss.FAILED, detail="RuntimeError: odd"),
        12,
    )


def test_a_relay_says_on_which_node_something_is_missing(
    crew_work: ModuleType, common: Common, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(cluster_node, "_forget_main", lambda: None)
    done = Relay(maker=crew_work.Doubling(loads="missing"), time_limit=3.0, common=common)()([1])
    assert type(done.error) is MissingExtraError
    assert str(done.error).startswith("on the node ")
