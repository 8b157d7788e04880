"""New models from a decoder and a tower: they load everywhere, compute what their parts do, and are asked."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from llavar import chat, cli, images
from llavar.data.collate import collate
from llavar.data.encode import encode
from llavar.errors import ConfigError, LlavarError, ModelError, NotFoundError
from llavar.generate.base import Request
from llavar.generate.local import LocalGenerator
from llavar.models import _hf as hf
from llavar.models.build import Built, build
from llavar.models.loss import answer_loss
from llavar.models.processor import preprocessor_document, read_norm
from llavar.models.projector_file import read_projector
from llavar.models.restore import to_llava, to_projector
from llavar.models.shape import ProjectorLayout
from llavar.models.stored import open_tensors
from llavar.models.tokenizer import TextTokenizer, load_tokenizer
from llavar.records import IGNORE, Conversation, Example, Pack

FAMILIES = ("llama", "llama3", "qwen2", "qwen3", "mistral")
TOWERS = ("clip", "siglip")
EMBEDDING = "language_model.model.embed_tokens.weight"
HEAD = "language_model.lm_head.weight"
PICTURE = Image.fromarray(np.random.default_rng(0).integers(0, 255, (40, 60, 3), dtype=np.uint8))


@pytest.fixture(scope="module")
def parts(families: Any, tiny_sentencepiece: bytes, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with one decoder of each family and both towers."""
    root = tmp_path_factory.mktemp("parts")
    families.make_llama(root / "llama", tiny_sentencepiece)
    for family in FAMILIES[1:]:
        families.make_decoder(root / family, family)
    for kind in TOWERS:
        families.make_tower(root / kind, kind)
    return root


@pytest.fixture(scope="module")
def built(parts: Path) -> dict[tuple[str, str], Built]:
    """Every family with every tower."""
    return {
        (family, tower): build(parts / family, parts / tower, parts / f"{family}-{tower}")
        for family in FAMILIES
        for tower in TOWERS
    }


def prompt(tokenizer: TextTokenizer, question: str = "What does it say?") -> list[int]:
    text = chat.prompt(chat.with_image(question, first=True), tokenizer.template())
    return tokenizer.encode(chat.expand_images(text, 4, tokenizer.has_start_end))


def copied(source: Path, target: Path) -> Path:
    target.mkdir()
    for path in source.iterdir():
        (target / path.name).write_bytes(path.read_bytes())
    return target


def edit(folder: Path, name: str, **changes: object) -> None:
    told = json.loads((folder / name).read_text()) | changes
    (folder / name).write_text(json.dumps({k: v for k, v in told.items() if v is not Ellipsis}))


# What is computed.


@pytest.mark.parametrize("tower", TOWERS)
@pytest.mark.parametrize("family", FAMILIES)
def test_the_whole_computes_what_its_parts_do(
    family: str, tower: str, built: dict[tuple[str, str], Built], parts: Path
):
    from transformers import AutoModel, AutoModelForCausalLM

    done = built[family, tower]
    whole = hf.load_stock(done.folder)
    tokenizer = load_tokenizer(done.folder)
    ids = torch.tensor([prompt(tokenizer)])
    pixels = torch.as_tensor(
        images.pixels(PICTURE, transform="pad", size=28, norm=hf.norm_of(f"{tower}_vision_model"))
    )[None]
    config = json.loads((done.folder / "config.json").read_text())
    eye: Any = AutoModel.from_pretrained(parts / tower).eval()
    decoder: Any = AutoModelForCausalLM.from_pretrained(parts / family).eval()
    stored = {name: tensor.load() for name, tensor in open_tensors(done.folder).items()}
    table, patch = stored[EMBEDDING], tokenizer.image_patch_id
    head = stored.get(HEAD, table)
    assert (patch, config["image_seq_length"]) == (config["image_token_index"], 4)
    with torch.no_grad():
        seen = eye(pixels, output_hidden_states=True).hidden_states[-2][:, int(tower == "clip") :]
        weight = stored["multi_modal_projector.linear_1.weight"]
        projected = seen @ weight.T + stored["multi_modal_projector.linear_1.bias"]
        filled = table[ids].masked_scatter((ids == patch)[..., None], projected)
        hidden = decoder.model(inputs_embeds=filled).last_hidden_state
        found = whole(input_ids=ids, pixel_values=pixels).logits
    assert projected.shape == (1, 4, 48)
    assert float((found - hidden @ head.T).abs().max()) < 1e-4
    old = decoder.get_input_embeddings().weight.detach()
    assert torch.equal(table[: len(old)], old)


@pytest.mark.parametrize("tower", TOWERS)
@pytest.mark.parametrize("family", FAMILIES)
def test_answers_do_not_depend_on_the_batch(family: str, tower: str, built: dict[tuple[str, str], Built]):
    done = built[family, tower]
    generator = LocalGenerator.load(done.folder)
    asked = [
        Request(image=PICTURE, question="What does the sign say?", max_new_tokens=8),
        Request(image=None, question="Who wrote the book on the left?", max_new_tokens=8),
        Request(image=PICTURE.rotate(90), question="Price?", max_new_tokens=8),
    ]
    together = generator.answer(asked)
    assert together == [generator.answer([request])[0] for request in asked]
    assert any(together)
    stock = hf.load_stock(done.folder)
    tokenizer = load_tokenizer(done.folder)
    ids = torch.tensor([prompt(tokenizer, "Price?")])
    pixels = images.pixels(PICTURE, transform="pad", size=28, norm=generator.setup.norm)
    made = stock.generate(
        input_ids=ids,
        pixel_values=torch.as_tensor(pixels)[None],
        attention_mask=torch.ones_like(ids),
        max_new_tokens=8,
        do_sample=False,
        eos_token_id=tokenizer.eos_id,
        pad_token_id=0,
    )
    (said,) = generator.answer(
        [Request(image=PICTURE, question="Price?", max_new_tokens=8, image_first=True)]
    )
    assert said == chat.clean_answer(tokenizer.decode(made[0, ids.shape[1] :].tolist()), tokenizer.template())


@pytest.mark.parametrize("family", FAMILIES)
def test_labels_are_the_answers_with_their_ends(family: str, built: dict[tuple[str, str], Built]):
    tokenizer = load_tokenizer(built[family, "clip"].folder)
    template = tokenizer.template()
    said = ("It says: open, 5 €.", "Ünten links.")
    row = Example(
        id="1",
        images=("a",),
        conversation=Conversation.of("<image>\nWhat does it say?", said[0], "Where?", said[1]),
    )
    encoded = encode(row, tokenizer, template, image_tokens=4)
    end = tokenizer.eos_id
    learned: list[list[int]] = [[]]
    for label in encoded.labels:
        if label != IGNORE:
            learned[-1].append(label)
            if label == end:
                learned.append([])
    assert learned.pop() == []
    assert [tokenizer.decode(ids).strip() for ids in learned] == list(said)
    assert all(ids[-1] == end for ids in learned)
    asked = prompt(tokenizer)
    assert list(encoded.ids[: len(asked)]) == asked
    assert encoded.labels[len(asked)] != IGNORE
    assert set(encoded.labels[: len(asked)]) == {IGNORE}


@pytest.mark.parametrize("family", FAMILIES)
def test_rows_of_a_pack_do_not_see_each_other(family: str, built: dict[tuple[str, str], Built]):
    """As training computes them: the loss of a pack is the sum of its rows' losses, in every family."""
    done = built[family, "siglip"]
    model: Any = hf.load_llava(done.folder)
    hf.disable_cache(model)
    tokenizer = load_tokenizer(done.folder)
    rows = [
        encode(
            Example(id=said, images=("a",), conversation=Conversation.of("<image>\nWhat?", said)),
            tokenizer,
            tokenizer.template(),
            image_tokens=4,
        )
        for said in ("A sign, and under it a price.", "Nine to five.")
    ]
    pixels = torch.randn(2, 3, 28, 28, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        packed = answer_loss(model, collate([Pack(rows=tuple(rows))], pad_id=0, vision=pixels))
        alone = [
            answer_loss(model, collate([Pack(rows=(row,))], pad_id=0, vision=pixels[i : i + 1]))
            for i, row in enumerate(rows)
        ]
    assert float(packed) == pytest.approx(float(sum(alone)), rel=1e-5)


@pytest.mark.parametrize("family", FAMILIES[1:])
def test_ids_are_those_of_the_stock_tokenizer(
    family: str, built: dict[tuple[str, str], Built], families: Any
):
    folder = built[family, "clip"].folder
    tokenizer, stock = load_tokenizer(folder), hf.stock_tokenizer(folder)
    parted = [
        {
            "role": "user",
            "content": [{"type": "text", "text": "What is it?"}, {"type": "image_url", "image_url": {}}],
        },
        {"role": "assistant", "content": "A sign."},
        {"role": "user", "content": [{"type": "text", "text": "Why?"}]},
    ]
    text = stock.apply_chat_template(parted, tokenize=False, add_generation_prompt=True)
    turns = Conversation.of("What is it?\n<im_start><im_patch><im_end>", "A sign.", "Why?")
    assert text == chat.prompt(turns, tokenizer.template())
    ids = stock(text, add_special_tokens=False)["input_ids"]
    assert ids == tokenizer.encode(text)
    assert stock.eos_token == families.ENDS[family]


@pytest.mark.parametrize("family", ["llama3", "qwen2", "mistral"])
def test_texts_are_written_as_the_decoder_writes_them(
    family: str, built: dict[tuple[str, str], Built], parts: Path
):
    from transformers import AutoTokenizer

    stock: Any = AutoTokenizer.from_pretrained(parts / family)
    messages = [{"role": "user", "content": " What? "}, {"role": "assistant", "content": "Yes"}]
    ours: Any = hf.stock_tokenizer(built[family, "clip"].folder)
    for generate in (False, True):
        text = stock.apply_chat_template(
            messages[: 2 - generate], tokenize=False, add_generation_prompt=generate
        )
        again = ours.apply_chat_template(
            messages[: 2 - generate], tokenize=False, add_generation_prompt=generate
        )
        assert again == text


def test_a_template_that_rewrites_earlier_answers_is_replaced(built: dict[tuple[str, str], Built]):
    done = built["qwen3", "clip"]
    assert "writes earlier answers differently" in done.notes[0]
    template = load_tokenizer(done.folder).template()
    text = "".join(span.text for span in chat.render(Conversation.of("A?", "B.", "C?", "D."), template))
    opened = "<|im_start|>user\n{}<|im_end|>\n<|im_start|>assistant\n{}<|im_end|>\n"
    assert text == opened.format("A?", "B.") + opened.format("C?", "D.")
    stock: Any = hf.stock_tokenizer(done.folder)
    told = [{"role": "system", "content": "Be short."}, {"role": "user", "content": "A?"}]
    assert stock.apply_chat_template(told, tokenize=False, add_generation_prompt=True) == (
        "<|im_start|>system\nBe short.<|im_end|>\n<|im_start|>user\nA?<|im_end|>\n<|im_start|>assistant\n"
    )


def test_a_template_that_writes_the_date_writes_the_same_one_every_day(parts: Path, tmp_path: Path):
    decoder = copied(parts / "qwen2", tmp_path / "decoder")
    told = json.loads((decoder / "tokenizer_config.json").read_text())
    date = "{%- set day = strftime_now('%d %b %Y') if strftime_now is defined else '26 Jul 2024' %}{{ day }}"
    edit(decoder, "tokenizer_config.json", chat_template=date + told["chat_template"])
    done = build(decoder, parts / "clip", tmp_path / "out")
    assert any("writes the day's date" in note for note in done.notes)
    asked = [{"role": "user", "content": "What?"}]
    stock: Any = hf.stock_tokenizer(tmp_path / "out")
    text = stock.apply_chat_template(asked, tokenize=False, add_generation_prompt=True)
    assert text.startswith("26 Jul 2024<|im_start|>")
    assert text == chat.prompt("What?", load_tokenizer(tmp_path / "out").template())


# What is written.


def test_pictures_as_the_tower_takes_them(built: dict[tuple[str, str], Built]):
    from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil

    for tower, norm in (("clip", images.CLIP), ("siglip", images.SIGLIP)):
        folder = built["llama", tower].folder
        assert read_norm(folder) == norm
        read = {
            name: json.loads((folder / name).read_text()) for name in ("config.json", "processor_config.json")
        }
        class_token = tower == "clip"
        assert read["config.json"]["vision_feature_select_strategy"] == ("default" if class_token else "full")
        assert read["processor_config.json"]["num_additional_image_tokens"] == int(class_token)
        assert read["config.json"]["vision_feature_layer"] == -2
        told = preprocessor_document(28, images.Transform.CROP, norm)
        stock: Any = CLIPImageProcessorPil(
            **{k: v for k, v in told.items() if k in CLIPImageProcessorPil().to_dict()}
        )
        theirs = stock(PICTURE, return_tensors="np")["pixel_values"][0]
        ours = images.pixels(PICTURE, transform="crop", size=28, norm=norm)
        assert np.array_equal(ours, theirs)


def test_padding_is_filled_with_the_mean_of_the_tower():
    line = Image.new("RGB", (28, 2), (255, 255, 255))
    assert images.view(line, transform="pad", size=28, norm=images.SIGLIP).getpixel((0, 0)) == (127, 127, 127)
    assert images.view(line, transform="pad", size=28).getpixel((0, 0)) == images.PAD_COLOUR


@pytest.mark.parametrize("kind", TOWERS)
def test_a_whole_clip_gives_its_tower(kind: str, parts: Path, families: Any, tmp_path: Path):
    whole = families.make_tower(tmp_path / "whole", kind, whole=True, size=30, patch=14)
    done = build(parts / "qwen2", whole, tmp_path / "out")
    assert done.image_tokens == 4  # 30 pixels hold two patches of 14 in each direction
    assert LocalGenerator.load(tmp_path / "out").answer(
        [Request(image=PICTURE, question="?", max_new_tokens=3)]
    )


def test_new_rows_are_the_mean_of_the_old_ones(built: dict[tuple[str, str], Built], parts: Path):
    before = {name: tensor.load() for name, tensor in open_tensors(parts / "llama").items()}
    after = open_tensors(built["llama", "clip"].folder)
    for old, new in (("model.embed_tokens.weight", EMBEDDING), ("lm_head.weight", HEAD)):
        rows = after[new].load()
        assert len(rows) == len(before[old]) + 3
        assert torch.allclose(rows[-3:], before[old].mean(0).expand(3, -1), atol=1e-6)


@pytest.mark.parametrize(("spare", "rows"), [(2, 3), (3, 3), (20, 20)])
def test_rows_that_no_token_uses_are_used_first(
    spare: int, rows: int, parts: Path, families: Any, tmp_path: Path
):
    decoder = families.make_decoder(tmp_path / "decoder", "qwen2", spare=spare)
    tokens = load_tokenizer(decoder).vocab_size
    done = build(decoder, parts / "clip", tmp_path / "out")
    assert done.vocabulary == tokens + rows
    old = open_tensors(decoder)["model.embed_tokens.weight"].load()
    new = open_tensors(tmp_path / "out")[EMBEDDING].load()
    assert HEAD not in open_tensors(tmp_path / "out")
    assert torch.equal(new[:tokens], old[:tokens])
    assert torch.allclose(new[tokens : tokens + 3], old[:tokens].mean(0).expand(3, -1), atol=1e-6)
    assert torch.equal(new[tokens + 3 :], old[tokens + 3 :])
    assert "holds beyond its tokenizer" in done.notes[-1]


@pytest.mark.parametrize("family", FAMILIES)
def test_a_linear_projector_is_had_back_alone(
    built: dict[tuple[str, str], Built], family: str, tmp_path: Path
):
    for tower in TOWERS:
        folder = built[family, tower].folder
        to_projector(folder, tmp_path / f"{tower}.bin")
        stored = open_tensors(folder)["multi_modal_projector.linear_1.weight"].load()
        assert torch.equal(read_projector(tmp_path / f"{tower}.bin").weight, stored)
    with pytest.raises(ModelError, match="no place in the original's layout.*--projector-only"):
        to_llava(built["qwen2", "clip"].folder, tmp_path / "back")


def test_the_projector_follows_from_the_seed(parts: Path, tmp_path: Path):
    names = ("one", "same", "other")
    for name, seed in zip(names, (1, 1, 2), strict=True):
        build(parts / "llama", parts / "clip", tmp_path / name, seed=seed, projector="mlp")
    one, same, other = ((tmp_path / name / "model.safetensors").read_bytes() for name in names)
    assert one == same
    assert one != other
    model = hf.load_llava(tmp_path / "one")
    assert hf.projector_layout(model) is ProjectorLayout.MLP
    weight = model.get_parameter("model.multi_modal_projector.linear_1.weight")
    assert 0.2 < float(weight.detach().abs().max()) <= 0.25  # 1 / sqrt(16)


def test_numbers_are_the_decoders_unless_told(parts: Path, families: Any, tmp_path: Path):
    half = families.make_decoder(tmp_path / "half", "mistral", dtype=torch.bfloat16)
    assert build(half, parts / "siglip", tmp_path / "a").dtype is torch.bfloat16
    build(half, parts / "siglip", tmp_path / "b", dtype=torch.float16)
    for name, dtype in (("a", torch.bfloat16), ("b", torch.float16)):
        assert {tensor.dtype for tensor in open_tensors(tmp_path / name).values()} == {dtype}


def test_without_start_and_end(parts: Path, tmp_path: Path):
    done = build(parts / "llama3", parts / "clip", tmp_path / "out", start_end=False)
    assert done.new_tokens == ("<im_patch>",)
    tokenizer = load_tokenizer(tmp_path / "out")
    assert not tokenizer.has_start_end
    assert prompt(tokenizer).count(tokenizer.image_patch_id) == 4
    assert "<im_start>" not in tokenizer.chat_template


def test_a_named_conversation(parts: Path, tmp_path: Path):
    done = build(parts / "qwen2", parts / "clip", tmp_path / "out", conversation="mpt_multimodal")
    assert (done.conversation, done.end) == ("mpt_multimodal", "<|im_end|>")
    assert load_tokenizer(tmp_path / "out").template().name == "mpt_multimodal"
    with pytest.raises(ConfigError, match="'llava_v1' ends its answers with '</s>', which is no token"):
        build(parts / "qwen2", parts / "clip", tmp_path / "no", conversation="llava_v1")
    assert not (tmp_path / "no").exists()


def test_a_llama_keeps_its_exact_tokenizer(built: dict[tuple[str, str], Built], tiny_sentencepiece: bytes):
    done = built["llama", "clip"]
    assert done.conversation == "llava_v1"
    assert (done.folder / "tokenizer.model").read_bytes() == tiny_sentencepiece
    tokenizer = load_tokenizer(done.folder)
    # The image tokens strip the white space around them, as they did in the original.
    text = "it?\n <im_patch> \n"
    assert tokenizer.encode(text) == [*tokenizer.encode("it?"), tokenizer.image_patch_id]


def test_ends_of_generation(parts: Path, tmp_path: Path):
    decoder = copied(parts / "qwen2", tmp_path / "decoder")
    (decoder / "generation_config.json").write_text('{"eos_token_id": [7, 8, true, "x"]}')
    build(decoder, parts / "clip", tmp_path / "out")
    told = json.loads((tmp_path / "out" / "generation_config.json").read_text())
    assert told["eos_token_id"] == [load_tokenizer(tmp_path / "out").token_id("<|im_end|>"), 7, 8]


# What is refused.


def test_folders_of_other_kinds_are_named(built: dict[tuple[str, str], Built], parts: Path, tmp_path: Path):
    whole = built["llama", "clip"].folder
    for decoder, tower, sentence in (
        (parts / "clip", parts / "clip", "decoders of the types llama, qwen2"),
        (whole, parts / "clip", "holds a LlavaForConditionalGeneration"),
        (parts / "llama", parts / "qwen2", "no vision tower that is known"),
    ):
        with pytest.raises(ModelError, match=sentence):
            build(decoder, tower, tmp_path / "out")
    with pytest.raises(NotFoundError, match="there is no model folder"):
        build(tmp_path / "none", parts / "clip", tmp_path / "out")
    with pytest.raises(ModelError, match="is read and would be written"):
        build(parts / "llama", parts / "clip", parts / "llama")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"architectures": ["LlavaLlamaForCausalLM"]}, "convert it instead"),
        ({"quantization_config": {"bits": 4}}, "holds quantized weights"),
        ({"num_hidden_layers": 3}, "does not fit its config.json: language_model.model.layers.2"),
        ({"hidden_size": "wide"}, "cannot make a model of this configuration"),
        ({"tie_word_embeddings": True, "intermediate_size": 65}, "does not fit its config.json"),
        ({"model_type": "gpt2"}, "model_type 'gpt2'"),
    ],
)
def test_damaged_decoders(changes: dict[str, object], sentence: str, parts: Path, tmp_path: Path):
    decoder = copied(parts / "llama3", tmp_path / "decoder")
    edit(decoder, "config.json", **changes)
    with pytest.raises(LlavarError, match=sentence):
        build(decoder, parts / "clip", tmp_path / "out")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("template", "sentence"),
    [
        (None, "carries no chat template"),
        ("{% for m in messages %}{{ m['content'] }} {% endfor %}", "goes on with '' after an answer"),
        ("{% if %}", "no valid jinja"),
        ("{{ raise_exception('never') }}", "cannot be used"),
        ("{{ messages[0]['content'] }}<|im_end|>", "after an answer, which is no token"),
    ],
)
def test_templates_that_cannot_be_learned_from(
    template: str | None, sentence: str, parts: Path, tmp_path: Path
):
    decoder = copied(parts / "qwen2", tmp_path / "decoder")
    edit(decoder, "tokenizer_config.json", chat_template=Ellipsis if template is None else template)
    with pytest.raises(ConfigError, match=sentence):
        build(decoder, parts / "clip", tmp_path / "out")


def test_towers_that_contradict_themselves(parts: Path, tmp_path: Path):
    tower = copied(parts / "siglip", tmp_path / "tower")
    (tower / "preprocessor_config.json").write_text('{"image_mean": [0.1, 0.2, 0.3], "image_std": [1, 1, 1]}')
    with pytest.raises(ModelError, match="takes pictures with mean"):
        build(parts / "llama", tower, tmp_path / "out")
    (tower / "preprocessor_config.json").write_text(
        '{"image_mean": [0.5, 0.5, 0.5], "image_std": [0.5, 0.5, 0.5]}'
    )
    for layer in (-5, 4):
        with pytest.raises(
            ConfigError, match=f"select_layer is {layer} and the tower has 3 layers; give -4 to 3"
        ):
            build(parts / "llama", tower, tmp_path / "out", select_layer=layer)
    assert build(parts / "llama", tower, tmp_path / "out", select_layer=1).image_tokens == 4
    with pytest.raises(ConfigError, match="projector is 'fold'"):
        build(parts / "llama", tower, tmp_path / "out", projector="fold")


@pytest.mark.parametrize("mean", ['"x"', "[1, 2]", "[0.5, 0.5, null]", "[0.5, 0.5, 2]", "[0.5, NaN, 0.5]"])
def test_statistics_of_strangers(mean: str, tmp_path: Path):
    (tmp_path / "preprocessor_config.json").write_text(f'{{"image_mean": {mean}}}')
    with pytest.raises(ModelError, match="image_mean"):
        read_norm(tmp_path)


def test_saved_again_it_is_the_same(built: dict[tuple[str, str], Built], tmp_path: Path):
    """As training leaves it: through the stock class, with a tower that is no CLIP and tied embeddings."""
    done = built["qwen2", "siglip"]
    hf.save_llava(hf.load_llava(done.folder), tmp_path / "out")
    before, after = open_tensors(done.folder), open_tensors(tmp_path / "out")
    assert before.keys() == after.keys()
    assert all(torch.equal(before[name].load(), after[name].load()) for name in before)
    for name in ("preprocessor_config.json", "processor_config.json", "config.json"):
        assert (tmp_path / "out" / name).read_text() == (done.folder / name).read_text()


# The command.


def test_the_command(parts: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    said = ["convert", "build", "--decoder", str(parts / "llama"), "--vision-tower", str(parts / "siglip")]
    assert cli.main([*said, "--out", str(tmp_path / "a"), "--projector", "mlp", "--seed", "3", "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert (told["projector"], told["seed"], told["conversation"]) == ("mlp", 3, "llava_v1")
    assert (tmp_path / "a" / "README.md").is_file()
    assert cli.main([*said, "--out", str(tmp_path / "b"), "--no-start-end", "--dtype", "float16"]) == 0
    shown = capsys.readouterr()
    assert "the projector is untrained" in shown.out
    assert "<im_patch> are new rows" in shown.err
    assert cli.main([*said, "--out", str(tmp_path / "c"), "--conversation", "plain"]) == 2
    assert "throws the instruction away" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        cli.main([*said, "--out", str(tmp_path / "c"), "--seed", "-1"])
