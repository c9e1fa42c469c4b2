"""Pages that are made from the code are the code's; what others quote from it is there."""

from __future__ import annotations

import ast
import re
import tomllib
from functools import cache
from pathlib import Path

import pytest
from llava_edge.cli.terminal.question import MOST_BYTES
from llava_edge.runtime.pictures.files.kinds import READ
from llava_edge.runtime.pictures.files.sources import MAX_FILE_BYTES
from llava_edge.runtime.pictures.picture import MAX_PIXELS
from support.generated_pages import PAGES

ROOT = Path(__file__).parent.parent
DOCS = ROOT / "docs"
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
ANYTHING = "\N{HORIZONTAL ELLIPSIS}"
"""What stands for a name or number in a quoted line, and here for all that an error line computes."""


@pytest.mark.parametrize("name", sorted(PAGES))
def test_generated_pages_are_up_to_date(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "57")
    assert (DOCS / name).read_text(encoding="utf-8") == PAGES[name](), "run: make docs"


def test_the_command_page_says_what_the_command_says() -> None:
    """Against a command's own help at its usual width: the same words."""
    import subprocess
    import sys

    program = "import sys; from llava_edge.cli.main import main; sys.argv = ['llava-edge', 'worker', '--help']; main()"
    said = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True).stdout
    page = (DOCS / "commands.md").read_text(encoding="utf-8")
    assert " ".join(said.split()) in " ".join(page.split())


@cache
def nodes() -> list[ast.AST]:
    """Everything that is written in the product."""
    files = [path for room in PROJECT["tool"]["coverage"]["run"]["source"] for path in (ROOT / room).rglob("*.py")]
    return [node for path in files for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))]


@cache
def constants() -> dict[str, str]:
    """Texts that have a name, such as a fix that several errors share."""
    return {
        ast.unparse(node.targets[0]): node.value.value
        for node in nodes()
        if isinstance(node, ast.Assign) and isinstance(node.value, ast.Constant) and isinstance(node.value.value, str)
    }


def written(node: ast.expr | None) -> str:
    """The text of an expression, as far as it is in the source."""
    if isinstance(node, ast.Constant):
        return str(node.value)
    if isinstance(node, ast.JoinedStr):
        return "".join(written(one) for one in node.values)
    if isinstance(node, ast.FormattedValue):
        return written(node.value)
    return constants().get(node.id, ANYTHING) if isinstance(node, ast.Name) and node.id.isupper() else ANYTHING


@cache
def error_lines() -> list[str]:
    """Every error line of the product: of each value that is chosen by a condition, both."""
    lines = []
    for node in nodes():
        if isinstance(node, ast.Call):
            given = {one.arg: one.value for one in node.keywords}
            if ast.unparse(node.func) == "native_error" and len(node.args) == 2:
                lines.append(f"expected {written(node.args[0])}; got llama.cpp: {ANYTHING}; {written(node.args[1])}")
            elif {"expected", "got", "fix"} <= given.keys():
                branches = [
                    [value.body, value.orelse] if isinstance(value, ast.IfExp) else [value]
                    for value in (given["expected"], given["got"], given["fix"])
                ]
                lines += [
                    f"expected {written(expected)}; got {written(got)}; {written(fix)}"
                    for expected in branches[0]
                    for got in branches[1]
                    for fix in branches[2]
                ]
    return lines


def is_line(quoted: str, line: str) -> bool:
    """Whether ``line`` becomes ``quoted`` when what it computes is filled in; two lines' worth of nothing is none."""
    said = line.replace(ANYTHING, "")
    pattern = ".+?".join(re.escape(part) for part in line.split(ANYTHING))
    return len(said) > len("expected ; got ; ") + 15 and re.fullmatch(pattern, quoted) is not None


QUOTED = [
    line
    for block in re.findall(r"^```text\n(.*?)^```", (DOCS / "troubleshooting.md").read_text("utf-8"), re.M | re.S)
    for line in block.splitlines()
]


@pytest.mark.parametrize("quoted", QUOTED)
def test_errors_that_troubleshooting_quotes_exist(quoted: str) -> None:
    assert any(is_line(quoted, line) for line in error_lines())


def test_a_line_that_is_not_there_is_seen() -> None:
    assert len(QUOTED) > 10
    invented = QUOTED[-1].replace("process", "program", 1)
    assert invented != QUOTED[-1]
    assert not any(is_line(invented, line) for line in error_lines())


def paths(page: str) -> set[str]:
    """What a page names in backticks that looks like a file or folder of the checkout."""
    words = re.findall(r"`([\w./-]+)`", re.sub(r"```.*?```", "", page, flags=re.S))
    return {word for word in words if "/" in word[1:] or word.endswith((".md", ".py", ".toml"))}


@pytest.mark.parametrize("page", ["CONTRIBUTING.md", "SECURITY.md", "README.md"])
def test_paths_exist(page: str) -> None:
    named = paths((ROOT / page).read_text(encoding="utf-8"))
    assert named
    assert not {name for name in named if not (ROOT / name).exists()}


def test_every_page_is_pointed_to() -> None:
    pointed = paths((ROOT / "README.md").read_text(encoding="utf-8"))
    assert {f"docs/{page.name}" for page in DOCS.glob("*.md")} <= pointed


def test_version_and_changelog_agree() -> None:
    sections = re.findall(r"^## \[([^\]]+)\]", (ROOT / "CHANGELOG.md").read_text(encoding="utf-8"), re.M)
    released = [name for name in sections if name != "Unreleased"]
    assert released[0] == PROJECT["project"]["version"]
    assert released == sorted(released, key=lambda name: [int(part) for part in name.split(".")], reverse=True)


def test_tools_are_pinned() -> None:
    """A release of ruff or mypy changes what is right; only the versions here say so."""
    pinned = {line.split("==")[0] for line in (ROOT / "constraints-dev.txt").read_text("utf-8").splitlines()}
    assert {"ruff", "mypy", "pytest", "pytest-cov"} <= pinned


def test_every_public_call_is_on_the_page_of_the_interface() -> None:
    """Against the classes themselves: what can be called is described, asynchronous or not, and words are listed."""
    import inspect
    from typing import get_args

    from llava_edge.runtime import Answer, Bundle, Chat, EncodedImage, Model
    from llava_edge.runtime.answer import FinishReason

    page = (DOCS / "api.md").read_text(encoding="utf-8")
    for kind in (Answer, Bundle, Chat, EncodedImage, Model):
        for name, value in vars(kind).items():
            if not name.startswith("_") and (inspect.isroutine(value) or isinstance(value, property)):
                assert f"\n#### {kind.__name__}.{name}\n" in page, f"{kind.__name__}.{name}"
    assert "\nasync def aask(\n" in page
    assert all(f"'{word}'" in page.partition("### FinishReason")[2][:200] for word in get_args(FinishReason))


def test_the_readme_names_every_extra_that_a_command_needs() -> None:
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    named = {name for one in re.findall(r"\[([a-z,-]+)\]\"", readme) for name in one.split(",")}
    assert {"cpu", "cuda", "hub", "export", "quantize", "train"} <= named


def test_formats_and_limits_of_pictures_are_the_programs() -> None:
    formats = re.findall(r"[A-Z][A-Za-z]+", READ)
    for page in ("SECURITY.md", "docs/pictures.md", "docs/troubleshooting.md"):
        text = (ROOT / page).read_text(encoding="utf-8")
        assert not [name for name in formats if name not in text], page
    assert len(formats) == 8
    assert "of eight formats" in (ROOT / "SECURITY.md").read_text(encoding="utf-8")
    text = " ".join((ROOT / "docs/pictures.md").read_text(encoding="utf-8").split())
    limits = (
        f"{MAX_PIXELS / 1e6:g} megapixels and its file {MAX_FILE_BYTES >> 30} GiB ({MOST_BYTES / 1e6:g} MB on standard"
    )
    assert limits in text
