"""Small random checkpoints in the layout of the original LLaVA, with a forward pass of their own."""

from __future__ import annotations

import io
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor

ADDED = ("<im_patch>", "<im_start>", "<im_end>")
_TEXT = (
    "What does the sign say? Read the text in the picture and write it down.",
    "You are LLaVA, a large language and vision assistant. USER: ASSISTANT: Human: ###",
    "The quick brown fox jumps over the lazy dog; 0123456789.",
)


def sentencepiece_model() -> bytes:
    """A small ``tokenizer.model`` of the LLaMA kind: BPE, byte fallback, <unk> <s> </s> first."""
    import sentencepiece

    written = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(_TEXT * 4),
        model_writer=written,
        model_type="bpe",
        vocab_size=340,
        byte_fallback=True,
        unk_id=0,
        bos_id=1,
        eos_id=2,
        pad_id=-1,
        minloglevel=3,
    )
    return written.getvalue()


@dataclass(frozen=True, slots=True, kw_only=True)
class Original:
    """Where it was written, and what is in it. ``tower`` is CLIP's state by its own names."""

    folder: Path
    tower_folder: Path
    state: Mapping[str, Tensor]
    tower: Mapping[str, Tensor]
    decoder: Any
    vision: Any

    def logits(self, ids: list[int], pixels: Tensor, patch: int) -> Tensor:
        """(length, vocabulary), with the projector as ``W x + b``."""
        with torch.no_grad():
            seen = self.vision(pixels, output_hidden_states=True).hidden_states[-2][:, 1:].flatten(0, 1)
            weight, bias = (self.state[f"model.mm_projector.{name}"].float() for name in ("weight", "bias"))
            given = self.decoder.get_input_embeddings()(torch.tensor(ids))
            given[torch.tensor(ids) == patch] = seen @ weight.T + bias
            return self.decoder(inputs_embeds=given[None], use_cache=False).logits[0]


def make_original(
    folder: Path,
    sentencepiece: bytes,
    *,
    text: int = 48,
    vision: int = 16,
    start_end: bool = True,
    v0: bool = False,
    dtype: torch.dtype = torch.float32,
    kind: str = "bin",
    seed: int = 0,
) -> Original:
    """Write ``folder`` (the checkpoint) and ``folder/../tower``; ``kind`` is bin, shards or safetensors."""
    from transformers import CLIPVisionConfig, CLIPVisionModel, LlamaConfig, LlamaForCausalLM

    added = ["[PAD]"] * v0 + [*ADDED[: 3 if start_end else 1]]
    rows = pieces(sentencepiece) + len(added)
    numbers = {
        "vocab_size": rows,
        "hidden_size": text,
        "intermediate_size": 40,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "max_position_embeddings": 512,
        "rms_norm_eps": 1e-6,
        "initializer_range": 0.2,
    }
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        decoder = LlamaForCausalLM(LlamaConfig(**numbers, tie_word_embeddings=False)).eval()
        for parameter in decoder.parameters():
            parameter.data = parameter.data.to(dtype).float()
        seen = CLIPVisionConfig(
            hidden_size=vision,
            intermediate_size=20,
            num_hidden_layers=3,
            num_attention_heads=2,
            image_size=16,
            patch_size=8,
            initializer_range=0.2,
        )
        tower = CLIPVisionModel(seen).eval()
        projector = torch.nn.Linear(vision, text)
    state = {name: tensor.to(dtype) for name, tensor in decoder.state_dict().items()}
    state["model.mm_projector.weight"] = projector.weight.detach().to(dtype)
    state["model.mm_projector.bias"] = projector.bias.detach().to(dtype)
    frequencies = {f"model.layers.{n}.self_attn.rotary_emb.inv_freq": torch.ones(6) for n in range(2)}
    folder.mkdir(parents=True)
    write_state(folder, {**state, **frequencies}, kind)
    config = {
        **numbers,
        "architectures": ["LlavaLlamaForCausalLM"],
        "model_type": "llava",
        "hidden_act": "silu",
        "bos_token_id": 1,
        "eos_token_id": 2,
        "pad_token_id": 0,
        "rope_scaling": None,
        "mm_hidden_size": vision,
        "mm_use_im_start_end": start_end,
        "mm_vision_select_layer": -2,
        "mm_vision_tower": "tower",
        "use_mm_proj": True,
    }
    (folder / "config.json").write_text(json.dumps(config))
    (folder / "tokenizer.model").write_bytes(sentencepiece)
    first = rows - len(added)
    table = {token: first + index for index, token in enumerate(added)}
    (folder / "added_tokens.json").write_text(json.dumps(table))
    tower_folder = folder.parent / "tower"
    seen_state = write_tower(tower_folder, tower)
    return Original(
        folder=folder, tower_folder=tower_folder, state=state, tower=seen_state, decoder=decoder, vision=tower
    )


def pieces(sentencepiece: bytes) -> int:
    """How many pieces a ``tokenizer.model`` has."""
    import sentencepiece as library

    reader: Any = library.SentencePieceProcessor()
    reader.LoadFromSerializedProto(sentencepiece)
    return reader.GetPieceSize()


def write_state(folder: Path, state: Mapping[str, Tensor], kind: str) -> None:
    """The weights as one ``.bin``, as two with an index, or as safetensors."""
    if kind == "safetensors":
        save_file({name: tensor.contiguous() for name, tensor in state.items()}, folder / "model.safetensors")
        return
    if kind == "bin":
        torch.save(dict(state), folder / "pytorch_model.bin")
        return
    names, table = sorted(state), dict[str, str]()
    for index, part in enumerate((names[::2], names[1::2]), start=1):
        file = f"pytorch_model-{index:05d}-of-00002.bin"
        torch.save({name: state[name] for name in part}, folder / file)
        table |= dict.fromkeys(part, file)
    index_text = json.dumps({"metadata": {}, "weight_map": table})
    (folder / "pytorch_model.bin.index.json").write_text(index_text)


def write_tower(
    folder: Path, tower: Any, *, whole: bool = False, kind: str = "safetensors"
) -> dict[str, Tensor]:
    """A CLIP vision tower; with ``whole`` in a CLIPModel with a text half, as OpenAI's checkpoints are."""
    folder.mkdir(exist_ok=True)
    config = json.loads(tower.config.to_json_string())
    names = [
        name if name.startswith("vision_model.") else f"vision_model.{name}" for name in tower.state_dict()
    ]
    state = dict(zip(names, tower.state_dict().values(), strict=True))
    if whole:
        config = {"model_type": "clip", "architectures": ["CLIPModel"], "vision_config": config}
        state |= {
            "text_model.final_layer_norm.weight": torch.ones(4),
            "visual_projection.weight": torch.ones(2, 4),
            "logit_scale": torch.tensor(1.0),
            "vision_model.embeddings.position_ids": torch.arange(5)[None],
        }
    (folder / "config.json").write_text(json.dumps(config))
    write_state(folder, state, kind)
    return state
