"""Holds that what is compiled avoids what mypyc compiles wrongly (ADR 0012)."""

import ast
import importlib.util

import pytest

from tests.architecture.source import ROOT, functions

spec = importlib.util.spec_from_file_location("compile_tree", ROOT / "deploy" / "compile.py")
compile_tree = importlib.util.module_from_spec(spec)
spec.loader.exec_module(compile_tree)


def handlers(function):
    return [node for node in ast.walk(function) if isinstance(node, ast.ExceptHandler)]


@pytest.mark.parametrize("path", compile_tree.NATIVE)
def test_a_name_is_bound_to_one_kind_of_exception(path):
    """The first one's type is the variable's: the next handler would end in a TypeError."""
    for function in functions(ast.parse((ROOT / path).read_text())):
        kinds: dict[str, set[str]] = {}
        for handler in handlers(function):
            if handler.name:
                kinds.setdefault(handler.name, set()).add(ast.unparse(handler.type))
        assert all(len(found) == 1 for found in kinds.values()), f"{path}: {function.name} {kinds}"


@pytest.mark.parametrize("path", compile_tree.NATIVE)
def test_nothing_is_raised_again_without_a_name_after_something_was_awaited(path):
    """What was caught is forgotten while the coroutine waits."""
    for function in functions(ast.parse((ROOT / path).read_text())):
        for handler in handlers(function):
            waits = any(isinstance(node, ast.Await | ast.AsyncWith | ast.AsyncFor) for node in ast.walk(handler))
            bare = any(isinstance(node, ast.Raise) and node.exc is None for node in ast.walk(handler))
            assert not (waits and bare), f"{path}: {function.name}"


def test_what_is_compiled_is_there():
    assert not [path for path in compile_tree.NATIVE if not (ROOT / path).is_file()]


def test_a_place_that_is_somebody_elses_is_left_alone(tmp_path, capsys):
    (tmp_path / "mine").write_text("x")
    assert compile_tree.main([str(tmp_path)]) == 2
    assert (tmp_path / "mine").read_text() == "x" and "not made by this" in capsys.readouterr().err
    assert compile_tree.main([]) == 2
