"""Items, replies and a scripted model for tests of the teacher."""

from __future__ import annotations

import json
from typing import Any

from llavar.corpus.item import Item, Origin, PictureFile
from llavar.corpus.layout import LayoutSettings
from llavar.llm import Reply
from llavar.records import Box, Conversation, Line, Reading

LAYOUT = LayoutSettings(min_height=0)
OPENING = ("GRAND OPENING", "Fresh bread", "open from 9")
GOOD = {"question": "What opens?", "answer": 'A bakery: "fresh bread".', "support": ["A2"]}


def reading(*texts: str, engine: str = "e") -> Reading:
    boxes = (Box(left=0, top=place * 20, right=100, bottom=place * 20 + 15) for place in range(len(texts)))
    lines = tuple(Line(text=text, box=box) for text, box in zip(texts, boxes, strict=True))
    return Reading(image="x.png", size=(400, 400), lines=lines, engine=engine)


def item(id: str, *texts: str, with_row: bool = True, **parts: Any) -> Item:
    file = PictureFile(path=f"{id}.png", sha256="0", width=400, height=400, bytes=1)
    row = Conversation.of("<image>\nRead.", "\n".join(texts)) if with_row else None
    found = {"readings": (reading(*texts),)} | parts
    return Item(id=id, origin=Origin(source="s"), file=file, stage1=row, **found)


def reply(content: Any, finish: str = "stop") -> Reply:
    text = content if isinstance(content, str) else json.dumps(content)
    return Reply(text=text, model="m-1", prompt_tokens=7, completion_tokens=3, finish=finish, seconds=0.1)


def turns(*several: dict[str, Any]) -> str:
    return json.dumps({"turns": several})


def data_of(text: str) -> dict[str, Any]:
    """What a model is given, as it would read it."""
    assert text.count("<data>") == text.count("</data>") == 1
    return json.loads(text.split("<data>")[1].split("</data>")[0])


def quoting(text: str) -> str:
    """A good conversation about whatever it is given."""
    lines = data_of(text)["lines"]
    key = next(iter(lines))
    return turns({"question": "What is written?", "answer": f"{lines[key]}, in print.", "support": [key]})
