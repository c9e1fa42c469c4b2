"""Reference values for the parity record: transformers' LLaVA-NeXT in eager float32.

The original layout goes through the same model, built from the same name table. Where the whole
model does not fit memory, the language model is left out and only the vision half is recorded.
"""

from __future__ import annotations

import copy
import datetime
import hashlib
import math
from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image

from ...runtime.parity import QUESTION
from ...runtime.pictures.built_in import built_in_picture, built_in_sizes
from ...runtime.pictures.geometry import Geometry
from ...runtime.prompts.template import TemplateMessage
from ...runtime.prompts.template_spec import TemplateSpec
from ...runtime.system.machine import available_memory
from ..checkpoint.checkpoint import Checkpoint
from ..checkpoint.names import CANONICAL
from ..checkpoint.tower import copy_weights
from ..tokenizer.rendering import dated_text
from ..tokenizer.template import checkpoint_template

Values = dict[str, npt.NDArray[Any]]
PIXELS_KEPT = 65536
FEATURES_KEPT = 64
EMBEDDINGS_KEPT = 48
NEWLINES_KEPT = 16
GREEDY_TOKENS = 32


def reference_values(
    checkpoint: Checkpoint, geometry: Geometry, tokenizer: Any, spec: TemplateSpec, *, llm: bool = True
) -> Values:
    """Compute the arrays of ``parity.npz``, on the built-in picture and question.

    ``grids`` (K, 3: rows and columns of tiles, positions) of the built-in sizes,
    ``pixels`` (every ``pixels_stride``-th normalised value), ``tiles_sha256`` (of the uint8 tiles),
    ``features`` (K, dim) at ``feature_index`` (K, 2: tile, position), ``embeddings`` (K, dim) at
    ``embedding_index`` of ``embedding_count``, ``prompt_ids`` (-1 where the picture is), the ``clock`` (year to
    microsecond) that a template with a date was rendered at, and, unless
    ``llm`` is false or memory too little, ``logprobs`` (vocab,) of the first answer token, the
    ``greedy`` tokens and their top-2 ``margins`` in nats.
    """
    processor = image_processor(checkpoint, geometry)
    picture = built_in_picture(geometry)
    with_llm = llm and reference_fits(checkpoint)
    model = build_reference(checkpoint, geometry, with_llm=with_llm)
    with torch.no_grad():
        values, packed = vision_values(model, processor, picture, geometry)
        ids, clock = prompt_ids(tokenizer, spec, len(packed), template=checkpoint_template(checkpoint))
        values["prompt_ids"] = np.array(ids, np.int32)
        if clock is not None:
            values["clock"] = np.array([*clock.timetuple()[:6], clock.microsecond], np.int64)
        if with_llm:
            values |= _llm_values(model, ids, packed, spec.stop_ids)
    return values


def vision_reference(checkpoint: Checkpoint, geometry: Geometry) -> Values:
    """The arrays that need no language model and no prompt, as :func:`reference_values` gives them."""
    processor = image_processor(checkpoint, geometry)
    model = build_reference(checkpoint, geometry, with_llm=False)
    with torch.no_grad():
        return vision_values(model, processor, built_in_picture(geometry), geometry)[0]


def build_reference(checkpoint: Checkpoint, geometry: Geometry, *, with_llm: bool) -> Any:
    """Return ``LlavaNextForConditionalGeneration`` in eager float32, weights copied one at a time.

    Without the LLM its language model has no layers and one token.
    """
    from transformers import LlavaNextForConditionalGeneration
    from transformers.initialization import no_init_weights

    config = copy.deepcopy(checkpoint.config)
    config.image_grid_pinpoints = [list(pinpoint) for pinpoint in geometry.pinpoints]
    config.tie_word_embeddings = config.text_config.tie_word_embeddings = checkpoint.tied
    if not with_llm:
        config.text_config.num_hidden_layers = 0
        config.text_config.vocab_size = 1
        config.text_config.pad_token_id = None
    with no_init_weights():
        model = LlavaNextForConditionalGeneration._from_config(config, attn_implementation="eager", dtype=torch.float32)
    copy_weights(model.model.vision_tower, checkpoint, CANONICAL["vision"])
    connector = model.model.multi_modal_projector
    copy_weights(connector.linear_1, checkpoint, CANONICAL["connector_1"])
    copy_weights(connector.linear_2, checkpoint, CANONICAL["connector_2"])
    with torch.no_grad():
        model.model.image_newline.copy_(checkpoint.tensors.read(CANONICAL["newline"]))
    if with_llm:
        copy_weights(model.model.language_model, checkpoint, CANONICAL["decoder"])
        if checkpoint.tied:  # transformers ties in init_weights, which was switched off above
            model.lm_head.weight = model.get_input_embeddings().weight
        else:
            copy_weights(model.lm_head, checkpoint, CANONICAL["head"])
    return model.eval()


def image_processor(checkpoint: Checkpoint, geometry: Geometry) -> Any:
    """The reference's Pillow image processor: the checkpoint's own, or one made for the original."""
    from transformers import LlavaNextImageProcessorPil

    pinpoints = [list(pinpoint) for pinpoint in geometry.pinpoints]
    if checkpoint.layout == "transformers":
        processor = LlavaNextImageProcessorPil.from_pretrained(str(checkpoint.folder))
        if geometry.reading == "original":
            processor.image_grid_pinpoints = pinpoints
        return processor
    side = geometry.image_size
    return LlavaNextImageProcessorPil(
        size={"shortest_edge": side},
        crop_size={"height": side, "width": side},
        image_mean=list(geometry.mean),
        image_std=list(geometry.std),
        image_grid_pinpoints=pinpoints,
    )


def prompt_ids(
    tokenizer: Any, spec: TemplateSpec, positions: int, *, template: str | None
) -> tuple[list[int], datetime.datetime | None]:
    """The reference's prompt for the built-in question; a picture's positions are -1. And when it was rendered.

    ``template`` is the checkpoint's own text, rendered by transformers; without one, ``spec``'s. The time is that
    which the template was told, None where it asks for none.
    """
    from tokenizers import AddedToken

    tokenizer = copy.deepcopy(tokenizer)
    if spec.image_token not in tokenizer.get_vocab():
        token = AddedToken(spec.image_token, normalized=False, special=True)
        tokenizer.add_tokens([token], special_tokens=True)
    question = TemplateMessage("user", QUESTION, 1)
    text, clock = dated_text(tokenizer, spec, [question], template or spec.chat_template)
    expanded = text.replace(spec.image_token, spec.image_token * positions)
    has_bos = bool(spec.bos_token) and text.startswith(spec.bos_token)
    ids = tokenizer(expanded, add_special_tokens=not has_bos, verbose=False)["input_ids"]
    image = tokenizer.convert_tokens_to_ids(spec.image_token)
    return [-1 if token == image else int(token) for token in ids], clock


def vision_values(model: Any, processor: Any, picture: Image.Image, geometry: Geometry) -> tuple[Values, torch.Tensor]:
    """Grids; pixels, features and packed embeddings of ``picture``, subsampled; and all the embeddings."""
    batch = processor(picture, return_tensors="pt")
    pixels = batch["pixel_values"][0]  # (tiles, 3, side, side)
    features, packed = _image_features(model, pixels, batch["image_sizes"])
    stride = -(-pixels.numel() // PIXELS_KEPT)
    raw = processor(picture, return_tensors="np", do_rescale=False, do_normalize=False)["pixel_values"][0]
    tiles = np.ascontiguousarray(raw)
    feature_index = _spread(features.shape[0] * features.shape[1], FEATURES_KEPT)
    index = np.stack(np.divmod(feature_index, features.shape[1]), axis=1).astype(np.int32)
    positions = _embedding_index(packed, model.model.image_newline)
    values = {
        "pixels": pixels.reshape(-1)[::stride].numpy().astype(np.float32),
        "pixels_stride": np.array(stride, np.int64),
        "feature_index": index,
        "features": features[index[:, 0], index[:, 1]].numpy(),
        "embedding_index": positions,
        "embeddings": packed[torch.from_numpy(positions).long()].numpy(),
        "embedding_count": np.array(len(packed), np.int64),
        "grids": np.array([_grid(size, geometry) for size in built_in_sizes(geometry)], np.int32),
    }
    if tiles.dtype == np.uint8:
        values["tiles_sha256"] = np.frombuffer(hashlib.sha256(tiles.tobytes()).digest(), np.uint8)
    return values, packed


def _image_features(model: Any, pixels: torch.Tensor, sizes: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """What leaves the connector (tiles, patches, dim), and the rows that transformers makes of it (positions, dim)."""
    caught = []
    connector = model.model.multi_modal_projector
    hook = connector.register_forward_hook(lambda module, inputs, output: caught.append(output))
    try:
        output = model.model.get_image_features(pixels[None], sizes, return_dict=True)
    finally:
        hook.remove()
    return caught[0], output.pooler_output[0]


def _grid(size: tuple[int, int], geometry: Geometry) -> tuple[int, int, int]:
    """Rows and columns of tiles, and positions, that transformers gives a picture of ``size`` (width, height)."""
    from transformers.models.llava_next.modeling_llava_next import get_anyres_image_grid_shape, unpad_image

    side, patches = geometry.image_size, geometry.patches_per_side
    pinpoints = [list(pinpoint) for pinpoint in geometry.pinpoints]
    rows, columns = get_anyres_image_grid_shape(size[::-1], pinpoints, side)
    kept = unpad_image(torch.zeros(1, rows * patches, columns * patches), size[::-1])
    return rows, columns, geometry.features_per_tile + kept.shape[1] * (kept.shape[2] + 1)


def _embedding_index(packed: torch.Tensor, newline: torch.Tensor) -> npt.NDArray[np.int32]:
    """Positions to keep: spread over the sequence, and some of those that hold the newline."""
    newlines = torch.nonzero((packed == newline).all(dim=1)).reshape(-1).numpy()
    some = newlines[_spread(len(newlines), NEWLINES_KEPT)]
    return np.unique(np.concatenate([_spread(len(packed), EMBEDDINGS_KEPT), some])).astype(np.int32)


def _spread(count: int, kept: int) -> npt.NDArray[np.int64]:
    """At most ``kept`` indices below ``count``, evenly spaced, first and last among them."""
    return np.unique(np.linspace(0, max(count - 1, 0), min(kept, count)).astype(np.int64))


def _llm_values(model: Any, ids: list[int], packed: torch.Tensor, stops: frozenset[int]) -> Values:
    """First-token log-probabilities and greedy tokens with their top-2 margins (nats)."""
    embed = model.get_input_embeddings()
    tokens = torch.tensor(ids)
    embeddings = embed(tokens.clamp_min(0))
    embeddings[tokens < 0] = packed
    step = _stepper(model)
    logprobs = step(embeddings[None])
    first = logprobs.numpy().astype(np.float32)
    greedy: list[int] = []
    margins: list[float] = []
    while len(greedy) < GREEDY_TOKENS:
        best = logprobs.topk(2)
        greedy.append(int(best.indices[0]))
        margins.append(float(best.values[0] - best.values[1]))
        if greedy[-1] in stops:
            break
        logprobs = step(embed(torch.tensor([[greedy[-1]]])))
    return {
        "logprobs": first,
        "greedy": np.array(greedy, np.int32),
        "margins": np.array(margins, np.float32),
    }


def _stepper(model: Any) -> Callable[[torch.Tensor], torch.Tensor]:
    """A function from new embeddings (1, T, dim) to the log-probabilities (V,) after them."""
    from transformers import DynamicCache

    cache = DynamicCache(config=model.config.text_config)

    def step(embeddings: torch.Tensor) -> torch.Tensor:
        output = model(inputs_embeds=embeddings, past_key_values=cache, use_cache=True, logits_to_keep=1)
        return torch.log_softmax(output.logits[0, -1].double(), dim=-1)

    return step


FLOAT32_BYTES = 4


HEADROOM = 1.25
"""Activations, caches and the tensor being converted, as a share of the weights."""


def reference_fits(checkpoint: Checkpoint) -> bool:
    """Whether the whole model in float32 fits the memory that is free now."""
    numbers = sum(math.prod(checkpoint.tensors.shape(name)) for name in checkpoint.tensors.names(""))
    return numbers * FLOAT32_BYTES * HEADROOM <= available_memory()
