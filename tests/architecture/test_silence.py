"""Holds that no prompt, answer or secret gets into a log line: ids, counts and kinds of fault are what is logged."""

import ast

from tests.architecture.source import Module, name_of, shipped

LEVELS = {"debug", "info", "warning", "error", "critical", "exception", "log"}
TELLING = {
    "answer",
    "answers",
    "ask",
    "authorization",
    "body",
    "bodies",
    "chunk",
    "credential",
    "data_key",
    "draft",
    "headers",
    "message",
    "messages",
    "password",
    "payload",
    "plain",
    "prompt",
    "query",
    "queries",
    "raw",
    "record",
    "request",
    "response",
    "secret",
    "subject",
    "system",
    "text",
    "texts",
    "token",
}


def log_calls(module: Module) -> list[ast.Call]:
    return [
        node
        for node in ast.walk(module.tree)
        if isinstance(node, ast.Call)
        and isinstance(node.func, ast.Attribute)
        and node.func.attr in LEVELS
        and name_of(node.func.value) in {"log", "logger", "logging", "getLogger"}
    ]


def test_nothing_is_printed():
    printers = {
        module.path
        for module in shipped()
        for node in ast.walk(module.tree)
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in {"print", "pprint"}
    }
    assert printers == set()


def test_no_log_line_is_given_a_text_of_a_tenants():
    told = {
        f"{module.path}:{node.lineno}:{named}"
        for module in shipped()
        for call in log_calls(module)
        for argument in [*call.args[1:], *(keyword.value for keyword in call.keywords)]
        for node in ast.walk(argument)
        if isinstance(node, ast.Name | ast.Attribute) and (named := name_of(node)) in TELLING
    }
    assert told == set()


def test_no_log_line_is_built_before_it_is_logged():
    """An f-string would hide its values from the test above."""
    built = {
        f"{module.path}:{call.lineno}"
        for module in shipped()
        for call in log_calls(module)
        if not call.args or not isinstance(call.args[0], ast.Constant)
    }
    assert built == set()


def test_no_traceback_is_logged():
    """Its last line is an exception's message, which a library may have filled with the value it choked on."""
    traced = {
        f"{module.path}:{call.lineno}"
        for module in shipped()
        for call in log_calls(module)
        if call.func.attr == "exception" or any(keyword.arg in {"exc_info", "stack_info"} for keyword in call.keywords)
    }
    assert traced == set()


def test_no_exception_of_ours_carries_a_text_of_a_tenants():
    carried = {
        f"{module.path}:{node.lineno}:{node.value.id}"
        for module in shipped()
        for raised in ast.walk(module.tree)
        if isinstance(raised, ast.Raise) and isinstance(raised.exc, ast.Call)
        for node in ast.walk(raised.exc)
        if isinstance(node, ast.FormattedValue) and isinstance(node.value, ast.Name) and node.value.id in TELLING
    }
    assert carried == set()
