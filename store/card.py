"""A bundle's card: README.md, which says what it was made of, what that cost, and whose licence it has.

The manifest does not list it, so that who publishes a bundle can write on; nothing of it is read but the licence.
"""

from __future__ import annotations

import re
from contextlib import suppress
from pathlib import Path

from ..runtime.bundle.disk_space import size_text
from ..runtime.bundle.manifest import Manifest
from .hub import HUB_ID

CARD = "README.md"
_LARGEST = 2**20
"""Characters of a card in which a licence is looked for."""
_UNKNOWN = "not stated where the weights came from; ask there before you pass them on"
_FIELDS = {
    "license": r"[\w.+-]{1,64}",
    "license_name": r"[\w .+-]{1,64}",
    "license_link": r"https://[\w./%#?=&+-]{1,200}",
}
_RUNGS = {
    "tiles": "tile grid equal",
    "pixels": "pixels, levels",
    "features": "picture features, relative",
    "embeddings": "packed sequence, relative",
    "prompt_ids": "prompt ids equal",
    "logits_kl": "first token, KL in nats",
    "argmax": "first token equal",
    "greedy": "greedy tokens equal",
    "greedy_expected": "greedy tokens that have to be equal",
}


def write_card(folder: Path, manifest: Manifest, *, base: str = "", licence: str = "", cost: str = "") -> None:
    """Write the card of the bundle in ``folder``: ``base`` the hub id of what it was exported from, where it has one.

    ``licence`` is what :func:`licence_in` found there, ``cost`` what its recipes were measured to cost.
    """
    (folder / CARD).write_text(card(manifest, base=base, licence=licence, cost=cost), encoding="utf-8")


def card(manifest: Manifest, *, base: str = "", licence: str = "", cost: str = "") -> str:
    """The card's text: Markdown, behind what the hub reads."""
    source, llm, vision = manifest.source, manifest.llm, manifest.vision
    parts = [
        _front(base, licence),
        f"# {_plain(manifest.name)}\n",
        "A LLaVA-NeXT model as a bundle of llava-edge: talk about pictures on the machine in front of you.\n",
        "```console\n$ llava-edge pull OWNER/NAME\n$ llava-edge chat photo.jpg -m NAME\n```\n",
        _table(
            ("part", "what"),
            [
                ("made by", _plain(manifest.created_by)),
                ("from", f"{_plain(base or source.name)} ({source.layout} layout, {_plain(source.architecture)})"),
                ("fingerprint", source.fingerprint[:16]),
                ("language model", f"{llm.recipe}, {_plain(llm.architecture)}, {llm.context_length} positions"),
                *_matrix(manifest),
                ("vision", f"{vision.recipe}, relative error of the features {vision.feature_error:.2g}"),
                ("size", size_text(sum(entry.size for entry in manifest.files))),
                *([("what the recipes cost", cost)] if cost else []),
                ("licence", licence or _UNKNOWN),
            ],
        ),
        "## Against the checkpoint\n",
        f"On a built-in picture, against {_plain(manifest.parity.reference)}; `llava-edge verify` measures again.\n",
        _measured(manifest.parity.measured),
    ]
    return "\n".join(parts)


def licence_in(folder: Path) -> str:
    """The licence that the card in ``folder`` names, "" where there is none or it names none."""
    return licence_of(_read(folder))


def base_in(folder: Path) -> str:
    """The hub id that the card in ``folder`` names as its base, "" where there is none."""
    base = _field(_read(folder), "base_model", HUB_ID.pattern)
    return base if HUB_ID.fullmatch(base) else ""


def _read(folder: Path) -> str:
    with suppress(OSError, UnicodeDecodeError), (folder / CARD).open(encoding="utf-8") as file:
        return file.read(_LARGEST)
    return ""


def licence_of(text: str) -> str:
    """The licence that a card's text names: its head's, as the hub has it, with name and link of another one."""
    found = {key: _field(text, key, form) for key, form in _FIELDS.items()}
    more = ", ".join(filter(None, (found["license_name"], found["license_link"])))
    return f"{found['license']} ({more})" if found["license"] and more else found["license"]


def _field(text: str, key: str, form: str) -> str:
    head = re.match(r"---\s*\n(.*?)\n---\s*(\n|$)", text.replace("\r\n", "\n"), re.DOTALL)
    line = re.search(rf"^{key}:[ \t]*[\"']?({form})[\"']?[ \t]*$", head[1] if head else "", re.MULTILINE)
    return line[1].strip() if line else ""


def _front(base: str, licence: str) -> str:
    name, _, more = licence.partition(" (")
    lines = ["library_name: llava-edge", "pipeline_tag: image-text-to-text"]
    if HUB_ID.fullmatch(base):
        lines.append(f"base_model: {base}")
    if name:
        lines.append(f"license: {name}")
    link = re.search(r"https://\S+(?=\))", more)
    other = more.removesuffix(")").removesuffix(link[0] if link else "").rstrip(", ")
    lines += [f"license_name: {other}"] if other else []
    lines += [f"license_link: {link[0]}"] if link else []
    return "\n".join(["---", *lines, "---", ""])


def _matrix(manifest: Manifest) -> list[tuple[str, str]]:
    matrix = manifest.llm.importance
    if matrix is None:
        return []
    return [("importance matrix", f"{matrix.source} of {_plain(matrix.data)}, {matrix.positions} positions")]


def _measured(measured: dict[str, float]) -> str:
    if not measured:
        return "Nothing was measured (`export --no-verify`).\n"
    return _table(
        ("rung", "measured"), [(_RUNGS.get(name, name), f"{value:.3g}") for name, value in sorted(measured.items())]
    )


def _table(head: tuple[str, str], rows: list[tuple[str, str]]) -> str:
    lines = [f"| {name} | {value} |" for name, value in [head, ("---", "---"), *rows]]
    return "\n".join([*lines, ""])


def _plain(text: str) -> str:
    """A text from elsewhere, in which nothing is Markdown or a second line."""
    kept = "".join(one if one.isprintable() else " " for one in text[:200])
    return re.sub(r"([\\`*_\[\]<>|#])", r"\\\1", kept)
