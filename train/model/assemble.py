"""A base checkpoint from its two pretrained halves: a language model, a vision tower, a fresh connector.

One process on the CPU, files in and files out, so that training of any size starts from the same folder.
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

from ...runtime.errors import OptionError, first_line
from ...runtime.pictures.towers import Tower, find_tower
from ...runtime.prompts.family_templates import IMAGE_TOKEN, TEMPLATES
from ...runtime.system.plain_files import read_plain_text
from ...runtime.system.storage import writing_folder
from ..recipe import Recipe
from .prompt import read_template_spec

ROWS_STEP = 64
"""Embedding tables grow in steps of this many rows, which suits the devices' products."""


def assemble(recipe: Recipe, destination: Path) -> None:
    """Write the base checkpoint of ``recipe`` to ``destination``, whole or not at all.

    The connector and the newline vector are drawn from the recipe's seed as transformers draws
    them. Raises :class:`OptionError` where a half or the chat template is missing.
    """
    import torch
    import transformers
    from transformers import AutoModelForCausalLM, AutoTokenizer

    template = _read_template(recipe)
    tokenizer = _pretrained(AutoTokenizer, recipe.model.llm)
    image_token = _add_image_token(tokenizer)
    tower = _pretrained(getattr(transformers, _tower_kind(recipe).model_class), recipe.model.tower, dtype="auto")
    llm = _pretrained(AutoModelForCausalLM, recipe.model.llm, dtype="auto")
    tower.to(llm.dtype)
    _grow_tables(llm, len(tokenizer))
    torch.manual_seed(recipe.seed)
    model = _join(recipe, llm, tower, image_token)
    with writing_folder(destination) as partial:
        model.save_pretrained(partial)
        _processor(model.config, tokenizer, template).save_pretrained(partial)


def _tower_kind(recipe: Recipe) -> Tower:
    """The kind of the recipe's tower, by its config: of the tower alone, or of a whole model that has one."""
    from transformers import AutoConfig

    config = _pretrained(AutoConfig, recipe.model.tower)
    return find_tower(getattr(config, "vision_config", config).model_type, recipe.model.tower)


def check_prompts(recipe: Recipe) -> None:
    """Look at tokenizer and chat template, before anything large is read, as training will.

    Raises :class:`OptionError` where one is missing, and :class:`CheckpointError` where they don't place a picture.
    """
    from transformers import AutoTokenizer

    tokenizer = _pretrained(AutoTokenizer, recipe.model.llm)
    _add_image_token(tokenizer)
    read_template_spec(tokenizer, chat_template=_read_template(recipe), image_token=IMAGE_TOKEN)


def _read_template(recipe: Recipe) -> str:
    """A family's template by its name, or the text of a file that lies beside the recipe."""
    named = recipe.model.chat_template
    if named in TEMPLATES:
        return TEMPLATES[named]
    path = Path(recipe.folder) / named
    try:
        return read_plain_text(path)
    except (OSError, ValueError) as error:  # ValueError: no UTF-8 text
        raise OptionError(
            expected=f"a chat template at {path}, or one of {', '.join(TEMPLATES)}",
            got=getattr(error, "strerror", None) or first_line(error),
            fix="set model.chat_template",
        ) from error


def _pretrained(kind: Any, name: str, **settings: Any) -> Any:
    try:
        return kind.from_pretrained(name, **settings)
    except (OSError, ValueError) as error:
        raise OptionError(
            expected=f"{name!r}, a folder or a hub id", got=first_line(error), fix="check model.llm and model.tower"
        ) from error


def _add_image_token(tokenizer: Any) -> int:
    """Give ``<image>`` an id."""
    from tokenizers import AddedToken

    tokenizer.add_tokens([AddedToken(IMAGE_TOKEN, special=True, normalized=False)], special_tokens=True)
    if tokenizer.pad_token is None:
        tokenizer.pad_token = tokenizer.eos_token
    return int(tokenizer.convert_tokens_to_ids(IMAGE_TOKEN))


def _grow_tables(llm: Any, tokens: int) -> None:
    """Give the embedding tables a row for each token. New rows are the mean of the others."""
    rows = llm.get_input_embeddings().weight.shape[0]
    if tokens > rows:
        llm.resize_token_embeddings(math.ceil(tokens / ROWS_STEP) * ROWS_STEP, mean_resizing=False)
        for table in (llm.get_input_embeddings(), llm.get_output_embeddings()):
            table.weight.data[rows:] = table.weight.data[:rows].float().mean(0).to(table.weight.dtype)


def _join(recipe: Recipe, llm: Any, tower: Any, image_token: int) -> Any:
    """The two halves as they are, without a copy, in transformers' model, whose connector alone is new."""
    import torch
    from transformers import LlavaNextConfig, LlavaNextForConditionalGeneration
    from transformers.models.llava_next.modeling_llava_next import LlavaNextMultiModalProjector

    vision = tower.config
    config = LlavaNextConfig(
        text_config=llm.config,
        vision_config=vision,
        image_token_index=image_token,
        image_grid_pinpoints=[list(pinpoint) for pinpoint in recipe.stages[-1].pinpoints],
        image_seq_length=(vision.image_size // vision.patch_size) ** 2,
        vision_feature_select_strategy=find_tower(vision.model_type, recipe.model.tower).selection,
        tie_word_embeddings=llm.config.tie_word_embeddings,
    )
    with torch.device("meta"):
        model = LlavaNextForConditionalGeneration(config)
    model.model.language_model, model.lm_head, model.model.vision_tower = llm.model, llm.lm_head, tower
    model.model.multi_modal_projector = LlavaNextMultiModalProjector(config).to(llm.dtype)
    width = config.text_config.hidden_size
    model.model.image_newline = torch.nn.Parameter((torch.randn(width) / math.sqrt(width)).to(llm.dtype))
    return model


def _processor(config: Any, tokenizer: Any, template: str) -> Any:
    """Tiles as the original code cuts them, and the recipe's chat template."""
    from transformers import LlavaNextImageProcessorPil, LlavaNextProcessor

    side, kind = config.vision_config.image_size, find_tower(config.vision_config.model_type, "the tower")
    images = LlavaNextImageProcessorPil(
        size={"shortest_edge": side},
        crop_size={"height": side, "width": side},
        image_mean=list(kind.mean),
        image_std=list(kind.std),
        image_grid_pinpoints=config.image_grid_pinpoints,
    )
    return LlavaNextProcessor(
        image_processor=images,
        tokenizer=tokenizer,
        patch_size=config.vision_config.patch_size,
        vision_feature_select_strategy=kind.selection,
        num_additional_image_tokens=int(kind.class_token),
        image_token=IMAGE_TOKEN,
        chat_template=template,
    )
