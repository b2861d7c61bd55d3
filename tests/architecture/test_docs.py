"""Holds that the operator's page names every variable a process reads, and none that no process does."""

import re

from tests.architecture.source import ROOT

READ = re.compile(
    r"""(?:env\.\w+\(|_(?:text|number|flag)\(environ, |environ\.get\(|_database\()\s*["']([A-Z][A-Z0-9_]+)["']"""
)
NAMED = re.compile(r"`([A-Z][A-Z0-9_]{3,})`")
IN_CODE = ("config/settings.py", "config/paths.py", "serving/gateway/settings.py")
NOT_VARIABLES = {"FORCE"}


def test_every_variable_is_explained_to_operators():
    read = {name for path in IN_CODE for name in READ.findall((ROOT / path).read_text())}
    text = (ROOT / "docs" / "operations.md").read_text()
    rows = [line for line in text.splitlines() if line.startswith("| `")]
    explained = {name for row in rows for name in NAMED.findall(row.split("|")[1])}
    assert read - explained == set()
    assert explained - read - NOT_VARIABLES == set()


def test_every_link_to_a_file_leads_somewhere():
    broken = []
    for page in [*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")]:
        for target in re.findall(r"\]\((?!https?:|#|mailto:)([^)#]+)", page.read_text()):
            if not (page.parent / target).exists():
                broken.append(f"{page.relative_to(ROOT)}: {target}")
    assert broken == []
