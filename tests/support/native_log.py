"""What llama.cpp itself says about sizes: its log lines while a model is loaded, or only planned."""

from __future__ import annotations

import re
from pathlib import Path

import llama_cpp.llama_cpp as lib
from llava_edge.runtime.ggml.library import listening

MIB = 2**20


def buffer_sizes(said: list[str], kind: str) -> dict[str, float]:
    """Bytes by buffer name of lines such as "CPU compute buffer size = 12.50 MiB"."""
    found = re.findall(rf"(\S+) +{kind} buffer size = +([\d.]+) MiB", "".join(said))
    return {name: float(size) * MIB for name, size in found}


class Planned:
    """A model in llama.cpp; with ``simulate`` nothing is allocated, so that any size goes."""

    def __init__(self, path: Path, *, simulate: bool = True) -> None:
        parameters = lib.llama_model_default_params()
        parameters.no_alloc, parameters.use_extra_bufts, parameters.n_gpu_layers = simulate, False, 0
        if simulate:
            parameters.load_mode = 0
        with listening() as self.said:
            self._model = lib.llama_model_load_from_file(str(path).encode(), parameters)
        assert self._model, self.said[-5:]
        self.size = int(lib.llama_model_size(self._model))

    def context(self, positions: int, *, micro_batch: int, flash: bool, kinds: tuple[str, str]) -> list[str]:
        """Log of a context that is made and freed."""
        parameters = lib.llama_context_default_params()
        parameters.n_ctx, parameters.n_seq_max = positions, 1
        parameters.n_batch = parameters.n_ubatch = micro_batch
        parameters.n_threads = parameters.n_threads_batch = 1
        parameters.flash_attn_type = int(flash)
        parameters.type_k, parameters.type_v = (getattr(lib, f"GGML_TYPE_{kind.upper()}") for kind in kinds)
        with listening() as said:
            context = lib.llama_init_from_model(self._model, parameters)
        assert context, said[-5:]
        lib.llama_free(context)
        return said

    def close(self) -> None:
        lib.llama_model_free(self._model)


def quantized_types(path: Path, recipe: str) -> dict[str, str]:
    """Each tensor's type as ``llama_model_quantize`` chooses it, in a dry run."""
    parameters = lib.llama_model_quantize_default_params()
    parameters.dry_run, parameters.nthread = True, 1
    plain = {"f32": "LLAMA_FTYPE_ALL_F32"}
    parameters.ftype = getattr(lib, plain.get(recipe, f"LLAMA_FTYPE_MOSTLY_{recipe.upper()}"))
    with listening() as said:
        assert lib.llama_model_quantize(str(path).encode(), str(path.with_suffix(".out")).encode(), parameters) == 0
    line = r"\] (\S+)\s+- \[[^\]]*\], type =\s+(\w+), (?:warning[^\n]*\n)?size =[^(\n]*(?:\((\w+)\))?"
    return {name: (new or old).lower() for name, old, new in re.findall(line, "".join(said))}
