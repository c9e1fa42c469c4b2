"""The demo's model, transformers' LLaVA-NeXT in small numbers, and the processor that belongs to it."""

from __future__ import annotations

from transformers import (
    CLIPVisionConfig,
    GenerationConfig,
    LlamaConfig,
    LlavaNextConfig,
    LlavaNextForConditionalGeneration,
    LlavaNextImageProcessorPil,
    LlavaNextProcessor,
    PreTrainedTokenizerFast,
)
from transformers.image_utils import OPENAI_CLIP_MEAN, OPENAI_CLIP_STD

from ...runtime.pictures.geometry import Geometry
from .recipe import DemoRecipe
from .tokenizer import IMAGE


def pinpoints(recipe: DemoRecipe) -> list[list[int]]:
    """Canvas sizes as [height, width] in pixels."""
    return [[rows * recipe.tile.size, columns * recipe.tile.size] for rows, columns in recipe.tile.grids]


def build_geometry(recipe: DemoRecipe) -> Geometry:
    """The same in the runtime's terms."""
    return Geometry(
        image_size=recipe.tile.size,
        patch_size=recipe.tile.patch,
        pinpoints=tuple((height, width) for height, width in pinpoints(recipe)),
        mean=tuple(OPENAI_CLIP_MEAN),
        std=tuple(OPENAI_CLIP_STD),
    )


def build_processor(recipe: DemoRecipe, tokenizer: PreTrainedTokenizerFast) -> LlavaNextProcessor:
    """The processor: tiles of the recipe's size, CLIP's mean and standard deviation, the tokenizer's chat template."""
    size = recipe.tile.size
    images = LlavaNextImageProcessorPil(
        size={"shortest_edge": size},
        crop_size={"height": size, "width": size},
        image_grid_pinpoints=pinpoints(recipe),
        image_mean=list(OPENAI_CLIP_MEAN),
        image_std=list(OPENAI_CLIP_STD),
    )
    return LlavaNextProcessor(
        image_processor=images,
        tokenizer=tokenizer,
        patch_size=recipe.tile.patch,
        vision_feature_select_strategy="default",
        num_additional_image_tokens=1,
        chat_template=tokenizer.chat_template,
    )


def vision_config(recipe: DemoRecipe) -> CLIPVisionConfig:
    return CLIPVisionConfig(
        hidden_size=recipe.vision.hidden,
        intermediate_size=recipe.vision.feed_forward,
        num_hidden_layers=recipe.vision.layers,
        num_attention_heads=recipe.vision.heads,
        projection_dim=recipe.vision.hidden,
        image_size=recipe.tile.size,
        patch_size=recipe.tile.patch,
        hidden_act="quick_gelu",
    )


def llm_config(recipe: DemoRecipe, tokenizer: PreTrainedTokenizerFast) -> LlamaConfig:
    return LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=recipe.llm.hidden,
        intermediate_size=recipe.llm.feed_forward,
        num_hidden_layers=recipe.llm.layers,
        num_attention_heads=recipe.llm.heads,
        num_key_value_heads=recipe.llm.key_value_heads,
        head_dim=recipe.llm.hidden // recipe.llm.heads,
        max_position_embeddings=recipe.llm.positions,
        rms_norm_eps=1e-5,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )


def build_model(recipe: DemoRecipe, tokenizer: PreTrainedTokenizerFast) -> LlavaNextForConditionalGeneration:
    """The model with fresh weights, f32."""
    config = LlavaNextConfig(
        vision_config=vision_config(recipe),
        text_config=llm_config(recipe, tokenizer),
        image_token_index=tokenizer.convert_tokens_to_ids(IMAGE),
        image_grid_pinpoints=pinpoints(recipe),
        image_seq_length=(recipe.tile.size // recipe.tile.patch) ** 2,
        vision_feature_layer=-2,
        vision_feature_select_strategy="default",
        projector_hidden_act="gelu",
        tie_word_embeddings=False,
    )
    # Eager attention: under bfloat16 autocast on a CPU, torch's fused attention took the tower twice as long.
    model = LlavaNextForConditionalGeneration._from_config(config, attn_implementation="eager")
    model.generation_config = GenerationConfig(
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=[tokenizer.eos_token_id],
        pad_token_id=tokenizer.pad_token_id,
        do_sample=False,
    )
    return model
