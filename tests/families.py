"""Small random decoders and towers as users have them: what ``save_pretrained`` wrote, with tokenizers.

The templates are of our own making in the manner of the families: marks in the same places.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from tokenizers import (
    AddedToken,
    Tokenizer,
    decoders,
    models,
    normalizers,
    pre_tokenizers,
    processors,
    trainers,
)

TEXT = [
    "What does the sign say? It says: open from nine to five.",
    "Read the second line of the label, then the price.",
    "Who wrote the book on the left? The name on its back is hard to read.",
    "user assistant system You answer questions about pictures.",
]

CHATML = (
    "{%- if messages[0].role != 'system' %}"
    "{{- '<|im_start|>system\\nYou look at pictures.<|im_end|>\\n' }}{%- endif %}\n"
    "{%- for message in messages %}\n"
    "    {{- '<|im_start|>' + message.role + '\\n' + message.content + '<|im_end|>' + '\\n' }}\n"
    "{%- endfor %}\n"
    "{%- if add_generation_prompt %}\n    {{- '<|im_start|>assistant\\n' }}\n{%- endif %}\n"
)

THINKING = (
    "{%- for message in messages %}\n"
    "{%- if message.role == 'assistant' and loop.last %}\n"
    "    {{- '<|im_start|>assistant\\n<think>\\n\\n</think>\\n\\n' + message.content + '<|im_end|>\\n' }}\n"
    "{%- else %}\n"
    "    {{- '<|im_start|>' + message.role + '\\n' + message.content + '<|im_end|>\\n' }}\n"
    "{%- endif %}\n"
    "{%- endfor %}\n"
    "{%- if add_generation_prompt %}\n    {{- '<|im_start|>assistant\\n' }}\n{%- endif %}\n"
)
"""An empty thought before the last answer and before no other, as Qwen 3 has it."""

HEADERS = (
    "{%- for message in messages %}"
    "{%- set content = '<|start_header_id|>' + message['role'] + '<|end_header_id|>\\n\\n'"
    " + message['content'] | trim + '<|eot_id|>' %}"
    "{%- if loop.index0 == 0 %}{%- set content = bos_token + content %}{%- endif %}"
    "{{- content }}{%- endfor %}"
    "{%- if add_generation_prompt %}{{- '<|start_header_id|>assistant<|end_header_id|>\\n\\n' }}{%- endif %}"
)

INST = (
    "{{ bos_token }}{% for message in messages %}"
    "{% if (message['role'] == 'user') != (loop.index0 % 2 == 0) %}"
    "{{ raise_exception('roles must alternate') }}{% endif %}"
    "{% if message['role'] == 'user' %}{{ '[INST] ' + message['content'] + ' [/INST]' }}"
    "{% else %}{{ ' ' + message['content'] + eos_token }}{% endif %}{% endfor %}"
)

SPECIALS = {
    "llama3": (
        "<|begin_of_text|>",
        "<|end_of_text|>",
        "<|start_header_id|>",
        "<|end_header_id|>",
        "<|eot_id|>",
    ),
    "qwen2": ("<|endoftext|>", "<|im_start|>", "<|im_end|>"),
    "qwen3": ("<|endoftext|>", "<|im_start|>", "<|im_end|>", "<think>", "</think>"),
    "mistral": ("<unk>", "<s>", "</s>", "[INST]", "[/INST]"),
}
TEMPLATES = {"llama3": HEADERS, "qwen2": CHATML, "qwen3": THINKING, "mistral": INST}
ENDS = {"llama3": "<|eot_id|>", "qwen2": "<|im_end|>", "qwen3": "<|im_end|>", "mistral": "</s>"}
STARTS = {"llama3": "<|begin_of_text|>", "mistral": "<s>"}
NAMED_ENDS = {**ENDS, "qwen2": "<|endoftext|>"}
"""What the tokenizer calls its end: that of a base model is not that of its chat template."""


def byte_level(family: str) -> Tokenizer:
    """BPE over bytes, as Llama 3 and Qwen have it."""
    backend = Tokenizer(models.BPE())
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True)
    backend.decoder = decoders.ByteLevel()
    trainer: Any = trainers.BpeTrainer(
        vocab_size=330, initial_alphabet=pre_tokenizers.ByteLevel.alphabet(), show_progress=False
    )
    backend.train_from_iterator(TEXT, trainer)
    backend.add_special_tokens([AddedToken(t, special=True, normalized=False) for t in SPECIALS[family]])
    steps: list[Any] = [processors.ByteLevel(trim_offsets=False)]
    if family in STARTS:
        steps.append(_start(backend, STARTS[family]))
    backend.post_processor = processors.Sequence(steps)
    return backend


def pieces(family: str) -> Tokenizer:
    """BPE with byte fallback in a ``tokenizer.json``, as Mistral has it."""
    trained = Tokenizer(models.BPE())
    trained.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    listed = [*SPECIALS[family], *(f"<0x{byte:02X}>" for byte in range(256))]
    trainer: Any = trainers.BpeTrainer(vocab_size=420, special_tokens=listed, show_progress=False)
    trained.train_from_iterator(TEXT, trainer)
    told = json.loads(trained.to_str())
    told["model"] |= {"byte_fallback": True, "unk_token": "<unk>", "fuse_unk": True}
    told["added_tokens"] = told["added_tokens"][: len(SPECIALS[family])]
    backend = Tokenizer.from_str(json.dumps(told))
    backend.decoder = decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    )
    backend.post_processor = _start(backend, STARTS[family])
    return backend


def _start(backend: Tokenizer, token: str) -> Any:
    return processors.TemplateProcessing(
        single=f"{token} $A",
        pair=f"{token} $A {token} $B",
        special_tokens=[(token, backend.token_to_id(token))],
    )


def save_tokenizer(folder: Path, family: str, *, template: str | None = None) -> Tokenizer:
    """As the hub has them: ``tokenizer.json`` and ``tokenizer_config.json`` with the template in it."""
    backend = pieces(family) if family == "mistral" else byte_level(family)
    backend.save(str(folder / "tokenizer.json"))
    config = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "bos_token": STARTS.get(family),
        "eos_token": NAMED_ENDS[family],
        "chat_template": TEMPLATES[family] if template is None else template,
    }
    (folder / "tokenizer_config.json").write_text(json.dumps(config))
    return backend


def decoder_config(family: str, rows: int, *, hidden: int = 48) -> Any:
    """Two layers of a family, with what tells it from the others."""
    from transformers import LlamaConfig, MistralConfig, Qwen2Config, Qwen3Config

    numbers: dict[str, Any] = {
        "vocab_size": rows,
        "hidden_size": hidden,
        "intermediate_size": 64,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "max_position_embeddings": 512,
        "initializer_range": 0.2,
    }
    stretched = {
        "rope_type": "llama3",
        "rope_theta": 500000.0,
        "factor": 8.0,
        "low_freq_factor": 1.0,
        "high_freq_factor": 4.0,
        "original_max_position_embeddings": 128,
    }
    made = {
        "llama": lambda: LlamaConfig(**numbers, tie_word_embeddings=False),
        "llama3": lambda: LlamaConfig(**numbers, tie_word_embeddings=False, rope_parameters=stretched),
        "qwen2": lambda: Qwen2Config(**numbers, tie_word_embeddings=True),
        "qwen3": lambda: Qwen3Config(**numbers, tie_word_embeddings=True, head_dim=16),
        "mistral": lambda: MistralConfig(**numbers, tie_word_embeddings=False, sliding_window=64),
    }
    return made[family]()


def make_decoder(
    folder: Path, family: str, *, spare: int = 0, hidden: int = 48, dtype: torch.dtype = torch.float32
) -> Path:
    """A decoder with its tokenizer; ``spare`` rows more than the tokenizer has tokens."""
    from transformers import AutoModelForCausalLM

    folder.mkdir(parents=True)
    backend = save_tokenizer(folder, family)
    rows = backend.get_vocab_size() + spare
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(3)
        model: Any = AutoModelForCausalLM.from_config(decoder_config(family, rows, hidden=hidden))
    model.to(dtype).save_pretrained(folder)
    return folder


def make_llama(folder: Path, sentencepiece: bytes, *, hidden: int = 48) -> Path:
    """A LLaMA or Vicuna of the first generation: a bare ``tokenizer.model`` and no chat template."""
    import sentencepiece as library
    from transformers import LlamaForCausalLM

    folder.mkdir(parents=True)
    (folder / "tokenizer.model").write_bytes(sentencepiece)
    rows = library.SentencePieceProcessor(model_proto=sentencepiece).GetPieceSize()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(3)
        model: Any = LlamaForCausalLM(decoder_config("llama", rows, hidden=hidden))
    model.save_pretrained(folder)
    return folder


def make_tower(folder: Path, kind: str, *, whole: bool = False, size: int = 28, patch: int = 14) -> Path:
    """A ``clip`` or ``siglip`` vision tower alone, or with its text half."""
    from transformers import (
        CLIPConfig,
        CLIPModel,
        CLIPVisionConfig,
        CLIPVisionModel,
        SiglipConfig,
        SiglipModel,
        SiglipVisionConfig,
        SiglipVisionModel,
    )

    numbers: dict[str, Any] = {
        "hidden_size": 16,
        "intermediate_size": 24,
        "num_hidden_layers": 3,
        "num_attention_heads": 2,
        "image_size": size,
        "patch_size": patch,
    }
    seen: Any = (CLIPVisionConfig if kind == "clip" else SiglipVisionConfig)(**numbers)
    said = {"hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 1, "num_attention_heads": 2}
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(4)
        model: Any
        if whole:
            both: Any = (CLIPConfig if kind == "clip" else SiglipConfig)(
                vision_config=seen.to_dict(), text_config={**said, "vocab_size": 50}
            )
            model = (CLIPModel if kind == "clip" else SiglipModel)(both)
        else:
            model = (CLIPVisionModel if kind == "clip" else SiglipVisionModel)(seen)
        for parameter in model.parameters():
            parameter.data += torch.randn_like(parameter) * 0.2
    model.save_pretrained(folder)
    return folder
