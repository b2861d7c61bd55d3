"""Holds what keeps a rolling deploy safe: tasks take keywords, tolerate unknown ones, and the schedule names them."""

import ast
import inspect

from django.conf import settings

from config import processes
from config.celery import STAGES, app
from config.management.commands import up
from tests.architecture.source import functions, name_of, shipped
from tests.architecture.test_deploy import SERVICES


def is_task(function) -> bool:
    return any(name_of(decorator) in {"shared_task", "task"} for decorator in function.decorator_list)


TASKS = [(module.path, function) for module in shipped() for function in functions(module.tree) if is_task(function)]


def test_every_task_takes_keywords_and_tolerates_unknown_ones():
    """An older worker meets a newer caller's argument during every deploy."""
    strict = [
        f"{path}:{function.name}"
        for path, function in TASKS
        if function.args.args or function.args.posonlyargs or function.args.vararg or not function.args.kwarg
    ]
    assert TASKS
    assert strict == []


def test_tasks_live_in_tasks_modules_and_hold_no_rules():
    """A task translates, makes its calls and ends: what is longer is a use case, and belongs to a verb module."""
    assert {path for path, _ in TASKS if not path.endswith("/tasks.py")} == set()
    long = [f"{path}:{function.name}" for path, function in TASKS if function.end_lineno - function.lineno >= 25]
    assert long == []


def test_a_task_is_given_ids_and_never_rows_or_texts():
    named = {
        f"{path}:{argument.arg}"
        for path, function in TASKS
        for argument in function.args.kwonlyargs
        if argument.annotation is None or ast.unparse(argument.annotation) not in {"str", "int", "float", "str | None"}
    }
    assert named == set()


def test_every_task_ends_in_time_but_those_that_a_lease_bounds():
    app.loader.import_default_modules()
    ours = {name: task for name, task in app.tasks.items() if not name.startswith("celery.")}
    assert {task.time_limit for task in ours.values()} == {720, None}
    unbounded = {name for name, task in ours.items() if task.time_limit is None or task.soft_time_limit is None}
    assert unbounded == {"training.tasks.train", "serving.tasks.judge"}


def test_the_schedule_names_tasks_that_exist_and_need_nothing():
    app.loader.import_default_modules()
    missing = [name for name in STAGES if name not in app.tasks]
    assert missing == []
    needy = [
        name
        for name in STAGES
        for parameter in inspect.signature(app.tasks[name].run).parameters.values()
        if parameter.kind is not inspect.Parameter.VAR_KEYWORD and parameter.default is inspect.Parameter.empty
    ]
    assert needy == []


def test_every_queue_has_a_worker_on_one_machine_and_in_production():
    """A queue that nobody reads would stop a stage without a word."""
    queues = {"default", *(route["queue"] for route in settings.CELERY_TASK_ROUTES.values())}
    app.loader.import_default_modules()
    assert set(settings.CELERY_TASK_ROUTES) <= set(app.tasks)
    here = [program.argv for program in up.programs(processes.Ports())]
    composed = [one["command"] for one in SERVICES.values() if "command" in one]
    for commands in (here, composed):
        read = [argv[argv.index("-Q") + 1].split(",") for argv in commands if "-Q" in argv]
        assert sorted(name for names in read for name in names) == sorted(queues)
