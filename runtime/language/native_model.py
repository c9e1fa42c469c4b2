"""llama.cpp's model and context: made as the load options say, and freed together."""

from __future__ import annotations

import ctypes
import re
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from ..bundle.gguf_reading import read_model
from ..callbacks import Cancel, Share
from ..errors import BundleError, OptionError
from ..ggml.abort import AbortSwitch
from ..ggml.devices import has_gpu
from ..ggml.importing import lib
from ..ggml.library import listening, native_error
from ..ggml.rearranged import Stored, set_buffers
from ..ggml.types import ggml_type
from ..options import QUANTIZED_KV_TYPES, LoadOptions
from ..prompt_engine.preparing import Prompts
from ..system.lifetime import Lifetime
from ..system.machine import has_amx
from ..system.native_thread import NativeThread
from .vocabulary import load_model_file

BUFFERS = ("model", "KV", "compute", "output")
"""What llama.cpp calls its buffers in its log."""
_BUFFER = re.compile(rf"({'|'.join(BUFFERS)}) buffer size = +([0-9.]+) MiB")


class Handles:
    """The native objects of one model. ``switch`` ends what they compute."""

    def __init__(self) -> None:
        self.model: Any = None
        self.context: Any = None
        self.switch = AbortSwitch()
        self.sizes: Counter[str] = Counter()

    @contextmanager
    def sizes_noted(self) -> Iterator[None]:
        """Take from llama.cpp's log what buffers it makes in the block; no function of its interface tells."""
        with listening(here=True) as said:
            yield
        for kind, size in _BUFFER.findall("".join(said)):
            self.sizes[kind] += round(float(size) * 2**20)

    def buffers(self) -> dict[str, int]:
        """Bytes of the buffers there are by what they are for."""
        return {kind: self.sizes[kind] for kind in BUFFERS}

    # --- what the context's cache holds ---

    def state_size(self) -> int:
        """Bytes of a copy."""
        return int(lib.llama_state_seq_get_size(self.context, 0))

    def copy_state(self) -> Any:
        """A copy, for :meth:`take_state`."""
        state = (ctypes.c_uint8 * self.state_size())()
        lib.llama_state_seq_get_data(self.context, state, len(state), 0)
        return state

    def copy_state_to(self, place: Any) -> bool:
        """Copy into an array of bytes; False where it takes another size."""
        size = len(place)
        return int(lib.llama_state_seq_get_data(self.context, place, size, 0)) == size

    def take_state(self, state: Any) -> bool:
        """Put a copy in its place; False where llama.cpp refuses it."""
        return int(lib.llama_state_seq_set_data(self.context, state, len(state), 0)) == len(state)

    def last_position(self) -> int:
        """The last position that it has."""
        return int(lib.llama_memory_seq_pos_max(lib.llama_get_memory(self.context), 0))

    # --- ends ---

    def free(self) -> None:
        """Free context and model."""
        self.free_context()
        if self.model is not None:
            lib.llama_model_free(self.model)
        self.model = None

    def free_context(self) -> None:
        """Free the context."""
        self.sizes = Counter(model=self.sizes["model"])
        if self.context is not None:
            lib.llama_free(self.context)
        self.context = None


def free(native: Handles, prompts: Prompts) -> None:
    """Free a model that nothing computes in."""
    native.free()
    prompts.close()


def stop(native: Handles, prompts: Prompts) -> None:
    """Make what computes in a model end soon."""
    native.switch.set()
    prompts.stop()


def end(life: Lifetime, thread: NativeThread, prompts: Prompts) -> None:
    """Close a model with all of its threads."""
    life.close()
    thread.close()
    prompts.join()


def watched(
    thread: NativeThread,
    stop: Callable[[], None],
    on_share: Share | None,
    cancelled: Cancel | None,
    work: Callable[[Share], None],
) -> None:
    """Do ``work`` on a thread, which tells what share is done; the callbacks are heard in the caller's.

    ``stop`` makes it end soon. Raises what ``work`` does.
    """
    shares = [0.0]

    def look() -> bool:
        if on_share is not None:
            on_share(shares[-1])
        return cancelled is not None and cancelled()

    thread.run_until(stop, look, lambda: work(shares.append))
    if on_share is not None:
        on_share(1.0)


def layers_away(options: LoadOptions, on_devices: bool) -> int:
    """llama.cpp's ``n_gpu_layers``. "cpu" is about this machine's GPUs; devices that were named get their layers."""
    return 0 if options.device == "cpu" and not on_devices else options.gpu_layers


def load_model(path: Path, options: LoadOptions, devices: Sequence[int], goes_on: Callable[[float], bool]) -> Any:
    """Load ``path``; ``goes_on`` hears what share is done, from 0 to 1, and says whether to. Raises NativeError."""
    parameters = lib.llama_model_default_params()
    parameters.n_gpu_layers = layers_away(options, bool(devices))
    handles = (ctypes.c_void_p * (len(devices) + 1))(*devices)  # the last one, empty, ends the list
    if devices:
        parameters.devices = ctypes.cast(handles, ctypes.c_void_p)
    if options.split_mode is not None:
        parameters.split_mode = getattr(lib, f"LLAMA_SPLIT_MODE_{options.split_mode.upper()}")
    if options.main_gpu is not None:
        parameters.main_gpu = options.main_gpu
    if options.tensor_split:
        parameters.tensor_split = (ctypes.c_float * lib.llama_max_devices())(*options.tensor_split)
    _choose_buffers(parameters, path, options, on_cpu=not devices and (options.gpu_layers == 0 or not has_gpu()))
    parameters.progress_callback = hear = lib.llama_progress_callback(lambda share, _: goes_on(share))
    try:
        return load_model_file(path, parameters)
    finally:
        del hear  # it had to live until here


def _choose_buffers(parameters: Any, path: Path, options: LoadOptions, *, on_cpu: bool) -> None:
    rearrange = not has_amx() if options.repack is None else options.repack
    tensors: Sequence[Stored] = ()
    if rearrange and on_cpu and has_amx():
        with suppress(BundleError):  # what is no model is refused by llama.cpp
            tensors = read_model(path).tensors
    set_buffers(parameters, tensors, rearrange=rearrange, amx=bool(tensors))


def new_context(handles: Handles, options: LoadOptions, positions: int, threads: int, watcher: Any) -> Any:
    """A context of ``positions`` over the model. Raises NativeError, and OptionError for a KV type it can't have."""
    parameters = lib.llama_context_default_params()
    parameters.n_ctx = positions
    parameters.n_batch = options.batch
    parameters.n_ubatch = options.computed_at_once
    parameters.n_seq_max = 1
    parameters.n_threads = parameters.n_threads_batch = threads
    parameters.no_perf = True
    if watcher is not None:
        parameters.cb_eval = watcher
    parameters.type_k, parameters.type_v = (ggml_type(one) for one in (options.kv_type_k, options.kv_type_v))
    wanted = options.wants_flash_attention
    if wanted is None and not has_gpu():
        wanted = False
    if wanted is not None:
        parameters.flash_attn_type = int(wanted)
    context = lib.llama_init_from_model(handles.model, parameters)
    if not context:
        if {options.kv_type_k, options.kv_type_v} & set(QUANTIZED_KV_TYPES):
            said = native_error("", "").got
            raise OptionError(
                expected="a KV cache that this model can have", got=said, fix="choose another KV type, such as f16"
            )
        raise native_error(f"memory for a context of {positions} positions", "choose a smaller context")
    handles.switch.install(context)
    return context
