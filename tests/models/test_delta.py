"""Deltas applied and made: the arithmetic, the way back, and every base or delta that is refused."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file

from llavar.errors import ModelError, NotFoundError
from llavar.models import delta, exact, stored

Tensors = dict[str, torch.Tensor]
EMBEDDING, HEAD, NORM = "model.embed_tokens.weight", "lm_head.weight", "model.norm.weight"
PROJECTOR = "model.mm_projector.weight"
QUERY = "model.layers.0.self_attn.q_proj.weight"
FREQUENCIES = "model.layers.0.self_attn.rotary_emb.inv_freq"
BASE_CONFIG = {"model_type": "llama", "rms_norm_eps": 1e-6, "max_position_embeddings": 2048}
OWN_CONFIG = BASE_CONFIG | {"model_type": "llava", "vocab_size": 23}


def random(
    *shape: int, scale: float = 0.1, seed: int = 0, dtype: torch.dtype = torch.float16
) -> torch.Tensor:
    return (torch.randn(shape, generator=torch.Generator().manual_seed(seed)) * scale).to(dtype)


def base_tensors(dtype: torch.dtype = torch.float16) -> Tensors:
    return {
        EMBEDDING: random(20, 8, seed=1, dtype=dtype),
        QUERY: random(8, 8, seed=2, dtype=dtype),
        FREQUENCIES: torch.tensor([1.0, 0.1, 0.01, 0.001]),
        NORM: random(8, seed=3, dtype=dtype) + 1,
        HEAD: random(20, 8, seed=4, dtype=dtype),
    }


def own_tensors(scale: float, dtype: torch.dtype = torch.float16) -> Tensors:
    """A delta (small ``scale``), or what is to be added to the base's values to get a target."""
    return {
        EMBEDDING: random(23, 8, scale=scale, seed=5, dtype=dtype),
        QUERY: random(8, 8, scale=scale, seed=6, dtype=dtype),
        FREQUENCIES: torch.zeros(4),
        NORM: random(8, scale=scale, seed=7, dtype=dtype),
        HEAD: random(23, 8, scale=scale, seed=8, dtype=dtype),
        PROJECTOR: random(8, 4, seed=9, dtype=dtype),
        "model.mm_projector.bias": random(8, seed=10, dtype=dtype),
    }


def target_tensors(base: Tensors, scale: float, dtype: torch.dtype = torch.float16) -> Tensors:
    """Trained in float32 and rounded at the end, so that no rounded difference need lead to it."""
    target = own_tensors(scale, torch.float32)
    for name, tensor in base.items():
        target[name][: len(tensor)] += tensor.float()
    return {name: tensor if name == FREQUENCIES else tensor.to(dtype) for name, tensor in target.items()}


def write(folder: Path, tensors: Tensors, config: dict[str, object], *, binary: bool = False) -> Path:
    folder.mkdir(exist_ok=True)
    (folder / "config.json").write_text(json.dumps(config))
    if config["model_type"] == "llava":
        (folder / "tokenizer.model").write_bytes(b"pieces")
        (folder / "added_tokens.json").write_text('{"<im_patch>": 20, "<im_start>": 21, "<im_end>": 22}')
    if not binary:
        save_file(tensors, folder / "model.safetensors")
        return folder
    names = list(tensors)
    for number, part in enumerate((names[:2], names[2:]), 1):
        held = {name: tensors[name] for name in part}
        torch.save(held, folder / f"pytorch_model-0000{number}-of-00002.bin")
    return folder


@pytest.fixture
def base(tmp_path: Path) -> Path:
    return write(tmp_path / "base", base_tensors(), BASE_CONFIG, binary=True)


@pytest.fixture
def own(tmp_path: Path) -> Path:
    return write(tmp_path / "own", own_tensors(0.01), OWN_CONFIG, binary=True)


def read(folder: Path) -> Tensors:
    return {name: tensor.load() for name, tensor in stored.open_tensors(folder).items()}


def same(one: Tensors, other: Tensors) -> bool:
    """Bit for bit, dtypes included."""
    return one.keys() == other.keys() and all(
        tensor.dtype == other[name].dtype
        and tensor.shape == other[name].shape
        and torch.equal(tensor.reshape(-1).view(torch.uint8), other[name].reshape(-1).view(torch.uint8))
        for name, tensor in one.items()
    )


# Applying.


@pytest.mark.parametrize("part", [7, 1 << 22])
def test_the_sum_is_float32_rounded_once(base: Path, own: Path, part: int, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(delta, "_PART", part)
    result = delta.apply(base, own, base.parent / "out", checksums=True)
    bases, owns, found = read(base), read(own), read(base.parent / "out")
    expected = dict(owns)
    for name, tensor in bases.items():
        wide = owns[name].float()
        wide[: len(tensor)] += tensor.half().float()
        expected[name] = wide.to(owns[name].dtype)
    assert same(found, expected)
    assert torch.equal(found[EMBEDDING][20:], owns[EMBEDDING][20:])
    assert (result.tensors, result.summed, result.dropped, result.exact) == (7, 5, (), 0)
    assert result.warnings == ()
    assert [file.name for file in result.files] == ["model.safetensors"]
    assert len(result.files[0].sha256 or "") == 64


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_torch_adds_halves_as_float32_rounded_once(dtype: torch.dtype):
    bits = torch.randint(-(2**15), 2**15, (2, 1 << 18), generator=torch.Generator().manual_seed(0))
    one, other = bits.to(torch.int16).view(dtype)
    wide = (one.float() + other.float()).to(dtype)
    found = torch.add(one, other)
    assert bool(((found.view(torch.int16) == wide.view(torch.int16)) | (found.isnan() & wide.isnan())).all())


@pytest.mark.parametrize("own_dtype", [torch.float16, torch.bfloat16, torch.float32])
@pytest.mark.parametrize("base_dtype", [torch.float16, torch.bfloat16, torch.float32])
def test_dtypes_mix_and_the_result_has_the_deltas(
    base_dtype: torch.dtype, own_dtype: torch.dtype, tmp_path: Path
):
    bases, owns = base_tensors(base_dtype), own_tensors(0.01, own_dtype)
    write(tmp_path / "base", bases, BASE_CONFIG)
    write(tmp_path / "own", owns, OWN_CONFIG)
    delta.apply(tmp_path / "base", tmp_path / "own", tmp_path / "out")
    found = read(tmp_path / "out")
    expected = (bases[QUERY].to(own_dtype).float() + owns[QUERY].float()).to(own_dtype)
    assert found[QUERY].dtype == own_dtype
    assert torch.equal(found[QUERY], expected)


def test_the_result_is_a_folder_in_the_original_layout(base: Path, own: Path, tmp_path: Path):
    told: list[tuple[int, int]] = []
    out = tmp_path / "deep" / "out"
    delta.apply(base, own, out, max_shard_bytes=2500, progress=lambda done, total: told.append((done, total)))
    names = sorted(path.name for path in out.iterdir())
    assert names[:2] == ["added_tokens.json", "config.json"]
    assert names[-1] == "tokenizer.model"
    assert sum(name.endswith(".safetensors") for name in names) > 1
    assert json.loads((out / "config.json").read_text()) == OWN_CONFIG
    assert told[-1][0] == told[-1][1] == sum(tensor.nbytes for tensor in own_tensors(1).values())
    assert [path.name for path in out.parent.iterdir()] == ["out"]


def test_narrower_rows_are_added_on_the_left(base: Path, own: Path, tmp_path: Path):
    owns = own_tensors(0.01)
    owns[HEAD] = random(23, 10, scale=0.01, seed=8)
    write(own, owns, OWN_CONFIG, binary=True)
    delta.apply(base, own, tmp_path / "out")
    expected = owns[HEAD].clone()
    expected[:20, :8] += base_tensors()[HEAD]
    assert torch.equal(read(tmp_path / "out")[HEAD], expected)


@pytest.mark.parametrize("side", ["base", "own"])
def test_frequencies_of_one_side_alone_are_left_out_and_said(side: str, base: Path, own: Path):
    tensors = base_tensors() if side == "base" else own_tensors(0.01)
    del tensors[FREQUENCIES]
    write(
        base if side == "base" else own, tensors, BASE_CONFIG if side == "base" else OWN_CONFIG, binary=True
    )
    result = delta.apply(base, own, base.parent / "out")
    assert result.dropped == (FREQUENCIES,)
    assert FREQUENCIES not in read(base.parent / "out")


def test_nothing_is_left_under_the_name_of_a_merge_that_failed(
    base: Path, own: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    def broken(*_: object) -> None:
        raise KeyboardInterrupt

    before = sorted(tmp_path.iterdir())
    monkeypatch.setattr(torch, "add", broken)
    with pytest.raises(KeyboardInterrupt):
        delta.apply(base, own, tmp_path / "out")
    assert sorted(tmp_path.iterdir()) == before


# Making.


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
@pytest.mark.parametrize("scale", [0.001, 0.1, 10.0])
@pytest.mark.parametrize("part", [7, 1 << 22])
def test_making_then_applying_is_the_identity(
    dtype: torch.dtype, scale: float, part: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(delta, "_PART", part)
    bases = base_tensors(dtype)
    target = target_tensors(bases, scale, dtype)
    target[QUERY][0, :3] = torch.tensor([0.0, -0.0, float("inf")])
    write(tmp_path / "base", bases, BASE_CONFIG)
    write(tmp_path / "target", target, OWN_CONFIG)
    made = delta.make(tmp_path / "base", tmp_path / "target", tmp_path / "delta")
    monkeypatch.setattr(delta, "_check_difference", lambda *_: None)  # 10.0 is no finetuning
    again = delta.apply(tmp_path / "base", tmp_path / "delta", tmp_path / "again")
    assert same(read(tmp_path / "again"), target)
    assert made.exact == again.exact > 0
    assert [file.name for file in made.files] == ["model.safetensors", exact.EXACT]
    assert not list((tmp_path / "delta").glob(".*"))


def test_the_differences_are_those_of_the_original(base: Path, tmp_path: Path):
    bases = base_tensors()
    target = target_tensors(bases, 0.01)
    write(tmp_path / "target", target, OWN_CONFIG)
    delta.make(base, tmp_path / "target", tmp_path / "delta")
    found = read(tmp_path / "delta")
    for name, tensor in target.items():
        if name in (FREQUENCIES, PROJECTOR, "model.mm_projector.bias"):
            continue
        expected = tensor.clone()
        expected[: len(bases[name])] -= bases[name]
        assert torch.equal(found[name], expected), name
    assert torch.equal(found[PROJECTOR], target[PROJECTOR])


def test_without_a_miss_there_is_no_file_of_misses(base: Path, tmp_path: Path):
    target = own_tensors(0.0) | base_tensors()
    target[EMBEDDING] = torch.cat([target[EMBEDDING], torch.ones(3, 8).half()])
    target[HEAD] = torch.cat([target[HEAD], torch.ones(3, 8).half()])
    target[FREQUENCIES] = target[FREQUENCIES].half().float()
    write(tmp_path / "target", target, OWN_CONFIG)
    made = delta.make(base, tmp_path / "target", tmp_path / "delta")
    assert made.exact == 0
    assert not (tmp_path / "delta" / exact.EXACT).exists()
    delta.apply(base, tmp_path / "delta", tmp_path / "again")
    assert same(read(tmp_path / "again"), target)


@settings(deadline=None, max_examples=50)
@given(
    base=st.lists(st.integers(-(2**15), 2**15 - 1), min_size=5, max_size=5),
    target=st.lists(st.integers(-(2**15), 2**15 - 1), min_size=5, max_size=5),
    part=st.integers(1, 6),
)
def test_a_patch_leads_back_from_any_difference(base: list[int], target: list[int], part: int):
    # The steps that make and apply take, on any bits: infinities, NaN, both zeros.
    one, other = (torch.tensor(bits, dtype=torch.int16).view(torch.float16) for bits in (base, target))
    rest = other - one
    wrong = (rest + one).view(torch.int16) != other.view(torch.int16)
    at = wrong.nonzero().flatten().int()
    patch = exact.Patch(at=at, is_=other[at])
    found = torch.cat(
        [exact.patched((rest + one)[start : start + part], start, patch) for start in range(0, 5, part)]
    )
    assert torch.equal(found.view(torch.int16), other.view(torch.int16))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda t: {f"x{name}": v for name, v in t.items()}, "which the delta lacks"),
        (lambda t: {name: v for name, v in t.items() if name.endswith(".at")}, "which the delta lacks"),
        (lambda t: {name: -v if name.endswith(".at") else v for name, v in t.items()}, "does not fit"),
        (lambda t: {name: v + 10**6 if name.endswith(".at") else v for name, v in t.items()}, "does not fit"),
        (lambda t: {name: v.flip(0) for name, v in t.items()}, "does not fit"),
        (lambda t: {name: v.long() if name.endswith(".at") else v for name, v in t.items()}, "does not fit"),
        (lambda t: {name: v.float() if name.endswith(".is") else v for name, v in t.items()}, "does not fit"),
        (lambda t: {name: v[1:] if name.endswith(".is") else v for name, v in t.items()}, "does not fit"),
    ],
)
def test_a_file_of_misses_from_a_stranger_is_checked(
    change: Callable[[Tensors], Tensors], message: str, base: Path, tmp_path: Path
):
    write(tmp_path / "target", target_tensors(base_tensors(), 0.1), OWN_CONFIG)
    delta.make(base, tmp_path / "target", tmp_path / "delta")
    path = tmp_path / "delta" / exact.EXACT
    tensors = {name: tensor for name, tensor in load_file(path).items() if len(tensor) > 1}
    save_file({name: tensor.contiguous() for name, tensor in change(tensors).items()}, path)
    with pytest.raises(ModelError, match=message):
        delta.apply(base, tmp_path / "delta", tmp_path / "again")


# What is refused.


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({PROJECTOR: torch.zeros(8, 4).half()}, "is itself a LLaVA"),
        ({QUERY: torch.zeros(9, 8).half()}, r"q_proj.weight is \[9, 8\] .* and \[8, 8\]"),
        ({"model.layers.1.x": torch.zeros(8).half()}, "holds model.layers.1.x, which .* lacks"),
        ({QUERY: None}, "holds model.layers.0.self_attn.q_proj.weight, which .* lacks"),
        ({EMBEDDING: None}, "has no model.embed_tokens.weight; a LLaMA"),
        ({EMBEDDING: torch.zeros(21, 8).half()}, "vocabulary of 21 and .* 23, was made from one of 20"),
        ({EMBEDDING: torch.zeros(24, 8).half()}, "vocabulary of 24"),
        ({QUERY: torch.zeros(8, 8).to(torch.int8)}, "is torch.float16 in .* and torch.int8"),
        ({QUERY: torch.zeros(8, 8).to(torch.float8_e4m3fn)}, "fetch it unquantized"),
    ],
)
def test_another_base_is_refused(
    changed: dict[str, torch.Tensor | None], message: str, base: Path, own: Path, tmp_path: Path
):
    tensors = {name: tensor for name, tensor in (base_tensors() | changed).items() if tensor is not None}
    write(base, tensors, BASE_CONFIG, binary=True)
    with pytest.raises(ModelError, match=message):
        delta.apply(base, own, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_llama_2_is_told_by_its_configuration(base: Path, own: Path, tmp_path: Path):
    second = BASE_CONFIG | {"rms_norm_eps": 1e-5, "max_position_embeddings": 4096}
    write(base, base_tensors(), second, binary=True)
    with pytest.raises(ModelError, match=r"is a LLaMA-2 \(rms_norm_eps 1e-05, 4096 positions\)"):
        delta.apply(base, own, tmp_path / "out")


def test_llama_2_is_told_by_its_positions_alone(base: Path, own: Path, tmp_path: Path):
    write(base, base_tensors(), BASE_CONFIG | {"max_position_embeddings": 4096}, binary=True)
    with pytest.raises(ModelError, match=r"is a LLaMA-2 \(rms_norm_eps 1e-06, 4096 positions\)"):
        delta.apply(base, own, tmp_path / "out")


def test_doubtful_bases_are_merged_with_a_warning(base: Path, own: Path, tmp_path: Path):
    doubtful = BASE_CONFIG | {"rms_norm_eps": 1e-5, "bos_token_id": 0, "eos_token_id": 1}
    write(base, base_tensors(), doubtful, binary=True)
    (own / "tokenizer.model").unlink()
    result = delta.apply(base, own, tmp_path / "out")
    assert [warning.split()[0] for warning in result.warnings[:1]] == ["rms_norm_eps"]
    assert "bos_token_id 0 and eos_token_id 1" in result.warnings[1]
    assert "has no tokenizer" in result.warnings[2]


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({PROJECTOR: None}, "has no model.mm_projector.weight, so it is no LLaVA's"),
        ({"model.vision_tower.x": torch.zeros(2).half()}, "holds model.vision_tower.x, which .* lacks"),
        ({"multi_modal_projector.linear_1.weight": torch.zeros(2)}, "is in the stock layout"),
        ({EMBEDDING: None}, "has no model.embed_tokens.weight"),
        ({NORM: base_tensors()[NORM] + 0.01}, "is a whole model, not a delta"),
    ],
)
def test_what_is_no_delta_is_refused(
    changed: dict[str, torch.Tensor | None], message: str, base: Path, own: Path, tmp_path: Path
):
    tensors = {name: tensor for name, tensor in (own_tensors(0.01) | changed).items() if tensor is not None}
    write(own, tensors, OWN_CONFIG, binary=True)
    with pytest.raises(ModelError, match=message):
        delta.apply(base, own, tmp_path / "out")


def test_folders_are_checked(base: Path, own: Path, tmp_path: Path):
    with pytest.raises(NotFoundError, match="there is no model folder"):
        delta.apply(tmp_path / "none", own, tmp_path / "out")
    for taken in (base, own):
        with pytest.raises(ModelError, match="is read and would be written"):
            delta.apply(base, own, taken)
    shutil.rmtree(base)
    base.mkdir()
    (base / "consolidated.00.pth").write_bytes(b"x")
    with pytest.raises(ModelError, match="Meta's own format"):
        delta.make(base, own, tmp_path / "out")


def test_a_pointer_for_a_tokenizer_stops_the_merge(base: Path, own: Path, tmp_path: Path):
    (own / "tokenizer.model").write_text("version https://git-lfs.github.com/spec/v1\n")
    with pytest.raises(ModelError, match=r"tokenizer.model is a Git LFS pointer"):
        delta.apply(base, own, tmp_path / "out")
    assert not (tmp_path / "out").exists()
