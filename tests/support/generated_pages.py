"""Pages of docs/ that are made from the code: commands' help, public docstrings, fields of requests: ``make docs``."""

from __future__ import annotations

import ast
import json
import re
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import typer.main
from llava_edge.cli.main import app
from llava_edge.runtime.options import GenerationOptions, LoadOptions, declared
from llava_edge.serve.requests.known_fields import PLACES, Refused

ROOT = Path(__file__).parents[2]
WIDTH = 100
STABLE = ("model", "chat", "answer", "options", "errors", "parity")
"""Modules of ``runtime`` whose public names keep their meaning, in reading order."""
Function = ast.FunctionDef | ast.AsyncFunctionDef
FUNCTIONS = (ast.FunctionDef, ast.AsyncFunctionDef)
OURS = {
    "OURS",
    "PACKAGES",
    "missing_extra",
    "MAX_DEVICES",
    "PENALTY_WINDOW",
    "DEFAULT_PORT",
    "Option",
    "declared",
    "make_options",
    "parse_endpoint",
}
"""Names in them that other modules of ours need, and applications don't."""


def commands_page() -> str:
    """What ``--help`` says of every command, at a fixed width whatever the terminal's."""
    lines = [
        "# Commands",
        "",
        "What `--help` says, made by `make docs`. Sampling and load options are those of `docs/api.md`.",
    ]
    for path, text in _helps(typer.main.get_command(app), None, "llava-edge"):
        lines += ["", f"## {path}", "", "```text", text, "```"]
    return "\n".join(lines) + "\n"


def _helps(command: Any, parent: Any, name: str) -> Iterator[tuple[str, str]]:
    settings = {**command.context_settings, "info_name": name, "parent": parent, "terminal_width": WIDTH}
    context = command.context_class(command, **settings)
    yield context.command_path, "\n".join(line.rstrip() for line in command.get_help(context).splitlines())
    for inner, below in getattr(command, "commands", {}).items():
        yield from _helps(below, context, inner)


def api_page() -> str:
    """The public docstrings of ``llava_edge.runtime`` and its stable modules."""
    face = _parsed("")
    lines = [
        "# Python",
        "",
        "What an application may import, made by `make docs` from the docstrings. Everything else may change.",
        "",
        "## llava_edge.runtime",
        "",
        *_prose((ast.get_docstring(face) or "").partition("\n\nMay import")[0]),
        "",
    ]
    imported = {
        name.name: node.module or ""
        for node in ast.walk(face)
        if isinstance(node, ast.ImportFrom)
        for name in node.names
    }
    public = next(ast.literal_eval(node.value) for node in face.body if _assigned(node) == "__all__")
    elsewhere = []
    for name in public:
        module = imported.get(name, "")
        if module in STABLE:
            lines.append(f"- `{name}`: see `llava_edge.runtime.{module}`")
        elif name == "__version__":
            lines.append("- `__version__`: the installed package's version")
        elif module:
            lines.append(f"- `{name}`: below")
            elsewhere += _described(name, _parsed(module))
        else:
            lines.append(f"- `{name}`: the module `llava_edge.runtime.{name}`")
    lines += elsewhere
    for module in STABLE:
        tree = _parsed(module)
        lines += ["", f"## llava_edge.runtime.{module}", "", *_prose(ast.get_docstring(tree))]
        for name in _public_names(tree):
            lines += _described(name, tree)
    return "\n".join(lines) + "\n"


def _parsed(module: str) -> ast.Module:
    path = ROOT / "runtime" / (module.replace(".", "/") + ".py" if module else "__init__.py")
    return ast.parse(path.read_text(encoding="utf-8"))


def _assigned(node: ast.stmt) -> str:
    """The one name that a statement gives a value, or an empty string."""
    target = (
        node.targets[0] if isinstance(node, ast.Assign) else node.target if isinstance(node, ast.AnnAssign) else None
    )
    return target.id if isinstance(target, ast.Name) else ""


def _public_names(tree: ast.Module) -> list[str]:
    """Classes and functions, and values with a docstring behind them, in the order of the file."""
    names = []
    for node, after in zip(tree.body, [*tree.body[1:], ast.Pass()], strict=True):
        if isinstance(node, (ast.ClassDef, *FUNCTIONS)):
            names.append(node.name)
        elif _assigned(node) and _behind(after):
            names.append(_assigned(node))
    return [name for name in names if not name.startswith("_") and name not in OURS]


def _behind(node: ast.AST) -> str:
    """The text of a statement that is nothing but a text."""
    value = node.value if isinstance(node, ast.Expr) else None
    return value.value if isinstance(value, ast.Constant) and isinstance(value.value, str) else ""


def _described(name: str, tree: ast.Module) -> list[str]:
    for node, after in zip(tree.body, [*tree.body[1:], ast.Pass()], strict=True):
        if isinstance(node, FUNCTIONS) and node.name == name:
            return ["", f"### {name}", "", *_function(node)]
        if isinstance(node, ast.ClassDef) and node.name == name:
            return ["", f"### {name}", "", *_class(node, tree)]
        if _assigned(node) == name:
            return ["", f"### {name}", "", *_code(ast.unparse(node)), *_prose(_behind(after))]
    raise AssertionError(f"{name} is not where runtime/__init__.py imports it from")


def _function(node: Function) -> list[str]:
    return [*_code(_signature(node)), *_prose(ast.get_docstring(node))]


def _signature(node: Function) -> str:
    """``def f(a, b) -> C`` on one line, or an argument a line where that is too long; without decorators' names."""
    returns = f" -> {ast.unparse(node.returns)}" if node.returns else ""
    define = "async def" if isinstance(node, ast.AsyncFunctionDef) else "def"
    whole = f"{define} {node.name}({ast.unparse(node.args)}){returns}"
    if any(isinstance(one, ast.Name) and one.id == "property" for one in node.decorator_list):
        return f"{node.name}: {ast.unparse(node.returns) if node.returns else 'Any'}"
    if len(whole) <= WIDTH:
        return whole
    arguments = re.sub(r", (?=(?:\*|\w+:))", ",\n    ", ast.unparse(node.args))
    return f"{define} {node.name}(\n    {arguments},\n){returns}"


def _class(node: ast.ClassDef, tree: ast.Module) -> list[str]:
    bases = ", ".join(ast.unparse(base) for base in node.bases)
    lines = [*_code(f"class {node.name}({bases})" if bases else f"class {node.name}"), *_prose(ast.get_docstring(node))]
    if (kind := {"LoadOptions": LoadOptions, "GenerationOptions": GenerationOptions}.get(node.name)) is not None:
        return [*lines, "", *_options(kind, node)]
    if any("dataclass" in ast.unparse(one) for one in node.decorator_list):
        fields = [ast.unparse(one) for one in node.body if isinstance(one, ast.AnnAssign)]
        lines += ["", *_code("\n".join(fields))[:-1]] if fields else []
    for method in (*node.body, *_inherited(node, tree)):
        if isinstance(method, FUNCTIONS) and not method.name.startswith("_"):
            lines += ["", f"#### {node.name}.{method.name}", "", *_function(method)]
    return lines


def _inherited(node: ast.ClassDef, tree: ast.Module) -> Iterator[ast.stmt]:
    """What a class has from bases that its module imports from a sibling."""
    bases = {ast.unparse(base) for base in node.bases}
    for imported in tree.body:
        if isinstance(imported, ast.ImportFrom) and imported.level == 1:
            for name in bases & {alias.name for alias in imported.names}:
                (base,) = (one for one in _parsed(imported.module or "").body if getattr(one, "name", "") == name)
                yield from getattr(base, "body", ())


def _options(kind: type[Any], node: ast.ClassDef) -> list[str]:
    """The fields of an options class as a table: name, type, default, range, help."""
    rows = ["| option | type | default | values | meaning |", "|---|---|---|---|---|"]
    fields = {_assigned(one): one for one in node.body if isinstance(one, ast.AnnAssign)}
    for name, option in declared(kind).items():
        annotation = fields[name].annotation
        assert isinstance(annotation, ast.Subscript)
        assert isinstance(annotation.slice, ast.Tuple)
        written = ast.unparse(annotation.slice.elts[0]).replace("|", "\\|")
        values = " to ".join(f"{bound:.10g}" for bound in option.bounds or ()) or " ".join(filter(None, option.words))
        rows.append(f"| `{name}` | `{written}` | `{getattr(kind, name)!r}` | {values} | {option.help} |")
    return rows


def _code(text: str) -> list[str]:
    return ["```python", *text.splitlines(), "```", ""]


def _prose(text: str | None) -> list[str]:
    """A docstring as Markdown."""
    plain = re.sub(r":\w+:`~?([^`]+)`", r"`\1`", text or "").replace("``", "`")
    return plain.splitlines()


def request_fields_page() -> str:
    """What each field of a request to the server means there."""
    lines = [
        "# Fields of requests",
        "",
        "What `llava-edge serve` makes of each field, made by `make docs` from `serve/requests/known_fields.py`.",
        "",
        "- **Read**: it does what its own interface says ([serving.md](serving.md) has the exceptions).",
        "- **Left alone**: no answer depends on it.",
        "- **Refused** (400, `unsupported_parameter`): it would change the answer, and can't be had here. A value that",
        "  asks for nothing passes: null and what is empty always, and those of the last column.",
        "- Any other field that is spelt much like a known one is refused (400, `unknown_parameter`), so is one whose",
        "  name speaks of a schema, regex or grammar. The rest is ignored, and `warnings` of the answer say so.",
    ]
    for place in PLACES:
        lines += ["", f"## Fields of {place.called}", "", f"Read: {_names(place.read)}.", ""]
        lines += [f"Left alone: {_names(place.left)}.", "", "| refused | instead | asks for nothing |", "|---|---|---|"]
        alike: dict[tuple[str, str], list[str]] = {}
        for name, refused in place.refused.items():
            alike.setdefault((refused.instead, _passing(refused)), []).append(name)
        lines += [f"| {_names(names)} | {instead} | {passing} |" for (instead, passing), names in alike.items()]
    return "\n".join(lines) + "\n"


def _names(names: Iterable[str]) -> str:
    return ", ".join(f"`{name}`" for name in names)


def _passing(refused: Refused) -> str:
    values = refused.neutral or (0, False)
    return ", ".join(f"`{json.dumps(one)}`" for one in values if one is not None)


PAGES = {"commands.md": commands_page, "api.md": api_page, "request-fields.md": request_fields_page}


def main() -> None:
    """Write the pages."""
    for name, page in PAGES.items():
        (ROOT / "docs" / name).write_text(page(), encoding="utf-8")


if __name__ == "__main__":
    main()
