"""Messages of progress go through ``logging``, and to stderr where nothing else was set up."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PRINTING = {"zoo/__init__.py", "zoo/train.py"}  # what these print is the answer to a question


@pytest.mark.parametrize(
    ("before", "after", "out", "err"),
    [
        ("", "", "", "hello\n"),
        (
            "",
            "logging.basicConfig(stream=sys.stdout, format='%(name)s %(message)s')\n",
            "xhat.a hello\n",
            "",
        ),
        ("", "logging.getLogger('xhat').setLevel('WARNING')\n", "", ""),
        ("logging.getLogger('xhat').setLevel('ERROR')\n", "", "", ""),
    ],
)
def test_they_go_to_stderr_until_the_program_says_where(before, after, out, err):
    code = (
        "import logging, sys\n"
        f"{before}import xhat\n{after}logging.getLogger('xhat.a').info('hello')"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert (done.stdout, done.stderr) == (out, err)


@pytest.mark.slow
def test_the_library_does_not_print():
    calls = {
        str(path.relative_to(ROOT))
        for folder in ("hooks", "zoo", "samplers", "probes", "analysis", "figures")
        for path in (ROOT / folder).rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Call) and ast.unparse(node.func) in ("print", "tqdm.write")
    }
    assert calls <= PRINTING
