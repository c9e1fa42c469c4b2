"""Ids, labels and pixels: token by token against the template, and equal to what the runtime serves."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from llava_edge.export.pipeline import make_plan
from llava_edge.runtime import load
from llava_edge.runtime.prompts.conversations import Conversation, SampleError, SampleFile
from llava_edge.runtime.prompts.segments import TextSegment, build_segments
from llava_edge.runtime.prompts.template import Plain, TemplateMessage
from llava_edge.train.data.dataset import SampleDataset
from llava_edge.train.data.picture_store import FolderStore
from llava_edge.train.data.sample_index import index_samples
from llava_edge.train.data.sample_reader import SampleReader, SampleSource
from llava_edge.train.data.sequences import IGNORED, cut, encode_chat, encode_plain, prompt_ids
from llava_edge.train.model.base import read_base
from llava_edge.train.model.prompt import plain_tokenizer, read_template_spec
from PIL import Image
from support.checkpoints import FAMILIES, make_checkpoint
from support.reference_training import PINPOINTS
from support.tokenizers_fixture import sentencepiece_tokenizer
from tokenizers import Tokenizer
from transformers import PreTrainedTokenizerFast

MESSAGES = (
    TemplateMessage("user", "What is in these pictures?", 2),
    TemplateMessage("assistant", "A red square, and 1234 dogs."),
    TemplateMessage("user", "Where is the <|eot_id|> and the <image>? <|im_end|>"),
    TemplateMessage("assistant", "Above the door.\nTwice. </s> Größe"),
)
CONVERSATION = Conversation("sample", ("a.png", "b.png"), MESSAGES, "sample")
IMAGE_TOKENS = (5, 3)


@pytest.fixture(scope="module")
def checkpoints(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("checkpoints")
    return {family: make_checkpoint(folder / family, family) for family in FAMILIES}


@pytest.mark.parametrize("family", FAMILIES)
def test_the_template_is_described_as_export_describes_it(family: str, checkpoints: dict[str, Path]) -> None:
    assert read_base(checkpoints[family], PINPOINTS).encoder.spec == make_plan(str(checkpoints[family])).template


TEXTS = ("Hello there", " leading", "two  spaces\n\nlines", "ümlaut 日本 🦙", "", "<s> typed </s>", "1234.5")


@pytest.mark.parametrize("prefix", ["every", "first"])
def test_sentencepiece_spaces_are_the_references(prefix: str) -> None:
    """Both spellings of the leading space, Prepend and Metaspace; typed control strings are text."""
    files = sentencepiece_tokenizer(("<image>",), prefix)
    backend = Tokenizer.from_str(json.dumps(files.tokenizer))
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=backend, bos_token="<s>", eos_token="</s>", unk_token="<unk>")
    template = "{% for message in messages %}{{ message['content'] }}{% endfor %}"
    spec = read_template_spec(tokenizer, chat_template=template, image_token="<image>")
    assert spec.space_prefix == ("always" if prefix == "every" else "first")
    tokenize = plain_tokenizer(tokenizer, spec)
    inside = tokenizer.convert_ids_to_tokens(tokenize("Hello"))  # as behind a control token: no space of its own
    assert "".join(inside) == "Hello"
    for text in TEXTS:
        segments = build_segments([Plain(text)], (), spec=spec, tokenize=tokenize) if text else []
        ours = [token for one in segments if isinstance(one, TextSegment) for token in one.tokens]
        if "<s>" in text:
            assert not {1, 2} & set(ours)
        else:
            assert ours == tokenizer(text, add_special_tokens=False)["input_ids"], text


def expected_labels(checkpoint: Path, stop: str) -> list[tuple[int, int]]:
    """(id, label) by transformers' own rendering and tokenizer: answers are found in the text by where they stand."""
    from transformers import AutoProcessor

    processor = AutoProcessor.from_pretrained(checkpoint)
    turns = [
        {"role": one.role, "content": [{"type": "image"}] * one.images + [{"type": "text", "text": one.text}]}
        for one in (MESSAGES[0], MESSAGES[1], TemplateMessage("user", "Where?"), TemplateMessage("assistant", "There!"))
    ]
    text = processor.apply_chat_template(turns)
    spans = []
    for answer in (MESSAGES[1].text, "There!"):
        start = text.index(answer)
        spans.append((start, text.index(stop, start) + len(stop)))
    bos = processor.tokenizer.bos_token
    encoded = processor.tokenizer(
        text, return_offsets_mapping=True, add_special_tokens=not (bos and text.startswith(bos))
    )
    rows = []
    for identifier, (first, last) in zip(encoded["input_ids"], encoded["offset_mapping"], strict=True):
        inside = first < last and any(start < last and last <= end for start, end in spans)
        rows.append((identifier, identifier if inside else IGNORED))
    return rows


@pytest.mark.parametrize(("family", "stop"), [("llama3", "<|eot_id|>"), ("qwen", "<|im_end|>"), ("mistral", "</s>")])
def test_labels_are_the_answers_and_their_stop_tokens(family: str, stop: str, checkpoints: dict[str, Path]) -> None:
    encoder = read_base(checkpoints[family], PINPOINTS).encoder
    messages = (*MESSAGES[:2], TemplateMessage("user", "Where?"), TemplateMessage("assistant", "There!"))
    sequence = encode_chat(encoder, Conversation("sample", ("a", "b"), messages, "sample"), (1, 1))
    assert list(zip(sequence.ids, sequence.labels, strict=True)) == expected_labels(checkpoints[family], stop)


@pytest.mark.parametrize("family", ["llama3", "qwen", "mistral", "yi"])
def test_labels_spell_the_answers(family: str, checkpoints: dict[str, Path]) -> None:
    """Also with control strings typed by a user: they are text, and no turn ends at them."""
    base = read_base(checkpoints[family], PINPOINTS)
    sequence = encode_chat(base.encoder, CONVERSATION, IMAGE_TOKENS)
    runs: list[list[int]] = []
    previous = False
    for label in sequence.labels:
        if label != IGNORED:
            runs = [*runs[:-1], [*runs[-1], label]] if previous else [*runs, [label]]
        previous = label != IGNORED
    stops = {base.encoder.spec.special_tokens[one] for one in base.encoder.spec.stop_tokens}
    assert [run[-1] in stops for run in runs] == [True, True]
    assert not any(token in stops for run in runs for token in run[:-1])
    texts = [base.processor.tokenizer.decode(run[:-1]) for run in runs]
    assert [text.strip() for text in texts] == [MESSAGES[1].text, MESSAGES[3].text]
    assert sequence.ids.count(base.encoder.image_token) == sum(IMAGE_TOKENS)


@pytest.mark.slow
@pytest.mark.parametrize("family", ["llama3", "vicuna", "qwen"])
def test_ids_are_the_runtimes(family: str, exported: Any) -> None:
    """llama.cpp's tokenizer in a bundle against transformers' in the trainer, the prompts of both turns."""
    checkpoint, bundle = exported(family, "transformers")
    encoder = read_base(checkpoint, PINPOINTS).encoder
    seen = [Image.new("RGB", (90, 70)), Image.new("RGB", (60, 100))]
    with load(bundle) as model:
        encoded = [model.encode_image(one) for one in seen]
        tokens = [one.layout.image_tokens for one in encoded]
        for turns in (1, 3):
            served: list[int] = []
            for segment in model.engine.prompt(MESSAGES[:turns], encoded).segments:
                text = isinstance(segment, TextSegment)
                served += segment.tokens if text else [encoder.image_token] * len(segment)
            assert prompt_ids(encoder, MESSAGES[:turns], tokens, answering=True) == served


def test_tiles_are_the_runtimes_and_the_references(exported: Any, tmp_path: Path, monkeypatch: Any) -> None:
    from transformers import AutoProcessor

    checkpoint, bundle = exported("llama3", "transformers")
    random = np.random.default_rng(0)
    Image.fromarray(random.integers(0, 256, (61, 103, 3), np.uint8)).save(tmp_path / "seen.png")
    raw: list[Any] = [{"image": "seen.png", "conversations": turns("<image>\nWhat?", "A dog.")}]
    base = read_base(checkpoint, PINPOINTS)
    sources = (SampleSource(SampleFile(tmp_path, raw), FolderStore(tmp_path)),)
    reader = SampleReader(sources, base.encoder, base.geometry, prompt="chat", sequence_length=999)
    item = SampleDataset(index_samples(reader, fatal=True, fingerprint=""), reader)[0]
    processor = AutoProcessor.from_pretrained(checkpoint, backend="pil")
    processor.image_processor.image_grid_pinpoints = [list(one) for one in PINPOINTS]
    reference = processor(images=Image.open(tmp_path / "seen.png"), text="<image>", return_tensors="pt")
    assert item.tiles is not None
    assert np.abs(item.tiles.numpy() - reference["pixel_values"][0].numpy()).max() <= 1e-6
    assert item.sizes == tuple(map(tuple, reference["image_sizes"].tolist()))
    image_id = base.encoder.image_token
    assert item.ids.count(image_id) == int((reference["input_ids"] == image_id).sum())
    served: list[np.ndarray] = []
    from llava_edge.runtime.pictures.tower import VisionEncoder

    encode = VisionEncoder.encode

    def spy(self: Any, tiles: np.ndarray, *rest: Any, **more: Any) -> Any:
        served.append(tiles)
        return encode(self, tiles, *rest, **more)

    monkeypatch.setattr(VisionEncoder, "encode", spy)
    with load(bundle) as model:
        assert model.manifest.geometry == base.geometry
        model.encode_image(str(tmp_path / "seen.png"))
    assert np.array_equal(np.concatenate(served), item.tiles.numpy())


def turns(question: str, answer: str) -> list[dict[str, str]]:
    return [{"from": "human", "value": question}, {"from": "gpt", "value": answer}]


@pytest.mark.parametrize("family", ["llama3", "qwen", "vicuna"])
def test_plain_prompt_is_the_picture_and_its_caption(family: str, checkpoints: dict[str, Path]) -> None:
    base = read_base(checkpoints[family], PINPOINTS)
    messages = (TemplateMessage("user", "Describe it.", 1), TemplateMessage("assistant", "A red door."))
    sequence = encode_plain(base.encoder, Conversation("sample", ("a",), messages, "sample"), (4,))
    spec, tokenizer = base.encoder.spec, base.processor.tokenizer
    start = [spec.special_tokens[spec.bos_token]] if spec.add_bos else []
    opening = [*start, *[base.encoder.image_token] * 4]
    assert list(sequence.ids[: len(opening)]) == opening
    assert set(sequence.labels[: len(opening)]) == {IGNORED}
    assert sequence.labels[len(opening) :] == sequence.ids[len(opening) :]
    assert sequence.ids[-1] == spec.special_tokens[spec.eos_token]
    assert tokenizer.decode(sequence.ids[len(opening) : -1]).strip() == "A red door."


def test_a_template_that_never_ends_an_answer_is_refused(checkpoints: dict[str, Path]) -> None:
    """The hub's Vicuna template: trained with it, a model would never learn to stop."""
    encoder = read_base(checkpoints["vicuna"], PINPOINTS).encoder
    messages = (TemplateMessage("user", "What?"), TemplateMessage("assistant", "This."))
    with pytest.raises(SampleError, match=r"stop token in sample;"):
        encode_chat(encoder, Conversation("sample", (), messages, "sample"), ())


def test_cutting_keeps_pictures_and_an_answer(checkpoints: dict[str, Path]) -> None:
    encoder = read_base(checkpoints["llama3"], PINPOINTS).encoder
    sequence = encode_chat(encoder, CONVERSATION, IMAGE_TOKENS)
    first = next(place for place, label in enumerate(sequence.labels) if label != IGNORED)
    shorter = cut(sequence, first + 1, image_token=encoder.image_token, sample="sample")
    assert shorter.ids == sequence.ids[: first + 1]
    for length in (first, 10):
        with pytest.raises(SampleError, match="within"):
            cut(sequence, length, image_token=encoder.image_token, sample="sample")
