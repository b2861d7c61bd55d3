"""Holds that what sees across tenants is a short list of files, each for a reason that is written down."""

import ast

from tests.architecture.source import name_of, shipped

MAY_LOOK_ACROSS = {
    "tenants/scope.py": "defines the door",
    "tenants/models.py": "names the tenants for stages that look at each in turn",
    "tenants/auth.py": "finds the tenant of a key or of a person who logs in",
    "tenants/webhooks.py": "finds the tenants with events to hand on and deliveries that are due",
    "portal/access.py": "finds the tenant of the person whose session it is",
    "portal/account.py": "finds the demo's owner, for the one-click log-in of a demo",
    "ingestion/erase.py": "finds the tenants, suspended ones too, with a person to forget",
    "ingestion/store.py": "finds the records that could not be stored, of whichever tenant",
    "training/launch.py": "finds the runs that are free, of whichever tenant",
    "training/leftovers.py": "finds which runs on a trainer's disk are open, of whichever tenant",
    "billing/statement.py": "finds the tenants, suspended ones too, with a month that is not settled",
    "serving/publish.py": "makes the gateways' one snapshot of every tenant",
}
OPERATORS_PAGES = "/admin.py"  # read-only, over the door's role


def uses_the_door(tree: ast.AST) -> bool:
    return any(
        name_of(node) == "across_tenants" for node in ast.walk(tree) if isinstance(node, ast.Attribute | ast.Name)
    )


def test_only_named_files_look_across_tenants():
    users = {module.path for module in shipped() if uses_the_door(module.tree)}
    unnamed = {path for path in users if path not in MAY_LOOK_ACROSS and not path.endswith(OPERATORS_PAGES)}
    assert unnamed == set()


def test_no_name_on_the_list_has_outlived_its_use():
    users = {module.path for module in shipped() if uses_the_door(module.tree)}
    assert set(MAY_LOOK_ACROSS) - users == set()


def test_no_code_sets_the_tenant_but_the_one_door():
    setters = {module.path for module in shipped() if "set_config('app.tenant'" in module.text}
    assert setters == {"tenants/scope.py"}


def test_no_code_names_the_connections_that_pass_the_wall():
    """`using("door")` and `using("owner")` are said in one place each."""
    offenders = set()
    for module in shipped():
        for node in ast.walk(module.tree):
            if isinstance(node, ast.Call) and name_of(node) in {"using", "db_manager"}:
                named = {argument.value for argument in node.args if isinstance(argument, ast.Constant)}
                if named & {"door", "owner"} and module.path != "tenants/scope.py":
                    offenders.add(module.path)
    assert offenders == set()
