"""What users get wrong is refused in one line that says what was got and what is expected."""

from __future__ import annotations

import argparse
import errno
import io
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

import xhat
from xhat.analysis.experiments.policy import PolicyFit, measure_policy
from xhat.analysis.experiments.setting import Setting
from xhat.analysis.result import claim
from xhat.cli import main
from xhat.commands import parse
from xhat.figures.kit import registry
from xhat.figures.report import tables
from xhat.hooks.model import stated_in
from xhat.hooks.points import reductions
from xhat.hooks.run import _prompts
from xhat.hooks.store.locks import StoreInUse, locked


@pytest.mark.parametrize(
    "seeds",
    [[1.9], "12", [2**63], [-1], [], [1, 1], range(10**10), ["1"], None, 3, [None], [True, 1]],
)
def test_seeds_that_are_none(tiny, seeds):
    with pytest.raises(ValueError, match="seeds"):
        xhat.trace(tiny.sd(), "a face", seeds=seeds, num_inference_steps=1, progress=False)


@pytest.mark.parametrize(
    "text", ["9223372036854775808", "0:10000000000", "1.9", "a", "3:1", "-1,2"]
)
def test_seeds_of_the_command_line(text):
    with pytest.raises(argparse.ArgumentTypeError, match="range of seeds"):
        parse.seeds(text)


@pytest.mark.slow
@pytest.mark.parametrize(
    "call",
    [
        {"num_inference_steps": 0},
        {"num_inference_steps": -1},
        {"num_inference_steps": 2.5},
        {"num_inference_steps": True},
        {"guidance_scale": float("nan")},
        {"guidance_scale": float("inf")},
        {"eta": float("nan")},
    ],
)
def test_numbers_of_the_call(tiny, tmp_path, call):
    with pytest.raises(ValueError, match=next(iter(call))):
        xhat.trace(tiny.sd(), "a face", seeds=[0], store=tmp_path / "a.zarr", **call)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    "option",
    [["--guidance", "nan"], ["--steps", "0"], ["--seeds", "0:10000000000"], ["--batch-size", "0"]],
)
def test_numbers_of_the_command_line(option, tmp_path, capsys):
    with pytest.raises(SystemExit) as ended:
        main(["trace", "demo/dmd", "--prompts", "a", "--store", str(tmp_path / "a"), *option])
    assert ended.value.code == 2
    assert option[0] in capsys.readouterr().err


@pytest.mark.parametrize(
    "argv",
    [
        ["swaps", "--guidance", "nan"],
        ["policy", "fit", "--budget", "nan"],
        ["policy", "fit", "--budget", "inf"],
        ["policy", "fit", "--budget", "0"],
        ["policy", "fit", "--margin", "x"],
        ["pareto", "--budget", "-1"],
        ["pareto", "--rank", "0"],
        ["trace", "demo/dmd", "--steps", "x"],
        ["probe", "demo/dmd", "--steps", "0"],
        ["probe", "demo/dmd", "--base-steps", "-1"],
        ["probe", "demo/dmd", "--guidance", "nan"],
        ["slider", "train", "demo/base", "--rank", "0"],
        ["slider", "train", "demo/base", "--eta", "nan"],
        ["similarity", "--batch-size", "0"],
        ["readout", "--batch-size", "0"],
        ["transfer", "--seeds", "0"],
        ["transfer", "--scales", "nan"],
    ],
)
def test_numbers_of_an_experiment_are_refused_before_it_starts(argv, tmp_path, capsys):
    with pytest.raises(SystemExit) as ended:
        main([*argv, "--out", str(tmp_path / "run")])
    assert ended.value.code == 2
    error = capsys.readouterr().err.splitlines()[-1]
    assert f"argument {argv[-2]}: {argv[-1]!r}: expected a" in error
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("asked", "says"),
    [
        ({"budget": float("nan")}, "budget=nan: expected"),
        ({"budget": 0}, "budget=0: expected"),
        ({"margin": -1}, "margin=-1: expected"),
        ({"measure": "vendy"}, "measure='vendy': expected one of vendi_q2"),
        ({"batch_size": 1.5}, "batch_size must be a whole number above 0, got 1.5"),
        ({"batch_size": "8"}, "batch_size must be a whole number above 0, got '8'"),
        ({"seeds": [-1, 2]}, "seeds are from 0 to"),
        ({"seeds": [1, 2**63]}, "seeds are from 0 to"),
    ],
)
def test_what_no_policy_can_be_fitted_by(asked, says):
    with pytest.raises(ValueError, match=re.escape(says)):
        PolicyFit(**asked)


def test_a_policys_space_is_looked_up_before_anything_is_traced(tmp_path):
    with pytest.raises(ValueError, match="unknown feature space 'foo'"):
        measure_policy(PolicyFit(space="foo"), traces=tmp_path / "traces")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("device", ["cuda:99", "foo", "mps", "meta"])
def test_a_device_that_is_not_there(tmp_path, capsys, device):
    store = str(tmp_path / "a.zarr")
    options = ["--prompts", "a", "--seeds", "0", "--device", device, "--store", store]
    assert main(["trace", "demo/dmd", *options]) == 2
    error = capsys.readouterr().err
    assert f"--device {device} is not to be had here" in error
    assert len(error.splitlines()) == 1


def test_prompts_of_a_file(tmp_path):
    file = tmp_path / "prompts.txt"
    file.write_bytes("\ufeffein Plänet\r\n\n a dog \n".encode())
    assert parse.prompts_in(file) == ["ein Plänet", "a dog"]
    file.write_bytes("ein Plänet".encode("latin-1"))
    with pytest.raises(ValueError, match=r"not UTF-8 \(byte 6\)"):
        parse.prompts_in(file)
    for other in (Path("/dev/zero"), tmp_path, tmp_path / "none"):
        with pytest.raises(ValueError, match="is no file of prompts"):
            parse.prompts_in(other)


@pytest.mark.parametrize("check", [_prompts, lambda listed: Setting(prompts=listed).prompts])
def test_many_prompts_are_looked_at_once(check):
    """Repeats are found without comparing each to each."""

    class Text(str):
        compared = 0

        def __eq__(self, other):
            Text.compared += 1
            return super().__eq__(other)

        __hash__ = str.__hash__

    assert len(check([Text(i) for i in range(2000)])) == 2000
    assert Text.compared < 20_000


@pytest.mark.parametrize(
    "text",
    [
        "[]",
        '"text"',
        "3",
        '{"num_inference_steps": "four"}',
        '{"num_inference_steps": 0}',
        '{"num_inference_steps": 4.5}',
        '{"guidance_scale": NaN}',
        '{"guidance_scale": Infinity}',
        '{"guidance_scale": "high"}',
        "[" * 100_000,
        "{",
        "",
    ],
)
def test_a_malformed_statement_of_a_checkpoint(tmp_path, text):
    file = tmp_path / "xhat.json"
    file.write_text(text)
    with pytest.raises(ValueError, match=r"xhat\.json") as refused:
        stated_in(file)
    assert "\n" not in str(refused.value)


def test_what_a_checkpoint_states(tmp_path):
    (tmp_path / "xhat.json").write_text('{"num_inference_steps": 4, "guidance_scale": 1.0}')
    assert stated_in(tmp_path / "xhat.json") == {"num_inference_steps": 4, "guidance_scale": 1.0}


def test_a_reader_that_has_enough_ends_the_command(monkeypatch, tmp_path):
    class Closed(io.StringIO):
        def write(self, text):
            raise BrokenPipeError

        def fileno(self):
            return descriptor

    descriptor = os.open(tmp_path / "out", os.O_CREAT | os.O_WRONLY)
    monkeypatch.setattr(sys, "stdout", Closed())
    assert main(["models"]) == 0


@pytest.mark.slow
def test_help_on_a_terminal_of_few_letters():
    environment = os.environ | {"PYTHONIOENCODING": "cp1252"}
    argv = [sys.executable, "-m", "xhat", "trace", "--help"]
    done = subprocess.run(argv, env=environment, capture_output=True, check=False)
    assert done.returncode == 0, done.stderr[-500:]


def test_a_folder_that_cannot_be_made(tmp_path):
    (tmp_path / "file").touch()
    said = pytest.raises(ValueError, match="file is no folder, and none can be made")
    with said, locked(str(tmp_path / "file" / "a.zarr")):
        pass
    with pytest.raises(ValueError, match="file is a file: give a folder"):
        claim(tmp_path / "file" / "run", "demo")


@pytest.mark.skipif(not Path("/proc/self").exists(), reason="needs a file system of no new files")
def test_a_store_where_nothing_can_be_written_is_not_said_to_be_in_use():
    said = pytest.raises(ValueError, match="nothing can be written beside the store")
    with said as refused, locked("/proc/a.zarr"):
        pass
    assert not isinstance(refused.value, StoreInUse)


@pytest.mark.parametrize(
    ("argv", "says"),
    [
        (["report", "--out", "folder"], "folder is a folder: give the name of a file"),
        (["report", "--out", "file/a.html"], "file is a file: give a folder"),
        (["explore", "--out", "folder"], "folder is a folder: give the name of a file"),
        (["figures", "--out", "file"], "file is a file: give a folder"),
        (["tables", "--out", "file"], "file is a file: give a folder"),
        (["tables", "--from", "folder"], "no figure data in folder/data"),
        (["tables", "9"], "no table '9'"),
    ],
)
def test_a_place_for_results_is_looked_at_before_anything_is_drawn(
    argv, says, tmp_path, capsys, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "file").touch()
    (tmp_path / "folder").mkdir()
    monkeypatch.setattr(registry, "draw", None)
    monkeypatch.setattr(tables, "_table", None)
    assert main(argv) == 2
    error = capsys.readouterr().err
    assert says in error
    assert error.count("\n") == 1


@pytest.mark.parametrize("text", ["pool(99999)", "project(99999999999)", "pool(-1)", "pool(0)"])
def test_a_reading_of_more_than_any_memory(text):
    with pytest.raises(ValueError, match=r"expected a whole number above 0, \d+ at most"):
        reductions.parse_reduction(text)


def test_an_error_of_the_system_says_where_and_what(monkeypatch, capsys, tmp_path):
    def full(*_, **__):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(tmp_path / "a.nc"))

    monkeypatch.setattr("xhat.zoo.list", full)
    assert main(["models"]) == 2
    assert capsys.readouterr().err == f"xhat: {tmp_path}/a.nc: No space left on device\n"


@pytest.mark.parametrize("option", ["--prompts-file", "--suite"])
@pytest.mark.parametrize("name", ["/dev/zero", "none", "folder", "latin.txt", "empty.txt"])
def test_prompts_of_a_probe(option, name, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "folder").mkdir()
    (tmp_path / "empty.txt").touch()
    (tmp_path / "latin.txt").write_bytes("ein Plänet".encode("latin-1"))
    asked = f"coco:{name}" if option == "--suite" else name
    assert main(["probe", "demo/dmd", option, asked, "--out", "run"]) == 2
    error = capsys.readouterr().err
    assert Path(name).name in error
    assert error.count("\n") == 1
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    "command",
    [
        ["probe", "demo/dmd", "--out", "run"],
        ["swaps", "--out", "run"],
        ["trace", "demo/dmd", "--store", "run"],
    ],
)
def test_a_file_among_texts_is_refused(command, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "p.txt").write_text("a planet")
    assert main([*command, "--prompts", "p.txt"]) == 2
    assert "p.txt is a file: give --prompts-file" in capsys.readouterr().err
