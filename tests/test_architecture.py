"""The rooms: who may import whom, as docs/architecture.md has it, and what importing the runtime must not load."""

from __future__ import annotations

import ast
import functools
import re
import subprocess
import sys
from collections import defaultdict
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PAGE = ROOT / "docs" / "architecture.md"
ROOMS = ("runtime", "store", "export", "quantize", "train", "benchmark", "serve", "cli")
HEAVY = {"torch", "transformers", "onnx", "optimum", "gguf", "safetensors", "sentencepiece", "tokenizers"}
RUNTIME_PACKAGES = {"numpy", "PIL", "onnxruntime", "llama_cpp", "jinja2", "pillow_heif", "llguidance"}
FACE = "runtime/__init__.py"
"""The only file that imports our own modules by a name it computes: the lazy names of the public package."""
LARGEST_FOLDER = 12
ONE_FILE_A_COMMAND = "cli/commands"


def modules() -> list[Path]:
    return sorted(path for room in ROOMS for path in (ROOT / room).rglob("*.py"))


def module_name(path: Path, root: Path = ROOT) -> str:
    """The dotted name below llava_edge, as "runtime.pictures.tiles"."""
    parts = path.relative_to(root).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def our_imports(path: Path, root: Path = ROOT) -> set[str]:
    """Dotted names below llava_edge that a file imports, at any depth and by any spelling."""
    package = path.relative_to(root).parent.parts
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {one.name.partition(".")[2] for one in node.names if one.name.split(".")[0] == "llava_edge"}
        elif isinstance(node, ast.ImportFrom):
            written = (node.module or "").split(".") if node.module else []
            if node.level:
                # one dot is the package itself; as many as there are folders reaches llava_edge
                base = [*package[: len(package) - (node.level - 1)], *written]
            elif written and written[0] == "llava_edge":
                base = written[1:]
            else:
                continue
            found |= {".".join([*base, one.name]) for one in node.names}
    return found


def packages(path: Path) -> set[str]:
    """Top-level names of other people's packages that a file imports."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {one.name.split(".")[0] for one in node.names}
        elif isinstance(node, ast.ImportFrom) and not node.level:
            found.add((node.module or "").split(".")[0])
    return found - {"llava_edge"} - set(sys.stdlib_module_names)


def imported_by_name(source: str) -> list[str]:
    """Calls that import by a name that is ours, or that is computed and so could be."""
    found = []
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Call) and ast.unparse(node.func).split(".")[-1] in ("import_module", "__import__"):
            name = node.args[0] if node.args else None
            literal = name.value if isinstance(name, ast.Constant) and isinstance(name.value, str) else "."
            if literal.startswith(("llava_edge", ".")):
                found.append(ast.unparse(node))
    return found


class Page:
    """The table of arrows in docs/architecture.md: places, and what each may import.

    A place is a folder, or some files of one: "`runtime`: `errors` `options`". Files that are listed so are ground:
    everybody in their room and above may import them. ``runtime/*`` stands for the folder and all below it.
    """

    def __init__(self, text: str) -> None:
        self.ground: dict[str, str] = {}
        """File to place, of the files that are listed one by one."""
        self.allowed: dict[str, set[str]] = {}
        table = text.split("<!-- arrows -->")[1].split("<!-- end of arrows -->")[0]
        for line in table.splitlines():
            cells = [cell.strip() for cell in line.strip().strip("|").split("|")]
            if len(cells) != 2 or not cells[0].startswith("`"):
                continue
            folder, *files = re.findall(r"`([^`]+)`", cells[0])
            place = f"{folder} ({' '.join(files)})" if files else folder
            self.ground |= {f"{folder}/{name}.py": place for name in files}
            self.allowed[place] = set(re.findall(r"`([^`]+)`", cells[1]))

    def place(self, file: str) -> str:
        """Where a file of the checkout belongs."""
        return self.ground.get(file) or str(Path(file).parent)

    def may(self, place: str, other: str) -> bool:
        folder = other.split(" ")[0]
        wildcards = {one[:-2] for one in self.allowed.get(place, set()) if one.endswith("/*")}
        below = any(folder == one or folder.startswith(one + "/") for one in wildcards)
        return below or folder in self.allowed.get(place, set())


@pytest.fixture(scope="module")
def page() -> Page:
    return Page(PAGE.read_text(encoding="utf-8"))


@functools.cache
def file_arrows() -> dict[str, set[str]]:
    """Files of the checkout, and the files of ours that each imports."""
    by_name = {module_name(path): str(path.relative_to(ROOT)) for path in modules()}
    arrows = {}
    for path in modules():
        targets = set()
        for name in our_imports(path):
            known = name if name in by_name else name.rpartition(".")[0]
            assert known in by_name, f"{path} imports {name}, which is not there"
            targets.add(by_name[known])
        arrows[str(path.relative_to(ROOT))] = targets - {str(path.relative_to(ROOT))}
    return arrows


def circle(arrows: Mapping[str, set[str]]) -> list[str]:
    """One circle of arrows, or an empty list."""
    done: set[str] = set()

    def walk(one: str, way: list[str]) -> Iterator[list[str]]:
        if one in way:
            yield way[way.index(one) :]
        elif one not in done:
            for other in sorted(arrows.get(one, ())):
                yield from walk(other, [*way, one])
            done.add(one)

    return next((found for start in sorted(arrows) for found in walk(start, [])), [])


def place_arrows(page: Page) -> dict[str, dict[str, str]]:
    """Place to other places it imports, with one example each. Ground files of runtime are nobody's arrow."""
    found: dict[str, dict[str, str]] = defaultdict(dict)
    for file, targets in file_arrows().items():
        for target in targets:
            ours, theirs = page.place(file), page.place(target)
            if ours != theirs and target not in page.ground:
                found[ours][theirs] = f"{file} imports {target}"
    return found


def test_arrows_are_those_of_the_page(page: Page) -> None:
    """Every arrow is drawn, and every arrow drawn is there: who removes the last import removes it from the page."""
    arrows = place_arrows(page)
    for place, others in arrows.items():
        for other, example in others.items():
            assert page.may(place, other), f"{example}: docs/architecture.md has no arrow from {place} to {other}"
    for place, allowed in page.allowed.items():
        unused = {one for one in allowed if not one.endswith("/*")} - set(arrows.get(place, ()))
        assert not unused, f"docs/architecture.md has arrows from {place} to {sorted(unused)} that no import takes"


def test_every_folder_is_on_the_page(page: Page) -> None:
    places = {page.place(file) for file in file_arrows() if not file.endswith("__init__.py")}
    assert places == set(page.allowed)


def test_every_folder_says_what_it_may_import(page: Page) -> None:
    """The docstring of a folder's ``__init__``: what lives there, and the arrows of the page in the same words."""
    for place, allowed in page.allowed.items():
        if place in page.ground.values():
            continue
        source = (ROOT / place / "__init__.py").read_text(encoding="utf-8")
        lives, _, may = " ".join((ast.get_docstring(ast.parse(source)) or "").split()).partition(" May import: ")
        assert len(lives) > 10, f"{place}/__init__.py does not say what lives there"
        said = set() if may.startswith("nothing") else set(may.rstrip(".").split(", "))
        assert said == allowed, f"{place}/__init__.py and docs/architecture.md differ"


def test_a_folder_is_a_concept() -> None:
    """Of two to twelve modules; more, and it holds two concepts. A room that has just been opened may have one."""
    counts: dict[str, int] = defaultdict(int)
    for path in modules():
        counts[str(path.parent.relative_to(ROOT))] += path.name != "__init__.py"
    large = {folder for folder, count in counts.items() if count > LARGEST_FOLDER} - {ONE_FILE_A_COMMAND}
    assert not large
    assert not {folder for folder, count in counts.items() if count < 2 and "/" in folder}


def test_ground_stands_on_nothing_but_ground(page: Page) -> None:
    for file in page.ground:
        above = {one for one in file_arrows()[file] if one not in page.ground and not one.endswith("__init__.py")}
        if not page.allowed[page.place(file)]:
            assert not above, f"{file} imports {sorted(above)}"


def test_no_circles(page: Page) -> None:
    assert not circle(file_arrows())
    assert not circle({place: set(others) for place, others in place_arrows(page).items()})


def test_nothing_of_ours_is_imported_by_name() -> None:
    for path in modules():
        if str(path.relative_to(ROOT)) != FACE:
            assert not imported_by_name(path.read_text(encoding="utf-8")), f"{path} hides an arrow"


def test_the_guard_sees_every_spelling(tmp_path: Path) -> None:
    deep = tmp_path / "runtime" / "pictures" / "deep.py"
    deep.parent.mkdir(parents=True)
    deep.write_text(
        "from . import a\nfrom .b import B\nfrom .. import c\nfrom ..d.e import E\nfrom ... import export\n"
        "from ...quantize.vision import f\nfrom llava_edge.train import g\nimport llava_edge.cli.main\n"
        "def inside():\n    from ...benchmark import h\n"
    )
    assert our_imports(deep, tmp_path) == {
        "runtime.pictures.a",
        "runtime.pictures.b.B",
        "runtime.c",
        "runtime.d.e.E",
        "export",
        "quantize.vision.f",
        "train.g",
        "cli.main",
        "benchmark.h",
    }
    hidden = "import importlib\nname = 'x'\nimportlib.import_module('llava_edge.export')\nimport_module('.a', 'b')\n"
    assert len(imported_by_name(f"{hidden}__import__(name)\nimportlib.import_module('tensorrt')")) == 3
    assert circle({"a": {"b"}, "b": {"c"}, "c": {"b"}}) == ["b", "c"]
    assert circle({"a": {"b", "c"}, "b": {"c"}}) == []


def test_the_runtime_needs_little() -> None:
    for path in sorted((ROOT / "runtime").rglob("*.py")):
        assert packages(path) <= RUNTIME_PACKAGES, f"{path} imports {sorted(packages(path) - RUNTIME_PACKAGES)}"


def test_only_one_module_imports_llama_cpp() -> None:
    """Which says how its threads wait. The contestant's mtmd is another library of it, and imported behind that."""
    users = {str(path.relative_to(ROOT)) for path in modules() if "llama_cpp" in packages(path)}
    assert users == {"runtime/ggml/importing.py", "benchmark/contestants/mtmd.py"}


@pytest.mark.parametrize(
    "statement", ["import llava_edge.runtime", "import llava_edge.runtime.model", "import llava_edge.cli.main"]
)
def test_imports_stay_light(statement: str) -> None:
    """In a fresh interpreter: neither torch nor transformers, nor what belongs to export."""
    code = f"{statement}\nimport sys\nprint(*sorted(name.split('.')[0] for name in sys.modules))"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert not HEAVY & set(run.stdout.split())


def test_public_names_are_what_all_says() -> None:
    """Sorted, and neither more nor less than what type checkers see imported there."""
    import llava_edge.runtime as runtime

    tree = ast.parse((ROOT / FACE).read_text(encoding="utf-8"))
    ours = [node for node in ast.walk(tree) if isinstance(node, ast.ImportFrom) and node.level]
    assert runtime.__all__ == sorted([*(name.name for node in ours for name in node.names), "__version__"])
    for name in runtime.__all__:
        value = getattr(runtime, name)
        assert getattr(value, "__name__", name).rpartition(".")[2] in (name, "Callable"), "a name of another thing"
    with pytest.raises(AttributeError, match="no attribute 'torch'"):
        _ = runtime.torch


def test_the_version_is_the_installed_one(monkeypatch: pytest.MonkeyPatch) -> None:
    import importlib.metadata

    import llava_edge.runtime as runtime

    asked = ["9.9"]
    monkeypatch.setattr(importlib.metadata, "version", lambda name: asked.pop() if name == "llava-edge" else "")
    assert runtime.__version__ == "9.9"

    def nowhere(name: str) -> str:
        raise importlib.metadata.PackageNotFoundError(name)

    monkeypatch.setattr(importlib.metadata, "version", nowhere)
    assert runtime.__version__ == "unknown"


def test_modules_stay_small() -> None:
    """400 lines are the limit; past it a module holds two things."""
    sizes = {str(path.relative_to(ROOT)): len(path.read_text(encoding="utf-8").splitlines()) for path in modules()}
    assert not {name: count for name, count in sizes.items() if count > 400}
