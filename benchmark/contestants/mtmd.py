"""The peer: llama.cpp's ``mtmd``, through llama-cpp-python, on GGUF files with our own weights.

Keys and tensor names are those that llama.cpp's clip loader reads (``tools/mtmd/clip.cpp``,
``models/llava.cpp``). It runs all but the last of the layers it is given, so the whole tower is
written; the post layer norm is left out, because it would apply it.
"""

from __future__ import annotations

import ctypes
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from ...runtime.ggml.importing import llama_cpp
from ...runtime.ggml.library import keep_log, native_error, start_native
from ...runtime.pictures.geometry import Geometry

LAYER_NAMES = {
    "ln1": "layer_norm1",
    "ln2": "layer_norm2",
    "attn_q": "self_attn.q_proj",
    "attn_k": "self_attn.k_proj",
    "attn_v": "self_attn.v_proj",
    "attn_out": "self_attn.out_proj",
    "ffn_up": "mlp.fc1",
    "ffn_down": "mlp.fc2",
}
"""GGUF's name of a layer's module (``v.blk.N.…``), and transformers'."""

_FIX = "check llama-cpp-python's version"
TINY_HEAD = 64
"""Width of the one attention head of the text model, which mtmd wants to see but never runs here."""


def write_projector(
    path: Path, tower: Any, connector: Any, geometry: Geometry, *, newline: npt.NDArray[np.float32] | None = None
) -> None:
    """Write a CLIP tower and a two-layer connector as the mmproj file that mtmd reads.

    ``tower`` is a ``CLIPVisionModel``, ``connector`` a Sequential of Linear, GELU, Linear. Matrices
    are float16, vectors and the patch embedding float32, as llama.cpp's own converter leaves them. ``newline``
    (dim,) is zeros where it is not given: mtmd does not use it, ``llava-edge import`` does.
    """
    from gguf import GGUFWriter

    config = tower.config
    writer = GGUFWriter(path, "clip")
    writer.add_bool("clip.has_vision_encoder", True)
    writer.add_string("clip.projector_type", "mlp")
    writer.add_bool("clip.use_gelu", False)
    writer.add_bool("clip.use_silu", False)
    for key, value in {
        "image_size": config.image_size,
        "patch_size": config.patch_size,
        "embedding_length": config.hidden_size,
        "feed_forward_length": config.intermediate_size,
        "block_count": config.num_hidden_layers,
        "attention.head_count": config.num_attention_heads,
        "projection_dim": connector[-1].out_features,
    }.items():
        writer.add_uint32(f"clip.vision.{key}", value)
    writer.add_float32("clip.vision.attention.layer_norm_epsilon", config.layer_norm_eps)
    writer.add_array("clip.vision.image_mean", list(geometry.mean))
    writer.add_array("clip.vision.image_std", list(geometry.std))
    pinpoints = [side for height, width in geometry.pinpoints for side in (width, height)]
    writer.add_array("clip.vision.image_grid_pinpoints", pinpoints)
    writer.add_string("clip.vision.mm_patch_merge_type", "spatial_unpad")
    writer.add_array("clip.vision.feature_layer", [config.num_hidden_layers - 1])
    tensors = _projector_tensors(tower, connector)
    if newline is not None:
        tensors["model.image_newline"] = np.asarray(newline, np.float32)
    for name, tensor in tensors.items():
        writer.add_tensor(name, tensor)
    _finish(writer)


def _projector_tensors(tower: Any, connector: Any) -> dict[str, npt.NDArray[Any]]:
    """All tensors of the mmproj file under GGUF's names."""
    source = {name: tensor.detach().numpy() for name, tensor in tower.state_dict().items()}
    tensors: dict[str, npt.NDArray[Any]] = {
        "v.class_embd": source["embeddings.class_embedding"],
        "v.patch_embd.weight": source["embeddings.patch_embedding.weight"],
        "v.position_embd.weight": source["embeddings.position_embedding.weight"],
        "model.image_newline": np.zeros(connector[-1].out_features, np.float32),
    }
    for kind in ("weight", "bias"):
        tensors[f"v.pre_ln.{kind}"] = source[f"pre_layrnorm.{kind}"]
        for layer in range(tower.config.num_hidden_layers):
            for name, module in LAYER_NAMES.items():
                tensors[f"v.blk.{layer}.{name}.{kind}"] = source[f"encoder.layers.{layer}.{module}.{kind}"]
        for index in (0, 2):
            tensors[f"mm.{index}.{kind}"] = getattr(connector[index], kind).detach().numpy()
    return {name: _half_if_matrix(name, tensor) for name, tensor in tensors.items()}


def _half_if_matrix(name: str, tensor: npt.NDArray[Any]) -> npt.NDArray[Any]:
    narrow = tensor.ndim == 2 and not name.startswith("v.position_embd")
    return np.ascontiguousarray(tensor.astype(np.float16 if narrow else np.float32))


def write_text_model(path: Path, dim: int) -> None:
    """Write the smallest Llama of width ``dim``: mtmd only asks it for its width and its tokens."""
    from gguf import GGUFWriter, TokenType

    writer = GGUFWriter(path, "llama")
    writer.add_context_length(64)
    writer.add_embedding_length(dim)
    writer.add_block_count(1)
    writer.add_feed_forward_length(TINY_HEAD)
    writer.add_head_count(1)
    writer.add_head_count_kv(1)
    writer.add_key_length(TINY_HEAD)
    writer.add_value_length(TINY_HEAD)
    writer.add_rope_dimension_count(TINY_HEAD)
    writer.add_layer_norm_rms_eps(1e-5)
    tokens = ["<unk>", "<s>", "</s>", *(f"<0x{byte:02X}>" for byte in range(256))]
    kinds = [TokenType.UNKNOWN, TokenType.CONTROL, TokenType.CONTROL, *[TokenType.BYTE] * 256]
    writer.add_tokenizer_model("llama")
    writer.add_token_list(tokens)
    writer.add_token_scores([0.0] * len(tokens))
    writer.add_token_types(kinds)
    shapes = {
        "token_embd": (len(tokens), dim),
        "output": (len(tokens), dim),
        "output_norm": (dim,),
        "blk.0.attn_norm": (dim,),
        "blk.0.ffn_norm": (dim,),
        **{f"blk.0.attn_{letter}": (TINY_HEAD, dim) for letter in "qkv"},
        "blk.0.attn_output": (dim, TINY_HEAD),
        "blk.0.ffn_gate": (TINY_HEAD, dim),
        "blk.0.ffn_up": (TINY_HEAD, dim),
        "blk.0.ffn_down": (dim, TINY_HEAD),
    }
    for name, shape in shapes.items():
        writer.add_tensor(f"{name}.weight", np.zeros(shape, np.float32))
    _finish(writer)


def _finish(writer: Any) -> None:
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


class Mtmd:
    """One mtmd context over a loaded text model (``llama_model_p``). Raises NativeError.

    ``threads`` are llama.cpp's own. The model belongs to the caller.
    """

    def __init__(self, projector: Path, model: Any, *, threads: int) -> None:
        from llama_cpp import mtmd_cpp

        self._mtmd = mtmd_cpp
        start_native()
        keep_log(mtmd_cpp.mtmd_log_set)
        keep_log(mtmd_cpp.mtmd_helper_log_set)
        options = mtmd_cpp.mtmd_context_params_default()
        options.n_threads = threads
        options.use_gpu = False
        options.warmup = False
        # llama-cpp-python's chat handler passes its own default, which is off
        options.flash_attn_type = llama_cpp.LLAMA_FLASH_ATTN_TYPE_DISABLED
        self._context = mtmd_cpp.mtmd_init_from_file(str(projector).encode(), model, options)
        if not self._context:
            raise native_error(f"a projector that mtmd can load at {projector}", _FIX)
        self._dim = llama_cpp.llama_model_n_embd(model)

    def encode(self, picture: npt.NDArray[np.uint8]) -> npt.NDArray[np.float32]:
        """Cut and encode an RGB picture (height, width, 3); return its features (positions, dim)."""
        return np.concatenate([self.features(one) for one in self.parts(picture) if one.tokens is None])

    def parts(self, picture: npt.NDArray[np.uint8], before: str = "", after: str = "") -> Iterator[Part]:
        """A prompt as mtmd cuts it: text, pieces of the picture, text. Valid while it is iterated.

        Control tokens in ``before`` and ``after`` are parsed, as llama-cpp-python's handler has it.
        """
        chunks = self._tokenize(picture, before, after)
        try:
            for index in range(self._mtmd.mtmd_input_chunks_size(chunks)):
                yield self._part(self._mtmd.mtmd_input_chunks_get(chunks, index))
        finally:
            self._mtmd.mtmd_input_chunks_free(chunks)

    def features(self, part: Part) -> npt.NDArray[np.float32]:
        """Encode one piece of the picture to features (positions, dim)."""
        status = self._mtmd.mtmd_encode_chunk(self._context, part.chunk)
        if status:
            raise native_error("mtmd to encode the picture", _FIX, code=status)
        positions = self._mtmd.mtmd_input_chunk_get_n_tokens(part.chunk)
        features = self._mtmd.mtmd_get_output_embd(self._context)
        return np.ctypeslib.as_array(features, (positions, self._dim)).copy()

    def close(self) -> None:
        """Free the context."""
        self._mtmd.mtmd_free(self._context)

    def _part(self, chunk: Any) -> Part:
        if self._mtmd.mtmd_input_chunk_get_type(chunk) == self._mtmd.MTMD_INPUT_CHUNK_TYPE_IMAGE:
            return Part(chunk, None)
        count = ctypes.c_size_t()
        tokens = self._mtmd.mtmd_input_chunk_get_tokens_text(chunk, ctypes.byref(count))
        return Part(chunk, tuple(tokens[index] for index in range(count.value)))

    def _tokenize(self, picture: npt.NDArray[np.uint8], before: str, after: str) -> Any:
        height, width, _ = picture.shape
        data = (ctypes.c_uint8 * picture.size).from_buffer_copy(np.ascontiguousarray(picture).tobytes())
        bitmap = self._mtmd.mtmd_bitmap_init(width, height, data)
        prompt = before.encode() + self._mtmd.mtmd_default_marker() + after.encode()
        text = self._mtmd.mtmd_input_text(text=prompt, text_len=len(prompt), add_special=False, parse_special=True)
        chunks = self._mtmd.mtmd_input_chunks_init()
        bitmaps = (self._mtmd.mtmd_bitmap_p_ctypes * 1)(bitmap)
        status = self._mtmd.mtmd_tokenize(self._context, chunks, ctypes.byref(text), bitmaps, 1)
        self._mtmd.mtmd_bitmap_free(bitmap)
        if status:
            raise native_error("mtmd to cut the picture", _FIX, code=status)
        return chunks


@dataclass(frozen=True)
class Part:
    """One of mtmd's chunks: its pointer, and its token ids where it is text."""

    chunk: Any
    tokens: tuple[int, ...] | None


@contextmanager
def text_model(path: Path) -> Iterator[Any]:
    """A loaded text model for :class:`Mtmd`, freed at the end."""
    start_native()
    model = llama_cpp.llama_model_load_from_file(str(path).encode(), llama_cpp.llama_model_default_params())
    if not model:
        raise native_error(f"a text model that llama.cpp can load at {path}", _FIX)
    try:
        yield model
    finally:
        llama_cpp.llama_model_free(model)
