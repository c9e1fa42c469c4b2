"""All that can be known to be wrong before the first step: looked at before the first stage trains, for every stage."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

from ..runtime.errors import OptionError
from ..runtime.prompts.conversations import check_samples
from ..runtime.system.storage import write_text
from .data.dataset import SampleDataset
from .data.picture_store import check_store
from .data.sample_index import data_fingerprint, index_samples, read_index
from .data.sample_reader import SampleReader, open_sources
from .model.base import Base, check_saving, read_base
from .model.config import empty_model, read_config
from .model.generation import read_generation_config
from .model.lora import adapted
from .recipe import DataRecipe, Recipe, StageRecipe
from .run_folder import COMPLETE

MANY = 2000
"""Samples from which on a pass over them is announced: it takes more than some seconds."""


def check_output(recipe: Recipe, output: Path) -> None:
    """Refuse an output that would write over what is read. Raises :class:`OptionError`."""
    base, written = Path(recipe.model.base), output.resolve()
    for read in (base, *(Path(source.samples) for source in _sources(recipe))):
        place = read.resolve()
        if written == place or written in place.parents or (read == base and place in written.parents):
            raise OptionError(
                expected=f"an --output apart from {read}, which is read", got=str(output), fix="choose another --output"
            )


def check_packages() -> None:
    """Import what a run would else import at its first checkpoint. Raises ImportError."""
    import matplotlib  # noqa: F401
    import tensorboard  # noqa: F401


def check_data(recipe: Recipe) -> None:
    """Refuse data that is not there, of any stage, without reading it. Raises OptionError and DataError."""
    for source in _sources(recipe):
        check_samples(Path(source.samples))
        check_store(source.images)


def _sources(recipe: Recipe) -> Iterator[DataRecipe]:
    for stage in recipe.stages:
        yield from (*stage.data, *stage.evaluation)


def stage_folder(recipe: Recipe, stage: StageRecipe, work: Path) -> Path:
    """Where a stage's index, losses, checkpoints and model lie."""
    return work / f"stage-{recipe.stages.index(stage) + 1}-{stage.name}"


def finished(folder: Path) -> bool:
    """Whether the stage of this folder has been trained."""
    return (folder / "model" / COMPLETE).exists()


def check_stages(recipe: Recipe, source: Path, work: Path) -> None:
    """Look at the base checkpoint in ``source`` and, for each stage that is to be trained, at all its samples.

    What was found is kept in the stages' folders. Raises OptionError, CheckpointError and SampleError.
    """
    from accelerate import PartialState

    PartialState()  # joins the processes
    check_saving(source)
    read_generation_config(source)
    stages = [stage for stage in recipe.stages if not finished(stage_folder(recipe, stage, work))]
    bases = [read_base(source, stage.pinpoints) for stage in stages]
    config = read_config(source)
    empty_model(config)
    if recipe.lora and any("llm" in stage.rates for stage in stages):
        adapted(config, recipe.lora)
    for stage, base in zip(stages, bases, strict=True):
        for dataset in stage_data(recipe, stage, base, stage_folder(recipe, stage, work)):
            if dataset is not None:
                dataset.close()


def stage_data(
    recipe: Recipe, stage: StageRecipe, base: Base, folder: Path
) -> tuple[SampleDataset, SampleDataset | None]:
    """What a stage trains on, and what it is evaluated on."""
    train = _dataset(recipe, stage, stage.data, base, folder / "index.json")
    if not stage.evaluation:
        return train, None
    return train, _dataset(recipe, stage, stage.evaluation, base, folder / "evaluation-index.json")


def _dataset(recipe: Recipe, stage: StageRecipe, data: tuple[DataRecipe, ...], base: Base, path: Path) -> SampleDataset:
    """The stage's usable samples. The main process looks through all of them, the others read what it found."""
    from accelerate import PartialState

    run = recipe.run
    fatal = run.broken == "fatal"
    reader = SampleReader(
        open_sources(data),
        base.encoder,
        base.geometry,
        stage.prompt,
        stage.sequence_length,
        cut_long=run.too_long == "cut",
    )
    with PartialState().main_process_first():
        settings = (base.geometry, base.encoder.spec, stage.prompt, stage.sequence_length, run.too_long)
        fingerprint = data_fingerprint(data, *settings)
        index = read_index(path)
        if index is None or index.fingerprint != fingerprint:
            count = sum(len(source.samples) for source in reader.sources)
            if count >= MANY:
                print(f"note: reading all {count:,} samples of stage {stage.name!r} once", file=sys.stderr, flush=True)
            index = index_samples(reader, fatal=fatal, fingerprint=fingerprint, workers=run.workers)
            write_text(path, index.to_json())
            for line in index.broken:
                print(f"skipped: {line}", file=sys.stderr)
    if not index.entries:
        raise OptionError(
            expected=f"a usable sample in stage {stage.name!r}",
            got=f"{len(index.broken)} broken ones",
            fix="correct the samples",
        )
    return SampleDataset(index, reader, fatal=fatal)
