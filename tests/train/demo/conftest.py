"""The demo's recipe, tokenizer and processor, made once."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import pytest
from llava_edge.train.demo.model import build_processor
from llava_edge.train.demo.recipe import DemoRecipe, load_demo_recipe
from llava_edge.train.demo.samples import Prompting, build_prompting
from llava_edge.train.demo.tokenizer import train_tokenizer
from transformers import LlavaNextProcessor, PreTrainedTokenizerFast

REPOSITORY = Path(__file__).parents[3]
RECIPE = REPOSITORY / "train" / "recipes" / "demo.toml"
HELDOUT = REPOSITORY / "benchmark" / "demo_heldout"


@dataclass(frozen=True)
class Demo:
    recipe: DemoRecipe
    tokenizer: PreTrainedTokenizerFast
    processor: LlavaNextProcessor
    prompting: Prompting


@pytest.fixture(scope="session")
def demo() -> Demo:
    recipe = load_demo_recipe(RECIPE)
    tokenizer = train_tokenizer(recipe.llm.vocabulary, positions=recipe.llm.positions, scenes=300)
    processor = build_processor(recipe, tokenizer)
    return Demo(recipe, tokenizer, processor, build_prompting(recipe, processor))
