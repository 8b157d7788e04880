"""Many answers at a time: each is the one it would be alone, and none suffers from another."""

from __future__ import annotations

import gc
import threading
import time
import weakref
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from llavar import chat
from llavar.errors import DataError, LlavarError, ModelError
from llavar.generate import batch as batches
from llavar.generate import engine as engines
from llavar.generate.base import Decoding, Request, fingerprint
from llavar.generate.dialogue import Answering, Asked, BusyError, Dialogue, Finish, Piece, Said, Ticket
from llavar.generate.engine import Engine
from llavar.generate.local import LocalGenerator
from llavar.models import _hf as hf
from llavar.models import steps
from llavar.models.shape import LlavaShape, TextShape, VisionShape
from llavar.models.tokenizer import from_sentencepiece, nano_tokenizer
from llavar.records import Role

LONG = 60.0
"""Seconds until a test gives up on something that should come at once."""


def lively(vocab: int, image_token: int) -> Any:
    """A model whose weights are large enough that words and pictures change its answers."""
    shape = LlavaShape(
        vision=VisionShape(image_size=24, patch_size=8, hidden=16, layers=2, heads=2, mlp=24),
        text=TextShape(vocab=vocab, hidden=32, layers=2, heads=4, kv_heads=2, mlp=48, max_positions=512),
        image_token_id=image_token,
        vision_feature_layer=-1,
    )
    model = hf.build_llava(shape, seed=5)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.requires_grad and parameter.ndim > 1:
                parameter.mul_(10)
    return model


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory, tiny_sentencepiece: bytes) -> dict[str, Path]:
    out = tmp_path_factory.mktemp("engine")
    (out / "tokenizer.model").write_bytes(tiny_sentencepiece)
    for name in ("nano", "pieces"):
        tokenizer = nano_tokenizer() if name == "nano" else from_sentencepiece(out / "tokenizer.model")
        hf.save_llava(lively(tokenizer.vocab_size, tokenizer.image_patch_id), out / name)
        tokenizer.save(out / name)
    return {name: out / name for name in ("nano", "pieces")}


@pytest.fixture(scope="module")
def generators(folders: dict[str, Path]) -> dict[str, LocalGenerator]:
    """With the lean class, with the stock class, and with a tokenizer of pieces and bytes."""
    made = {"lean": LocalGenerator.load(folders["nano"])}
    made["pieces"] = LocalGenerator.load(folders["pieces"], template="llava_v1")
    stock = hf.load_llava(folders["nano"])
    made["stock"] = LocalGenerator(stock, made["lean"].tokenizer, made["lean"].setup, name="stock")
    return made


@pytest.fixture(scope="module")
def generator(generators: dict[str, LocalGenerator]) -> LocalGenerator:
    return generators["lean"]


@pytest.fixture
def engine(generator: LocalGenerator) -> Iterator[Engine]:
    with Engine(generator) as made:
        yield made
        assert made.alive()
    assert not made.alive()


PICTURES = [
    Image.fromarray(np.random.default_rng(seed).integers(0, 255, (24 + seed, 40 - seed, 3), dtype=np.uint8))
    for seed in range(4)
]


@dataclass
class Heard:
    """Gathers the pieces of one answer. ``gate`` holds the engine's thread at the first piece."""

    pieces: list[Piece] = field(default_factory=list)
    first: threading.Event = field(default_factory=threading.Event)
    done: threading.Event = field(default_factory=threading.Event)
    gate: threading.Event | None = None
    ticket: Ticket | None = None

    def __call__(self, piece: Piece) -> None:
        self.pieces.append(piece)
        self.first.set()
        if self.gate is not None:
            assert self.gate.wait(LONG)
        if piece.finish is not None:
            self.done.set()

    @property
    def last(self) -> Piece:
        assert self.done.wait(LONG), "the answer has not ended"
        return self.pieces[-1]

    @property
    def text(self) -> str:
        assert self.last.finish is not None
        return "".join(piece.text for piece in self.pieces)


def user(*parts: str | Image.Image) -> Said:
    return Said(role=Role.USER, parts=parts)


def dialogue(*parts: str | Image.Image) -> Dialogue:
    return Dialogue(turns=(user(*parts),))


def ask(
    engine: Engine, *parts: str | Image.Image, gate: threading.Event | None = None, **values: Any
) -> Heard:
    return send(engine, Asked(dialogue=dialogue(*parts), **values), gate=gate)


def send(engine: Engine, asked: Asked, gate: threading.Event | None = None) -> Heard:
    heard = Heard(gate=gate)
    heard.ticket = engine.submit(asked, heard)
    return heard


def until(condition: Callable[[], bool]) -> None:
    """Wait for a change that nobody announces."""
    end = time.monotonic() + LONG
    while not condition():
        assert time.monotonic() < end, "what was waited for has not come"
        time.sleep(0.001)


def alone(generator: LocalGenerator, question: str, image: Image.Image | None, tokens: int) -> str:
    request = Request(image=image, question=question, max_new_tokens=tokens, image_first=True)
    return generator.answer([request])[0]


# --- equal answers --------------------------------------------------------------------------------------

questions = st.text("abc what?\n", min_size=1, max_size=30)
jobs = st.lists(
    st.tuples(questions, st.one_of(st.none(), st.integers(0, 3)), st.integers(1, 24)), min_size=1, max_size=12
)


@pytest.mark.parametrize("kind", ["lean", "stock", "pieces"])
@settings(deadline=None, max_examples=8)
@given(
    jobs=jobs,
    slots=st.integers(1, 6),
    prefill=st.sampled_from([1, 60, 4096]),
    bytes_=st.sampled_from([0, 10**8]),
)
def test_every_answer_is_the_one_given_alone(
    generators: dict[str, LocalGenerator],
    kind: str,
    jobs: list[tuple[str, int | None, int]],
    slots: int,
    prefill: int,
    bytes_: int,
) -> None:
    generator = generators[kind]
    with Engine(generator, slots=slots, prefill_tokens=prefill, prefix_bytes=bytes_) as engine:
        heard = [
            ask(engine, *([] if at is None else [PICTURES[at]]), text, max_new_tokens=most)
            for text, at, most in jobs
        ]
        for (text, at, most), one in zip(jobs, heard, strict=True):
            assert one.text == alone(generator, text, None if at is None else PICTURES[at], most)
            assert 1 <= one.last.completion_tokens <= most
            assert (one.last.finish is Finish.LENGTH) <= (one.last.completion_tokens == most)
        load = engine.load()
        assert (load.running, load.waiting, sum(load.finished.values())) == (0, 0, len(jobs))


def test_drawn_answers_depend_on_seed_id_and_dialogue_alone(generator: LocalGenerator) -> None:
    def drawn(engine: Engine, count: int, **values: Any) -> list[str]:
        decoding = Decoding(temperature=1.0, top_p=0.9, seed=values.pop("seed", 0))
        sent = [
            ask(engine, PICTURES[0], "Why?", max_new_tokens=12, decoding=decoding, id=str(i), **values)
            for i in range(count)
        ]
        return [one.text for one in sent]

    with Engine(generator, slots=5) as engine:
        together = drawn(engine, 5)
        greedy = ask(engine, PICTURES[0], "Why?", max_new_tokens=12)
        assert drawn(engine, 5) == together
        assert drawn(engine, 5, seed=1) != together
        assert greedy.text == alone(generator, "Why?", PICTURES[0], 12)
    assert len(set(together)) > 1
    with Engine(generator, slots=1, prefix_bytes=0) as engine:
        assert drawn(engine, 5) == together
        assert drawn(engine, 2, top_logprobs=1) == together[:2]


def test_a_conversation_that_goes_on(generator: LocalGenerator) -> None:
    """What was computed of it is taken up again, and changes nothing."""

    def talk(engine: Engine) -> list[str]:
        turns, said = [user(PICTURES[0], "Read it.")], list[str]()
        for question in ("And the next?", PICTURES[1], "Why?"):
            said.append(send(engine, Asked(dialogue=Dialogue(turns=tuple(turns)), max_new_tokens=20)).text)
            turns += [Said(role=Role.ASSISTANT, parts=(said[-1],)), user(question)]
        return said

    with Engine(generator) as engine, Engine(generator, prefix_bytes=0) as other:
        assert talk(engine) == talk(other)
        assert engine.load().prompt_tokens_reused > 60
        assert other.load().prompt_tokens_reused == 0
        assert engine.load().pictures_encoded == 2
        other_picture = send(
            engine, Asked(dialogue=Dialogue(turns=(user(PICTURES[2], "Read it."),)), max_new_tokens=20)
        )
        assert other_picture.text == alone(generator, "Read it.", PICTURES[2], 20)


def test_what_runs_is_shared_with_those_that_begin_alike(generator: LocalGenerator) -> None:
    gate = threading.Event()
    with Engine(generator, slots=4) as engine:
        first = ask(engine, PICTURES[0], "What is it?", max_new_tokens=30, gate=gate)
        assert first.first.wait(LONG)
        rest = [
            ask(engine, PICTURES[0], text, max_new_tokens=9) for text in ("What is it?", "What is?", "Why")
        ]
        gate.set()
        assert first.text == alone(generator, "What is it?", PICTURES[0], 30)
        for text, one in zip(("What is it?", "What is?", "Why"), rest, strict=True):
            assert one.text == alone(generator, text, PICTURES[0], 9)
        assert engine.load().prompt_tokens_reused > 3 * 9
        assert engine.load().pictures_encoded == 1


def test_pictures_are_encoded_once(engine: Engine) -> None:
    for text in ("a", "b", "c"):
        assert ask(engine, PICTURES[0], text, PICTURES[1], PICTURES[0], max_new_tokens=2).text is not None
    load = engine.load()
    assert load.pictures_encoded == 2
    assert load.pictures_encoded + load.pictures_reused <= 9


# --- how an answer ends, and what is told of it ---------------------------------------------------------


def test_an_answer_ends_before_its_stop_string(generator: LocalGenerator, engine: Engine) -> None:
    whole = alone(generator, "Read", PICTURES[1], 40)
    stop = whole[10:13]
    heard = ask(engine, PICTURES[1], "Read", max_new_tokens=40, stop=(stop, "never there"), top_logprobs=0)
    assert heard.text == whole[: whole.find(stop)].rstrip()
    assert heard.last.finish is Finish.STOP
    assert heard.last.completion_tokens < 40
    assert not any(stop in piece.text for piece in heard.pieces)
    spelt = [chance.text for piece in heard.pieces for chance in piece.chances]
    assert "".join(spelt).strip().startswith(heard.text)
    assert heard.text.startswith("".join(spelt[:-1]).strip())  # tokens after the cut are not told of


def test_the_end_token_is_no_text(generator: LocalGenerator, monkeypatch: pytest.MonkeyPatch) -> None:
    end = generator.tokenizer.eos_id
    choose = batches.choose

    def ends(rows: Sequence[Any], logits: torch.Tensor) -> list[int | None]:
        tokens = choose(rows, logits)
        return [end if len(row.made) == 5 else token for row, token in zip(rows, tokens, strict=True)]

    monkeypatch.setattr(batches, "choose", ends)
    with Engine(generator) as engine:
        heard = ask(engine, "Who?", max_new_tokens=40, top_logprobs=1)
        assert heard.text == alone(generator, "Who?", None, 5)
        assert (heard.last.finish, heard.last.completion_tokens) == (Finish.STOP, 6)
        assert len([chance for piece in heard.pieces for chance in piece.chances]) == 5


def test_an_answer_as_long_as_the_model_takes(engine: Engine) -> None:
    heard = ask(engine, "Who? " * 70, top_logprobs=0)
    assert heard.last.finish is Finish.LENGTH
    assert heard.last.prompt_tokens + heard.last.completion_tokens == engine.max_tokens == 512
    more = ask(engine, "Who? " * 70, max_new_tokens=32768)
    assert more.text == heard.text


def test_chances_are_the_logarithms_of_the_model(generator: LocalGenerator, engine: Engine) -> None:
    heard = ask(engine, "Who?", max_new_tokens=6, top_logprobs=3)
    assert heard.last.finish is Finish.LENGTH
    chances = [chance for piece in heard.pieces for chance in piece.chances]
    assert len(chances) == 6
    tokenizer = generator.tokenizer
    ids = tokenizer.encode(chat.prompt("Who?", generator.setup.template))
    for chance in chances:
        logs = generator.model(torch.tensor([ids]))[0, -1].double().log_softmax(-1)
        values, order = logs.topk(3)
        assert [text for text, _ in chance.top] == [tokenizer.piece(int(index)) for index in order]
        assert np.allclose([value for _, value in chance.top], values, atol=1e-3)
        assert (chance.text, chance.logprob) == chance.top[0]
        ids.append(int(order[0]))
    assert ask(engine, "Who?", max_new_tokens=6).last.chances == ()


def test_pieces_come_one_by_one_with_their_counts(generator: LocalGenerator, engine: Engine) -> None:
    heard = ask(engine, PICTURES[0], "Read", max_new_tokens=20)
    assert heard.last.completion_tokens == 20
    counts = [piece.completion_tokens for piece in heard.pieces]
    assert counts == sorted(counts)
    assert len(heard.pieces) > 5
    assert {piece.finish for piece in heard.pieces[:-1]} == {None}
    setup = generator.setup
    text = chat.expand_images(
        chat.prompt("<image>\nRead", setup.template), setup.image_tokens, setup.start_end
    )
    assert {piece.prompt_tokens for piece in heard.pieces} == {len(generator.tokenizer.encode(text))}


def test_the_system_text_can_be_replaced(generator: LocalGenerator, engine: Engine) -> None:
    asked = Asked(dialogue=Dialogue(turns=(user("Who?"),), system="Be brief."), max_new_tokens=16)
    assert send(engine, asked).text != alone(generator, "Who?", None, 16)
    plain = Asked(dialogue=Dialogue(turns=(user("Who?"),), system=chat.LLAVA_SYSTEM), max_new_tokens=16)
    assert send(engine, plain).text == alone(generator, "Who?", None, 16)


@dataclass
class Widths:
    """How many prompts were run together, time after time."""

    seen: list[int] = field(default_factory=list)


@pytest.fixture
def windowed(monkeypatch: pytest.MonkeyPatch) -> Widths:
    """As if caches kept a window of the tokens only, so that rows are not joined."""
    monkeypatch.setattr(steps, "_is_plain", lambda *_: False)
    begin, widths = steps.begin, Widths()

    def counted(model: Any, ids: torch.Tensor, *rest: Any) -> Any:
        widths.seen.append(len(ids))
        return begin(model, ids, *rest)

    monkeypatch.setattr(steps, "begin", counted)
    return widths


@pytest.mark.parametrize("together", [True, False])
def test_rows_that_cannot_be_joined_begin_together(
    generators: dict[str, LocalGenerator], windowed: Widths, monkeypatch: pytest.MonkeyPatch, together: bool
) -> None:
    """Also where that turns out with the first prompts, which are of lengths that are not run together."""
    generator, gate = generators["stock"], threading.Event()
    texts = [f"Who {'is ' * (count * 9 % 40)}{count}?" for count in range(9)]
    wanted = [alone(generator, text, None, 4 + at) for at, text in enumerate(texts)]
    windowed.seen.clear()
    chosen = Engine._next_in  # pyright: ignore[reportPrivateUsage]

    def later(self: Engine) -> Any:
        assert gate.wait(LONG)
        return chosen(self)

    monkeypatch.setattr(Engine, "_next_in", later)
    with Engine(generator, slots=4, prefill_tokens=4096 if together else 1) as engine:
        sent = [ask(engine, text, max_new_tokens=4 + at) for at, text in enumerate(texts)]
        gate.set()
        assert [one.text for one in sent] == wanted
    assert sum(windowed.seen) == 9
    assert max(windowed.seen) == 4
    assert len(windowed.seen) <= 5


# --- cancelling -----------------------------------------------------------------------------------------


def test_cancelling_frees_the_slot(generator: LocalGenerator) -> None:
    gate = threading.Event()
    with Engine(generator, slots=1) as engine:
        first = ask(engine, "Who? ", gate=gate)
        assert first.first.wait(LONG)
        second, third = ask(engine, "Why?", max_new_tokens=4), ask(engine, "When?", max_new_tokens=4)
        assert (engine.load().running, engine.load().waiting) == (1, 2)
        assert second.ticket
        second.ticket.cancel()
        assert engine.load().waiting == 1
        assert first.ticket
        for _ in range(2):
            first.ticket.cancel()
        gate.set()
        assert first.last.finish is second.last.finish is Finish.CANCELLED
        assert first.last.completion_tokens <= 3
        assert second.last.completion_tokens == 0
        assert third.text == alone(generator, "When?", None, 4)
        first.ticket.cancel()
        assert engine.load().finished[Finish.CANCELLED] == 2
        assert len([piece for piece in first.pieces if piece.finish]) == 1


def test_who_listens_may_fail(generator: LocalGenerator) -> None:
    def broken(piece: Piece) -> None:
        raise RuntimeError("nobody is there")

    with Engine(generator) as engine:
        for _ in range(3):
            engine.submit(Asked(dialogue=dialogue("Who?")), broken)
        assert ask(engine, "Why?", max_new_tokens=9).text == alone(generator, "Why?", None, 9)
        until(lambda: engine.load().finished[Finish.CANCELLED] == 3)
        assert engine.alive()


def test_cancelling_from_within_a_piece(engine: Engine) -> None:
    tickets: list[Ticket] = []
    heard = Heard()

    def once(piece: Piece) -> None:
        tickets[0].cancel()
        heard(piece)

    hold = threading.Event()
    held = ask(engine, "Who?", max_new_tokens=3, gate=hold)
    tickets.append(engine.submit(Asked(dialogue=dialogue("Who?")), once))
    hold.set()
    assert heard.last.finish is Finish.CANCELLED
    assert held.last.finish is Finish.LENGTH


# --- refusals -------------------------------------------------------------------------------------------


def test_as_many_wait_as_may(generator: LocalGenerator) -> None:
    gate = threading.Event()
    with Engine(generator, slots=1, may_wait=2) as engine:
        first = ask(engine, "Who?", max_new_tokens=3, gate=gate)
        assert first.first.wait(LONG)
        waiting = [ask(engine, "Why?", max_new_tokens=3) for _ in range(2)]
        with pytest.raises(
            BusyError, match="2 requests wait already, which is the limit; ask again in"
        ) as busy:
            ask(engine, "Why?")
        assert 1 <= busy.value.retry_after <= 60
        gate.set()
        assert [one.last.finish for one in (first, *waiting)] == [Finish.LENGTH] * 3
        assert ask(engine, "Why?", max_new_tokens=3).last.finish is Finish.LENGTH


def test_what_cannot_be_asked(engine: Engine) -> None:
    for parts, words in (
        (("Who? " * 200,), "the model takes 512"),
        (("an <image>",), "stand for pictures"),
        ((PICTURES[0], "<im_patch>"), "stand for pictures"),
    ):
        with pytest.raises(DataError, match=words):
            ask(engine, *parts)
    assert engine.load().waiting == 0
    assert sum(engine.load().finished.values()) == 0


def test_it_is_what_servers_need(engine: Engine, generator: LocalGenerator) -> None:
    answering: Answering = engine
    assert (answering.name, answering.max_tokens) == (generator.name, 512)
    view = answering.seen(Image.new("RGBA", (80, 20), (9, 9, 9, 100)))
    assert (view.mode, view.size) == ("RGB", (24, 24))


# --- failures -------------------------------------------------------------------------------------------


def test_a_broken_row_takes_no_other_with_it(
    generator: LocalGenerator, monkeypatch: pytest.MonkeyPatch
) -> None:
    choose = batches.choose

    def numberless(rows: Sequence[Any], logits: torch.Tensor) -> list[int | None]:
        for place, row in enumerate(rows):
            if row.limit == 17 and len(row.made) == 3:
                logits[place, 4] = float("nan")
        return choose(rows, logits)

    monkeypatch.setattr(batches, "choose", numberless)
    with Engine(generator) as engine:
        sent = [ask(engine, f"Who {most}?", max_new_tokens=most) for most in (12, 17, 21)]
        assert (sent[1].last.finish, sent[1].last.completion_tokens) == (Finish.ERROR, 3)
        assert isinstance(sent[1].last.error, ModelError)
        assert "no numbers" in str(sent[1].last.error)
        for most, one in zip((12, 21), sent[::2], strict=True):
            assert one.text == alone(generator, f"Who {most}?", None, most)


def failing(monkeypatch: pytest.MonkeyPatch, bad: Callable[[torch.Tensor], bool], error: Exception) -> None:
    """Prompts that cannot be run."""
    begin = steps.begin

    def run(model: Any, ids: torch.Tensor, *rest: Any) -> Any:
        if bad(ids):
            raise error
        return begin(model, ids, *rest)

    monkeypatch.setattr(steps, "begin", run)


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (torch.OutOfMemoryError("CUDA out of memory"), "not enough memory"),
        (RuntimeError("secret"), r"failed on this request \(RuntimeError\)"),
        (ModelError("the weights are odd"), "the weights are odd"),
    ],
)
def test_a_prompt_that_fails_takes_no_other_with_it(
    generator: LocalGenerator, monkeypatch: pytest.MonkeyPatch, error: Exception, words: str
) -> None:
    bang = generator.tokenizer.token_id("!")
    failing(monkeypatch, lambda ids: bool((ids == bang).any()), error)
    gate = threading.Event()
    with Engine(generator) as engine:
        first = ask(engine, "Who?", max_new_tokens=30, gate=gate)
        assert first.first.wait(LONG)
        sent = [ask(engine, text, max_new_tokens=8) for text in ("Why?", "Now!", "How?")]  # run together
        gate.set()
        assert sent[1].last.finish is Finish.ERROR
        with pytest.raises(LlavarError, match=words):
            raise sent[1].last.error or AssertionError
        assert [sent[0].text, sent[2].text] == [alone(generator, text, None, 8) for text in ("Why?", "How?")]
        assert first.text == alone(generator, "Who?", None, 30)


@pytest.mark.parametrize("kind", ["lean", "stock"])
def test_memory_that_runs_out_on_the_way(
    generators: dict[str, LocalGenerator], monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    """The last one goes, the others go on; the stock class loses what ran, and answers the next."""
    generator = generators[kind]
    wanted = [alone(generator, f"Who {most}?", None, most) for most in (12, 14)]
    running = steps._LeanRunning if kind == "lean" else steps._StockRunning  # pyright: ignore[reportPrivateUsage]
    step, left = running.step, [1]

    def lacking(self: Any, tokens: torch.Tensor) -> None:
        if len(tokens) == 3 and left:
            left.pop()
            raise torch.OutOfMemoryError("none left")
        step(self, tokens)

    monkeypatch.setattr(running, "step", lacking)
    gate = threading.Event()
    with Engine(generator, slots=4) as engine:
        held = ask(engine, "x", max_new_tokens=1, gate=gate)  # so that the others are taken in together
        sent = [ask(engine, f"Who {most}?", max_new_tokens=most) for most in (12, 14, 13)]
        gate.set()
        assert held.last.finish is Finish.LENGTH
        ends = [one.last.finish for one in sent]
        if kind == "lean":
            assert sorted(ends) == [Finish.ERROR, Finish.LENGTH, Finish.LENGTH]
            assert all(
                one.text == text
                for one, text in zip(sent, wanted, strict=False)
                if one.last.finish is Finish.LENGTH
            )
        else:
            assert ends == [Finish.ERROR] * 3
        assert all("not enough memory" in str(one.last.error) for one in sent if one.last.error)
        assert ask(engine, "Who 12?", max_new_tokens=12).text == wanted[0]


def test_a_model_that_fails_again_and_again(
    generator: LocalGenerator, monkeypatch: pytest.MonkeyPatch
) -> None:
    def never(*_: Any) -> None:
        raise RuntimeError("a cable is loose")

    monkeypatch.setattr(batches.Batch, "choose", never)
    gate = threading.Event()
    engine = Engine(generator, slots=1)
    sent = [ask(engine, "Who?") for _ in range(5)]
    gate.set()
    for one in sent:
        assert one.last.finish is Finish.ERROR
        assert "RuntimeError" in str(one.last.error)
    until(lambda: not engine.alive())
    with pytest.raises(ModelError, match="failed 3 times in a row"):
        ask(engine, "Who?")
    engine.close()


# --- closing --------------------------------------------------------------------------------------------


def test_closing_finishes_what_runs_and_waits(generator: LocalGenerator) -> None:
    engine = Engine(generator, slots=1)
    sent = [ask(engine, f"Who {i}?", max_new_tokens=6) for i in range(4)]
    engine.close(LONG)
    assert [one.text for one in sent] == [alone(generator, f"Who {i}?", None, 6) for i in range(4)]
    assert not engine.alive()
    with pytest.raises(BusyError, match="shutting down"):
        ask(engine, "Who?")
    engine.close(0)


def test_closing_cancels_what_takes_too_long(generator: LocalGenerator) -> None:
    gate = threading.Event()
    engine = Engine(generator, slots=1)
    first = ask(engine, "Who?", gate=gate)
    assert first.first.wait(LONG)
    second = ask(engine, "Why?")
    closing = threading.Thread(target=engine.close, args=(0.0,))
    closing.start()
    until(lambda: engine._abort)  # pyright: ignore[reportPrivateUsage]
    gate.set()
    closing.join(LONG)
    assert first.last.finish is second.last.finish is Finish.CANCELLED
    assert (engine.load().running, engine.load().waiting) == (0, 0)


def test_closing_from_within_a_piece(generator: LocalGenerator) -> None:
    engine = Engine(generator)
    heard = Heard()

    def close(piece: Piece) -> None:
        engine.close()
        heard(piece)

    engine.submit(Asked(dialogue=dialogue("Who?"), max_new_tokens=9), close)
    assert heard.text == alone(generator, "Who?", None, 9)
    until(lambda: not engine.alive())


def test_many_threads_ask(generator: LocalGenerator) -> None:
    wanted = {i: alone(generator, f"Who {i}?", PICTURES[i % 4], 5 + i) for i in range(6)}
    found: list[tuple[int, str]] = []

    def client(number: int) -> None:
        for turn in range(4):
            i = (number + turn) % 6
            found.append((i, ask(engine, PICTURES[i % 4], f"Who {i}?", max_new_tokens=5 + i).text))

    with Engine(generator, slots=3) as engine:
        threads = [threading.Thread(target=client, args=(number,)) for number in range(6)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(LONG)
    assert len(found) == 24
    assert all(text == wanted[i] for i, text in found)


def test_a_request_that_waits_holds_no_picture(generator: LocalGenerator) -> None:
    gate = threading.Event()
    with Engine(generator, slots=1) as engine:
        running = ask(engine, "a", gate=gate, max_new_tokens=4)
        assert running.first.wait(LONG)
        for times in range(2):  # its features are at hand the second time
            picture = PICTURES[0].copy()
            held = weakref.ref(picture)
            waiting = ask(engine, "b", picture, max_new_tokens=2)
            del picture
            gc.collect()
            assert held() is None
            if not times:
                gate.set()
                assert running.last
                expected = waiting.text
                gate.clear()
                running = ask(engine, "a", gate=gate, max_new_tokens=4)
                assert running.first.wait(LONG)
        gate.set()
        assert waiting.text == expected
        assert engine.load().pictures_encoded == 1


def test_features_may_be_forgotten_while_a_request_waits(generator: LocalGenerator) -> None:
    gate = threading.Event()
    with Engine(generator, slots=1, pictures=1, prefix_bytes=0) as engine:
        expected = ask(engine, "b", PICTURES[0], max_new_tokens=4).text
        running = ask(engine, "a", gate=gate, max_new_tokens=4)
        assert running.first.wait(LONG)
        other = ask(engine, "b", PICTURES[1], max_new_tokens=4)
        waiting = ask(engine, "b", PICTURES[0].copy(), max_new_tokens=4)
        gate.set()
        assert other.text != expected
        assert waiting.text == expected
        assert engine.load().pictures_encoded == 2


def test_a_picture_is_looked_at_once_for_several_answers(
    generator: LocalGenerator, monkeypatch: pytest.MonkeyPatch
) -> None:
    looked: list[Any] = []

    def noted(image: Any) -> str:
        looked.append(image)
        return fingerprint(image)

    monkeypatch.setattr(engines, "fingerprint", noted)
    with Engine(generator) as engine:
        answers = [ask(engine, "b", PICTURES[0], PICTURES[0], max_new_tokens=3) for _ in range(4)]
        assert len({answer.text for answer in answers}) == 1
        assert len(looked) == 1
        ask(engine, "b", PICTURES[0].copy(), max_new_tokens=1)
        assert len(looked) == 2


def test_equal_texts_about_other_pictures_of_the_same_size(generator: LocalGenerator) -> None:
    """A prefix that was kept, or a prompt that is run beside it, is never that of another's picture."""
    rng = np.random.default_rng(7)
    shown = [Image.fromarray(rng.integers(0, 255, (24, 24, 3), dtype=np.uint8)) for _ in range(6)]
    alone: list[str] = []
    for picture in shown:
        with Engine(generator, prefix_bytes=0) as engine:
            alone.append(ask(engine, picture, "what", max_new_tokens=6).text)
    assert len(set(alone)) > 1
    with Engine(generator, slots=4) as engine:
        for _ in range(2):  # the second time with what the first one left
            heard = [ask(engine, picture, "what", max_new_tokens=6) for picture in shown]
            assert [one.text for one in heard] == alone
