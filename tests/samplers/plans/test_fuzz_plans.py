"""Whatever is made into a plan is a plan that comes back from its JSON, or is refused by a
ValueError.
"""

from __future__ import annotations

import json
from html import escape

from hypothesis import given, settings
from hypothesis import strategies as st

from xhat.samplers.plans.plan import Plan, Segment
from xhat.samplers.plans.segment import ESTIMATES, NOISES, SPACINGS

FEW = settings(max_examples=80, deadline=None)
odd = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-3, 9),
    st.floats(),
    st.text(max_size=4),
    st.lists(st.integers()),
)
fields = st.fixed_dictionaries(
    {
        "model": st.one_of(
            st.text(max_size=8), st.sampled_from(["base", "student", "<script>", "ÿ.0"])
        ),
        "start": st.integers(-1, 5),
        "stop": st.integers(-1, 6),
        "num_inference_steps": st.integers(0, 6),
    },
    optional={
        "guidance_scale": st.floats(),
        "strength": st.floats(),
        "noise": st.sampled_from([None, *NOISES, "pink"]),
        "x0": st.sampled_from([None, *ESTIMATES, "median"]),
        "spacing": st.sampled_from([None, *SPACINGS, "wide"]),
    },
)
json_values = st.recursive(
    odd, lambda inner: st.lists(inner) | st.dictionaries(st.text(max_size=5), inner), max_leaves=8
)


def made(build):
    try:
        return build()
    except ValueError as error:
        assert str(error)
        return None


@FEW
@given(st.lists(fields, max_size=4))
def test_a_plan_is_whole_or_refused(segments):
    plan = made(lambda: Plan(Segment(**fields) for fields in segments))
    if plan is None:
        return
    assert Plan.from_json(plan.to_json()) == plan
    assert len(plan.segment_of_step) == sum(len(s.steps) for s in plan.segments) <= plan.evaluations
    assert all(
        escape(s.model) in plan._repr_html_() and s.model in str(plan) for s in plan.segments
    )
    assert all(a.steps and a.num_inference_steps >= a.stop for a in plan.segments)


@FEW
@given(st.dictionaries(st.sampled_from([*Segment.__dataclass_fields__, "guidence"]), odd))
def test_a_segment_of_odd_values_is_refused_by_name(entry):
    made(lambda: Plan.from_json(json.dumps({"segments": [entry]})))


@FEW
@given(
    st.one_of(
        st.text(),
        json_values.map(json.dumps),
        json_values.map(lambda v: json.dumps({"segments": v})),
    )
)
def test_text_that_is_no_plan_is_refused(text):
    made(lambda: Plan.from_json(text))
