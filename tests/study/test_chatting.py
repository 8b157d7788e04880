"""Conversations with a scripted model and a scripted endpoint, and the terminal around them."""

from __future__ import annotations

import io
import json
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from llavar.data.source import read_rows
from llavar.errors import ConfigError, DataError, FetchError, LlavarError, NotFoundError
from llavar.generate.base import Decoding
from llavar.generate.dialogue import Asked, Finish, Load, OnPiece, Piece
from llavar.records import Role
from llavar.study import chatting
from llavar.study.chat_terminal import Command, Streams, Terminal
from llavar.study.chatting import Local, Settings, Shown, Talk

Answer = Sequence[str] | LlavarError


class _Ticket:
    def __init__(self) -> None:
        self.cancelled = threading.Event()

    def cancel(self) -> None:
        self.cancelled.set()


class Scripted:
    """Answers by a script, each in pieces from a thread of its own; an error comes after the pieces."""

    name, max_tokens = "scripted", 100

    def __init__(self, *script: Answer, finish: Finish = Finish.STOP) -> None:
        self._script, self._finish = list(script), finish
        self.asked: list[Asked] = []
        self.tickets: list[_Ticket] = []
        self.closed = False

    def submit(self, asked: Asked, on_piece: OnPiece) -> _Ticket:
        answer = self._script[len(self.asked) % len(self._script)]
        self.asked.append(asked)
        self.tickets.append(_Ticket())
        if isinstance(answer, DataError):  # what Answering raises at once
            raise answer
        threading.Thread(target=self._answer, args=(answer, on_piece)).start()
        return self.tickets[-1]

    def _answer(self, answer: Answer, on_piece: OnPiece) -> None:
        if isinstance(answer, LlavarError):
            on_piece(Piece(text="half "))
            on_piece(Piece(finish=Finish.ERROR, error=answer))
            return
        for text in answer:
            on_piece(Piece(text=text))
        on_piece(Piece(finish=self._finish))

    def load(self) -> Load:
        raise NotImplementedError

    def seen(self, image: Image.Image) -> Image.Image:
        return image

    def alive(self) -> bool:
        return True

    def close(self, grace: float = 30.0) -> None:
        self.closed = True


@pytest.fixture
def poster(tmp_path: Path) -> Path:
    path = tmp_path / "poster one.png"
    Image.new("RGB", (20, 10), "red").save(path)
    return path


def talk(engine: Scripted, **settings: Any) -> Talk:
    given = Settings(model="nano", **settings)
    return Talk(Local(engine), given)


def said(conversation: Talk, question: str) -> str:
    return "".join(piece.text for piece in conversation.ask(question))


# --- turns ----------------------------------------------------------------------------------------------


def test_turns_and_the_picture_are_remembered(poster: Path) -> None:
    engine = Scripted([" OP", "EN "], ["red"])
    conversation = talk(engine, system="Be short.")
    conversation.show(Shown.open(str(poster)))
    assert said(conversation, "What does it say?") == " OPEN "
    assert said(conversation, "Its colour?") == "red"
    turns = engine.asked[1].dialogue.turns
    assert [turn.role for turn in turns] == [Role.USER, Role.ASSISTANT, Role.USER]
    picture, question = turns[0].parts
    assert (question, turns[1].parts, turns[2].parts) == ("What does it say?", ("OPEN",), ("Its colour?",))
    assert isinstance(picture, Image.Image)
    assert picture is engine.asked[0].dialogue.turns[0].parts[0]  # the same one, so it is encoded once
    assert engine.asked[1].dialogue.system == "Be short."
    assert all(ticket.cancelled.is_set() for ticket in engine.tickets)


def test_settings_reach_the_model() -> None:
    engine = Scripted(["x"])
    decoding = Decoding(temperature=0.5, top_p=0.9, seed=3)
    said(talk(engine, max_new_tokens=7, decoding=decoding), "?")
    assert (engine.asked[0].max_new_tokens, engine.asked[0].decoding) == (7, decoding)
    assert engine.asked[0].dialogue.system is None


def test_a_new_conversation_forgets_turns_and_pictures(poster: Path) -> None:
    engine = Scripted(["x"])
    conversation = talk(engine)
    conversation.show(Shown.open(str(poster)))
    said(conversation, "one")
    conversation.show(Shown.open(str(poster)))
    conversation.new()
    said(conversation, "two")
    assert [turn.parts for turn in engine.asked[1].dialogue.turns] == [("two",)]
    assert (conversation.answers, conversation.pictures) == (1, 0)


def test_a_second_picture_takes_the_place_of_one_that_waits(poster: Path, tmp_path: Path) -> None:
    Image.new("RGB", (3, 3)).save(tmp_path / "small.png")
    engine = Scripted(["x"])
    conversation = talk(engine)
    for path in (poster, tmp_path / "small.png"):
        conversation.show(Shown.open(str(path)))
    said(conversation, "?")
    (picture, _) = engine.asked[0].dialogue.turns[0].parts
    assert isinstance(picture, Image.Image)
    assert picture.size == (3, 3)


@pytest.mark.parametrize("error", [DataError("too long"), FetchError("gone")])
def test_a_question_that_failed_was_never_asked(poster: Path, error: LlavarError) -> None:
    engine = Scripted(error, ["yes"])
    conversation = talk(engine)
    conversation.show(Shown.open(str(poster)))
    with pytest.raises(type(error)):
        said(conversation, "one")
    assert conversation.answers == 0
    said(conversation, "two")
    (turn,) = engine.asked[1].dialogue.turns
    assert turn.parts[-1] == "two"
    assert len(turn.parts) == 2  # the picture still waits


def test_a_stopped_answer_is_kept_as_far_as_it_came() -> None:
    engine = Scripted(["one ", "two ", "three"], ["x"])
    conversation = talk(engine)
    pieces = conversation.ask("count")
    assert next(pieces).text == "one "
    pieces.close()
    assert engine.tickets[0].cancelled.is_set()
    said(conversation, "on")
    assert engine.asked[1].dialogue.turns[1].parts == ("one",)


def test_an_empty_answer_is_no_turn() -> None:
    conversation = talk(Scripted([" ", "\n"]))
    said(conversation, "?")
    assert conversation.answers == 0


def test_empty_questions_are_refused() -> None:
    with pytest.raises(ConfigError, match="empty"):
        said(talk(Scripted(["x"])), "  ")


# --- settings and pictures ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"max_new_tokens": 0}, "at least 1"),
        ({"quantize": "int3"}, "int8 and nf4"),
        ({"model": "http://h/v1#m", "conversation": "llava_v1"}, "--conversation"),
        ({"model": "http://h/v1#m", "quantize": "int8"}, "--quantize"),
    ],
)
def test_settings_that_cannot_be(settings: dict[str, Any], words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        Settings(**({"model": "nano"} | settings))


def test_an_endpoint_needs_a_name() -> None:
    with pytest.raises(ConfigError, match="#NAME"), chatting.opened(Settings(model="http://127.0.0.1:1/v1")):
        pass


def test_a_model_is_closed_in_the_end(monkeypatch: pytest.MonkeyPatch) -> None:
    engine = Scripted(["x"])
    monkeypatch.setattr(chatting, "_engine", lambda settings: engine)
    with chatting.opened(Settings(model="nano")) as partner:
        assert partner.name == "scripted"
        assert not engine.closed
    assert engine.closed


@pytest.mark.parametrize(
    ("source", "error"),
    [
        ("nothing.png", NotFoundError),
        ("~no-such-user-here/x.png", NotFoundError),
        ("http://127.0.0.1/x.png", FetchError),
    ],
)
def test_pictures_that_cannot_be_shown(source: str, error: type[LlavarError]) -> None:
    with pytest.raises(error):
        Shown.open(source)


# --- saving ---------------------------------------------------------------------------------------------


def test_a_conversation_is_a_row_of_training_data(poster: Path, tmp_path: Path) -> None:
    conversation = talk(Scripted(["OPEN"], ["red"]))
    conversation.show(Shown.open(str(poster)))
    said(conversation, "What does it say?")
    said(conversation, "Its colour?")
    file = tmp_path / "new" / "talk.json"
    assert conversation.save(file) == ()
    (row,) = read_rows(file)
    assert (row.id, row.images) == ("talk", (str(poster.resolve()),))
    assert [turn.text for turn in row.conversation.turns] == [
        "<image>\nWhat does it say?",
        "OPEN",
        "Its colour?",
        "red",
    ]
    said(conversation, "More?")
    conversation.save(file)  # its own file may be written again
    assert len(read_rows(file)[0].conversation.turns) == 6


def test_a_picture_that_was_fetched_is_saved_beside_the_row(tmp_path: Path) -> None:
    conversation = talk(Scripted(["OPEN"]))
    picture = Image.new("RGB", (4, 4), "blue")
    conversation.show(Shown(source="https://example.org/p.jpg", picture=picture))
    said(conversation, "?")
    (beside,) = conversation.save(tmp_path / "t.json")
    assert Image.open(beside).tobytes() == picture.tobytes()
    assert read_rows(tmp_path / "t.json")[0].images == (str(beside.resolve()),)


def test_nothing_is_written_over(poster: Path, tmp_path: Path) -> None:
    conversation = talk(Scripted(["x"]))
    with pytest.raises(ConfigError, match="nothing was said"):
        conversation.save(tmp_path / "t.json")
    said(conversation, "?")
    with pytest.raises(ConfigError, match="exists"):
        conversation.save(poster)
    conversation.show(Shown(source="https://example.org/p.jpg", picture=Image.new("RGB", (1, 1))))
    said(conversation, "?")
    (tmp_path / "t-1.png").write_bytes(b"mine")
    with pytest.raises(ConfigError, match="exists"):
        conversation.save(tmp_path / "t.json")
    assert (tmp_path / "t-1.png").read_bytes() == b"mine"


# --- a model of our own ---------------------------------------------------------------------------------


def test_nano_answers_as_ask_does_and_encodes_its_picture_once(tmp_path: Path) -> None:
    from llavar.study.reader import Reader

    file = tmp_path / "noise.png"
    Image.effect_noise((96, 96), 90).convert("RGB").save(file)
    settings = Settings(model="nano", max_new_tokens=12)
    with chatting.opened(settings) as partner:
        conversation = Talk(partner, settings)
        conversation.show(Shown.open(str(file)))
        first = said(conversation, "What does it say?")
        said(conversation, "How many circles do you see?")
        assert isinstance(partner, Local)
        assert partner._engine.load().pictures_encoded == 1
    assert first.strip() == Reader.load("nano").ask(file, "What does it say?", max_new_tokens=12)


# --- an endpoint ----------------------------------------------------------------------------------------


def events(*texts: str, finish: str = "stop") -> bytes:
    lines = [{"choices": [{"delta": {"content": text}, "finish_reason": None}]} for text in texts]
    lines.append({"choices": [{"delta": {}, "finish_reason": finish}]})
    return b"".join(b"data: " + json.dumps(line).encode() + b"\n\n" for line in lines) + b"data: [DONE]\n\n"


def streamed(fake_endpoint: Any, *bodies: bytes) -> Any:
    headers = {"Content-Type": "text/event-stream"}
    return fake_endpoint.serve([fake_endpoint.Answer(body=body, headers=headers) for body in bodies])


def test_an_endpoint_gets_the_whole_conversation(
    fake_endpoint: Any, poster: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    server = streamed(fake_endpoint, events("OP", "EN"), events("red", finish="length"))
    settings = Settings(
        model=f"{server.url}#reader",
        system="Short.",
        max_new_tokens=9,
        decoding=Decoding(temperature=1.0, top_p=0.5, seed=4),
    )
    with chatting.opened(settings) as partner:
        conversation = Talk(partner, settings)
        conversation.show(Shown.open(str(poster)))
        assert said(conversation, "What?") == "OPEN"
        last = list(conversation.ask("Colour?"))[-1]
    assert last.finish is Finish.LENGTH
    first, second = (asked.body for asked in server.requests)
    assert first["stream"] is True
    assert (first["model"], first["max_tokens"], first["temperature"]) == ("reader", 9, 1.0)
    assert (first["top_p"], first["seed"]) == (0.5, 4)
    roles = [message["role"] for message in second["messages"]]
    assert roles == ["system", "user", "assistant", "user"]
    assert second["messages"][1] == first["messages"][1]
    kinds = [part["type"] for part in second["messages"][1]["content"]]
    assert kinds == ["image_url", "text"]
    assert second["messages"][2:] == [
        {"role": "assistant", "content": "OPEN"},
        {"role": "user", "content": "Colour?"},
    ]


# --- the terminal ---------------------------------------------------------------------------------------


class _Typed(io.StringIO):
    """A terminal at which the lines are typed; an exception is what Ctrl-C does there."""

    def __init__(self, *lines: str | BaseException) -> None:
        super().__init__()
        self._lines = list(lines)

    def isatty(self) -> bool:
        return True

    def readline(self, size: int | None = -1) -> str:  # type: ignore[override]
        line = self._lines.pop(0) if self._lines else ""
        if isinstance(line, BaseException):
            raise line
        return line


Run = Callable[..., tuple[int, str, str]]


@pytest.fixture
def run() -> Run:
    def run(engine: Scripted, *lines: str | BaseException, live: bool = False) -> tuple[int, str, str]:
        source = _Typed(*lines) if live else io.StringIO("".join(map(str, lines)))
        streams = Streams(lines=source, out=io.StringIO(), notes=io.StringIO())
        status = Terminal(talk(engine), streams, {}).run()
        return status, streams.out.getvalue(), streams.notes.getvalue()  # type: ignore[attr-defined]

    return run


def test_a_pipe_gets_answers_and_nothing_else(run: Run) -> None:
    engine = Scripted([" OP", "EN"], ["red "])
    assert run(engine, "What?\n", "\n", "  \n", "Colour?") == (0, "OPEN\nred \n", "")
    assert len(engine.asked[1].dialogue.turns) == 3


def test_a_question_without_an_answer_shows_in_the_status(run: Run) -> None:
    status, out, notes = run(Scripted(DataError("too\nlong"), ["yes"]), "one\n", "two\n")
    assert (status, out, notes) == (1, "yes\n", "llavar: too long\n")


def test_an_answer_that_broke_off_ends_its_line(run: Run) -> None:
    status, out, notes = run(Scripted(FetchError("gone")), "one\n")
    assert (status, out, notes) == (1, "half \n", "llavar: gone\n")


def test_commands_do_what_they_say(run: Run, poster: Path, tmp_path: Path) -> None:
    engine = Scripted(["x"])
    file = tmp_path / "t.json"
    lines = [f"/image '{poster}'", "/system Be kind.", "What?", f"/save {file}", "/new", "/system", "Again?"]
    status, out, notes = run(engine, *(f"{line}\n" for line in lines), "/quit\n", "never asked\n")
    assert (status, out) == (0, "x\nx\n")
    assert "20 x 10 pixels" in notes
    assert f"1 answer saved to {file}" in notes
    first, second = (asked.dialogue for asked in engine.asked)
    assert (first.system, len(first.turns[0].parts)) == ("Be kind.", 2)
    assert (second.system, [turn.parts for turn in second.turns]) == (None, [("Again?",)])


def test_help_names_every_command(run: Run) -> None:
    _, out, notes = run(Scripted(["x"]), "/help\n")
    assert out == ""
    assert all(command in notes for command in Command)


@pytest.mark.parametrize("line", ["/imag x", "/", "/image", "/save", "/image nothing.png", "/IMAGE x"])
def test_wrong_commands_are_told_and_the_conversation_goes_on(run: Run, line: str) -> None:
    engine = Scripted(["x"])
    status, out, notes = run(engine, f"{line}\n", "What?\n")
    assert (status, out) == (0, "x\n")
    assert notes.startswith("llavar: ")
    assert notes.count("\n") == 1


def test_a_blank_makes_a_question_of_what_begins_with_a_slash(run: Run) -> None:
    engine = Scripted(["x"])
    run(engine, " /quit\n")
    assert engine.asked[0].dialogue.turns[0].parts == ("/quit",)


def test_bytes_that_are_no_utf8_are_told(run: Run) -> None:
    status, _, notes = run(Scripted(["x"]), b"caf\xe9\n".decode("utf-8", "surrogateescape"))
    assert status == 1
    assert "UTF-8" in notes


def test_control_characters_of_an_answer_never_reach_the_terminal(run: Run) -> None:
    _, out, _ = run(Scripted(["a\x1b[31mb\x07\u202e", "\u009bc\td\n"]), "?\n")
    assert out == "a[31mbc\td\n\n"


def test_a_cut_or_empty_answer_is_told(run: Run) -> None:
    assert "--max-new-tokens" in run(Scripted(["x"], finish=Finish.LENGTH), "?\n")[2]
    status, out, notes = run(Scripted([" "]), "?\n")
    assert (status, out) == (1, "")
    assert "empty" in notes


def test_an_interrupt_ends_an_answer_and_not_the_conversation(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine = Scripted(["one ", "two ", "three"], ["x"])
    printed = Terminal._print
    count = 0

    def interrupted(self: Terminal, text: str) -> None:
        nonlocal count
        printed(self, text)
        count += 1
        if count == 2:
            raise KeyboardInterrupt

    monkeypatch.setattr(Terminal, "_print", interrupted)
    status, out, notes = run(engine, "count\n", KeyboardInterrupt(), "on\n", live=True)
    assert status == 0
    assert out == "one two \nx\n"
    assert "(stopped)" in notes
    assert "Ctrl-D" in notes
    assert engine.tickets[0].cancelled.is_set()
    assert engine.asked[1].dialogue.turns[1].parts == ("one two",)


def test_an_interrupt_of_a_pipe_ends_it(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(self: Terminal, text: str) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(Terminal, "_print", interrupted)
    engine = Scripted(["one"])
    with pytest.raises(KeyboardInterrupt):
        run(engine, "count\n")
    assert engine.tickets[0].cancelled.is_set()


def test_an_interrupt_of_a_command_ends_that_alone(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    def slow(source: str) -> Shown:
        raise KeyboardInterrupt

    monkeypatch.setattr(Shown, "open", slow)
    status, out, notes = run(Scripted(["x"]), "/image https://example.org/p.png\n", "on\n", live=True)
    assert (status, out) == (0, "x\n")
    assert "(stopped)" in notes


@pytest.mark.parametrize(
    ("environment", "coloured"), [({}, True), ({"NO_COLOR": "1"}, False), ({"TERM": "dumb"}, False)]
)
def test_colours_are_for_terminals(environment: dict[str, str], coloured: bool) -> None:
    notes = _Typed()
    streams = Streams(lines=io.StringIO("/new\n"), out=io.StringIO(), notes=notes)
    Terminal(talk(Scripted(["x"])), streams, environment).run()
    assert ("\x1b[" in notes.getvalue()) is coloured
