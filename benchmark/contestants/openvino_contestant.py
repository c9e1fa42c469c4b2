"""The peer OpenVINO GenAI. Run by the interpreter of its own environment, so it imports nothing of ours.

    FOLDER/venv/bin/python openvino_contestant.py openvino TASK RESULT

``VLMPipeline`` on the CPU with a chat that keeps its cache, bfloat16 as the hint where the model
was made for it. The parts of the first token are the pipeline's own: preparing the embeddings, the rest.
"""

import json
import sys
import time
from importlib.metadata import version
from pathlib import Path
from typing import Any


def ask(task: dict[str, Any]) -> dict[str, Any]:
    """Load, ask about the picture, ask again in the same chat; figures as ``task.Figures``."""
    import numpy as np
    import openvino
    import openvino_genai
    from PIL import Image

    options = {"INFERENCE_PRECISION_HINT": "bf16"}
    if task["threads"]:
        options["INFERENCE_NUM_THREADS"] = task["threads"]
    began = time.perf_counter()
    pipeline = openvino_genai.VLMPipeline(str(Path(task["openvino"]) / "model"), "CPU", **options)
    load = time.perf_counter() - began
    picture = openvino.Tensor(np.asarray(Image.open(task["image"]).convert("RGB"))[None])
    pipeline.start_chat()
    first = _generate(pipeline, task["question"], [picture], task["tokens"])
    second = _generate(pipeline, task["follow_up"], [], 1)
    pipeline.finish_chat()
    after_first = first["tokens"] - 1
    return {
        "load": load,
        "encode": first["encode"],
        "prefill": first["first_token"] - first["encode"],
        "first_token": first["first_token"],
        "decode": after_first / first["decode"] if after_first > 0 else None,
        "second": second["first_token"],
        "prompt_tokens": first["prompt_tokens"],
        "tokens": first["tokens"],
        "settings": _settings(Path(task["openvino"])),
        "versions": {name: version(name) for name in ("openvino", "openvino-genai")},
    }


def _generate(pipeline: Any, question: str, pictures: list[Any], tokens: int) -> dict[str, Any]:
    """Seconds and counts of one answer of exactly ``tokens`` tokens."""
    import openvino_genai

    config = openvino_genai.GenerationConfig()
    config.max_new_tokens, config.ignore_eos, config.do_sample = tokens, True, False
    began = time.perf_counter()
    named = {"images": pictures} if pictures else {}
    result = pipeline.generate(question, generation_config=config, **named)
    wall = time.perf_counter() - began
    metrics = result.perf_metrics
    first = metrics.get_ttft().mean / 1e3
    generated = metrics.get_generate_duration().mean / 1e3
    return {
        "encode": metrics.get_prepare_embeddings_duration().mean / 1e3,
        # what the pipeline does before it starts its clock is waited for as well
        "first_token": first + max(wall - generated, 0.0),
        "decode": generated - first,
        "prompt_tokens": metrics.get_num_input_tokens(),
        "tokens": metrics.get_num_generated_tokens(),
    }


def _settings(folder: Path) -> str:
    """How the model was converted, as ``openvino_setup`` noted it."""
    note = folder / "made.json"
    made = json.loads(note.read_text(encoding="utf-8")) if note.is_file() else {}
    return f"{made.get('weights', 'unknown')}, bf16 hint"


if __name__ == "__main__":
    _, task_path, result_path = sys.argv[1:]
    figures = ask(json.loads(Path(task_path).read_text(encoding="utf-8")))
    Path(result_path).write_text(json.dumps(figures), encoding="utf-8")
