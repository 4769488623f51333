"""The documentation's Python runs as it stands, page by page, and the site builds without a
warning.
"""

import importlib.util
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PAGES = {
    path: re.findall(r"```python\n(.*?)```", path.read_text(), re.DOTALL)
    for path in (ROOT / "docs").glob("*.md")
}


@pytest.mark.slow
@pytest.mark.parametrize(
    "page", [path for path, blocks in PAGES.items() if blocks], ids=lambda path: path.stem
)
def test_a_pages_python_runs_from_top_to_bottom(page, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    names: dict = {}
    for number, block in enumerate(PAGES[page]):
        exec(compile(block, f"{page.name}, block {number}", "exec"), names)


def test_every_command_of_the_documentation_exists():
    from xhat.cli import COMMANDS

    for path in PAGES:
        for command in re.findall(r"(?:^|`)xhat (\w[\w-]*)", path.read_text(), re.MULTILINE):
            assert command in COMMANDS, (path.name, command)


def test_every_command_has_a_page_with_its_help_and_that_of_what_stands_behind_it():
    from xhat.cli import COMMANDS

    spec = importlib.util.spec_from_file_location("pages", ROOT / "docs" / "command_pages.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    pages = module.pages()
    assert list(pages) == list(COMMANDS)
    assert all(f"usage: xhat {name} " in text for name, text in pages.items())
    assert "## xhat slider train" in pages["slider"]
    assert "usage: xhat slider train " in pages["slider"]
    assert all(f"({name}.md)" in module.index() for name in COMMANDS)


@pytest.mark.skipif(
    importlib.util.find_spec("mkdocs") is None,
    reason="mkdocs is not installed: pip install .[docs]",
)
def test_the_site_builds_and_names_no_markup(tmp_path):
    command = [
        sys.executable,
        "-m",
        "mkdocs",
        "build",
        "--strict",
        "--quiet",
        "-d",
        str(tmp_path / "site"),
    ]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    page = (tmp_path / "site" / "reference.html").read_text()
    assert page.count("doc-heading") > 80
    assert ":func:" not in page
    assert "similarity_map" in page
    assert "usage: xhat slider train" in (tmp_path / "site/commands/slider.html").read_text()
