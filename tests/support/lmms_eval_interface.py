"""What our adapter uses of lmms-eval 0.7.3, written down from its source, for where it is not installed.

lmms-eval brings some eighty packages along, so the development set-up does without it. Where it
is installed the adapter's tests use it instead of this, and one of them compares the two.
"""

from __future__ import annotations

import abc
from dataclasses import dataclass, field
from types import ModuleType
from typing import Any


@dataclass
class TokenCounts:
    """``lmms_eval.api.instance.TokenCounts``."""

    input_tokens: int | None = None
    output_tokens: int | None = None
    reasoning_tokens: int | None = None


@dataclass
class GenerationResult:
    """``lmms_eval.api.instance.GenerationResult``."""

    text: str
    token_counts: TokenCounts | None = None


@dataclass
class Instance:
    """``lmms_eval.api.instance.Instance``: one request; ``args`` is what a model gets."""

    request_type: str
    arguments: tuple[Any, ...]
    idx: int
    metadata: dict[str, Any] = field(default_factory=dict)

    @property
    def args(self) -> tuple[Any, ...]:
        return self.arguments


class CacheHook:
    """``lmms_eval.api.model.CacheHook``."""

    def __init__(self, cachinglm: Any = None) -> None: ...

    def add_partial(self, attr: str, req: Any, res: Any) -> None: ...


class lmms(abc.ABC):
    """``lmms_eval.api.model.lmms``: what a model has to offer."""

    is_simple = True

    def __init__(self) -> None:
        self._rank = 0
        self._world_size = 1
        self.cache_hook = CacheHook(None)
        self.task_dict: dict[str, Any] = {}

    @abc.abstractmethod
    def loglikelihood(self, requests: Any) -> Any: ...

    @abc.abstractmethod
    def generate_until(self, requests: Any) -> Any: ...

    @abc.abstractmethod
    def generate_until_multi_round(self, requests: Any) -> Any: ...

    @classmethod
    def create_from_arg_string(cls, arg_string: str, additional_config: Any = None) -> Any:
        pairs = (one.split("=", 1) for one in arg_string.split(",") if one)
        arguments = {key: int(value) if value.isdigit() else value for key, value in pairs}
        return cls(**arguments, **{key: value for key, value in (additional_config or {}).items() if value is not None})

    @property
    def rank(self) -> int:
        return self._rank

    def clean(self) -> None:
        """Free what the model holds."""
        self.task_dict = {}


@dataclass(frozen=True)
class ModelManifest:
    """``lmms_eval.models.registry_v2.ModelManifest``: what an entry point ``lmms_eval.models`` gives."""

    model_id: str
    simple_class_path: str | None = None
    chat_class_path: str | None = None
    aliases: tuple[str, ...] = ()


PLACES: dict[str, tuple[type, ...]] = {
    "lmms_eval.api.instance": (GenerationResult, Instance, TokenCounts),
    "lmms_eval.api.model": (CacheHook, lmms),
    "lmms_eval.models.registry_v2": (ModelManifest,),
}


def modules() -> dict[str, ModuleType]:
    """Modules of these names with the classes above in them."""
    made = {name: ModuleType(name) for name in ("lmms_eval", "lmms_eval.api", "lmms_eval.models", *PLACES)}
    for name, classes in PLACES.items():
        for one in classes:
            setattr(made[name], one.__name__, one)
    return made
