"""Rules of the layout: short files, short functions, no circular imports between folders, no loose modules."""

import ast
from collections.abc import Iterator
from pathlib import Path

from test_imports import PACKAGE, imports

MOST_LINES = 250
"""Lines of a file, with docstrings and comments."""
MOST_CODE = 50
"""Lines of code of a function below its signature, without its docstring, comments and empty lines."""
FILES = sorted(PACKAGE.rglob("*.py"))
ROOT = PACKAGE.parent
OTHERS = sorted(path for folder in ("tests", "benchmarks", "docs/figures") for path in (ROOT / folder).rglob("*.py"))
"""Files outside the package."""


def relative(path: Path) -> str:
    return str(path.relative_to(ROOT))


def functions(path: Path) -> Iterator[tuple[str, int]]:
    """Name and lines of code of every function in a file."""
    lines = path.read_text(encoding="utf-8").splitlines()
    for node in ast.walk(ast.parse("\n".join(lines))):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            body = node.body[ast.get_docstring(node) is not None :]
            numbers = range(body[0].lineno, (body[-1].end_lineno or 0) + 1) if body else range(0)
            code = [lines[number - 1].strip() for number in numbers]
            yield node.name, sum(line != "" and not line.startswith("#") for line in code)


def test_files_are_short() -> None:
    lines = {relative(path): len(path.read_text(encoding="utf-8").splitlines()) for path in [*FILES, *OTHERS]}
    assert {name: count for name, count in lines.items() if count > MOST_LINES} == {}


def test_functions_are_short() -> None:
    code = {f"{relative(path)}:{name}": count for path in FILES for name, count in functions(path)}
    assert {name: count for name, count in code.items() if count > MOST_CODE} == {}


def test_no_folder_imports_itself_through_others() -> None:
    graph: dict[str, set[str]] = {}
    for path in FILES:
        folder = path.relative_to(PACKAGE).with_suffix("").parts[0]
        if folder not in ("__init__", "__main__"):
            graph.setdefault(folder, set()).update(imports(path) - {folder})
    remaining = dict(graph)
    while free := [folder for folder, imported in remaining.items() if not imported & remaining.keys()]:
        for folder in free:
            del remaining[folder]
    assert remaining == {}  # whatever is left imports in a circle


def test_no_module_lies_loose_in_the_package() -> None:
    assert {path.name for path in PACKAGE.glob("*.py")} == {"__init__.py", "__main__.py", "errors.py"}


def test_test_files_have_different_names() -> None:
    """Pytest imports them by name alone, so the second of two files with one name would not run."""
    names = [path.name for path in (PACKAGE.parent / "tests").rglob("test_*.py")]
    assert sorted(names) == sorted(set(names))
