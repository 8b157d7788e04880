from __future__ import annotations

import json
from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from llavar.data.mixture import Entry, Mixture, mix, parse, read_mixture
from llavar.errors import ConfigError, NotFoundError


def of(*counts: int, seed: int = 0, **options: float) -> Mixture:
    return mix(counts, [replace(Entry(path="d"), **options) for _ in counts], seed)


def test_entries_are_read_as_they_are_written():
    entry = parse("/a/B.json:weight=0.5,cap=10000,epochs=2,images=/x y/z%2Cq.zip")
    assert entry == Entry(path="/a/B.json", weight=0.5, cap=10000, epochs=2, images="/x y/z,q.zip")
    assert parse(str(entry)) == entry
    assert str(parse("a.json")) == "a.json"
    assert parse("hub:owner/name") == Entry(path="hub:owner/name")
    assert parse("hub:owner/name:split=test,question=Q,answer=A").split == "test"
    assert parse("C:odd.json") == Entry(path="C:odd.json")


def test_a_file_that_exists_is_a_path_whatever_its_name(tmp_path: Path):
    path = tmp_path / "a:cap=3"
    path.write_text("[]")
    assert parse(str(path)) == Entry(path=str(path))


@given(
    st.builds(
        Entry,
        path=st.just("/d/a.json"),
        weight=st.floats(0.001, 1000),
        cap=st.integers(0, 10**9),
        epochs=st.integers(1, 1000),
        images=st.text(st.characters(codec="utf-8"), max_size=10),
        image=st.text(st.characters(codec="utf-8"), max_size=10),
    )
)
@settings(deadline=None)
def test_writing_then_parsing_gives_the_entry_back(entry: Entry):
    assert parse(str(entry)) == entry


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("a:weights=1", "option 'weights'; data files have answer, cap"),
        ("a:weight=heavy", "weight='heavy'; give a number"),
        ("a:cap=1.5", "cap='1.5'; give a whole number"),
        ("a:weight=0", "the weight of a is 0.0"),
        ("a:weight=nan", "the weight of a is nan"),
        ("a:epochs=0", "epochs 1 to 1000"),
        ("a:cap=-1", "cap is at least 1"),
        ("a:question=Q", "one column of question and answer"),
        (":cap=3", "names no file"),
    ],
)
def test_options_that_cannot_be_are_errors(text: str, sentence: str):
    with pytest.raises(ConfigError, match=sentence):
        parse(text)


def test_a_mixture_file_is_read_from_its_own_folder(tmp_path: Path):
    (tmp_path / "a.json").write_text("[]")
    path = tmp_path / "mix.json"
    path.write_text(json.dumps([{"path": "a.json", "weight": 2}, {"path": "hub:x/y", "cap": 5}]))
    assert read_mixture(path) == (
        Entry(path=str(tmp_path / "a.json"), weight=2.0),
        Entry(path="hub:x/y", cap=5),
    )


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        ("{", "is no JSON"),
        ("{}", "no list of data files"),
        ("[]", "no list of data files"),
        ("[3]", "entry 1 of .* names no path"),
        ('[{"path": "a", "cap": true}]', "cap=True; give a whole number"),
        ('[{"path": "a", "weight": [1]}]', "weight=\\[1\\]; give a number"),
        ('[{"path": "a", "cap": 1e999}]', "cap=inf"),
    ],
)
def test_mixture_files_that_are_none(tmp_path: Path, content: str, sentence: str):
    path = tmp_path / "mix.json"
    path.write_text(content)
    with pytest.raises(ConfigError, match=sentence):
        read_mixture(path)


def test_a_missing_mixture_file(tmp_path: Path):
    with pytest.raises(NotFoundError, match="no mixture file"):
        read_mixture(tmp_path / "none.json")


def test_without_options_an_epoch_is_every_row_once():
    assert of(3, 0, 2).epoch(7).tolist() == [0, 1, 2, 3, 4]


def test_epochs_repeat_and_a_cap_keeps_the_same_sample():
    twice = of(4, 3, epochs=2)
    assert Counter(twice.epoch(0).tolist()) == dict.fromkeys(range(7), 2)
    capped = of(50, cap=5)
    assert len(set(capped.epoch(0).tolist())) == 5
    assert capped.epoch(0).tolist() == capped.epoch(9).tolist()
    assert of(50, cap=5, seed=1).epoch(0).tolist() != capped.epoch(0).tolist()
    assert of(3, cap=5).epoch(0).tolist() == [0, 1, 2]


def test_a_weight_walks_through_all_rows():
    half = of(10, weight=0.5)
    assert len(half) == 5
    assert sorted([*half.epoch(0), *half.epoch(1)]) == list(range(10))
    assert sorted(half.epoch(0)) == sorted(half.epoch(2))
    more = of(10, weight=2.5).epoch(3).tolist()
    assert set(Counter(more).values()) == {2, 3}


@given(
    counts=st.lists(st.integers(1, 40), min_size=1, max_size=4),
    weight=st.floats(0.6, 4),
    cap=st.integers(0, 30),
    epochs=st.integers(1, 3),
    epoch=st.integers(0, 50),
)
@settings(deadline=None)
def test_epochs_have_one_size_and_are_even(
    counts: list[int], weight: float, cap: int, epochs: int, epoch: int
):
    mixture = mix(counts, [Entry(path="d", weight=weight, cap=cap, epochs=epochs) for _ in counts])
    drawn = mixture.epoch(epoch)
    assert len(drawn) == len(mixture)
    assert drawn.tolist() == mixture.epoch(epoch).tolist()
    assert 0 <= drawn.min() <= drawn.max() < sum(counts)
    for part in mixture.parts:
        inside = [n for n in drawn.tolist() if part.first <= n < part.first + part.rows]
        seen = Counter(inside)
        assert len(inside) == round(weight * epochs * min(cap or part.rows, part.rows))
        assert max(seen.values()) - min(seen.values()) <= 1


def test_a_weight_that_takes_nothing_is_an_error():
    with pytest.raises(ConfigError, match="weight=0.01 takes none of the 10 rows of d"):
        of(10, weight=0.01)
