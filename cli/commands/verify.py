"""``llava-edge verify``: hashes and parity measured again on this machine."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NamedTuple

import typer

from ...runtime.errors import BundleError, amount, listed
from ...runtime.options import LoadOptions, PromptEngineName
from ..terminal.options import PromptEngineOption, typed

if TYPE_CHECKING:
    from ...runtime.bundle.bundle import Bundle


def verify(
    ctx: typer.Context,
    bundle: Annotated[
        Path | None, typer.Argument(metavar="BUNDLE", help="Bundle folder or name; the demo without it.")
    ] = None,
    as_loaded: Annotated[
        bool,
        typer.Option(
            "--as-loaded",
            help="Measure also with what would answer on this machine, prompts read by --prompt-engine.",
        ),
    ] = False,
    prompt_engine: PromptEngineOption = "auto",
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Check every file's hash and measure the parity record again."""
    from ...runtime.bundle.bundle import Bundle, demo_bundle
    from ...runtime.parity import holds, measure
    from ..terminal.failure import error_entry, report
    from ..terminal.progress import note
    from ..terminal.streams import say, say_json

    engine = LoadOptions(prompt_engine=prompt_engine).prompt_engine  # type: ignore[arg-type]  # refuses other words
    if not as_loaded and typed(ctx, "prompt_engine"):
        note("--prompt-engine has no effect without --as-loaded: the record is held to llama.cpp")
    opened = Bundle.open(bundle or demo_bundle(), hash_all=True)
    if not as_json:
        for line in _files(opened):
            say(line)
    recorded = opened.manifest.parity.measured
    measured = measure(opened.path)
    worse = [name for name in sorted(recorded) if not holds(name, recorded, measured)]
    error = _worse(opened, worse, measured) if worse else None
    loaded = _measure_as_loaded(opened, recorded, engine) if as_loaded else None
    if loaded is not None and loaded.worse and error is None:
        error = _worse(opened, loaded.worse, loaded.measured, "as loaded: ")
    if as_json:
        found = _as_dict(opened, measured, worse)
        if loaded is not None:
            found["as_loaded"] = loaded.as_dict()
        say_json({**found, **({"error": error_entry(error)} if error else {})})
        if error:
            raise typer.Exit(report(error, as_json=False))
        return
    say(f"{'':<18}{'recorded':>12}{'here':>12}" + (f"{'as loaded':>12}" if loaded else ""))
    for name in sorted(measured):
        line = f"{name:<18}{recorded.get(name, float('nan')):>12.3g}{measured[name]:>12.3g}"
        say(line + (f"{loaded.measured.get(name, float('nan')):>12.3g}" if loaded else ""))
    if loaded is not None:
        say(f"as loaded: {loaded.placement}")
        if not loaded.held:
            say("as loaded: no divergence was recorded (export --no-verify), so what answers is not held to one")
    if error:
        raise error
    say("parity holds" if recorded else "no parity was recorded (export --no-verify), so there is none to hold")


class _AsLoaded(NamedTuple):
    """What was measured with what would answer: its placement, its numbers, and which of them do not hold."""

    placement: str
    measured: Mapping[str, float]
    worse: Sequence[str]
    held: bool
    """Whether there was a divergence to hold: without one nothing is said of the engine that reads prompts."""

    def as_dict(self) -> dict[str, Any]:
        numbers = {name: _number(value) for name, value in sorted(self.measured.items())}
        return {"placement": self.placement, "measured": numbers, "worse": list(self.worse), "held": self.held}


def _measure_as_loaded(opened: Bundle, recorded: Mapping[str, float], engine: PromptEngineName) -> _AsLoaded:
    from ...runtime.parity import holds, measure

    placement: list[str] = []
    measured = measure(opened.path, as_loaded=engine, on_placement=placement.append)
    worse = [name for name in sorted(recorded) if not holds(name, recorded, measured, as_loaded=True)]
    held = "logits_kl" in recorded and "logits_kl" in measured
    return _AsLoaded(placement[0], measured, worse, held)


def _files(opened: Bundle) -> Iterator[str]:
    yield f"{amount(len(opened.manifest.files), 'file has', 'files have')} the sizes and hashes of the manifest"
    if unlisted := _unlisted(opened):
        yield f"not listed there, and ignored: {listed(unlisted)}"


def _unlisted(opened: Bundle) -> list[str]:
    """What lies beside the bundle's files but its card, which every bundle of ours has."""
    from ...store.card import CARD

    return [name for name in opened.unlisted() if name != CARD]


def _worse(opened: Bundle, worse: Sequence[str], measured: Mapping[str, float], how: str = "") -> BundleError:
    return BundleError(
        expected=f"the recorded parity of {opened.path}",
        got=f"{how}worse " + ", ".join(f"{one} {measured.get(one, float('nan')):.3g}" for one in worse),
        fix="load it with --prompt-engine llama.cpp"
        if how
        else "check the versions of onnxruntime and llama-cpp-python, or export the bundle again",
    )


def _as_dict(opened: Bundle, measured: Mapping[str, float], worse: Sequence[str]) -> dict[str, Any]:
    """The object of ``verify --json``; a number that is none, or was not measured, is null."""
    recorded = opened.manifest.parity.measured
    return {
        "bundle": str(opened.path),
        "files": [entry.name for entry in opened.manifest.files],
        "unlisted": _unlisted(opened),
        "recorded": {name: _number(value) for name, value in sorted(recorded.items())},
        "measured": {name: _number(value) for name, value in sorted(measured.items())},
        "worse": list(worse),
        "holds": not worse if recorded else None,
    }


def _number(value: float) -> float | None:
    return value if math.isfinite(value) else None
