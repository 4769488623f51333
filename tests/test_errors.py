"""Errors that a caller tells apart have a class of their own; a plain ValueError is the user's."""

import ast
from pathlib import Path
from types import SimpleNamespace

import pytest

from xhat.analysis.experiments import probe
from xhat.analysis.sampling import probe_sliders, swap_arms
from xhat.analysis.traces.layers import NoSharedLevel, TooFewSamples
from xhat.samplers.composite.fit import DifferentArchitecture
from xhat.samplers.plans import recipe
from xhat.samplers.plans.schedule import NoSchedule

ROOT = Path(__file__).parents[1]
FOLDERS = ("hooks", "zoo", "samplers", "probes", "analysis", "figures", "src/xhat/commands")
# no worker of Dask, an empty cell of a closure, a row of a damaged array, JSON of a lock and of a
# LoRA file's metadata, a number, what is missing before a paper is reproduced (it is listed)
FROM_LIBRARIES = {
    ("zoo/lora/shipped.py", "_parsed"),
    ("hooks/cluster.py", "number_of_worker"),
    ("hooks/identity.py", "_filled"),
    ("hooks/store/repair.py", "_row_read"),
    ("hooks/store/locks.py", "_fresh"),
    ("hooks/store/locks.py", "_refusal"),
    ("src/xhat/commands/parse.py", "seeds"),
    ("src/xhat/commands/parse.py", "_number"),
    ("analysis/experiments/reproduce_plan.py", "_tried"),
}


def _swallowing(path):
    """Functions of a file with a handler of ValueError that does not raise again."""
    for function in ast.walk(ast.parse(path.read_text())):
        if isinstance(function, ast.FunctionDef):
            for node in ast.walk(function):
                if (
                    isinstance(node, ast.ExceptHandler)
                    and node.type is not None
                    and "ValueError" in ast.unparse(node.type)
                    and not any(isinstance(n, ast.Raise) for n in ast.walk(node))
                ):
                    yield function.name


@pytest.mark.slow
def test_no_value_error_of_ours_is_swallowed():
    found = {
        (str(path.relative_to(ROOT)), name)
        for folder in FOLDERS
        for path in (ROOT / folder).rglob("*.py")
        for name in _swallowing(path)
    }
    assert found == FROM_LIBRARIES


CASES = {
    "a layer map without a shared level": (
        probe,
        "similarity_map",
        NoSharedLevel,
        lambda: probe._similarity({"base": None, "student": None}),
    ),
    "a layer map of too few samples": (
        probe,
        "similarity_map",
        TooFewSamples,
        lambda: probe._similarity({"base": None, "student": None}),
    ),
    "a strength between unlike weights": (
        swap_arms,
        "hybrid",
        DifferentArchitecture,
        lambda: swap_arms._dialled_or_none(None, None, None),
    ),
    "a slider on schedules that do not meet": (
        probe_sliders,
        "free_runs",
        NoSharedLevel,
        lambda: probe_sliders.slider_transfer(
            Path("s.safetensors"), SimpleNamespace(), None, (), ()
        ),
    ),
}


@pytest.mark.parametrize("case", CASES)
def test_what_is_expected_is_handled_and_a_fault_is_not(case, monkeypatch):
    module, name, expected, call = CASES[case]
    monkeypatch.setattr(probe_sliders, "denoiser_of", lambda pipe: None)
    monkeypatch.setattr(probe_sliders, "middle_point", lambda denoiser: "mid")

    def raising(error):
        def stand_in(*args, **kwargs):
            raise error

        return stand_in

    monkeypatch.setattr(module, name, raising(expected("expected")))
    call()
    monkeypatch.setattr(module, name, raising(ValueError("a fault")))
    with pytest.raises(ValueError, match="^a fault$"):
        call()


def test_a_schedule_of_more_steps_than_lcm_has_is_one_that_is_not_there(tiny):
    from diffusers import LCMScheduler

    from xhat.samplers.plans.plan import Segment

    pipe = tiny.sd()
    scheduler = LCMScheduler.from_config(pipe.scheduler.config, original_inference_steps=3)
    with pytest.raises(NoSchedule, match="LCMScheduler, 4 steps"):
        recipe.scheduled(scheduler, Segment("base", 0, 4, 4))
