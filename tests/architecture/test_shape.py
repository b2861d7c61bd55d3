"""Holds the house's measures: small functions, files that fit in one head, imports on top, faults caught by name."""

import ast

import pytest

from tests.architecture.source import functions, shipped, written

LONGEST_FUNCTION = 50
LONGEST_FILE = 450
EMPTY_WORDS = {"service", "manager", "helper", "util", "common", "base"}
CATCHES_ALL = {
    "serving/gateway/app.py": "the process edge: one call's bug must not reach another",
    "serving/gateway/exchange.py": "the same, where not even a refusal could be sent",
    "serving/gateway/attempt.py": "the edge between student and tenant: whatever breaks, the teacher answers",
}


def test_no_function_is_longer_than_a_screen():
    long = {
        f"{module.path}:{function.name}": length
        for module in written()
        for function in functions(module.tree)
        if (length := function.end_lineno - function.lineno + 1) > LONGEST_FUNCTION
    }
    assert long == {}


def test_no_file_is_too_long_to_keep_in_mind():
    assert {module.path: module.lines for module in written() if module.lines > LONGEST_FILE} == {}


def test_nothing_is_imported_inside_a_function():
    lazy = {
        f"{module.path}:{function.name}"
        for module in written()
        for function in functions(module.tree)
        for node in ast.walk(function)
        if isinstance(node, ast.Import | ast.ImportFrom)
    }
    assert lazy == set()


def test_only_named_files_catch_whatever_comes():
    catchers = {module.path for module in shipped() if any(catches_all(node) for node in ast.walk(module.tree))}
    assert catchers - set(CATCHES_ALL) == set()


def test_no_shipped_code_relies_on_assert():
    """`python -O` removes it."""
    users = {module.path for module in shipped() if any(isinstance(node, ast.Assert) for node in ast.walk(module.tree))}
    assert users == set()


def test_no_module_has_a_name_that_says_nothing():
    assert [module.path for module in written() if says_nothing(module.path)] == []


@pytest.mark.parametrize("path", ["serving/utils.py", "training/base.py", "portal/view_helpers.py", "common/x.py"])
def test_an_empty_name_is_noticed(path):
    assert says_nothing(path)


def test_every_module_says_first_why_it_is_there():
    silent = [module.path for module in written() if module.tree.body and not ast.get_docstring(module.tree)]
    assert silent == []


def test_every_public_function_says_what_it_promises():
    silent = [
        f"{module.path}:{node.name}"
        for module in shipped()
        for node in module.tree.body
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef)
        and not node.name.startswith("_")
        and not ast.get_docstring(node)
    ]
    assert silent == []


def test_every_parameter_and_result_of_shipped_code_is_annotated():
    bare = [
        f"{module.path}:{function.name}"
        for module in shipped()
        for function in functions(module.tree)
        if function.returns is None or any(argument.annotation is None for argument in named_arguments(function))
    ]
    assert bare == []


def catches_all(node: ast.AST) -> bool:
    if not isinstance(node, ast.ExceptHandler):
        return False
    caught = node.type.elts if isinstance(node.type, ast.Tuple) else [node.type]
    return any(kind is None or getattr(kind, "id", "") in {"Exception", "BaseException"} for kind in caught)


def says_nothing(path: str) -> bool:
    parts = path.removesuffix(".py").split("/")
    return any(word.removesuffix("s") in EMPTY_WORDS for part in parts for word in part.split("_"))


def named_arguments(function: ast.FunctionDef | ast.AsyncFunctionDef) -> list[ast.arg]:
    arguments = function.args
    named = [*arguments.posonlyargs, *arguments.args, *arguments.kwonlyargs]
    return [argument for argument in named if argument.arg not in {"self", "cls"}]
