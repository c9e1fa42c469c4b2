"""A plan's language model written without the rest of a bundle."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from llava_edge.export.pipeline import Plan


def write_plan(plan: Plan, path: Path, llm_type: str = "f16", **options: int) -> Path:
    """Write the GGUF to ``path``, or beside it where ``split_size`` makes it several; return the first."""
    from llava_edge.export.language.gguf_file import lay_out_llm, write_llm
    from llava_edge.runtime.bundle.work_folder import Journal, Work

    checkpoint, settings = plan.checkpoint, plan.settings
    files = lay_out_llm(checkpoint, settings, plan.vocabulary, name=path.name, llm_type=llm_type, **options)
    work = Work(path.parent, Journal(path.with_suffix(".journal"), "key"))
    write_llm(work, files, checkpoint, settings, llm_type=llm_type)
    work.journal.path.unlink()
    return path.with_name(files[0].name)
