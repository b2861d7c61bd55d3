"""Holds the top of the tree: the rooms that the architecture names, and nothing that merely gathered."""

import fnmatch

from tests.architecture.source import ROOT

ROOMS = {"tenants", "ingestion", "training", "serving", "billing", "portal", "config"}
BESIDE = {"tests", "demo", "bench", "deploy", "docs", ".ci"}
FILES = {"README.md", "ARCHITECTURE.md", "LICENSE", "Makefile", "manage.py", "pyproject.toml", "requirements.lock"}
GITS = {".git", ".gitignore", ".gitattributes"}


def ignored(name: str) -> bool:
    patterns = (ROOT / ".gitignore").read_text().split()
    return any(fnmatch.fnmatch(name, pattern.rstrip("/")) for pattern in patterns)


def test_the_top_of_the_tree_holds_what_the_architecture_names_and_nothing_else():
    found = {path.name for path in ROOT.iterdir() if not ignored(path.name)}
    assert found - ROOMS - BESIDE - FILES - GITS == set()


def test_every_room_is_there():
    assert {name for name in ROOMS if not (ROOT / name / "__init__.py").exists()} == set()


def test_pyproject_is_the_only_configuration_of_tools():
    strays = ("setup.cfg", "setup.py", "tox.ini", "pytest.ini", "mypy.ini", ".flake8", "ruff.toml", ".importlinter")
    assert [name for name in strays if (ROOT / name).exists()] == []
