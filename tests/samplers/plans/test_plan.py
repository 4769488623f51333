"""Plans as data: what they refuse, what they count, and that they survive a trip through JSON."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from xhat.samplers.plans.plan import Plan, Segment
from xhat.samplers.plans.segment import ESTIMATES, NOISES, SPACINGS

SCALES = st.floats(-2, 20, allow_nan=False).map(lambda x: round(x, 3))


@st.composite
def segments(draw: st.DrawFn, last: bool = False) -> Segment:
    total = draw(st.integers(1, 50))
    start = draw(st.integers(0, total - 1))
    return Segment(
        draw(st.text(min_size=1, max_size=8)),
        start,
        draw(st.integers(start + 1, total)),
        total,
        draw(SCALES),
        spacing=draw(st.sampled_from([None, *SPACINGS])),
        noise=draw(st.sampled_from([None, *NOISES])),
        x0=None if last else draw(st.sampled_from([None, *ESTIMATES])),
        strength=draw(SCALES),
    )


PLANS = st.builds(
    lambda head, tail: Plan([*head, tail]), st.lists(segments(), max_size=4), segments(last=True)
)


@pytest.mark.slow
@given(PLANS)
def test_json_gives_back_the_plan(plan):
    assert Plan.from_json(plan.to_json()) == plan
    assert hash(Plan.from_json(plan.to_json())) == hash(plan)


@given(PLANS)
def test_counts_and_texts_follow_from_the_segments(plan):
    assert len(plan.segment_of_step) == sum(s.stop - s.start for s in plan.segments)
    assert plan.evaluations == sum(
        (s.stop - s.start) * (1 + (s.guidance_scale > 1)) for s in plan.segments
    )
    assert str(plan).splitlines()[0] == f"Plan, {plan.evaluations} evaluations"
    assert plan._repr_html_().count("<tr>") == 1 + len(plan.segments)


def test_html_escapes_names():
    assert "<script>" not in Plan([Segment("<script>", 0, 1, 1)])._repr_html_()


def test_defaults_stay_out_of_the_json():
    text = Plan([Segment("base", 0, 1, 4)]).to_json()
    assert json.loads(text) == {
        "segments": [{"model": "base", "start": 0, "stop": 1, "num_inference_steps": 4}]
    }


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"start": 2, "stop": 2}, "runs 0 steps"),
        ({"start": 3, "stop": 1}, "runs 0 steps"),
        ({"stop": 5}, "of 4"),
        ({"start": -1}, "start -1"),
        ({"stop": 1.0}, "whole number"),
        ({"model": ""}, "name of its model"),
        ({"noise": "old"}, "fresh, own, shared"),
        ({"x0": "median"}, "zero, mean, shuffle"),
        ({"spacing": "even"}, "leading, linspace, trailing"),
        ({"guidance_scale": float("nan")}, "finite"),
        ({"strength": "half"}, "finite"),
    ],
)
def test_a_segment_says_what_is_wrong(fields, message):
    with pytest.raises(ValueError, match=message):
        Segment(**{"model": "base", "start": 0, "stop": 1, "num_inference_steps": 4, **fields})


def test_a_plan_says_what_is_wrong():
    with pytest.raises(ValueError, match="at least one segment"):
        Plan([])
    with pytest.raises(ValueError, match="made of Segments"):
        Plan(["base"])
    with pytest.raises(ValueError, match="nothing follows"):
        Plan([Segment("base", 0, 1, 1, x0="zero")])


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "not a plan"),
        ("[]", "segments"),
        ('{"segments": [3]}', "object of fields"),
        ('{"segments": [{"model": "base", "start": 0, "stop": 1}]}', "lacks num_inference_steps"),
        (
            '{"segments": [{"model": "b", "start": 0, "stop": 1, "num_inference_steps": 1, '
            '"guidance": 2}]}',
            "guidance_scale",
        ),
    ],
)
def test_text_that_is_no_plan(text, message):
    with pytest.raises(ValueError, match=message):
        Plan.from_json(text)


def test_continuation_is_the_next_step_of_the_same_schedule():
    first = Segment("base", 0, 2, 4)
    assert Segment("base", 2, 4, 4, 3.0).continues(first)  # guidance may change on the way
    assert not Segment("base", 3, 4, 4).continues(first)
    assert not Segment("student", 2, 4, 4).continues(first)
    assert not Segment("base", 2, 4, 8).continues(first)
    assert not Segment("base", 2, 4, 4).continues(Segment("base", 0, 2, 4, noise="own"))
