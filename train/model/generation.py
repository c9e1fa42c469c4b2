"""A base checkpoint's generation settings, such that transformers will save them with what was trained.

transformers 5 loads a ``generation_config.json`` that contradicts itself with a warning, and refuses to save it as
soon as its Trainer has put the tokenizer's ids into it: at the first checkpoint, hours into a run.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

from ...runtime.errors import OptionError, first_line
from ...runtime.prompts.conversations import shown
from ...runtime.system.plain_files import read_plain_text

FILE = "generation_config.json"
IDS = ("bos_token_id", "eos_token_id", "pad_token_id")
"""What training and export need of it; all else says how somebody liked to sample."""


def read_generation_config(folder: Path) -> Any:
    """transformers' ``GenerationConfig`` of a checkpoint, repaired with a note; None where it has no such file.

    Sampling flags beside greedy decoding switch sampling on, which is what their author meant. Where that is not
    enough the token ids alone are kept. Raises :class:`OptionError` for a file that does not hold these.
    """
    path = folder / FILE
    try:
        raw = json.loads(read_plain_text(path))
    except FileNotFoundError:
        return None
    except (OSError, ValueError, RecursionError) as error:
        raise _refused("a JSON object", first_line(error), path) from error
    if not isinstance(raw, dict):
        raise _refused("a JSON object", shown(raw, 80), path)
    ids = {name: raw[name] for name in IDS if raw.get(name) is not None}
    for name, value in ids.items():
        if not all(type(one) is int and one >= 0 for one in (value if isinstance(value, list) else [value])):
            raise _refused(f"token ids as {name}", shown(value, 80), path)
    tries = (
        (raw, ""),
        ({**raw, "do_sample": True}, "sampling is switched on, as its other flags ask"),
        (ids, "only its token ids are kept"),
    )
    for settings, repair in tries:
        config = _valid(settings)
        if config is not None:
            if repair:
                print(f"note: {path} contradicts itself: {repair}", file=sys.stderr)
            return config
    raise _refused("settings that transformers takes", "others", path)


def _valid(settings: dict[str, Any]) -> Any:
    from transformers import GenerationConfig

    try:
        config = GenerationConfig.from_dict(settings)
        config.validate(strict=True)
    except (ValueError, TypeError, AttributeError, KeyError):
        return None
    return config


def _refused(expected: str, got: str, path: Path) -> OptionError:
    return OptionError(expected=f"{expected} in {path}", got=got, fix="get the file again, or remove it")
