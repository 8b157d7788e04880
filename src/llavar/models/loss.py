"""From a batch to its loss: embed, let projected pictures take their places, decode, score the answers alone.

The head is computed only where something is supervised, so the full logits (packs x length x vocabulary)
never exist. Works on any ``LlavaForConditionalGeneration``; nothing here depends on how its parts are laid
out inside.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from llavar.data.collate import Batch
from llavar.errors import DataError
from llavar.models._hf_training import row_arguments, tower_states
from llavar.records import IGNORE


def answer_loss(model: Any, batch: Batch) -> Tensor:
    """Cross entropy summed over the supervised tokens of ``batch``, fp32 scalar.

    Equal to that of the full logits: only where the head is applied differs.
    """
    return states_loss(model, batch, decode(model, embed(model, batch), batch.positions))


def states_loss(model: Any, batch: Batch, last: Tensor) -> Tensor:
    """The same from the hidden states of the last layer, normed: (packs, length, width)."""
    targets = batch.targets
    kept = targets != IGNORE
    return head_loss(model.lm_head, last[:, :-1][kept], targets[kept])


def head_loss(head: Any, hidden: Tensor, targets: Tensor) -> Tensor:
    """Summed cross entropy of ``targets`` (n,) under ``head`` applied to ``hidden`` (n, width)."""
    return cross_entropy(head(hidden).float(), targets, reduction="sum")


def embed(model: Any, batch: Batch) -> Tensor:
    """(packs, length, width): token embeddings with the pictures in the places of their placeholders.

    Raises:
        DataError: the placeholders are not as many as the pictures give embeddings.
    """
    embeddings: Tensor = model.get_input_embeddings()(batch.ids)
    places = batch.ids == model.config.image_token_index
    if batch.vision is None:
        if places.any():
            raise DataError(
                f"{int(places.sum())} image placeholders in a batch without pictures; give the pictures"
            )
        return embeddings
    given = batch.vision if batch.is_features else features(model, batch.vision)
    projected: Tensor = model.model.multi_modal_projector(given)
    return fill(embeddings, places, projected)


def fill(embeddings: Tensor, places: Tensor, projected: Tensor) -> Tensor:
    """Put ``projected`` (images, tokens, width) where ``places`` (packs, length) is true, in order."""
    wanted, given = int(places.sum()), projected.shape[0] * projected.shape[1]
    if wanted != given:
        raise DataError(
            f"the rows have {wanted} image placeholders but their {projected.shape[0]} pictures give {given} "
            "embeddings; the image token count of the data does not belong to this tower"
        )
    flat = projected.reshape(-1, projected.shape[-1]).to(embeddings.dtype)
    return embeddings.masked_scatter(places.unsqueeze(-1), flat)


def features(model: Any, pixels: Tensor) -> Tensor:
    """What the tower gives the projector: fp32 (images, 3, size, size) -> (images, tokens, width)."""
    hidden = tower_states(model.model.vision_tower, pixels, model.config.vision_feature_layer)
    return hidden[:, 1:] if model.config.vision_feature_select_strategy == "default" else hidden


def decode(model: Any, embeddings: Tensor, positions: Tensor) -> Tensor:
    """(packs, length, width) -> hidden states of the last layer, normed.

    Rows are kept apart by their positions alone; any cache or mask would let them see each other.
    """
    return _run(model, embeddings, positions).last_hidden_state


def decoder_states(model: Any, batch: Batch) -> tuple[Tensor, ...]:
    """What every layer of the decoder is given, and what the last gives, normed: each as in `decode`."""
    return _run(model, embed(model, batch), batch.positions, output_hidden_states=True).hidden_states


def _run(model: Any, embeddings: Tensor, positions: Tensor, **more: bool) -> Any:
    return model.model.language_model(
        inputs_embeds=embeddings,
        position_ids=positions,
        use_cache=False,
        **row_arguments(model, positions),
        **more,
    )


@torch.no_grad()
def token_logits(model: Any, batch: Batch) -> Tensor:
    """(packs, length, vocabulary) in fp32, for tests and inspection; training never builds them."""
    return model.lm_head(decode(model, embed(model, batch), batch.positions)).float()
