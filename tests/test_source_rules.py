"""Rules of the house that the source itself shows: how files appear on disk, and what an assert may do."""

from __future__ import annotations

import ast

from test_architecture import ROOT, modules

PUT_BY_HAND = {
    "runtime/system/filesystems.py": "the place for it",
    "train/loop/trainer.py": "moves an interrupted checkpoint out of the Trainer's sight; nothing is written",
}
"""Files that rename or make temporaries themselves, and why."""
PURE = {"isinstance", "issubclass", "len", "all", "any", "callable", "hasattr"}


def calls(source: str) -> list[ast.Call]:
    return [node for node in ast.walk(ast.parse(source)) if isinstance(node, ast.Call)]


def put_by_hand(source: str) -> list[str]:
    """Calls that put a file or folder in place, or make a temporary that outlives its block."""
    found = []
    for call in calls(source):
        name = ast.unparse(call.func).split(".")[-1]
        on_module = ast.unparse(call.func).split(".")[0] in ("os", "shutil")
        delete = next((word.value for word in call.keywords if word.arg in ("delete", "delete_on_close")), None)
        kept = isinstance(delete, ast.Constant) and delete.value is False
        path_method = name == "replace" and isinstance(call.func, ast.Attribute) and len(call.args) == 1
        if (
            name in ("rename", "renames", "mkdtemp", "mkstemp")
            or (on_module and name in ("replace", "move", "link"))
            or (path_method and not call.keywords)  # a string's takes two arguments, a dataclass's names
            or (name in ("NamedTemporaryFile", "TemporaryDirectory") and kept)
        ):
            found.append(ast.unparse(call))
    return found


def asserts_that_do_something(source: str) -> list[str]:
    """Asserts with a call or an assignment in them, which python -O leaves out, and the catching of their error."""
    found = []
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Assert):
            inside = list(ast.walk(node.test))
            does = [one for one in inside if isinstance(one, ast.Call) and ast.unparse(one.func) not in PURE]
            if does or any(isinstance(one, ast.NamedExpr | ast.Await | ast.Yield) for one in inside):
                found.append(ast.unparse(node))
        elif isinstance(node, ast.ExceptHandler) and node.type and "AssertionError" in ast.unparse(node.type):
            found.append(ast.unparse(node.type))
    return found


def test_files_appear_through_storage_alone() -> None:
    found = {str(path.relative_to(ROOT)): put_by_hand(path.read_text(encoding="utf-8")) for path in modules()}
    by_hand = {name: calls for name, calls in found.items() if calls}
    assert set(by_hand) == set(PUT_BY_HAND), {name: by_hand[name] for name in set(by_hand) - set(PUT_BY_HAND)}


def test_no_assert_does_work() -> None:
    found = {str(path.relative_to(ROOT)): asserts_that_do_something(path.read_text("utf-8")) for path in modules()}
    assert not {name: asserts for name, asserts in found.items() if asserts}


def test_the_rules_see_what_they_are_for() -> None:
    by_hand = (
        "os.replace(a, b)\nos.rename(a, b)\na.rename(b)\na.replace(b)\nshutil.move(a, b)\ntempfile.mkdtemp()\n"
        "from tempfile import NamedTemporaryFile\nNamedTemporaryFile('w', delete=False)\n"
    )
    assert len(put_by_hand(by_hand)) == 7
    fine = (
        "'a'.replace('a', 'b')\ndataclasses.replace(a, b=1)\nreplace(a, b=1)\nNamedTemporaryFile()\nf(replace=True)\n"
    )
    assert put_by_hand(fine) == []
    work = "assert lib.decode(x) == 0\nassert (n := 1)\ntry: pass\nexcept (AssertionError, ValueError): pass\n"
    assert len(asserts_that_do_something(work)) == 3
    assert asserts_that_do_something("assert x is not None\nassert isinstance(x, int)\nassert a[0] < len(b)\n") == []


def reporting_imports(source: str) -> list[str]:
    """Imports of onnxruntime in functions (or modules) that do not switch its telemetry off before."""
    found = []
    for scope in ast.walk(ast.parse(source)):
        if isinstance(scope, ast.Module | ast.FunctionDef):
            inner = [node for node in ast.walk(scope) if not isinstance(scope, ast.Module) or node in scope.body]
            off = [
                node.lineno
                for node in inner
                if isinstance(node, ast.Call) and "import_onnxruntime" in ast.unparse(node)
            ]
            for node in inner:
                named = [one.name for one in node.names] if isinstance(node, ast.Import) else []
                named += [node.module or ""] if isinstance(node, ast.ImportFrom) and not node.level else []
                if any(name.split(".")[0] == "onnxruntime" for name in named) and not any(n < node.lineno for n in off):
                    found.append(ast.unparse(node))
    return found


def test_onnxruntime_is_imported_with_its_telemetry_off() -> None:
    place = ROOT / "runtime" / "onnx_runtime" / "importing.py"
    for path in modules():
        assert path == place or not reporting_imports(path.read_text(encoding="utf-8")), path
    assert len(reporting_imports("import onnxruntime\ndef f():\n    from onnxruntime.quantization import q\n")) == 2
    assert not reporting_imports("def f():\n    import_onnxruntime()\n    from onnxruntime.x import y\n")
