"""Bundles exported once a session from tiny seeded checkpoints."""

from __future__ import annotations

import functools
import os
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import settings

# libgomp's threads spin while they wait for work, and on two cores for each other. It reads these when it is loaded: by
# llama.cpp in the product, which sets its own meanwhile, but in many tests by torch, which the product leaves alone.
os.environ.setdefault("OMP_WAIT_POLICY", "passive")
os.environ.setdefault("GOMP_SPINCOUNT", "0")
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")  # tests import onnxruntime themselves too
os.environ["LLAVA_EDGE_CONFIG"] = os.devnull  # what a developer has set for the commands is not for their tests
os.environ["LLAVA_EDGE_MODELS"] = os.path.join(os.devnull, "models")  # nor are the models that they have pulled

from support.checkpoints import make_checkpoint

_cache = tempfile.TemporaryDirectory(prefix="llava-edge-tests-")
os.environ["LLAVA_EDGE_CACHE"] = _cache.name  # nothing that tests do is kept in the user's own

# the same examples at every run; how long one takes is the machine's business
settings.register_profile("repeatable", derandomize=True, deadline=None, database=None)
settings.load_profile("repeatable")

MakeBundle = Callable[..., tuple[Path, Path]]


def pytest_unconfigure() -> None:
    """Remove the cache, and close the two files on /dev/null that llama_cpp opens when it is imported and never closes.

    Any left open are a ResourceWarning when the interpreter goes.
    """
    _cache.cleanup()
    utilities = sys.modules.get("llama_cpp._utils")
    if utilities is not None:
        utilities.outnull_file.close()
        utilities.errnull_file.close()


@pytest.fixture(scope="session")
def exported(tmp_path_factory: pytest.TempPathFactory) -> MakeBundle:
    """(checkpoint, bundle) of a family and layout, made at the first request of the session."""

    @functools.cache
    def make(family: str = "llama3", layout: str = "transformers") -> tuple[Path, Path]:
        from llava_edge.export.pipeline import export_checkpoint

        folder = tmp_path_factory.mktemp(f"{family}-{layout}")
        checkpoint = make_checkpoint(folder / "checkpoint", family, layout)
        export_checkpoint(str(checkpoint), folder / "bundle", llm_type="f32", vision_type="f32")
        return checkpoint, folder / "bundle"

    return make


@pytest.fixture(scope="session")
def tiny_bundle(exported: MakeBundle) -> Path:
    """The tiny Llama-3 bundle, f32 throughout."""
    return exported()[1]
