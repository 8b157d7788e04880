from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from llavar import chat
from llavar.errors import ConfigError, DataError
from llavar.records import Conversation, Role, Span, Turn

NAMED = chat.templates()
names = pytest.mark.parametrize("template", NAMED, ids=lambda template: template.name)

# Words that hold no separator of any template, with awkward white space and half-separators around them.
texts = st.text(st.sampled_from("ab #:\n<>|é字S") | st.characters(codec="utf-8"), max_size=30).filter(
    lambda text: not any(mark in f" {text} " for mark in ("###", "</s>", "<|im", "USER", "ASSISTANT"))
)
dialogues = st.lists(st.tuples(texts, texts), min_size=1, max_size=4).map(
    lambda pairs: Conversation.of(*[text for pair in pairs for text in pair])
)


def joined(spans: tuple[Span, ...]) -> str:
    return "".join(span.text for span in spans)


def test_llava_v1_is_written_character_by_character():
    spans = chat.render(Conversation.of("<image>\nWhat?", "STOP", "And below?", "GO"), chat.get("llava_v1"))
    assert joined(spans) == (
        "You are LLaVA, a large language and vision assistant trained by UW Madison WAIV Lab.You are able to "
        "understand the visual content that the user provides, and assist the user with a variety of tasks "
        "using natural language.Follow the instructions carefully and explain your answers in detail. USER: "
        "<image>\nWhat? ASSISTANT: STOP</s>USER: And below? ASSISTANT: GO</s>"
    )
    assert [span.text for span in spans if span.learn] == [" STOP</s>", " GO</s>"]


def test_other_formats_are_written_character_by_character():
    asked = Conversation.of("Q", "A")
    vicuna = joined(chat.render(asked, chat.get("vicuna_v1_1")))
    assert vicuna.endswith("polite answers to the user's questions. USER: Q ASSISTANT: A</s>")
    single = joined(chat.render(asked, chat.get("multimodal")))
    assert single.endswith(
        "in detail.###Human: Hi!###Assistant: Hi there!  How can I help you today?\n"
        "###Human: Q###Assistant: A###"
    )
    mpt = joined(chat.render(asked, chat.get("mpt_multimodal")))
    assert mpt.endswith("in detail.<|im_end|><|im_start|>user\nQ<|im_end|><|im_start|>assistant\nA<|im_end|>")
    v0 = joined(chat.render(asked, chat.get("v0_train")))
    assert v0.endswith("to the human's questions.\n\n### Human: Q\n### Assistant: A\n### ")


def test_rows_are_trained_with_the_text_that_is_asked_with_but_for_v0():
    assert chat.for_training(chat.get("multimodal")) == chat.get("v0_train")
    for template in chat.templates():
        if template.name != "multimodal":
            assert chat.for_training(template) == template


def test_v0_training_learns_the_signal_and_the_label_too():
    spans = chat.render(Conversation.of("Q", "A"), chat.get("v0_train"))
    assert [span.text for span in spans if span.learn] == ["###", "### Assistant: A\n", "### "]


@names
@given(dialogue=dialogues)
@settings(deadline=None, max_examples=60)
def test_a_training_text_is_prompt_answer_and_separator(template: chat.Template, dialogue: Conversation):
    *before, last = dialogue.turns
    generated = chat.prompt(Conversation(turns=tuple(before)), template)
    rest = template.gap + last.text + template.answer_end + template.tail
    assert joined(chat.render(dialogue, template)) == generated + rest


@names
@given(dialogue=dialogues)
@settings(deadline=None, max_examples=60)
def test_parsing_inverts_rendering(template: chat.Template, dialogue: Conversation):
    assert chat.parse(joined(chat.render(dialogue, template)), template) == dialogue
    asked = Conversation(turns=dialogue.turns[:-1])
    assert chat.parse(chat.prompt(asked, template), template) == asked


@names
@given(dialogue=dialogues)
@settings(deadline=None, max_examples=60)
def test_every_learned_span_is_one_answer(template: chat.Template, dialogue: Conversation):
    if template.name == "v0_train":
        return
    learned = [span.text for span in chat.render(dialogue, template) if span.learn]
    answers = [turn.text for turn in dialogue.turns if turn.role is Role.ASSISTANT]
    assert learned == [template.gap + answer + template.answer_end for answer in answers]


@names
def test_a_question_is_a_prompt(template: chat.Template):
    assert chat.prompt("Q?", template) == chat.prompt(Conversation.of("Q?"), template)
    assert chat.prompt("Q?", template).endswith(template.label(Role.ASSISTANT))


def test_a_prompt_needs_a_question():
    for turns in ((), Conversation.of("Q", "A").turns):
        with pytest.raises(DataError, match="add a question"):
            chat.prompt(Conversation(turns=turns), chat.get("llava_v1"))


def test_parsing_a_cut_answer_keeps_it():
    template = chat.get("llava_v1")
    assert chat.parse(chat.prompt("Q", template) + " half an ans", template) == Conversation.of(
        "Q", "half an ans"
    )


@pytest.mark.parametrize("text", ["", "USER: Q", chat.LLAVA_SYSTEM + " HUMAN: Q"])
def test_parsing_something_else_is_refused(text: str):
    with pytest.raises(DataError, match="check the template"):
        chat.parse(text, chat.get("llava_v1"))


def test_unknown_and_unfit_templates_are_refused():
    with pytest.raises(ConfigError, match=r"'nope' is not known; use one of llava_v1, vicuna_v1_1"):
        chat.get("nope")
    with pytest.raises(ConfigError, match="throws the instruction away"):
        chat.get("plain")


@pytest.mark.parametrize(
    ("folder", "name"),
    [
        ("/models/LLaVA-13b-v1.1", "llava_v1"),
        ("LLaVAR-13B-V1/", "llava_v1"),
        ("/v1/llava-mpt-7b", "mpt_multimodal"),
        ("C:\\weights\\llava-13b-v0", "multimodal"),
        ("", "multimodal"),
    ],
)
def test_the_folder_rule_of_the_original(folder: str, name: str):
    assert chat.for_checkpoint_name(folder).name == name


def test_answers_are_cut_at_the_stop_string():
    assert chat.clean_answer(" STOP </s>USER: more", chat.get("llava_v1")) == "STOP"
    assert chat.clean_answer("STOP\n### Human: more", chat.get("v0_train")) == "STOP"
    assert chat.clean_answer(" no end ", chat.get("mpt_multimodal")) == "no end"
    assert chat.stop_strings(chat.get("multimodal")) == ("###",)


def test_images_are_expanded():
    assert chat.expand_images("a <image> b", 2, True) == "a <im_start><im_patch><im_patch><im_end> b"
    assert chat.expand_images("<image><image>", (1, 2), False) == "<im_patch>" * 3
    assert chat.expand_images("<image>", 2, False, patch="<i>") == "<i><i>"
    assert chat.expand_images("no picture", 576, True) == "no picture"
    with pytest.raises(DataError, match="1 <image> tags for 2 images"):
        chat.expand_images("<image>", (1, 2), True)


def test_the_image_stands_before_or_after_the_question():
    assert chat.with_image("Q", first=True) == "<image>\nQ"
    assert chat.with_image("Q", first=False) == "Q\n<image>"


CONTROL = (
    *("<image>", "<im_patch>", "<im_start>", "<im_end>", "</s>", "<s>", "<unk>", "<pad>", "[PAD]", "<|"),
    *("###", "USER:", "ASSISTANT:", "Human:", "Assistant:"),
)


@given(parts=st.lists(st.sampled_from(CONTROL) | st.sampled_from("<>/#|s:[ ]") | texts, max_size=12))
@settings(deadline=None)
def test_escaped_text_holds_no_control_string(parts: list[str]):
    text = "".join(parts)
    escaped = chat.escape_special(text)
    assert not any(control in escaped for control in CONTROL)
    assert escaped.replace(" ", "") == text.replace(" ", "")
    assert chat.escape_special(escaped) == escaped


def test_escaping_leaves_ordinary_text_alone():
    text = "Price: $3 < $4, #1 ## C++ <b>user: Users"
    assert chat.escape_special(text) == text
    assert chat.escape_special("USER: </s><image>") == "USER : < /s>< image>"


# ---------------------------------------------------------------- a tokenizer's own template

CHATML = (
    "{% for m in messages %}{{ '<|im_start|>' + m['role'] + '\\n' + m['content'] + '<|im_end|>' + '\\n' }}"
    "{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}"
)
PARTS = (
    "{% for m in messages %}{{ m.role.upper() + ': ' }}"
    "{% for c in m.content | selectattr('type', 'equalto', 'text') %}"
    "{% generation %}{{ c.text }}{% endgeneration %}{% endfor %}"
    "{{ eos_token if m.role == 'assistant' else ' ' }}{% endfor %}"
    "{% if add_generation_prompt %}ASSISTANT:{% endif %}"
)


@names
@given(dialogue=dialogues)
@settings(deadline=None, max_examples=40)
def test_jinja_writes_what_the_template_writes(template: chat.Template, dialogue: Conversation):
    own = chat.own(chat.jinja_source(template), bos="<s>", eos=template.answer_end)
    asked = Conversation(turns=dialogue.turns[:-1])
    assert chat.prompt(asked, own) == "<s>" + chat.prompt(asked, template)
    if template.name != "v0_train":
        spans, expected = chat.render(dialogue, own), chat.render(dialogue, template)
        assert joined(spans) == "<s>" + joined(expected)
        assert [span.text for span in spans if span.learn] == [span.text for span in expected if span.learn]


def test_own_template_learns_up_to_the_end_token_only():
    spans = chat.render(Conversation.of("Q", "A", "R", "B"), chat.own(CHATML, eos="<|im_end|>"))
    assert [span.text for span in spans if span.learn] == ["A<|im_end|>", "B<|im_end|>"]
    assert joined(spans).endswith("<|im_start|>assistant\nB<|im_end|>\n")


def test_own_template_that_reads_parts_keeps_the_text():
    template = chat.own(PARTS, eos="</s>")
    assert chat.prompt("<image>\nQ", template) == "USER: <image>\nQ ASSISTANT:"
    assert [s.text for s in chat.render(Conversation.of("Q", "A"), template) if s.learn] == [" A</s>"]


def test_own_template_takes_a_system_text_and_cannot_be_parsed():
    template = chat.own(CHATML, eos="<|im_end|>", system="Be brief.")
    assert chat.prompt("Q", template).startswith(
        "<|im_start|>system\nBe brief.<|im_end|>\n<|im_start|>user\nQ"
    )
    with pytest.raises(ConfigError, match="cannot be read backwards"):
        chat.parse("x", template)


def test_own_template_without_an_end_is_refused():
    with pytest.raises(ConfigError, match="would not learn to stop"):
        chat.render(Conversation.of("Q", "A"), chat.own(CHATML, eos="<|endoftext|>"))


def test_own_template_that_rewrites_history_is_refused():
    source = (
        "{% for m in messages %}"
        "{% if loop.last or m.role == 'user' %}{{ m.role }}:{{ m.content }};{% endif %}"
        "{% endfor %}{% if add_generation_prompt %}assistant:{% endif %}"
    )
    template = chat.own(source, eos=";")
    assert chat.render(Conversation.of("Q", "A"), template)[-1] == Span(text="A;", learn=True)
    with pytest.raises(DataError, match="split the conversation"):
        chat.render(Conversation.of("Q", "A", "R", "B"), template)


@pytest.mark.parametrize(
    ("source", "error", "match"),
    [
        ("{{ raise_exception('no system') }}", DataError, "refuses the conversation .no system"),
        ("{% for %}", ConfigError, "no valid jinja"),
        ("{{ messages.__class__.__mro__ }}", DataError, "refuses the conversation"),
    ],
)
def test_hostile_templates_are_refused(source: str, error: type[Exception], match: str):
    with pytest.raises(error, match=match):
        chat.prompt("Q", chat.own(source))


def test_two_assistant_turns_still_render():
    turns = (
        Turn(role=Role.USER, text="Q"),
        Turn(role=Role.ASSISTANT, text="A"),
        Turn(role=Role.ASSISTANT, text="B"),
    )
    spans = chat.render(Conversation(turns=turns), chat.get("llava_v1"))
    assert [span.text for span in spans if span.learn] == [" A</s>", " B</s>"]


def test_importing_it_imports_neither_torch_nor_jinja():
    code = "import sys, llavar.chat; print(sorted({'torch', 'transformers', 'jinja2'} & set(sys.modules)))"
    environment = {**os.environ, "PYTHONPATH": str(Path(chat.__file__).parents[2])}
    found = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, env=environment
    )
    assert found.stdout.strip() == "[]"
