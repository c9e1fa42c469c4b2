"""The bundle's chat template: the checkpoint's own, or its family's."""

from __future__ import annotations

from ...runtime.prompts.describe import describe_template
from ...runtime.prompts.family_templates import IMAGE_TOKEN, OWN_TEMPLATE, TEMPLATES, family_of
from ...runtime.prompts.template_spec import TemplateSpec
from ..checkpoint.checkpoint import Checkpoint
from ..checkpoint.weights import read_json, refuse
from .vocabulary import Vocabulary


def image_token_of(checkpoint: Checkpoint) -> str:
    """The placeholder that stands for a picture in the checkpoint's prompts."""
    path = checkpoint.folder / "processor_config.json"
    named = read_json(path).get("image_token") if path.is_file() else None
    return named if isinstance(named, str) and named else IMAGE_TOKEN


def read_template(checkpoint: Checkpoint, vocabulary: Vocabulary, image_token: str) -> TemplateSpec:
    """Describe how the bundle turns messages into tokens.

    An original-layout checkpoint gets its family's template, as its tokenizer's own knows no
    pictures. Raises :class:`CheckpointError` where no content style renders a picture's place, and where there is
    neither a template nor a family.
    """
    own = checkpoint_template(checkpoint)
    kind = checkpoint.config.text_config.model_type
    if own is None and kind in OWN_TEMPLATE:
        fix = "copy chat_template.jinja (or .json) from the published checkpoint"
        refuse(f"a chat template in {checkpoint.folder}, as its language model is {kind}", "none", fix)
    family = family_of(kind, vocabulary.traits.control)
    return describe_template(
        vocabulary.traits,
        chat_template=own or TEMPLATES[family].replace(IMAGE_TOKEN, image_token),
        image_token=image_token,
        where=str(checkpoint.folder),
        end_ids=_end_ids(checkpoint, len(vocabulary.tokens)),
    )


def checkpoint_template(checkpoint: Checkpoint) -> str | None:
    """The checkpoint's own template, as the reference's processor finds it, the tokenizer's last."""
    if checkpoint.layout == "original":
        return None
    folder = checkpoint.folder
    path = folder / "chat_template.jinja"
    if path.is_file():
        return path.read_text(encoding="utf-8")
    for name in ("chat_template.json", "processor_config.json", "tokenizer_config.json"):
        path = folder / name
        template = read_json(path).get("chat_template") if path.is_file() else None
        if isinstance(template, list):  # several by name
            named = {one.get("name"): one.get("template") for one in template if isinstance(one, dict)}
            template = named.get("default")
        if isinstance(template, str):
            return template
    return None


def _end_ids(checkpoint: Checkpoint, rows: int) -> list[int]:
    """Tokens at which transformers would end an answer: of the generation settings, else of the config's own."""
    path = checkpoint.folder / "generation_config.json"
    text = checkpoint.raw.get("text_config")
    places = [read_json(path) if path.is_file() else {}, checkpoint.raw, text if isinstance(text, dict) else {}]
    found = next((one["eos_token_id"] for one in places if one.get("eos_token_id") is not None), None)
    ids = found if isinstance(found, list) else [found]
    return [one for one in ids if type(one) is int and 0 <= one < rows]
