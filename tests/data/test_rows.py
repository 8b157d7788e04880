from __future__ import annotations

import json
import pickle
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from llavar import chat
from llavar.data import cache, rows
from llavar.data.encode import encode_all
from llavar.data.index import HeldRows, open_rows
from llavar.data.mixture import Entry, mix
from llavar.data.rows import Encoder, LazyRows, measure, planned
from llavar.data.source import RowError, scan_rows
from llavar.errors import DataError
from llavar.models.tokenizer import nano_tokenizer
from llavar.records import IGNORE, Conversation, Encoded, Example

NANO = nano_tokenizer()
ENCODER = Encoder(
    tokenizer=NANO,
    template=chat.get("llava_v1"),
    image_tokens=4,
    max_length=120,
    unknown=NANO.unk_id,
    key="nano",
)


def row(number: int, answer: str = "STOP") -> dict[str, object]:
    talk = [{"from": "human", "value": "<image> Q?"}, {"from": "gpt", "value": answer + "!" * (number % 9)}]
    return {"id": f"r{number}", "image": f"{number}.png", "conversations": talk}


BAD: list[Any] = [
    {"id": "two", "conversations": [{"from": "human", "value": "Q"}] * 2},
    3,
    row(70, "字"),
    {"id": "cut", "conversations": [{"from": "human", "value": "Q" * 200}, {"from": "gpt", "value": "A"}]},
]
MEANT = {"id": "unk", "conversations": [{"from": "human", "value": "Q"}, {"from": "gpt", "value": "<unk>"}]}
SEVERAL = {
    "id": "many",
    "image": ["a.png", "b.png"],
    "conversations": [{"from": "human", "value": "<image> <image>"}, {"from": "gpt", "value": "A"}],
}


@pytest.fixture
def data(tmp_path: Path) -> Path:
    path = tmp_path / "d.json"
    path.write_text(json.dumps([row(0), *BAD[:2], row(1), *BAD[2:], MEANT, SEVERAL]))
    return path


def lazy(path: Path, **options: Any) -> LazyRows:
    source = open_rows(path)
    found = measure(source, ENCODER)
    kept = np.flatnonzero(found.lengths > 0)
    pictures = np.array([len(found.pictures(int(number))) for number in kept], np.int32)
    settled: dict[str, Any] = {"numbers": kept, "lengths": found.lengths[kept], "pictures": pictures}
    return LazyRows([source], ENCODER, **({"marks": [""]} | settled | options))


def test_the_pass_knows_of_every_row_what_encoding_it_gives(data: Path):
    found = measure(open_rows(data), ENCODER)
    examples = [each for each in scan_rows(data) if isinstance(each, Example)]
    encoded, _ = encode_all(examples, NANO, ENCODER.template, image_tokens=4, max_length=ENCODER.max_length)
    usable = [each for each in encoded if each.id != "r70"]
    assert found.lengths[found.lengths > 0].tolist() == [len(each) for each in usable]
    supervised = [sum(label != IGNORE for label in each.labels) for each in usable]
    assert found.supervised[found.lengths > 0].tolist() == supervised
    assert [found.pictures(number) for number in (0, 1, 3, 7)] == [
        ("0.png",),
        (),
        ("1.png",),
        ("a.png", "b.png"),
    ]
    reasons = {number: (reject.stage, reject.id, reject.reason) for number, reject in found.rejects.items()}
    assert reasons == {
        1: ("encode", "two", "same role twice"),
        2: ("read", "number 3", "malformed row"),
        4: ("encode", "r70", "characters that the tokenizer lacks"),
        5: ("encode", "cut", "no supervised token"),
    }


def test_rows_are_encoded_when_they_are_asked_for(data: Path):
    held = lazy(data)
    assert [each.id for each in held] == ["r0", "r1", "unk", "many"]
    assert [len(each) for each in held] == held.lengths.tolist()
    assert held[-1].images == ("a.png", "b.png")
    assert [each.id for each in held[1:3]] == ["r1", "unk"]
    assert pickle.loads(pickle.dumps(held))[1] == held[1]
    with pytest.raises(IndexError):
        held[4]


def test_pictures_of_its_own_are_marked(data: Path):
    assert lazy(data, marks=["0\0"])[3].images == ("0\0a.png", "0\0b.png")


def test_rows_of_several_sources_follow_each_other(data: Path):
    more = HeldRows([Example(id="x", conversation=Conversation.of("Q", "A"))])
    first, second = open_rows(data), more
    both = [measure(first, ENCODER), measure(second, ENCODER)]
    numbers = np.array([0, 3, 8])
    lengths = np.concatenate([both[0].lengths[[0, 3]], both[1].lengths])
    held = LazyRows(
        [first, second], ENCODER, numbers=numbers, lengths=lengths, pictures=lengths * 0, marks=["", ""]
    )
    assert [each.id for each in held] == ["r0", "r1", "x"]


def test_a_row_that_changed_is_found_out(data: Path):
    held = lazy(data)
    data.write_text(data.read_text().replace("STOP", "ST").replace('"r0"', '"r000"'))
    with pytest.raises(DataError):
        list(held)


def test_workers_change_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(rows, "_BLOCK", 3)
    monkeypatch.setattr(rows, "_SMALL", 0)
    path = tmp_path / "d.json"
    path.write_text(json.dumps([row(n) for n in range(10)] + BAD))
    one, other = (measure(open_rows(path), ENCODER, workers=count) for count in (0, 2))
    assert one.digest == other.digest
    assert one.rejects == other.rejects
    assert one.lengths.tolist() == other.lengths.tolist()
    assert [one.pictures(n) for n in range(14)] == [other.pictures(n) for n in range(14)]


def test_the_pass_is_kept_for_the_same_encoder_alone(data: Path, tmp_path: Path, monkeypatch: Any):
    monkeypatch.setattr(cache, "_SMALL", 0)
    folder = tmp_path / "cache"
    source = open_rows(data, folder=folder)
    first = measure(source, ENCODER, folder=folder)
    again = measure(open_rows(data, folder=folder), ENCODER, folder=folder)
    assert first.seconds > 0
    assert again.seconds == 0
    assert (again.digest, again.rejects) == (first.digest, first.rejects)
    assert again.lengths.tolist() == first.lengths.tolist()
    other = measure(source, replace(ENCODER, key="another"), folder=folder)
    assert other.seconds > 0
    for path in folder.glob("*.json"):
        path.write_text(path.read_text().replace('"rejects"', '"lost"'))
    assert measure(source, ENCODER, folder=folder).seconds > 0


def test_other_rows_have_another_digest(tmp_path: Path):
    found: set[str] = set()
    for changed in (row(0), row(1), row(0, "GO"), {**row(0), "image": "b.png"}):
        path = tmp_path / "d.json"
        path.write_text(json.dumps([changed]))
        found.add(measure(open_rows(path), ENCODER).digest)
    assert len(found) == 4


def test_rows_in_memory_are_planned_as_they_are(data: Path):
    held = lazy(data, mixture=mix([4], [Entry(path="d", epochs=2)]))
    assert planned(held) is held
    listed = planned([Encoded(id="a", ids=(1, 2), labels=(1, 2), images=("x",))])
    assert (listed.lengths.tolist(), listed.pictures.tolist(), listed.mixture) == ([2], [1], None)


def test_an_encoder_refuses_what_the_tokenizer_cannot_write():
    with pytest.raises(RowError, match="in an answer"):
        ENCODER(Example(id="a", conversation=Conversation.of("Q", "字")))
    assert len(ENCODER(Example(id="a", conversation=Conversation.of("字", "A")))) > 3
