"""``llava-edge verify``: hashes and parity measured again on this machine."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from ...runtime.errors import BundleError, listed


def verify(
    bundle: Annotated[
        Path | None, typer.Argument(metavar="BUNDLE", help="Bundle folder or name; the demo without it.")
    ] = None,
) -> None:
    """Check every file's hash and measure the parity record again."""
    from ...runtime.bundle.bundle import Bundle, demo_bundle
    from ...runtime.parity import holds, measure
    from ..terminal.streams import say

    opened = Bundle.open(bundle or demo_bundle(), hash_all=True)
    say(f"{len(opened.manifest.files)} files have the sizes and hashes of the manifest")
    if unlisted := opened.unlisted():
        say(f"not listed there, and ignored: {listed(unlisted)}")
    recorded = opened.manifest.parity.measured
    measured = measure(opened.path)
    say(f"{'':<18}{'recorded':>12}{'here':>12}")
    for name in sorted(measured):
        say(f"{name:<18}{recorded.get(name, float('nan')):>12.3g}{measured[name]:>12.3g}")
    if worse := [name for name in sorted(recorded) if not holds(name, recorded, measured)]:
        raise BundleError(
            expected=f"the recorded parity of {opened.path}",
            got="worse " + ", ".join(f"{one} {measured.get(one, float('nan')):.3g}" for one in worse),
            fix="check the versions of onnxruntime and llama-cpp-python, or export the bundle again",
        )
    say("parity holds" if recorded else "no parity was recorded (export --no-verify), so there is none to hold")
