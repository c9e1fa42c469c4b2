"""Our model for lmms-eval: its requests answered in their order, and its losses against transformers."""

from __future__ import annotations

import dataclasses
import importlib
import importlib.util
import inspect
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from llava_edge.runtime import load
from llava_edge.runtime.errors import OptionError
from PIL import Image
from support import lmms_eval_interface as interface
from transformers import AutoProcessor, LlavaNextForConditionalGeneration

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parent.parent.parent
MODULE = "llava_edge.benchmark.lmms_eval_adapter"
NOISE = 2e-3
"""Nats: llama.cpp keeps its cache in f16. One token more or less in the mean is hundreds of times that."""
INSTALLED = importlib.util.find_spec("lmms_eval") is not None


@pytest.fixture(scope="module")
def adapter() -> Iterator[Any]:
    """The adapter's module, on lmms-eval where it is installed and on its interface elsewhere."""
    with pytest.MonkeyPatch.context() as patch:
        if not INSTALLED:
            for name, module in interface.modules().items():
                patch.setitem(sys.modules, name, module)
        yield importlib.import_module(MODULE)
        sys.modules.pop(MODULE, None)


@pytest.fixture
def model(adapter: Any, tiny_bundle: Path) -> Iterator[Any]:
    made = adapter.LlavaEdge.create_from_arg_string(f"bundle={tiny_bundle},threads=1", {"batch_size": 1})
    made.task_dict = {"task": {"test": DOCUMENTS}}
    yield made
    made.clean()


def picture(seed: int, size: tuple[int, int] = (90, 60)) -> Image.Image:
    low = np.random.default_rng(seed).integers(0, 256, (5, 7, 3), np.uint8)
    return Image.fromarray(low).resize(size, Image.Resampling.BICUBIC)


DOCUMENTS = [{"question": f"What is number {index}?", "seed": index} for index in range(3)]


def visual(document: dict[str, Any]) -> list[Image.Image]:
    return [picture(document["seed"])]


def request(adapter: Any, kind: str, context: str, second: Any, doc_id: int = 0, to_visual: Any = visual) -> Any:
    """A request as lmms-eval's tasks construct it (``construct_requests`` in its api/task.py)."""
    metadata = {"task": "task", "doc_id": doc_id, "repeats": 1}
    arguments = (context, second, to_visual, doc_id, "task", "test")
    return adapter.Instance(kind, arguments, 0, metadata)


def test_the_entry_point_leads_to_the_model(adapter: Any) -> None:
    points = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["entry-points"]["lmms_eval.models"]
    module, function = points["llava_edge"].split(":")
    assert module == MODULE
    manifest = getattr(adapter, function)()
    assert manifest.model_id == "llava_edge"
    module, name = manifest.simple_class_path.rsplit(".", 1)
    found = getattr(importlib.import_module(module), name)
    assert issubclass(found, adapter.lmms)
    assert found.is_simple
    assert not inspect.isabstract(found)


def test_answers_come_in_order(adapter: Any, model: Any, tiny_bundle: Path) -> None:
    settings = {"max_new_tokens": 6, "temperature": 0, "top_p": None, "num_beams": 1, "do_sample": False}
    requests = [
        request(adapter, "generate_until", DOCUMENTS[index]["question"], dict(settings), index) for index in (2, 0, 1)
    ]
    requests.append(request(adapter, "generate_until", "No picture?", {}, 0, lambda _: []))
    noted: list[Any] = []
    model.cache_hook.add_partial = lambda *seen: noted.append(seen)
    got = model.generate_until(requests)
    with load(tiny_bundle, threads=1) as ours:
        expected = [
            ours.ask(DOCUMENTS[index]["question"], [picture(index)], max_tokens=6, temperature=0.0)
            for index in (2, 0, 1)
        ]
        expected.append(ours.ask("No picture?", max_tokens=1024))
    assert [one.text for one in got] == [one.text for one in expected]
    counts = [(one.token_counts.input_tokens, one.token_counts.output_tokens) for one in got]
    assert counts == [(one.prompt_tokens, len(one.tokens)) for one in expected]
    assert [(kind, text) for kind, _, text in noted] == [("generate_until", one.text) for one in expected]


def test_two_pictures_and_marks_in_the_text(adapter: Any, model: Any, tiny_bundle: Path, tmp_path: Path) -> None:
    picture(5).save(tmp_path / "a.png")
    both = request(
        adapter,
        "generate_until",
        "<image>\n<image>\nSame?",
        {"max_new_tokens": 5},
        to_visual=lambda _: [picture(4), str(tmp_path / "a.png")],
    )
    (got,) = model.generate_until([both])
    with load(tiny_bundle, threads=1) as ours:
        assert got.text == ours.ask("Same?", [picture(4), picture(5)], max_tokens=5).text


def test_a_prompt_that_does_not_fit_is_left_empty(
    adapter: Any, tiny_bundle: Path, caplog: pytest.LogCaptureFixture
) -> None:
    small = adapter.LlavaEdge(str(tiny_bundle), threads=1, context=64)
    small.task_dict = {"task": {"test": DOCUMENTS}}
    requests = [
        request(adapter, "generate_until", "word " * 200, {}, to_visual=lambda _: []),
        request(adapter, "generate_until", "Hi", {"max_new_tokens": 3}, to_visual=lambda _: []),
    ]
    empty, full = small.generate_until(requests)
    small.clean()
    assert (empty.text, full.token_counts.output_tokens) == ("", 3)
    assert "fewer than 64 positions" in caplog.text


@pytest.mark.parametrize(
    ("settings", "options"),
    [
        ({}, {"max_tokens": 1024, "stop": ()}),
        ({"until": "\n\n", "max_new_tokens": 16}, {"max_tokens": 16, "stop": ("\n\n",)}),
        ({"until": ["ASSISTANT:", ""]}, {"max_tokens": 1024, "stop": ("ASSISTANT:",)}),
        ({"until": None, "temperature": 0, "top_p": 1.0}, {"max_tokens": 1024, "stop": ()}),
        ({"temperature": 0.7, "do_sample": False}, {"max_tokens": 1024, "stop": ()}),
        (
            {"temperature": 0.7, "top_p": 0.9, "do_sample": True},
            {"max_tokens": 1024, "stop": (), "temperature": 0.7, "top_p": 0.9, "top_k": 0, "min_p": 0.0},
        ),
    ],
)
def test_generation_settings(adapter: Any, settings: dict[str, Any], options: dict[str, Any]) -> None:
    assert adapter.generation_options(settings) == options


@pytest.mark.parametrize("family", ["llama3", "vicuna", "qwen"])
def test_losses_are_the_references(adapter: Any, exported: Any, family: str) -> None:
    """As lmms-eval's llava_hf has them: transformers' loss with the prompt's labels masked."""
    checkpoint, bundle = exported(family, "transformers")
    reference = LlavaNextForConditionalGeneration.from_pretrained(
        checkpoint, dtype=torch.float32, attn_implementation="eager"
    ).eval()
    processor = AutoProcessor.from_pretrained(checkpoint)
    question, continuations = "What is number 1?", ["Yes", "the second one", "Größe 7"]
    made = adapter.LlavaEdge(str(bundle), threads=1)
    made.task_dict = {"task": {"test": DOCUMENTS}}
    requests = [request(adapter, "loglikelihood", question, one, 1) for one in continuations]
    requests.append(request(adapter, "loglikelihood", question, lambda _: continuations[0], 1))
    got = made.loglikelihood(requests)
    made.clean()
    expected = [reference_loss(reference, processor, question, one, picture(1)) for one in continuations]
    assert [loss for loss, _ in got[:3]] == pytest.approx([loss for loss, _ in expected], abs=NOISE)
    assert [greedy for _, greedy in got[:3]] == [greedy for _, greedy in expected]
    assert got[3] == pytest.approx(got[0], abs=NOISE)  # a prefix found in the cache was computed in other chunks


def reference_loss(model: Any, processor: Any, question: str, answer: str, image: Image.Image) -> tuple[float, bool]:
    asked = {"role": "user", "content": [{"type": "image"}, {"type": "text", "text": question}]}
    turns = [asked, {"role": "assistant", "content": [{"type": "text", "text": answer}]}]
    bos = processor.tokenizer.bos_token
    encoded = []
    for messages, opened in ((turns[:1], True), (turns, False)):
        text = processor.apply_chat_template(messages, add_generation_prompt=opened)
        added = not (bos and text.startswith(bos))
        encoded.append(processor(text=text, images=image, return_tensors="pt", add_special_tokens=added))
    prompt, whole = encoded
    start = prompt["input_ids"].shape[1]
    assert whole["input_ids"][0, :start].tolist() == prompt["input_ids"][0].tolist()
    labels = whole["input_ids"].clone()
    labels[:, :start] = -100
    with torch.no_grad():
        out = model(**whole, labels=labels)
    best = out.logits[0, start - 1 : -1].argmax(-1)
    return float(out.loss), bool((best == whole["input_ids"][0, start:]).all())


def test_the_models_own_answer_is_greedy(adapter: Any) -> None:
    """The demo model's answer costs less than any other, and its tokens are the greedy ones."""
    demo = adapter.LlavaEdge(threads=1)
    image = [Image.open(ROOT / "examples" / "sign.png")]
    demo.task_dict = {"task": {"test": [{}]}}
    question = "What does the sign say?"
    (answer,) = demo.generate_until(
        [request(adapter, "generate_until", question, {"max_new_tokens": 16}, to_visual=lambda _: image)]
    )
    words = [answer.text, "FISH", "42"]
    got = demo.loglikelihood(
        [request(adapter, "loglikelihood", question, one, to_visual=lambda _: image) for one in words]
    )
    demo.clean()
    assert [greedy for _, greedy in got] == [True, False, False]
    assert min(got)[0] == got[0][0]


def test_what_is_not_offered_says_so(adapter: Any, model: Any, tiny_bundle: Path) -> None:
    with pytest.raises(OptionError, match="several rounds"):
        model.generate_until_multi_round([])
    with pytest.raises(OptionError, match="num_beams"):
        model.generate_until([request(adapter, "generate_until", "Hi", {"num_beams": 4})])
    with pytest.raises(OptionError, match="pictures; got ndarray"):
        model.generate_until([request(adapter, "generate_until", "Hi", {}, to_visual=lambda _: [np.zeros(3)])])
    for wrong in ({"batch_size": 2}, {"device": "cuda:0"}, {"pretrained": "x"}):
        with pytest.raises(OptionError):
            adapter.LlavaEdge(str(tiny_bundle), **wrong)


@pytest.mark.skipif(not INSTALLED, reason="lmms-eval is not installed")
@pytest.mark.filterwarnings("ignore")
def test_the_interface_is_lmms_evals() -> None:
    """What is written down here for where the package is missing is what the package has."""
    for name, classes in interface.PLACES.items():
        for ours in classes:
            theirs = getattr(importlib.import_module(name), ours.__name__)
            if dataclasses.is_dataclass(ours):
                mine = [(one.name, one.default) for one in dataclasses.fields(ours)]
                assert mine == [(one.name, one.default) for one in dataclasses.fields(theirs)][: len(mine)]
            else:
                assert getattr(ours, "__abstractmethods__", None) == getattr(theirs, "__abstractmethods__", None)
                for method, function in vars(ours).items():
                    if inspect.isfunction(function):
                        names = list(inspect.signature(function).parameters)
                        assert list(inspect.signature(getattr(theirs, method)).parameters) == names
    from lmms_eval.models import get_model

    assert get_model("llava_edge").__name__ == "LlavaEdge"
