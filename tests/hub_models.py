"""Small random image-text-to-text models as the hub has them: weights, configuration, processor, template.

The templates are of the shape of the published ones (the marks and their places are what the families were
trained with); texts, tokenizers and weights are made here. A tower sees 28 x 28 pixels in patches of 14.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
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
    "Read the second line of the label, then the price.\n\nWho wrote the book on the left?\n",
    "user assistant system model USER: ASSISTANT: User: Assistant: You are a helpful assistant.",
]

_IMAGES = "{% for content in message['content'] | selectattr('type', 'equalto', 'image') %}"
_TEXTS = "{% for content in message['content'] | selectattr('type', 'equalto', 'text') %}"

VICUNA = (
    "{% for message in messages %}{% if message['role'] != 'system' %}{{ message['role'].upper() + ': '}}"
    "{% endif %}" + _IMAGES + "{{ '<image>\n' }}{% endfor %}"
    "{% if message['role'] != 'assistant' %}" + _TEXTS + "{{ content['text'] + ' '}}{% endfor %}"
    "{% else %}" + _TEXTS + "{% generation %}{{ content['text'] + ' '}}{% endgeneration %}{% endfor %}"
    "{% endif %}{% endfor %}{% if add_generation_prompt %}{{ 'ASSISTANT:' }}{% endif %}"
)
"""LLaVA-1.5: nothing ends an answer."""

INST = (
    "{% for message in messages %}{% if message['role'] == 'user' %}{{ '[INST] ' }}"
    + _IMAGES
    + "{{ '<image>\n' }}{% endfor %}"
    + _TEXTS
    + "{{ content['text'] }}{% endfor %}{{' [/INST]' }}{% elif message['role'] == 'assistant' %}{{ ' ' }}"
    + _TEXTS
    + "{% generation %}{{ content['text'] }}{% endgeneration %}{% endfor %}{{ '</s>' }}{% else %}"
    "{{ raise_exception('Only user and assistant roles are supported!') }}{% endif %}{% endfor %}"
)
"""LLaVA-NeXT on Mistral."""

ONEVISION = (
    "{% for message in messages %}{{'<|im_start|>' + message['role'] + ' '}}"
    + _IMAGES
    + "{{ '<image>' }}{% endfor %}{% if message['role'] != 'assistant' %}"
    + _TEXTS
    + "{{ '\n' + content['text'] }}{% endfor %}{% else %}"
    + _TEXTS
    + "{% generation %}{{ '\n' + content['text'] }}{% endgeneration %}{% endfor %}{% endif %}"
    "{{'<|im_end|>'}}{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
"""LLaVA-OneVision: a blank before the line break, which its generation prompt does not have."""

QWEN_2_5 = (
    "{% set image_count = namespace(value=0) %}{% for message in messages %}"
    "{% if loop.first and message['role'] != 'system' %}<|im_start|>system\n"
    "You are a helpful assistant.<|im_end|>\n{% endif %}<|im_start|>{{ message['role'] }}\n"
    "{% if message['content'] is string %}{{ message['content'] }}<|im_end|>\n{% else %}"
    "{% for content in message['content'] %}{% if content['type'] == 'image' or 'image' in content %}"
    "{% set image_count.value = image_count.value + 1 %}"
    "{% if add_vision_id %}Picture {{ image_count.value }}: {% endif %}"
    "<|vision_start|><|image_pad|><|vision_end|>{% elif 'text' in content %}{{ content['text'] }}{% endif %}"
    "{% endfor %}<|im_end|>\n{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)

QWEN_3 = (
    "{%- macro shown(content) %}{%- if content is string %}{{- content }}{%- else %}"
    "{%- for item in content %}{%- if item.type == 'image' or 'image' in item %}"
    "{{- '<|vision_start|><|image_pad|><|vision_end|>' }}{%- elif 'text' in item %}{{- item.text }}"
    "{%- endif %}{%- endfor %}{%- endif %}{%- endmacro %}"
    "{%- for message in messages %}{{- '<|im_start|>' + message.role + '\n' + shown(message.content)"
    " + '<|im_end|>\n' }}{%- endfor %}"
    "{%- if add_generation_prompt %}{{- '<|im_start|>assistant\n' }}{%- endif %}"
)

INTERNVL = (
    "{% for message in messages %}{{'<|im_start|>' + message['role'] + '\n'}}"
    "{% if message['content'] is string %}{{ message['content'] }}{% else %}"
    "{% for content in message['content'] %}{% if content['type'] == 'image' %}{{ '<IMG_CONTEXT>\n' }}"
    "{% elif content['type'] == 'text' %}{{ content['text'] }}{% endif %}{% endfor %}{% endif %}"
    "{{'<|im_end|>\n'}}{% endfor %}{% if add_generation_prompt %}{{'<|im_start|>assistant\n' }}{% endif %}"
)

IDEFICS = (
    "<|im_start|>{% for message in messages %}{{message['role'] | capitalize}}"
    "{% if message['content'][0]['type'] == 'image' %}{{':'}}{% else %}{{': '}}{% endif %}"
    "{% for line in message['content'] %}{% if line['type'] == 'text' %}{{line['text']}}"
    "{% elif line['type'] == 'image' %}{{ '<image>' }}{% endif %}{% endfor %}<end_of_utterance>\n{% endfor %}"
    "{% if add_generation_prompt %}{{ 'Assistant:' }}{% endif %}"
)
"""SmolVLM and Idefics3."""

GEMMA = (
    "{{ bos_token }}{%- set loop_messages = messages -%}{%- for message in loop_messages -%}"
    "{%- if (message['role'] == 'user') != (loop.index0 % 2 == 0) -%}"
    "{{ raise_exception('Conversation roles must alternate') }}{%- endif -%}"
    "{%- if (message['role'] == 'assistant') -%}{%- set role = 'model' -%}{%- else -%}"
    "{%- set role = message['role'] -%}{%- endif -%}{{ '<start_of_turn>' + role + '\n' }}"
    "{%- if message['content'] is string -%}{{ message['content'] | trim }}"
    "{%- elif message['content'] is iterable -%}{%- for item in message['content'] -%}"
    "{%- if item['type'] == 'image' -%}{{ '<start_of_image>' }}{%- elif item['type'] == 'text' -%}"
    "{{ item['text'] | trim }}{%- endif -%}{%- endfor -%}{%- endif -%}{{ '<end_of_turn>\n' }}{%- endfor -%}"
    "{%- if add_generation_prompt -%}{{ '<start_of_turn>model\n' }}{%- endif -%}"
)


# Tokenizers.


def byte_level(specials: tuple[str, ...], start: str = "") -> Tokenizer:
    """BPE over bytes, as Qwen, SmolLM and InternVL have it."""
    backend = Tokenizer(models.BPE())
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True)
    backend.decoder = decoders.ByteLevel()
    trainer: Any = trainers.BpeTrainer(
        vocab_size=340, initial_alphabet=pre_tokenizers.ByteLevel.alphabet(), show_progress=False
    )
    backend.train_from_iterator(TEXT, trainer)
    backend.add_special_tokens([AddedToken(token, special=True, normalized=False) for token in specials])
    steps: list[Any] = [processors.ByteLevel(trim_offsets=False)]
    backend.post_processor = processors.Sequence([*steps, _first(backend, start)] if start else steps)
    return backend


def pieces(specials: tuple[str, ...], start: str, *, blank_first: bool = True) -> Tokenizer:
    """BPE with byte fallback, as Llama, Mistral and (without a blank before the text) Gemma have it."""
    trained = Tokenizer(models.BPE())
    replace = normalizers.Replace(" ", "▁")
    before = [normalizers.Prepend("▁")] if blank_first else []
    trained.normalizer = normalizers.Sequence([*before, replace])
    listed = [*specials, *(f"<0x{byte:02X}>" for byte in range(256))]
    trainer: Any = trainers.BpeTrainer(vocab_size=440, special_tokens=listed, show_progress=False)
    trained.train_from_iterator(TEXT, trainer)
    told = json.loads(trained.to_str())
    told["model"] |= {"byte_fallback": True, "unk_token": "<unk>", "fuse_unk": True}
    told["added_tokens"] = told["added_tokens"][: len(specials)]
    backend = Tokenizer.from_str(json.dumps(told))
    strip = [decoders.Strip(" ", 1, 0)] if blank_first else []
    backend.decoder = decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), *strip]
    )
    backend.post_processor = _first(backend, start)
    return backend


def _first(backend: Tokenizer, token: str) -> Any:
    return processors.TemplateProcessing(
        single=f"{token} $A",
        pair=f"{token} $A {token} $B",
        special_tokens=[(token, backend.token_to_id(token))],
    )


# Families.


@dataclass(frozen=True, kw_only=True)
class Family:
    """How a small model of a kind is made; ``configuration`` is given the ids of tokens by their texts."""

    template: str
    tokenizer: Callable[[], Tokenizer]
    end: str
    bos: str = ""
    pad: str = ""
    named: Mapping[str, str] = field(default_factory=dict)
    processor: Mapping[str, Any]
    pictures: Mapping[str, Any]
    configuration: Callable[[Callable[[str], int], int], Any]
    ends: tuple[str, ...] = ()
    """What ``generation_config.json`` names, where it is more than ``end``."""


_LLAMA_TOKENS = ("<unk>", "<s>", "</s>", "<image>", "<pad>")
_CHATML = ("<|endoftext|>", "<|im_start|>", "<|im_end|>")
_QWEN = (*_CHATML, "<|vision_start|>", "<|vision_end|>", "<|image_pad|>", "<|video_pad|>")
_SMOL = (
    *("<|endoftext|>", "<|im_start|>", "<|im_end|>", "<end_of_utterance>", "<fake_token_around_image>"),
    *("<image>", "<global-img>", "<unk>"),
    *(f"<row_{row}_col_{column}>" for row in range(1, 7) for column in range(1, 7)),
)
_GEMMA = (
    *("<pad>", "<eos>", "<bos>", "<unk>", "<start_of_turn>", "<end_of_turn>", "<start_of_image>"),
    *("<end_of_image>", "<image_soft_token>"),
)

_DECODER = {
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 1024,
    "initializer_range": 0.2,
}
_TOWER = {
    "hidden_size": 24,
    "intermediate_size": 32,
    "num_hidden_layers": 3,
    "num_attention_heads": 2,
    "image_size": 28,
    "patch_size": 14,
    "initializer_range": 0.2,
}
_GRIDS = [[28, 56], [56, 28], [56, 56]]
_CLIP = {"image_mean": [0.48145466, 0.4578275, 0.40821073], "image_std": [0.26862954, 0.26130258, 0.27577711]}
_HALF = {"image_mean": [0.5, 0.5, 0.5], "image_std": [0.5, 0.5, 0.5]}


def _llava(idx: Callable[[str], int], rows: int) -> Any:
    from transformers import CLIPVisionConfig, LlamaConfig, LlavaConfig

    return LlavaConfig(
        vision_config=CLIPVisionConfig(**_TOWER),
        text_config=LlamaConfig(**_DECODER, vocab_size=rows),
        image_token_index=idx("<image>"),
        image_seq_length=4,
    )


def _llava_next(idx: Callable[[str], int], rows: int) -> Any:
    from transformers import CLIPVisionConfig, LlavaNextConfig, MistralConfig

    return LlavaNextConfig(
        vision_config=CLIPVisionConfig(**_TOWER),
        text_config=MistralConfig(**_DECODER, vocab_size=rows, sliding_window=None),
        image_token_index=idx("<image>"),
        image_grid_pinpoints=_GRIDS,
        image_seq_length=4,
    )


def _onevision(idx: Callable[[str], int], rows: int) -> Any:
    from transformers import LlavaOnevisionConfig, Qwen2Config, SiglipVisionConfig

    tower = {key: value for key, value in _TOWER.items() if key != "initializer_range"}
    return LlavaOnevisionConfig(
        vision_config=SiglipVisionConfig(**tower, vision_use_head=False),
        text_config=Qwen2Config(**_DECODER, vocab_size=rows, tie_word_embeddings=True),
        image_token_index=idx("<image>"),
        video_token_index=idx("<video>"),
        image_grid_pinpoints=_GRIDS,
        tie_word_embeddings=True,
    )


_QWEN_TOWER = {
    "depth": 2,
    "hidden_size": 24,
    "intermediate_size": 32,
    "num_heads": 2,
    "patch_size": 14,
    "spatial_merge_size": 2,
    "temporal_patch_size": 2,
    "out_hidden_size": 32,
    "initializer_range": 0.2,
}


def _qwen_ids(idx: Callable[[str], int]) -> dict[str, int]:
    return {
        "image_token_id": idx("<|image_pad|>"),
        "video_token_id": idx("<|video_pad|>"),
        "vision_start_token_id": idx("<|vision_start|>"),
        "vision_end_token_id": idx("<|vision_end|>"),
    }


def _qwen_2_5(idx: Callable[[str], int], rows: int) -> Any:
    from transformers import Qwen2_5_VLConfig

    rope = {"rope_type": "default", "rope_theta": 10000.0, "mrope_section": [1, 1, 2]}
    text = {**_DECODER, "vocab_size": rows, "rope_parameters": rope, "tie_word_embeddings": True}
    tower = {**_QWEN_TOWER, "window_size": 56, "fullatt_block_indexes": [1]}
    return Qwen2_5_VLConfig(text_config=text, vision_config=tower, tie_word_embeddings=True, **_qwen_ids(idx))


def _qwen_3(idx: Callable[[str], int], rows: int) -> Any:
    from transformers import Qwen3VLConfig

    rope = {
        "rope_type": "default",
        "rope_theta": 10000.0,
        "mrope_section": [2, 1, 1],
        "mrope_interleaved": True,
    }
    text = {**_DECODER, "vocab_size": rows, "head_dim": 8, "rope_parameters": rope}
    tower = {**_QWEN_TOWER, "num_position_embeddings": 16, "deepstack_visual_indexes": [0]}
    return Qwen3VLConfig(text_config=text, vision_config=tower, **_qwen_ids(idx))


def _internvl(idx: Callable[[str], int], rows: int) -> Any:
    from transformers import InternVLConfig, InternVLVisionConfig, Qwen2Config

    tower = {**_TOWER, "image_size": [28, 28], "patch_size": [14, 14]}
    return InternVLConfig(
        vision_config=InternVLVisionConfig(**tower),
        text_config=Qwen2Config(**_DECODER, vocab_size=rows),
        image_token_id=idx("<IMG_CONTEXT>"),
        image_seq_length=1,
        downsample_ratio=0.5,
        tie_word_embeddings=False,
    )


def _idefics(idx: Callable[[str], int], rows: int) -> Any:
    from transformers import Idefics3Config, LlamaConfig

    return Idefics3Config(
        vision_config=dict(_TOWER),
        text_config=LlamaConfig(**_DECODER, vocab_size=rows, pad_token_id=idx("<|im_end|>")),
        image_token_id=idx("<image>"),
        scale_factor=2,
        pad_token_id=idx("<|im_end|>"),
    )


def _smolvlm(idx: Callable[[str], int], rows: int) -> Any:
    from transformers import LlamaConfig, SmolVLMConfig

    return SmolVLMConfig(
        vision_config=dict(_TOWER),
        text_config=LlamaConfig(**_DECODER, vocab_size=rows, pad_token_id=idx("<|im_end|>")),
        image_token_id=idx("<image>"),
        scale_factor=2,
        pad_token_id=idx("<|im_end|>"),
    )


def _gemma(idx: Callable[[str], int], rows: int) -> Any:
    from transformers import Gemma3Config, Gemma3TextConfig, SiglipVisionConfig

    tower = {key: value for key, value in _TOWER.items() if key != "initializer_range"}
    text = Gemma3TextConfig(
        **_DECODER,
        vocab_size=rows,
        head_dim=8,
        query_pre_attn_scalar=8,
        sliding_window=16,
        layer_types=["sliding_attention", "full_attention"],
        pad_token_id=idx("<pad>"),
        eos_token_id=idx("<eos>"),
        bos_token_id=idx("<bos>"),
    )
    return Gemma3Config(
        vision_config=SiglipVisionConfig(**tower, vision_use_head=False),
        text_config=text,
        mm_tokens_per_image=4,
        boi_token_index=idx("<start_of_image>"),
        eoi_token_index=idx("<end_of_image>"),
        image_token_index=idx("<image_soft_token>"),
    )


_SPLIT = {
    "do_image_splitting": True,
    "size": {"longest_edge": 56},
    "max_image_size": {"longest_edge": 28},
    "do_resize": True,
    "do_rescale": True,
    "do_normalize": True,
    "do_pad": True,
    "do_convert_rgb": True,
    **_HALF,
}
_NAMED_QWEN = {"image_processor_type": "Qwen2VLImageProcessor", "min_pixels": 784, "max_pixels": 9408}

FAMILIES: Mapping[str, Family] = {
    "llava": Family(
        template=VICUNA,
        tokenizer=lambda: pieces(_LLAMA_TOKENS, "<s>"),
        end="</s>",
        bos="<s>",
        pad="<pad>",
        named={"image_token": "<image>"},
        processor={
            "processor_class": "LlavaProcessor",
            "patch_size": 14,
            "vision_feature_select_strategy": "default",
            "num_additional_image_tokens": 1,
            "image_token": "<image>",
        },
        pictures={
            "image_processor_type": "CLIPImageProcessor",
            "crop_size": {"height": 28, "width": 28},
            "size": {"shortest_edge": 28},
            "do_convert_rgb": True,
            **_CLIP,
        },
        configuration=_llava,
    ),
    "llava_next": Family(
        template=INST,
        tokenizer=lambda: pieces((*_LLAMA_TOKENS, "[INST]", "[/INST]"), "<s>"),
        end="</s>",
        bos="<s>",
        pad="<pad>",
        named={"image_token": "<image>"},
        processor={
            "processor_class": "LlavaNextProcessor",
            "patch_size": 14,
            "vision_feature_select_strategy": "default",
            "num_additional_image_tokens": 1,
            "image_token": "<image>",
        },
        pictures={
            "image_processor_type": "LlavaNextImageProcessor",
            "crop_size": {"height": 28, "width": 28},
            "size": {"shortest_edge": 28},
            "image_grid_pinpoints": _GRIDS,
            **_CLIP,
        },
        configuration=_llava_next,
    ),
    "llava_onevision": Family(
        template=ONEVISION,
        tokenizer=lambda: byte_level((*_CHATML, "<image>", "<video>")),
        end="<|im_end|>",
        pad="<|endoftext|>",
        named={"image_token": "<image>", "video_token": "<video>"},
        processor={
            "processor_class": "LlavaOnevisionProcessor",
            "num_image_tokens": 4,
            "vision_feature_select_strategy": "full",
            "image_token": "<image>",
            "video_token": "<video>",
        },
        pictures={
            "image_processor_type": "LlavaOnevisionImageProcessor",
            "size": {"height": 28, "width": 28},
            "image_grid_pinpoints": _GRIDS,
            **_HALF,
        },
        configuration=_onevision,
    ),
    "qwen2_5_vl": Family(
        template=QWEN_2_5,
        tokenizer=lambda: byte_level(_QWEN),
        end="<|im_end|>",
        pad="<|endoftext|>",
        ends=("<|im_end|>", "<|endoftext|>"),
        processor={"processor_class": "Qwen2_5_VLProcessor"},
        pictures={**_NAMED_QWEN, "patch_size": 14, "temporal_patch_size": 2, "merge_size": 2, **_CLIP},
        configuration=_qwen_2_5,
    ),
    "qwen3_vl": Family(
        template=QWEN_3,
        tokenizer=lambda: byte_level(_QWEN),
        end="<|im_end|>",
        pad="<|endoftext|>",
        ends=("<|im_end|>", "<|endoftext|>"),
        processor={"processor_class": "Qwen3VLProcessor"},
        pictures={
            "image_processor_type": "Qwen2VLImageProcessorFast",
            "size": {"shortest_edge": 784, "longest_edge": 9408},
            "patch_size": 14,
            "temporal_patch_size": 2,
            "merge_size": 2,
            **_HALF,
        },
        configuration=_qwen_3,
    ),
    "internvl": Family(
        template=INTERNVL,
        tokenizer=lambda: byte_level((*_CHATML, "<img>", "</img>", "<IMG_CONTEXT>", "<video>")),
        end="<|im_end|>",
        pad="<|endoftext|>",
        named={
            "start_image_token": "<img>",
            "end_image_token": "</img>",
            "context_image_token": "<IMG_CONTEXT>",
            "video_token": "<video>",
        },
        processor={"processor_class": "InternVLProcessor", "image_seq_length": 1},
        pictures={
            "image_processor_type": "GotOcr2ImageProcessorFast",
            "size": {"height": 28, "width": 28},
            "crop_to_patches": False,
            "min_patches": 1,
            "max_patches": 4,
            **_CLIP,
        },
        configuration=_internvl,
    ),
    "idefics3": Family(
        template=IDEFICS,
        tokenizer=lambda: byte_level(_SMOL),
        end="<end_of_utterance>",
        bos="<|im_start|>",
        pad="<|im_end|>",
        processor={"processor_class": "Idefics3Processor", "image_seq_len": 1},
        pictures={"image_processor_type": "Idefics3ImageProcessor", **_SPLIT},
        configuration=_idefics,
    ),
    "smolvlm": Family(
        template=IDEFICS,
        tokenizer=lambda: byte_level(_SMOL),
        end="<end_of_utterance>",
        bos="<|im_start|>",
        pad="<|im_end|>",
        named={
            "image_token": "<image>",
            "fake_image_token": "<fake_token_around_image>",
            "global_image_token": "<global-img>",
            "end_of_utterance_token": "<end_of_utterance>",
        },
        processor={"processor_class": "SmolVLMProcessor", "image_seq_len": 1},
        pictures={"image_processor_type": "SmolVLMImageProcessor", **_SPLIT},
        configuration=_smolvlm,
    ),
    "gemma3": Family(
        template=GEMMA,
        tokenizer=lambda: pieces(_GEMMA, "<bos>", blank_first=False),
        end="<eos>",
        bos="<bos>",
        pad="<pad>",
        ends=("<eos>", "<end_of_turn>"),
        named={
            "boi_token": "<start_of_image>",
            "eoi_token": "<end_of_image>",
            "image_token": "<image_soft_token>",
        },
        processor={"processor_class": "Gemma3Processor", "image_seq_length": 4},
        pictures={
            "image_processor_type": "Gemma3ImageProcessor",
            "size": {"height": 28, "width": 28},
            **_HALF,
        },
        configuration=_gemma,
    ),
}

ENDS = {
    "llava": "</s>",
    "llava_next": "</s>",
    "llava_onevision": "<|im_end|>",
    "qwen2_5_vl": "<|im_end|>",
    "qwen3_vl": "<|im_end|>",
    "internvl": "<|im_end|>",
    "idefics3": "<end_of_utterance>",
    "smolvlm": "<end_of_utterance>",
    "gemma3": "<end_of_turn>",
}
"""What ends an answer by the template; LLaVA-1.5's does not, and its tokenizer says so."""


def make_processor(folder: Path, name: str, *, template: str | None = None) -> Tokenizer:
    """The files of a processor, as the hub has them."""
    family = FAMILIES[name]
    folder.mkdir(parents=True, exist_ok=True)
    backend = family.tokenizer()
    backend.save(str(folder / "tokenizer.json"))
    said = {"bos_token": family.bos or None, "eos_token": family.end, "pad_token": family.pad or None}
    tokens = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "processor_class": family.processor["processor_class"],
        **{key: value for key, value in said.items() if value},
        **({"extra_special_tokens": dict(family.named)} if family.named else {}),
    }
    _write(folder / "tokenizer_config.json", tokens)
    _write(folder / "preprocessor_config.json", family.pictures)
    _write(folder / "processor_config.json", family.processor)
    (folder / "chat_template.jinja").write_text(family.template if template is None else template)
    return backend


def make(
    folder: Path, name: str, *, dtype: torch.dtype = torch.float32, template: str | None = None, seed: int = 3
) -> Path:
    """A model of the family ``name``, whole."""
    from transformers import AutoModelForImageTextToText

    family = FAMILIES[name]
    backend = make_processor(folder, name, template=template)

    def index(token: str) -> int:
        found = backend.token_to_id(token)
        assert found is not None, token
        return found

    configuration = family.configuration(index, backend.get_vocab_size())
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model: Any = AutoModelForImageTextToText.from_config(configuration)
        for parameter in model.parameters():  # towers begin with zeros here and there
            if not parameter.any():
                parameter.data = torch.randn_like(parameter) * 0.1
    model.to(dtype).save_pretrained(folder)
    ends = [index(token) for token in family.ends or (family.end,)]
    _write(folder / "generation_config.json", {"eos_token_id": ends, "repetition_penalty": 1.05})
    return folder


def _write(path: Path, document: Mapping[str, Any]) -> None:
    path.write_text(json.dumps(document, indent=1))
