"""Reads the project's own source for the tests that hold its shape."""

import ast
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent.parent
LINE = ("config", "portal", "billing", "serving", "training", "ingestion", "tenants")  # each may use those after it
OUTSIDE = ("demo", "bench")  # drive the product from outside, and are never shipped with it


@dataclass(frozen=True)
class Module:
    path: str  # from the root, with forward slashes
    text: str
    tree: ast.Module

    @property
    def lines(self) -> int:
        return self.text.count("\n")


@lru_cache(maxsize=1)
def shipped() -> tuple[Module, ...]:
    """Every module of the apps but migrations, which are a record and not a place to work in."""
    return tuple(_modules(LINE))


@lru_cache(maxsize=1)
def written() -> tuple[Module, ...]:
    """Shipped modules, and those that drive the product from outside."""
    return (*shipped(), *_modules(OUTSIDE))


def functions(tree: ast.AST) -> Iterator[ast.FunctionDef | ast.AsyncFunctionDef]:
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            yield node


def name_of(node: ast.AST) -> str:
    """The last part of a name: `b` for `a.b`, `a.b(…)` and `b`."""
    if isinstance(node, ast.Call):
        return name_of(node.func)
    if isinstance(node, ast.Attribute):
        return node.attr
    return node.id if isinstance(node, ast.Name) else ""


def _modules(packages: tuple[str, ...]) -> Iterator[Module]:
    for package in packages:
        for path in sorted((ROOT / package).rglob("*.py")):
            if "migrations" not in path.parts:
                text = path.read_text()
                yield Module(path.relative_to(ROOT).as_posix(), text, ast.parse(text))
