"""The command line: help teaches, mistakes are one line, tracing works end to end."""

import pytest

from xhat.cli import main


@pytest.mark.parametrize("command", [[], ["demo"], ["trace"], ["points"], ["models"]])
def test_help(command, capsys):
    with pytest.raises(SystemExit) as stop:
        main([*command, "--help"])
    assert stop.value.code == 0
    assert "usage: xhat" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("argv", "says"),
    [
        (["points", "demo/bsae"], "demo/base"),
        (["demo", "--pair", "demo/dmb"], "did you mean"),
        (["points", "tests"], "no model_index.json"),
    ],
)
def test_mistakes_are_one_line(argv, says, capsys, monkeypatch, tmp_path):
    (tmp_path / "tests").mkdir()
    monkeypatch.chdir(tmp_path)
    assert main(argv) == 2
    error = capsys.readouterr().err
    assert says in error
    assert error.count("\n") == 1


def test_seeds_are_a_range_or_a_list(capsys):
    with pytest.raises(SystemExit):
        main(["trace", "demo/base", "--prompts", "a planet", "--seeds", "x", "--store", "s"])
    assert "expected 0:64" in capsys.readouterr().err


@pytest.mark.slow
def test_trace_writes_a_store_that_opens(tmp_path, capsys):
    import xhat

    store = tmp_path / "t.zarr"
    argv = [
        "trace",
        "demo/base",
        "--prompts",
        "a planet",
        "a critter",
        "--seeds",
        "3:6",
        "--steps",
        "2",
    ]
    assert (
        main(
            [
                *argv,
                "--guidance",
                "1",
                "--hooks",
                "h",
                "down.*.res.0=pool(2)",
                "--store",
                str(store),
            ]
        )
        == 0
    )
    tree = xhat.open_trace(store)
    assert dict(tree["pred_x0"].sizes) == {
        "prompt": 2,
        "seed": 3,
        "step": 2,
        "channel": 4,
        "y": 16,
        "x": 16,
    }
    assert tree["seed"].values.tolist() == [3, 4, 5]
    assert tree["activations/h/value"].dims[:3] == ("prompt", "seed", "step")


@pytest.mark.slow
def test_points_of_a_student_are_listed_at_its_own_steps(capsys):
    assert main(["points", "demo/dmd"]) == 0
    listed = capsys.readouterr().out
    assert "mid_block" in listed
    assert "down.0.res.0" in listed


@pytest.mark.parametrize(
    ("argv", "says"),
    [
        (["trac"], "xhat: unknown COMMAND 'trac'; did you mean 'trace'?"),
        (["trace", "m", "--store", "s", "--promts", "a"], "did you mean '--prompts'?"),
        (["policy", "exhibit"], "unknown fit|show|export 'exhibit'; there are fit, show, export"),
        (["trace", "m", "--store", "s", "--seeds", "-3:2"], "'-3:2' is no range of seeds"),
    ],
)
def test_what_is_mistyped_is_one_line_with_the_nearest(argv, says, capsys):
    with pytest.raises(SystemExit) as stop:
        main(argv)
    assert stop.value.code == 2
    error = capsys.readouterr().err
    assert says in error
    assert error.count("\n") == 1
