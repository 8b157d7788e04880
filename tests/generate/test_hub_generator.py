"""Any image-text-to-text model, asked through its own processor: alone, by commands, in a conversation."""

from __future__ import annotations

import io
import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image

from llavar.cli import main
from llavar.errors import ConfigError, ContextLengthError, DataError, ImageError, ModelError, NotFoundError
from llavar.generate.base import Decoding, Generator, Request
from llavar.generate.dialogue import Asked, Dialogue, Finish, Said
from llavar.generate.hub import HubGenerator, load_any
from llavar.generate.local import LocalGenerator
from llavar.models import _hub as hub
from llavar.models._hub_processor import OwnProcessor
from llavar.models._hub_spans import PICTURE, Message
from llavar.models.quantize import Quantization
from llavar.records import Role

NAMES = ("qwen2_5_vl", "gemma3", "llava_onevision", "idefics3")


@pytest.fixture(scope="module")
def folders(hub_models: Any, tmp_path_factory: pytest.TempPathFactory) -> Any:
    root, made = tmp_path_factory.mktemp("asked"), {}

    def folder(name: str) -> Path:
        if name not in made:
            made[name] = hub_models.make(root / name, name)
        return made[name]

    return folder


@pytest.fixture
def picture(tmp_path: Path) -> Path:
    path = tmp_path / "sign.png"
    Image.effect_noise((60, 40), 90).convert("RGB").save(path)
    return path


def by_hand(folder: Path, picture: Path, question: str, most: int) -> str:
    """The likeliest tokens one after the other, each from a pass over everything before it."""
    model, own = hub.load(folder, dtype=torch.float32), OwnProcessor(folder)
    asked = Message(role=Role.USER, parts=(PICTURE, question))
    inputs = own.prompt([asked], [Image.open(picture).convert("RGB")])
    made: list[int] = []
    while len(made) < most and (not made or made[-1] not in own.ends):
        with torch.no_grad():
            token = model(**hub.accepted(model, inputs), use_cache=False).logits[0, -1].argmax()
        made.append(int(token))
        for name, filler in (("input_ids", int(token)), ("attention_mask", 1)):
            inputs[name] = torch.cat([inputs[name], torch.tensor([[filler]])], 1)
        for name in ("token_type_ids", "mm_token_type_ids"):
            if name in inputs:
                inputs[name] = torch.nn.functional.pad(inputs[name], (0, 1))
    return own.decode(made)


@pytest.mark.parametrize("name", NAMES)
def test_an_answer_is_the_likeliest_tokens_whatever_the_model_was_configured_for(
    folders: Any, picture: Path, name: str
) -> None:
    generator = HubGenerator.load(folders(name))
    question = "What does the sign say?"
    request = Request(image=picture, question=question, max_new_tokens=10, image_first=True)
    assert generator.answer([request]) == [by_hand(folders(name), picture, question, 10)]


def test_an_answer_does_not_depend_on_what_is_asked_beside_it(folders: Any, picture: Path) -> None:
    generator: Generator = HubGenerator.load(folders("qwen2_5_vl"), name="tiny")
    requests = [
        Request(image=picture, question="What does it say?", max_new_tokens=6, image_first=True),
        Request(image=None, question="Say hello.", max_new_tokens=6),
        Request(image=Image.open(picture), question="And the price?", max_new_tokens=6),
    ]
    together = generator.answer(requests)
    assert together == [generator.answer([request])[0] for request in reversed(requests)][::-1]
    assert generator.name == "tiny"
    assert generator.answer([]) == []


def test_a_picture_stands_where_it_is_asked_for(folders: Any, picture: Path, monkeypatch: Any) -> None:
    generator = HubGenerator.load(folders("qwen2_5_vl"))
    seen: list[Message] = []
    prompt = OwnProcessor.prompt

    def spy(self: OwnProcessor, messages: list[Message], *rest: Any, **more: Any) -> Any:
        seen.extend(messages)
        return prompt(self, messages, *rest, **more)

    monkeypatch.setattr(OwnProcessor, "prompt", spy)
    for first in (True, False):
        generator.answer([Request(image=picture, question="Q?", max_new_tokens=1, image_first=first)])
    assert [message.parts for message in seen] == [(PICTURE, "Q?"), ("Q?", PICTURE)]


def test_drawn_answers_depend_on_the_seed_alone(folders: Any, picture: Path) -> None:
    generator = HubGenerator.load(folders("qwen2_5_vl"))

    def answer(seed: int) -> str:
        decoding = Decoding(temperature=1.0, seed=seed)
        request = Request(image=picture, question="What?", max_new_tokens=12, decoding=decoding)
        return generator.answer([request])[0]

    before = torch.random.get_rng_state()
    assert answer(1) == answer(1)
    assert len({answer(seed) for seed in range(4)}) > 1
    assert torch.equal(torch.random.get_rng_state(), before)


def test_what_decides_an_answer_is_told(folders: Any, tmp_path: Path) -> None:
    folder = shutil.copytree(folders("gemma3"), tmp_path / "copy")
    about = HubGenerator.load(folder).about
    assert about["dtype"] == "float32"
    assert about == HubGenerator.load(folder).about
    template = folder / "chat_template.jinja"
    template.write_text(template.read_text() + "{# changed #}")
    assert HubGenerator.load(folder).about["processor"] != about["processor"]


def test_questions_that_cannot_be_asked_are_refused(folders: Any, picture: Path, tmp_path: Path) -> None:
    generator = HubGenerator.load(folders("qwen2_5_vl"))

    def ask(question: str, image: Path | None = picture, most: int = 4) -> None:
        generator.answer([Request(image=image, question=question, max_new_tokens=most)])

    with pytest.raises(DataError, match="holds <|image_pad|>, which stands for a picture"):
        ask("What is <|image_pad|>?")
    with pytest.raises(ContextLengthError, match="exceed the 1024 that the model takes"):
        ask("word " * 900)
    with pytest.raises(ContextLengthError, match="with 1020 for the answer"):
        ask("What?", most=1020)
    with pytest.raises(NotFoundError):
        ask("What?", tmp_path / "gone.png")
    (tmp_path / "torn.png").write_bytes(b"torn")
    with pytest.raises(ImageError):
        ask("What?", tmp_path / "torn.png")


# Which generator a checkpoint gets.


def test_a_llava_is_asked_through_its_own_processor_where_it_was_trained_so(
    folders: Any, hub_models: Any, tmp_path: Path
) -> None:
    folder = hub_models.make(tmp_path / "llava", "llava")
    document = json.loads((folder / "config.json").read_text())
    assert not hub.is_for_own_processor(document)
    (folder / "config.json").write_text(json.dumps({**document, "llavar_processor": "own"}))
    assert isinstance(load_any(folder), HubGenerator)
    assert isinstance(load_any(folders("gemma3")), HubGenerator)


def test_nano_is_asked_as_ever() -> None:
    from llavar.study.nano import weights

    assert isinstance(load_any(weights.folder("nano")), LocalGenerator)


def test_settings_of_llava_models_are_refused(folders: Any, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="--conversation is for Llava models"):
        load_any(folders("gemma3"), template="llava_v1")
    with pytest.raises(ConfigError, match="--quantize is for Llava models"):
        load_any(folders("gemma3"), quantize=Quantization.INT8)
    (tmp_path / "config.json").write_text('{"model_type": "llama"}')
    with pytest.raises(ModelError, match="LlavaForConditionalGeneration was expected"):
        load_any(tmp_path)


# Commands.


def test_ask(folders: Any, picture: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = folders("qwen2_5_vl")
    arguments = ["ask", str(picture), "What does it say?", "--model", str(folder), "--max-new-tokens", "6"]
    assert main([*arguments, "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["answer"] == by_hand(folder, picture, "What does it say?", 6)


def test_eval(folders: Any, picture: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data = tmp_path / "mine"
    data.mkdir()
    shutil.copy(picture, data)
    question = {"id": "q", "image": "sign.png", "question": "What does it say?", "answers": ["STOP"]}
    (data / "questions.jsonl").write_text(json.dumps(question) + "\n")
    folder = folders("qwen2_5_vl")
    arguments = ["eval", str(folder), "--tasks", "folder", "--data", str(data), "--max-new-tokens", "6"]
    assert main([*arguments, "--out", str(tmp_path / "run"), "--verify-batch", "1"]) == 0
    result = json.loads((tmp_path / "run" / "folder" / "result.json").read_text())
    assert result["image_position"] == "before"
    assert result["verified"] == {"n": 1, "equal": 1, "unequal": []}
    kept = json.loads((tmp_path / "run" / "folder" / "predictions.jsonl").read_text())
    assert kept["text"] == by_hand(folder, picture, "What does it say?", 6)
    again = [*arguments, "--out", str(tmp_path / "after"), "--image-position", "after"]
    assert main(again) == 0
    result = json.loads((tmp_path / "after" / "folder" / "result.json").read_text())
    assert result["image_position"] == "after"
    capsys.readouterr()
    assert main([*arguments, "--out", str(tmp_path / "no"), "--transform", "pad"]) == 2
    assert "the model's own processor prepares pictures" in capsys.readouterr().err


def test_chat(folders: Any, picture: Path, monkeypatch: Any, capsys: pytest.CaptureFixture[str]) -> None:
    folder = folders("qwen2_5_vl")
    monkeypatch.setattr("sys.stdin", io.StringIO("What does it say?\nAnd below?\n"))
    assert main(["chat", str(folder), str(picture), "--max-new-tokens", "5"]) == 0
    first = capsys.readouterr().out.splitlines()[0]
    expected = by_hand(folder, picture, "What does it say?", 5)
    assert first == "".join(filter(str.isprintable, expected))  # a terminal is sent nothing else


def test_serve_names_what_serves_it(folders: Any, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["serve", str(folders("gemma3")), "--engine", "native", "--port", "0"]) == 2
    assert "vllm serve" in capsys.readouterr().err


# Answers as they come.


def talk(*texts: str, picture: Image.Image | None = None, system: str | None = None) -> Dialogue:
    turns = [
        Said(role=(Role.USER, Role.ASSISTANT)[place % 2], parts=(text,)) for place, text in enumerate(texts)
    ]
    if picture is not None:
        turns[0] = Said(role=Role.USER, parts=(texts[0], picture))
    return Dialogue(turns=tuple(turns), system=system)


def test_the_pieces_of_an_answer_are_the_answer(folders: Any, picture: Path) -> None:
    generator = HubGenerator.load(folders("qwen2_5_vl"))
    opened = Image.open(picture).convert("RGB")
    asked = Asked(dialogue=talk("What does it say?", picture=opened), max_new_tokens=12)
    pieces = list(generator.pieces(asked))
    request = Request(image=opened, question="What does it say?", max_new_tokens=12, image_first=True)
    assert "".join(piece.text for piece in pieces).strip() == generator.answer([request])[0]
    last = pieces[-1]
    assert last.finish in (Finish.STOP, Finish.LENGTH)
    assert last.completion_tokens <= 12
    assert all(piece.finish is None for piece in pieces[:-1])


def test_an_answer_that_nobody_waits_for_ends(folders: Any) -> None:
    generator = HubGenerator.load(folders("gemma3"))
    told: list[int] = []
    write = generator.write

    def counted(inputs: Any, most: int, decoding: Decoding, on_token: Any) -> list[int]:
        return write(inputs, most, decoding, lambda token: told.append(token) or on_token(token))

    generator.write = counted  # type: ignore[method-assign]
    pieces = generator.pieces(Asked(dialogue=talk("Tell me a long story."), max_new_tokens=900))
    next(pieces)
    pieces.close()
    assert len(told) < 900


def test_a_system_text_and_earlier_turns_are_written_by_the_template(folders: Any) -> None:
    generator = HubGenerator.load(folders("qwen2_5_vl"))
    lengths = []
    for dialogue in (talk("Q", "A", "R"), talk("Q", "A", "R", system="You read signs, and nothing else.")):
        *_, last = generator.pieces(Asked(dialogue=dialogue, max_new_tokens=2))
        lengths.append(last.prompt_tokens)
    assert lengths[0] != lengths[1]
    with pytest.raises(DataError, match="Conversation roles must alternate"):
        list(HubGenerator.load(folders("gemma3")).pieces(Asked(dialogue=talk("Q", system="Be terse."))))


def test_what_goes_wrong_while_it_answers_is_raised(folders: Any, monkeypatch: Any) -> None:
    generator = HubGenerator.load(folders("gemma3"))

    def fail(*_: Any, **__: Any) -> list[int]:
        raise RuntimeError("lost the device")

    monkeypatch.setattr(hub, "generate", fail)
    with pytest.raises(ModelError, match="failed while it answered: lost the device"):
        list(generator.pieces(Asked(dialogue=talk("Q"), max_new_tokens=3)))
