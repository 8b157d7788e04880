"""Checkpoints of the original made here, converted and compared with a forward pass of their own."""

from __future__ import annotations

import hashlib
import json
import pickle
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor
from transformers import AutoTokenizer, LlavaForConditionalGeneration

from llavar import chat
from llavar.errors import ConfigError, FetchError, LlavarError, ModelError, NotFoundError
from llavar.images import Transform
from llavar.models import convert, selftest
from llavar.models import folder as folders
from llavar.models._hf import read_transform
from llavar.models.convert import Options, from_llava, to_llava, to_projector
from llavar.models.projector import Linear
from llavar.models.projector_file import read_projector, write_projector
from llavar.models.shape import ProjectorLayout
from llavar.models.stored import open_tensors
from llavar.models.tokenizer import load_tokenizer
from llavar.records import Conversation

FOLD, IDENTITY = ProjectorLayout.FOLD, ProjectorLayout.IDENTITY
QUICK = Options(self_test=False)
QUESTION = "What does the sign say?\n<image>"
Make = Callable[..., Any]


@pytest.fixture
def make(originals: Any, tiny_sentencepiece: bytes, tmp_path: Path) -> Make:
    def make(name: str = "llava", **options: Any) -> Any:
        return originals.make_original(tmp_path / "in" / name, tiny_sentencepiece, **options)

    return make


def stock_logits(folder: Path, ids: list[int], pixels: Tensor) -> Tensor:
    model = LlavaForConditionalGeneration.from_pretrained(folder, dtype=torch.float32).eval()
    with torch.no_grad():
        return model(input_ids=torch.tensor([ids]), pixel_values=pixels).logits[0]


def edit_config(folder: Path, **changes: object) -> None:
    path = folder / "config.json"
    document = {**json.loads(path.read_text()), **changes}
    path.write_text(json.dumps({k: v for k, v in document.items() if v is not ...}))


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


# ---------------------------------------------------------------- what comes out


@pytest.mark.parametrize(
    ("layout", "start_end", "v0", "kind", "dtype"),
    [
        (FOLD, True, False, "bin", torch.float32),
        (FOLD, False, False, "shards", torch.float16),
        (FOLD, True, True, "safetensors", torch.bfloat16),
        (IDENTITY, True, False, "shards", torch.float32),
    ],
)
def test_logits_of_the_stock_class(
    make: Make,
    tmp_path: Path,
    layout: ProjectorLayout,
    start_end: bool,
    v0: bool,
    kind: str,
    dtype: torch.dtype,
):
    original = make(start_end=start_end, v0=v0, kind=kind, dtype=dtype)
    out = tmp_path / "out"
    done = from_llava(original.folder, out, options=Options(layout=layout))
    assert done.tested
    assert done.tested.logits is not None
    assert done.tested.logits <= 2e-4

    tokenizer = AutoTokenizer.from_pretrained(out)
    text = chat.expand_images(chat.prompt(QUESTION, chat.get(done.conversation)), 4, start_end)
    ids = tokenizer(text)["input_ids"]
    pixels = torch.randn(1, 3, 16, 16, generator=torch.Generator().manual_seed(1))
    patch = tokenizer.convert_tokens_to_ids("<im_patch>")
    assert ids.count(patch) == 4
    wanted = original.logits(ids, pixels, patch)
    assert float((stock_logits(out, ids, pixels) - wanted).abs().max()) <= 2e-4
    other = stock_logits(out, ids, pixels.flip(-1))
    assert float((other - wanted).abs().max()) > 1e-2, "the picture must matter"


def test_files_and_configuration(make: Make, tmp_path: Path):
    original = make()
    out = tmp_path / "out"
    from_llava(original.folder, out, options=QUICK)
    assert names(out) == [
        "README.md",
        "chat_template.jinja",
        "checksums.sha256",
        "config.json",
        "generation_config.json",
        "model.safetensors",
        "preprocessor_config.json",
        "processor_config.json",
        "special_tokens_map.json",
        "tokenizer.json",
        "tokenizer.model",
        "tokenizer_config.json",
    ]
    config = json.loads((out / "config.json").read_text())
    patch = load_tokenizer(out).image_patch_id
    assert config["architectures"] == ["LlavaForConditionalGeneration"]
    assert config["vision_feature_layer"] == -2
    assert config["vision_feature_select_strategy"] == "default"
    assert (config["image_token_index"], config["image_seq_length"]) == (patch, 4)
    assert config["tie_word_embeddings"] is False
    assert config["projector_hidden_act"] == "gelu"
    assert config["image_aspect_ratio"] == "pad"
    assert config["text_config"]["vocab_size"] == patch + 3
    processor = json.loads((out / "processor_config.json").read_text())
    assert (processor["image_token"], processor["patch_size"]) == ("<im_patch>", 8)
    assert processor["num_additional_image_tokens"] == 1
    keys = set(load_file(out / "model.safetensors"))
    assert {"language_model.model.embed_tokens.weight", "language_model.lm_head.weight"} <= keys
    assert "vision_tower.vision_model.embeddings.class_embedding" in keys
    assert not any("inv_freq" in key or "mm_projector" in key for key in keys)
    generation = json.loads((out / "generation_config.json").read_text())
    assert generation == {"bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 0}


def test_checksums_and_card_say_what_it_was_made_from(make: Make, tmp_path: Path):
    original = make()
    out = tmp_path / "out"
    from_llava(original.folder, out, options=replace(QUICK, layout=IDENTITY))
    listed = dict(reversed(line.split("  ")) for line in (out / "checksums.sha256").read_text().splitlines())
    assert sorted([*listed, "checksums.sha256"]) == names(out)
    for name, digest in listed.items():
        assert hashlib.sha256((out / name).read_bytes()).hexdigest() == digest
    card = (out / "README.md").read_text()
    weights = original.folder / "pytorch_model.bin"
    assert hashlib.sha256(weights.read_bytes()).hexdigest() in card
    assert "torch.nn.modules.linear.Identity" in card
    assert "Not run." in card
    from_llava(original.folder, out)
    card = (out / "README.md").read_text()
    assert "Identity" not in card
    assert "equal to the bit" in card


@pytest.mark.parametrize(
    ("start_end", "picture"), [(True, "<im_start><im_patch><im_end>"), (False, "<im_patch>")]
)
def test_the_chat_template_writes_the_originals_prompt(
    make: Make, tmp_path: Path, start_end: bool, picture: str
):
    out = tmp_path / "out"
    from_llava(make(start_end=start_end).folder, out, options=QUICK)
    parts = [{"type": "text", "text": "What?"}, {"type": "image"}]
    said = AutoTokenizer.from_pretrained(out).apply_chat_template(
        [{"role": "user", "content": parts}], tokenize=False, add_generation_prompt=True
    )
    assert said == "<s>" + chat.prompt("What?\n<image>", chat.get("llava_v1")).replace("<image>", picture)
    assert load_tokenizer(out).template().name == "llava_v1"


def test_a_bare_tokenizer_model_gets_the_tokens_that_the_rows_say(make: Make, tmp_path: Path):
    for number, (v0, start_end) in enumerate([(False, True), (False, False), (True, True), (True, False)]):
        original = make(f"m{number}", v0=v0, start_end=start_end)
        wanted = load_tokenizer(original.folder)
        (original.folder / "added_tokens.json").unlink()
        from_llava(original.folder, tmp_path / f"out{number}", options=QUICK)
        found = load_tokenizer(tmp_path / f"out{number}")
        for token in ("[PAD]", "<im_patch>", "<im_start>", "<im_end>"):
            assert found.lookup(token) == wanted.lookup(token)


def test_a_fast_tokenizer_that_another_tool_left_is_not_used(make: Make, tmp_path: Path):
    original = make()
    (original.folder / "tokenizer.json").write_text("{ made by another version }")
    from_llava(original.folder, tmp_path / "out", options=QUICK)
    text = "What  does <im_start> the sign"
    assert load_tokenizer(tmp_path / "out").encode(text) == load_tokenizer(
        original.folder, prefer_original=True
    ).encode(text)


def test_dtype_and_shards(make: Make, tmp_path: Path):
    original = make()
    out = tmp_path / "out"
    options = Options(dtype=torch.float16, max_shard_bytes=60_000)
    done = from_llava(original.folder, out, options=options)
    assert done.dtype_name == "float16"
    assert len(list(out.glob("model-*-of-*.safetensors"))) > 1
    tensors = open_tensors(out)
    assert {tensor.dtype for tensor in tensors.values()} == {torch.float16}
    assert json.loads((out / "config.json").read_text())["dtype"] == "float16"
    head = original.state["lm_head.weight"].to(torch.float16)
    assert torch.equal(tensors["language_model.lm_head.weight"].load(), head)


def test_early_llama_conversions_get_the_tokenizers_ids(make: Make, tmp_path: Path):
    original = make()
    edit_config(original.folder, bos_token_id=0, eos_token_id=1, pad_token_id=-1, max_sequence_length=2048)
    done = from_llava(original.folder, tmp_path / "out", options=QUICK)
    text = json.loads((tmp_path / "out" / "config.json").read_text())["text_config"]
    assert (text["bos_token_id"], text["eos_token_id"], text["pad_token_id"]) == (1, 2, 0)
    assert any("bos_token_id is 0" in note for note in done.notes)


# ---------------------------------------------------------------- conversation, pictures


@pytest.mark.parametrize(
    ("name", "v0", "given", "expected"),
    [
        ("ckpt", False, "", "llava_v1"),
        ("ckpt", True, "", "multimodal"),
        ("ckpt", True, "llava_v1", "llava_v1"),
        ("LLaVA-13b-v1-1", False, "", "llava_v1"),
        ("LLaVA-13b-V0", True, "", "multimodal"),
        ("ckpt", False, "vicuna_v1_1", "vicuna_v1_1"),
        ("llava-v1", True, "llava_v1", "llava_v1"),
    ],
)
def test_the_conversation(make: Make, tmp_path: Path, name: str, v0: bool, given: str, expected: str):
    original = make(name, v0=v0)
    done = from_llava(original.folder, tmp_path / "out", options=replace(QUICK, conversation=given))
    assert done.conversation == expected
    assert load_tokenizer(tmp_path / "out").template().name == expected


@pytest.mark.parametrize(
    ("name", "v0", "given", "both"),
    [
        ("llava-v1", False, "multimodal", ("multimodal", "llava_v1")),
        ("llava-mpt", False, "llava_v1", ("llava_v1", "mpt_multimodal")),
        ("llava-v0", False, "", ("multimodal", "llava_v1")),
        ("llava-v1", True, "", ("llava_v1", "multimodal")),
    ],
)
def test_a_disagreement_names_both(
    make: Make, tmp_path: Path, name: str, v0: bool, given: str, both: tuple[str, str]
):
    original = make(name, v0=v0)
    with pytest.raises(ConfigError, match=f"{both[0]}.*{both[1]}.*rename the folder"):
        from_llava(original.folder, tmp_path / "out", options=replace(QUICK, conversation=given))
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(("aspect", "found"), [("pad", "pad"), ("square", "crop"), (None, "pad")])
def test_the_image_transform_of_the_config(make: Make, tmp_path: Path, aspect: str | None, found: str):
    original = make()
    edit_config(original.folder, image_aspect_ratio=aspect)
    from_llava(original.folder, tmp_path / "out", options=QUICK)
    assert read_transform(tmp_path / "out") is Transform(found)


def test_the_image_transform_said_and_unknown(make: Make, tmp_path: Path):
    original = make()
    edit_config(original.folder, image_aspect_ratio="keep")
    with pytest.raises(ModelError, match="'keep'.*say --transform"):
        from_llava(original.folder, tmp_path / "out", options=QUICK)
    from_llava(original.folder, tmp_path / "out", options=replace(QUICK, transform=Transform.FIT))
    assert read_transform(tmp_path / "out") is Transform.FIT


def test_options_are_checked_at_once():
    with pytest.raises(ConfigError, match="not mlp"):
        Options(layout=ProjectorLayout.MLP)
    with pytest.raises(ConfigError, match="'nonsense' is not known"):
        Options(conversation="nonsense")


# ---------------------------------------------------------------- the tower


@pytest.mark.parametrize("kind", ["bin", "safetensors"])
def test_a_whole_clip_is_a_tower_too(make: Make, originals: Any, tmp_path: Path, kind: str):
    original = make()
    whole = tmp_path / "clip"
    originals.write_tower(whole, original.vision, whole=True, kind=kind)
    from_llava(original.folder, tmp_path / "one", options=QUICK)
    from_llava(original.folder, tmp_path / "two", vision_tower=whole, options=QUICK)
    one, two = (load_file(tmp_path / name / "model.safetensors") for name in ("one", "two"))
    assert one.keys() == two.keys()
    assert all(torch.equal(one[name], two[name]) for name in one)


def test_the_tower_named_is_looked_for_upwards_and_the_flag_wins(make: Make, tmp_path: Path):
    original = make("deep/er/llava", text=48)
    # make wrote the tower beside the checkpoint; move it up.
    original.tower_folder.rename(tmp_path / "in" / "tower")
    done = from_llava(original.folder, tmp_path / "out", options=QUICK)
    assert done.tower == f"tower ({tmp_path / 'in' / 'tower'})"
    edit_config(original.folder, mm_vision_tower="../../../nothing")
    done = from_llava(
        original.folder, tmp_path / "out", vision_tower=tmp_path / "in" / "tower", options=QUICK
    )
    assert done.tower == str(tmp_path / "in" / "tower")


@pytest.mark.parametrize(
    ("named", "message"),
    [
        (..., "names no vision tower"),
        (3, "names no vision tower"),
        ("../../nothing/clip", "no model folder"),
        ("../../../../../../../../etc", "not a complete model folder|no model folder"),
        ("a\0b", "names no vision tower"),
        ("x" * 2000, "names no vision tower"),
    ],
)
def test_towers_that_cannot_be_had(make: Make, tmp_path: Path, named: object, message: str):
    original = make()
    edit_config(original.folder, mm_vision_tower=named)
    with pytest.raises(ModelError, match=f"(?s){message}.*--vision-tower DIR"):
        from_llava(original.folder, tmp_path / "out", options=QUICK)


def test_a_tower_on_the_hub_without_a_network(make: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    def refuse(*args: object, **kwargs: object) -> str:
        raise OSError("no route")

    monkeypatch.setattr("huggingface_hub.snapshot_download", refuse)
    original = make()
    edit_config(original.folder, mm_vision_tower="openai/clip-vit-large-patch14-336")
    with pytest.raises(ModelError, match="patch14-336.*no route; say --vision-tower DIR"):
        from_llava(original.folder, tmp_path / "out", options=QUICK)
    with pytest.raises(FetchError, match="no route"):
        from_llava(original.folder, tmp_path / "out", vision_tower="openai/clip", options=QUICK)


def test_a_tower_on_the_hub_that_has_only_bin(make: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """As openai/clip-vit-large-patch14-336 is."""
    original, asked = make(), list[list[str]]()

    def download(name: str, allow_patterns: list[str]) -> str:
        asked.append(allow_patterns)
        return str(tmp_path / "cache")

    monkeypatch.setattr("huggingface_hub.snapshot_download", download)
    original.tower_folder.rename(tmp_path / "cache")
    state = load_file(tmp_path / "cache" / "model.safetensors")
    (tmp_path / "cache" / "model.safetensors").unlink()
    torch.save(state, tmp_path / "cache" / "pytorch_model.bin")
    from_llava(original.folder, tmp_path / "out", vision_tower="openai/clip", options=QUICK)
    assert ["*.bin" in patterns for patterns in asked] == [False, True]


def test_a_tower_of_another_width_or_kind(make: Make, tmp_path: Path):
    original, other = make(), make("other/llava", vision=20)
    with pytest.raises(ModelError, match="width 16 .*gives 20.*--vision-tower"):
        from_llava(original.folder, tmp_path / "out", vision_tower=other.tower_folder, options=QUICK)
    edit_config(other.tower_folder, model_type="siglip_vision_model")
    with pytest.raises(ModelError, match="'siglip_vision_model' and no CLIP"):
        from_llava(original.folder, tmp_path / "out", vision_tower=other.tower_folder, options=QUICK)
    edit_config(original.tower_folder, num_hidden_layers=4)
    with pytest.raises(ModelError, match="tower does not fit.*layers.3.*is missing"):
        from_llava(original.folder, tmp_path / "out", options=QUICK)
    assert names(tmp_path) == ["in"]


# ---------------------------------------------------------------- what is refused


def test_a_narrow_decoder_cannot_be_folded(make: Make, tmp_path: Path):
    original = make(text=24)
    with pytest.raises(ModelError, match=r"at least twice as wide.*\(32\).*24 wide.*--layout identity"):
        from_llava(original.folder, tmp_path / "out")
    assert not (tmp_path / "out").exists()
    assert from_llava(original.folder, tmp_path / "out", options=Options(layout=IDENTITY)).tested


class Evil:
    """Its pickle calls a function when it is read."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return (Path.touch, (self.path,))


def _evil(folder: Path) -> None:
    torch.save({"x": Evil(folder.parent / "ran")}, folder / "pytorch_model.bin", pickle_module=pickle)


def _truncated(folder: Path) -> None:
    path = folder / "pytorch_model.bin"
    path.write_bytes(path.read_bytes()[:-2000])


def _pointer(folder: Path) -> None:
    text = "version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 13\n"
    (folder / "pytorch_model.bin").write_text(text)


def _tokenizer_pointer(folder: Path) -> None:
    (folder / "tokenizer.model").write_text("version https://git-lfs.github.com/spec/v1\nsize 499723\n")


def _without(*gone: str) -> Callable[[Path], None]:
    def change(folder: Path) -> None:
        state = torch.load(folder / "pytorch_model.bin", weights_only=True)
        torch.save({k: v for k, v in state.items() if k not in gone}, folder / "pytorch_model.bin")

    return change


def _with(name: str, value: Tensor) -> Callable[[Path], None]:
    def change(folder: Path) -> None:
        state = torch.load(folder / "pytorch_model.bin", weights_only=True)
        torch.save({**state, name: value}, folder / "pytorch_model.bin")

    return change


def _config(**changes: object) -> Callable[[Path], None]:
    return lambda folder: edit_config(folder, **changes)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (_truncated, "pytorch_model.bin is damaged or truncated"),
        (_pointer, "Git LFS pointer.*git lfs pull"),
        (_evil, "only tensors are read from pickles"),
        (_without("model.mm_projector.weight"), "decoder without a projector.*--base"),
        (_without("model.embed_tokens.weight"), "has no model.embed_tokens.weight"),
        (_without("model.norm.weight"), "norm.weight is missing"),
        (_with("model.layers.7.x", torch.ones(1)), "layers.7.x is .1. and should be absent"),
        (_with("model.norm.weight", torch.ones(3)), r"norm.weight is \[3\] and should be \[48\]"),
        (_with("model.mm_projector.0.weight", torch.ones(1)), "LLaVA-1.5"),
        (_with("model.mm_projector.weight", torch.ones(3)), r"a projector of weight \[3\] and bias \[48\]"),
        (_with("model.mm_projector.bias", torch.ones(3)), r"weight \[48, 16\] and bias \[3\] beside"),
        (_with("model.mm_projector.weight", torch.ones(48, 16).int()), "as int32; floating point"),
        (_with("lm_head.weight", torch.ones(343, 48).long()), "lm_head.weight as int64; floating point"),
        (_with("model.embed_tokens.weight", torch.ones(7)), r"beside embeddings of \[7\]"),
        (_with("model.norm.weight", torch.full((48,), 0.01)), "is a delta: .*say --base"),
        (_config(num_attention_heads=5), "llava cannot be converted: .*; check its config.json"),
        (_with("model.vision_tower.x", torch.ones(1)), "vision tower of its own"),
        (_with("base_model.model.x", torch.ones(1)), "merge-lora"),
        (_config(vocab_size=99), r"rows in model.embed_tokens.weight and vocab_size 99"),
        (_config(architectures=["LlavaMPTForCausalLM"]), "only decoders of the LLaMA family"),
        (_config(architectures=["LlavaForConditionalGeneration"]), "converted already"),
        (_config(architectures=["BertModel"], model_type="bert"), "a LlavaLlamaForCausalLM was expected"),
        (_config(hidden_size="wide"), "hidden_size = 'wide'"),
        (_config(rope_scaling={"type": "linear", "factor": 4}), "rope_scaling"),
        (_config(mm_vision_select_layer="last"), "mm_vision_select_layer 'last'"),
        (_config(mm_vision_select_layer=-9), "vision_feature_layer -9"),
        (_tokenizer_pointer, "Git LFS pointer"),
        (lambda folder: (folder / "config.json").unlink(), "config.json cannot be read"),
        (lambda folder: (folder / "tokenizer.model").write_bytes(b"junk"), "no readable sentencepiece"),
        (lambda folder: (folder / "tokenizer.model").unlink(), "neither tokenizer.json nor tokenizer.model"),
        (lambda folder: (folder / "pytorch_model.bin").unlink(), "holds no weights|neither|LFS"),
    ],
)
def test_hostile_and_broken_checkpoints(
    make: Make, tmp_path: Path, change: Callable[[Path], None], message: str
):
    original = make()
    change(original.folder)
    with pytest.raises(LlavarError, match=f"(?s){message}"):
        from_llava(original.folder, tmp_path / "out", options=QUICK)
    assert names(tmp_path) == ["in"], "nothing may be left"
    assert not (tmp_path / "in" / "ran").exists(), "code of a pickle ran"


def test_a_failure_in_the_middle_leaves_the_old_folder(
    make: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    original, out = make(), tmp_path / "out"
    from_llava(original.folder, out, options=QUICK)
    before = (out / "checksums.sha256").read_text()

    def interrupt(*args: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(selftest, "run", interrupt)
    with pytest.raises(KeyboardInterrupt):
        from_llava(original.folder, out, options=Options(layout=IDENTITY))
    assert names(tmp_path) == ["in", "out"]
    assert (out / "checksums.sha256").read_text() == before


def test_a_source_is_never_written_over(make: Make, tmp_path: Path):
    original = make(kind="safetensors")
    for out in (original.folder, original.tower_folder):
        with pytest.raises(ModelError, match="is read and would be written"):
            from_llava(original.folder, out, options=QUICK)
    assert (original.folder / "model.safetensors").exists()


def test_what_is_not_there(tmp_path: Path):
    with pytest.raises(NotFoundError, match="no model folder 'nothing'"):
        from_llava("nothing", tmp_path / "out")


# ---------------------------------------------------------------- the self-test finds what is wrong


@pytest.mark.parametrize("layout", [FOLD, IDENTITY])
def test_the_self_test_finds_a_wrong_projector(
    make: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, layout: ProjectorLayout
):
    original = make()
    right = getattr(convert.projectors, layout.value)

    def wrong(linear: Linear) -> object:
        two = right(linear)
        return replace(two, bias_2=two.bias_2 + 0.01)

    monkeypatch.setattr(convert.projectors, layout.value, wrong)
    with pytest.raises(ModelError, match="self-test failed: .*W x \\+ b.*nothing was written"):
        from_llava(original.folder, tmp_path / "out", options=Options(layout=layout))
    assert names(tmp_path) == ["in"]


def test_the_self_test_finds_a_name_put_wrong(make: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    def swapped(name: str) -> str | None:
        key = right(name)
        return (
            key.translate(str.maketrans("kq", "qk")) if key and "self_attn" in key and "_proj" in key else key
        )

    right = convert.hub_name
    monkeypatch.setattr(convert, "hub_name", swapped)
    with pytest.raises(ModelError, match="self-test failed: logits differ"):
        from_llava(make().folder, tmp_path / "out")


def test_large_models_are_tested_without_a_forward_pass(
    make: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(selftest, "SMALL", 1000)
    done = from_llava(make().folder, tmp_path / "out")
    assert done.tested
    assert done.tested.logits is None
    assert "no whole forward pass" in done.tested.sentence()
    assert done.document()["self_test"] == done.tested.document()


# ---------------------------------------------------------------- deltas and projectors


@pytest.fixture
def base(make: Make) -> Any:
    """A LLaMA of the same shape without the added rows, in ``in/base/llama``."""
    original = make("base/llama", seed=5)
    state = {k: v for k, v in original.state.items() if "mm_projector" not in k}
    rows = len(state["lm_head.weight"]) - 3
    for name in ("lm_head.weight", "model.embed_tokens.weight"):
        state[name] = state[name][:rows].clone()
    torch.save(state, original.folder / "pytorch_model.bin")
    (original.folder / "added_tokens.json").unlink()
    edit_config(original.folder, model_type="llama", architectures=["LlamaForCausalLM"], vocab_size=rows)
    return replace(original, state=state)


def test_a_delta_is_merged_and_converted_in_one_pass(make: Make, base: Any, tmp_path: Path):
    original = make()
    delta = {name: tensor.clone() for name, tensor in original.state.items()}
    for name, tensor in base.state.items():
        delta[name][: len(tensor)] -= tensor
    torch.save(delta, original.folder / "pytorch_model.bin")
    (original.folder / "tokenizer.model").unlink()  # then the base's serves
    (original.folder / "added_tokens.json").rename(base.folder / "added_tokens.json")
    done = from_llava(original.folder, tmp_path / "out", base=base.folder)
    assert done.tested
    tensors = load_file(tmp_path / "out" / "model.safetensors")
    for name, wanted in original.state.items():
        if "mm_projector" not in name:
            assert torch.allclose(tensors[f"language_model.{name}"], wanted, atol=1e-6)
    assert f"| {base.folder.name}/pytorch_model.bin |" in (tmp_path / "out" / "README.md").read_text()


def test_a_delta_without_its_base_and_a_base_without_a_delta(make: Make, base: Any, tmp_path: Path):
    original = make("llava-13b-delta")
    _with("model.norm.weight", original.state["model.norm.weight"])(base.folder)
    with pytest.raises(ModelError, match="a whole model, not a delta|not the base"):
        from_llava(original.folder, tmp_path / "out", base=base.folder, options=QUICK)
    _with("model.norm.weight", torch.zeros(48))(original.folder)
    with pytest.raises(ModelError, match="is a delta: .*say --base"):
        from_llava(original.folder, tmp_path / "out", options=QUICK)


@pytest.mark.parametrize("start_end", [True, False])
def test_a_projector_goes_onto_its_base(make: Make, base: Any, tmp_path: Path, start_end: bool):
    linear = Linear(weight=torch.randn(48, 16), bias=torch.randn(48))
    write_projector(linear, tmp_path / "mm_projector.bin")
    options = Options(start_end=start_end)
    done = from_llava(
        tmp_path / "mm_projector.bin",
        tmp_path / "out",
        base=base.folder,
        vision_tower=base.tower_folder,
        options=options,
    )
    assert done.tested
    assert done.conversation == "llava_v1"
    new = 3 if start_end else 1
    assert f"{new} new tokens begin as the mean" in done.notes[0]
    tensors = load_file(tmp_path / "out" / "model.safetensors")
    for name in ("model.embed_tokens.weight", "lm_head.weight"):
        old, grown = base.state[name], tensors[f"language_model.{name}"]
        assert torch.equal(grown[: len(old)], old)
        assert torch.allclose(grown[len(old) :], old.mean(0).expand(new, -1), atol=1e-6)
    to_projector(tmp_path / "out", tmp_path / "again" / "p.bin")
    again = read_projector(tmp_path / "again" / "p.bin")
    assert torch.equal(again.weight, linear.weight)
    assert torch.equal(again.bias, linear.bias)


@pytest.mark.parametrize("rows", [2, 345])
def test_rows_that_stage_one_trained_are_taken(make: Make, base: Any, tmp_path: Path, rows: int):
    trained = torch.randn(rows, 48)
    state = {
        "model.mm_projector.weight": torch.randn(48, 16),
        "model.mm_projector.bias": torch.randn(48),
        "model.embed_tokens.weight": trained,
    }
    torch.save(state, tmp_path / "llava-pretrain.bin")
    done = from_llava(
        tmp_path / "llava-pretrain.bin",
        tmp_path / "out",
        base=base.folder,
        vision_tower=base.tower_folder,
        options=QUICK,
    )
    assert "2 of them trained" in done.notes[0]
    grown = load_file(tmp_path / "out" / "model.safetensors")["language_model.model.embed_tokens.weight"]
    assert torch.equal(grown[-2:], trained[-2:])


def test_a_projector_on_a_llama_2_is_remarked(base: Any, tmp_path: Path):
    edit_config(base.folder, max_position_embeddings=4096, rms_norm_eps=1e-5)
    write_projector(Linear(weight=torch.randn(48, 16), bias=torch.randn(48)), tmp_path / "p.bin")
    tower = base.tower_folder
    done = from_llava(
        tmp_path / "p.bin", tmp_path / "out", base=base.folder, vision_tower=tower, options=QUICK
    )
    assert any("is a LLaMA-2" in note for note in done.notes)


def test_projectors_that_do_not_fit(make: Make, base: Any, tmp_path: Path):
    file = tmp_path / "mm_projector.bin"
    write_projector(Linear(weight=torch.ones(40, 16), bias=torch.ones(40)), file)
    with pytest.raises(ModelError, match="taken for a projector.*--base DIR"):
        from_llava(file, tmp_path / "out", options=QUICK)
    with pytest.raises(ModelError, match="width 40 .* is 48 wide"):
        from_llava(file, tmp_path / "out", base=base.folder, options=QUICK)
    write_projector(Linear(weight=torch.ones(48, 16), bias=torch.ones(48)), file)
    edit_config(base.folder, mm_vision_tower=...)
    with pytest.raises(ModelError, match="names no vision tower"):
        from_llava(file, tmp_path / "out", base=base.folder, options=QUICK)
    with pytest.raises(ModelError, match="model_type 'llava'.*LLaMA or Vicuna"):
        from_llava(file, tmp_path / "out", base=make().folder, options=QUICK)
    (base.folder / "added_tokens.json").write_text('{"[PAD]": 340}')
    with pytest.raises(ModelError, match="tokens and its embedding 3"):
        from_llava(file, tmp_path / "out", base=base.folder, options=QUICK)
    assert names(tmp_path) == ["in", "mm_projector.bin"]


@pytest.mark.parametrize(
    ("state", "message"),
    [
        ({}, "holds no tensors"),
        (
            {"model.mm_projector.weight": torch.ones(2, 2)},
            "has 0 tensors whose name ends in mm_projector.bias",
        ),
        (
            {"mm_projector.weight": torch.ones(2, 2), "mm_projector.bias": torch.ones(3)},
            "as long as the matrix",
        ),
        (
            {"mm_projector.weight": torch.ones(2, 2, dtype=torch.int8), "mm_projector.bias": torch.ones(2)},
            "floating point was expected",
        ),
        (
            {f"{p}mm_projector.{n}": torch.ones(2, 2) for p in ("a.", "b.") for n in ("weight", "bias")},
            "has 2 tensors",
        ),
    ],
)
def test_files_that_hold_no_projector(tmp_path: Path, state: dict[str, Tensor], message: str):
    torch.save(state, tmp_path / "p.bin")
    with pytest.raises(ModelError, match=message):
        read_projector(tmp_path / "p.bin")


def test_projector_files_of_every_kind(tmp_path: Path):
    weight, bias = torch.randn(3, 2), torch.randn(3)
    state = {"module.model.mm_projector.weight": weight, "module.model.mm_projector.bias": bias}
    torch.save(state, tmp_path / "new.bin")
    torch.save(state, tmp_path / "old.bin", _use_new_zipfile_serialization=False)
    save_file(state, tmp_path / "p.safetensors")
    for name in ("new.bin", "old.bin", "p.safetensors"):
        linear = read_projector(tmp_path / name)
        assert torch.equal(linear.weight, weight)
        assert torch.equal(linear.bias, bias)
    with pytest.raises(NotFoundError, match="no projector file"):
        read_projector(tmp_path / "none.bin")


def test_a_projector_file_that_would_run_code(tmp_path: Path):
    torch.save({"mm_projector.weight": Evil(tmp_path / "ran")}, tmp_path / "p.bin")
    with pytest.raises(ModelError, match="nothing of it was run"):
        read_projector(tmp_path / "p.bin")
    assert not (tmp_path / "ran").exists()


# ---------------------------------------------------------------- and back


@pytest.mark.parametrize("layout", [FOLD, IDENTITY])
def test_there_and_back(make: Make, tmp_path: Path, layout: ProjectorLayout):
    original = make(dtype=torch.float16, kind="shards")
    from_llava(original.folder, tmp_path / "out", options=replace(QUICK, layout=layout))
    done = to_llava(tmp_path / "out", tmp_path / "back-v1")
    assert done.tensors == len(original.state)
    back = {name: tensor.load() for name, tensor in open_tensors(tmp_path / "back-v1").items()}
    assert back.keys() == original.state.keys()
    assert all(torch.equal(back[name], wanted) for name, wanted in original.state.items())
    tower = load_file(tmp_path / "back-v1" / "vision_tower" / "model.safetensors")
    assert tower.keys() == original.tower.keys()
    assert all(torch.equal(tower[name], wanted) for name, wanted in original.tower.items())
    old, new = (json.loads((f / "config.json").read_text()) for f in (original.folder, tmp_path / "back-v1"))
    free = ("mm_vision_tower", "rope_scaling", "initializer_range")
    assert {k: new.get(k) for k in old if k not in free} == {k: old[k] for k in old if k not in free}
    assert not [note for note in done.notes if "conversation" in note]
    for name in ("tokenizer.model", "added_tokens.json"):
        assert load_tokenizer(tmp_path / "back-v1").vocab_size == load_tokenizer(original.folder).vocab_size
        assert (tmp_path / "back-v1" / name).is_file()
    from_llava(tmp_path / "back-v1", tmp_path / "again", options=replace(QUICK, layout=layout))
    one, two = (load_file(tmp_path / name / "model.safetensors") for name in ("out", "again"))
    assert all(torch.equal(one[name], two[name]) for name in one)


def test_back_without_a_sentencepiece_file_and_with_a_tower_elsewhere(make: Make, tmp_path: Path):
    from_llava(make().folder, tmp_path / "out", options=QUICK)
    (tmp_path / "out" / "tokenizer.model").unlink()
    done = to_llava(tmp_path / "out", tmp_path / "back", vision_tower="openai/clip")
    assert any("no tokenizer.model" in note for note in done.notes)
    assert any("'llava_v1', and the original would take 'multimodal'" in note for note in done.notes)
    assert not (tmp_path / "back" / "vision_tower").exists()
    assert json.loads((tmp_path / "back" / "config.json").read_text())["mm_vision_tower"] == "openai/clip"
    text = chat.prompt(Conversation.of("What  is it?"), chat.get("llava_v1"))
    assert load_tokenizer(tmp_path / "back").encode(text) == load_tokenizer(tmp_path / "out").encode(text)


def test_what_does_not_go_back(make: Make, tmp_path: Path):
    original, out = make(), tmp_path / "out"
    with pytest.raises(ModelError, match="in the original's layout already"):
        to_llava(original.folder, tmp_path / "back")
    from_llava(original.folder, out, options=QUICK)
    with pytest.raises(ModelError, match="is read and would be written"):
        to_llava(out, out)
    state = load_file(out / "model.safetensors")
    state["multi_modal_projector.linear_1.weight"] += 1
    save_file(state, out / "model.safetensors")
    with pytest.raises(ModelError, match="two layers of its own"):
        to_llava(out, tmp_path / "back")
    del state["language_model.lm_head.weight"]
    save_file(state, out / "model.safetensors")
    with pytest.raises(ModelError, match="lm_head.weight is missing"):
        to_llava(out, tmp_path / "back")
    del state["multi_modal_projector.linear_2.bias"]
    save_file(state, out / "model.safetensors")
    with pytest.raises(ModelError, match="no projector of two layers"):
        to_projector(out, tmp_path / "back")
    assert names(tmp_path) == ["in", "out"]


def test_hub_names_are_told_whether_binaries_are_wanted(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    asked = list[list[str]]()
    monkeypatch.setattr(
        "huggingface_hub.snapshot_download",
        lambda name, allow_patterns: asked.append(allow_patterns) or tmp_path,
    )
    assert folders.resolve("some/model") == tmp_path
    assert not any("*.bin" in patterns for patterns in asked)
