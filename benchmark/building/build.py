"""From a folder of photographs to a benchmark: what is done in which order, and the folder that comes of it."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from ...runtime.bundle.bundle import Bundle, demo_bundle
from ...runtime.bundle.named import names_of
from ...runtime.callbacks import Progress
from ...runtime.errors import DataError, OptionError
from ...runtime.model import Model, load
from ...runtime.options import LoadOptions
from ...runtime.prompts.conversations import read_samples
from ...runtime.system.storage import check_absent, check_outside_bundles
from ..copies.duplicates import Copies, Decisions, find_copies
from ..copies.overlap import Overlap, overlap_with, training_pictures
from ..copies.photographs import Photograph, Survey, picture_paths, survey
from ..judging.endpoint import Endpoint
from .asked import AskedFile, Item, open_questions, read_asked, with_more_questions
from .asking import ANSWER_TOKENS, PROPOSE, Asker, BundleAsker, EndpointAsker, blind_answer, proposed_questions
from .card import Chosen, Facts
from .choosing import choose
from .clusters import Cluster
from .embedding import model_identity, picture_vector, question_vector, vision_identity
from .work import Work
from .written import PAIRS, write_benchmark


@dataclass(frozen=True)
class Wanted:
    """What to build: ``k`` questions about the pictures in ``photos``, into the folder ``output``."""

    photos: Path
    output: Path
    k: int
    model: Path | None = None
    questions: Path | None = None
    draft: bool = False
    against: Path | None = None
    pairs: Path | None = None
    drop_blind: bool = False
    seed: int = 0

    def __post_init__(self) -> None:
        if self.k < 1 or self.seed < 0:
            raise OptionError(
                expected="a number of questions of at least 1 and a seed of at least 0",
                got=f"{self.k} and {self.seed}",
                fix="correct -k or --seed",
            )


def build(
    wanted: Wanted,
    *,
    loading: LoadOptions | None = None,
    endpoint: Endpoint | None = None,
    on_stage: Callable[[str], Progress] = lambda stage: lambda done, total: None,
) -> Facts:
    """Write the benchmark, whole or not at all; ``on_stage`` gives what hears of the progress of each stage.

    Run again after an interruption it goes on from what was worked out; the same input and seed give the same folder.
    Raises DataError, BundleError, OptionError, ImageError, JudgeError, NativeError, StorageError.
    """
    check_absent(wanted.output)
    check_outside_bundles(wanted.output)
    work = Work(wanted.output)
    bundle = Bundle.open(wanted.model or demo_bundle())
    decisions = _check_files(wanted, work)
    loading = loading or LoadOptions()
    with (
        work.alone(),
        load(bundle.path, threads=loading.threads, context=loading.context, gpu_layers=loading.gpu_layers) as model,
    ):
        found = survey(
            wanted.photos,
            lambda picture: picture_vector(model, picture),
            work,
            identity=vision_identity(bundle),
            but=(wanted.output, work.folder),
            on_progress=on_stage("looking at pictures"),
        )
        copies = find_copies(
            found.photographs, seed=wanted.seed, decisions=decisions, on_progress=on_stage("comparing pictures")
        )
        asked = _asked(wanted, found, copies)
        making = _Making(wanted, model, bundle, work, found, endpoint)
        chosen, clusters = making.chosen(asked.items, on_stage("reading questions"))
        chosen, dropped = making.answered(chosen, on_stage("drafting and asking blind"))
    overlap = _overlap(wanted, found, copies, chosen, on_stage("comparing with the training set"))
    facts = Facts(
        name=wanted.output.name,
        bundle=making.bundle_name,
        identity=model_identity(bundle),
        drafted_by=making.drafter.name,
        seed=wanted.seed,
        wanted=wanted.k,
        photographs=found.photographs,
        unreadable=found.unreadable,
        copies=copies,
        asked_left_out=asked.left_out,
        items=len(asked.items),
        chosen=chosen,
        dropped=dropped,
        overlap=overlap,
    )
    write_benchmark(wanted.output, facts, asked.items, clusters)
    work.remove()
    return facts


def summary(facts: Facts) -> dict[str, Any]:
    """JSON-ready values: what ``benchmark build --json`` prints beside the folder's path."""
    copies, overlap = facts.copies, facts.overlap
    return {
        "photographs": len(facts.photographs),
        "unreadable": list(facts.unreadable),
        "copies": [
            {
                "picture": facts.photographs[one.copy].name,
                "kept": facts.photographs[one.kept].name,
                "why": one.why,
                "difference": one.difference,
            }
            for one in copies.left_out
        ],
        "limit": copies.limit,
        "borderline": len(copies.borderline),
        "wanted": facts.wanted,
        "candidates": facts.items,
        "questions": len(facts.chosen),
        "pictures": len(facts.pictures),
        "confirmed": sum(one.item.confirmed for one in facts.chosen),
        "blind": facts.blind,
        "dropped": len(facts.dropped),
        "left_out": list(facts.asked_left_out),
        "overlap": None
        if overlap is None
        else {
            "file": overlap.file,
            "pictures": overlap.pictures,
            "missing": overlap.missing,
            "found": list(facts.overlapping),
            "share": facts.overlap_share,
        },
        "seed": facts.seed,
    }


@dataclass(frozen=True)
class _Making:
    """The part that asks: with the bundle loaded."""

    wanted: Wanted
    model: Model
    bundle: Bundle
    work: Work
    found: Survey
    endpoint: Endpoint | None

    @property
    def bundle_name(self) -> str:
        return names_of(self.bundle.path)[0]

    @property
    def asker(self) -> Asker:
        return BundleAsker(self.model, self.bundle_name, model_identity(self.bundle), self.work)

    @property
    def drafter(self) -> Asker:
        """Who drafts references and proposes questions."""
        return self.asker if self.endpoint is None else EndpointAsker(self.endpoint, self.work)

    def chosen(self, items: Sequence[Item], on_progress: Progress) -> tuple[tuple[Chosen, ...], tuple[Cluster, ...]]:
        identity = model_identity(self.bundle)
        texts = list(dict.fromkeys(one.question for one in items))
        done = iter(range(1, len(texts) + 1))

        def vector(text: str) -> Any:
            key = f"question vector\n{identity}\n{text}"
            kept = self.work.arrays(key, lambda: {"vector": question_vector(self.model, text)})["vector"]
            on_progress(next(done), len(texts))
            return kept

        return choose(items, _by_name(self.found), self.wanted.k, seed=self.wanted.seed, question_vector=vector)

    def answered(
        self, chosen: Sequence[Chosen], on_progress: Progress
    ) -> tuple[tuple[Chosen, ...], tuple[Chosen, ...]]:
        """The questions with drafts and with what was answered blind, and those that were dropped for it."""
        if self.wanted.draft:
            chosen = self._with_proposed(chosen)
        paths = {one.name: one.path for one in self.found.photographs}
        kept: list[Chosen] = []
        dropped: list[Chosen] = []
        for done, one in enumerate(chosen, start=1):
            item = self._drafted(one.item, paths[one.item.name])
            item = replace(item, blind=blind_answer(self.asker, item.asked(paths[item.name]), item.answer))
            (dropped if item.blind and self.wanted.drop_blind else kept).append(replace(one, item=item))
            on_progress(done, len(chosen))
        if not kept:
            raise DataError(
                expected="a question that needs its picture",
                got=f"{len(dropped)} that were answered without it",
                fix="ask other questions, or leave --drop-blind out",
            )
        return tuple(kept), tuple(dropped)

    def _drafted(self, item: Item, path: Path) -> Item:
        if item.answer:
            return item
        drafted = self.drafter.answer(item.question, (path,), ANSWER_TOKENS)
        return replace(item, answer=drafted, drafted_by=self.drafter.name if drafted else "")

    def _with_proposed(self, chosen: Sequence[Chosen]) -> list[Chosen]:
        places = {one.item.name: one for one in chosen}
        paths = {one.name: one.path for one in self.found.photographs}
        proposed = {
            name: proposed_questions(self.drafter.answer(PROPOSE, (paths[name],), ANSWER_TOKENS)) for name in places
        }
        items = with_more_questions([one.item for one in chosen], proposed)
        known = {id(one.item): one for one in chosen}
        return [known.get(id(item), replace(places[item.name], item=item)) for item in items]


def _check_files(wanted: Wanted, work: Work) -> Decisions:
    """Say what is wrong with the files before hours of work; what was decided about pairs."""
    paths = picture_paths(wanted.photos, (wanted.output, work.folder))
    names = {path.relative_to(wanted.photos).as_posix() for path in paths}
    if wanted.questions is not None:
        read_asked(wanted.questions, wanted.photos, {name: name for name in names})
    if wanted.against is not None:
        training_pictures(wanted.against)
    return _decisions(wanted.pairs, names) if wanted.pairs is not None else {}


def _decisions(file: Path, names: set[str]) -> Decisions:
    """What a person wrote into ``pairs.json``."""
    found: dict[frozenset[str], bool] = {}
    for index, record in enumerate(read_samples(file).records):
        pictures: Any = record.get("pictures") if isinstance(record, dict) else None
        same: Any = record.get("same") if isinstance(record, dict) else None
        two = isinstance(pictures, list) and len(pictures) == 2 and set(map(str, pictures)) <= names
        if not two or not (same is None or isinstance(same, bool)):
            raise DataError(
                expected=f'two pictures of the folder and "same" true, false or null in record {index} of {file}',
                got=json.dumps(record)[:120],
                fix=f"take the {PAIRS} that the build wrote",
            )
        if same is not None:
            found[frozenset(map(str, pictures))] = same
    return found


def _asked(wanted: Wanted, found: Survey, copies: Copies) -> AskedFile:
    names = [one.name for one in found.photographs]
    if wanted.questions is None:
        return AskedFile(tuple(open_questions([names[index] for index in copies.kept])))
    stands_for = {names[one.copy]: names[one.kept] for one in copies.left_out}
    return read_asked(wanted.questions, wanted.photos, {name: stands_for.get(name, name) for name in names})


def _overlap(
    wanted: Wanted, found: Survey, copies: Copies, chosen: Sequence[Chosen], on_progress: Progress
) -> Overlap | None:
    if wanted.against is None:
        return None
    names = {one.item.name for one in chosen}
    places = [index for index, one in enumerate(found.photographs) if one.name in names]
    overlap = overlap_with(
        wanted.against, [found.photographs[index] for index in places], limit=copies.limit, on_progress=on_progress
    )
    return replace(overlap, found=tuple(replace(one, photograph=places[one.photograph]) for one in overlap.found))


def _by_name(found: Survey) -> Mapping[str, Photograph]:
    return {one.name: one for one in found.photographs}


@contextlib.contextmanager
def saying_where(wanted: Wanted, say: Callable[[str], object]) -> Iterator[None]:
    """Where a build ends early, say what is kept of it."""
    try:
        yield
    except BaseException:
        if (work := Work(wanted.output)).begun:
            say(f"what is finished is kept in {work.folder}; the same command goes on from there")
        raise
