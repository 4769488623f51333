"""What notebooks show of pairs, points, plans and policies: readable tables in which names stay
text.
"""

from html.parser import HTMLParser

import pytest

from xhat.hooks.points.names import Point
from xhat.hooks.points.table import PointTable
from xhat.samplers.plans.plan import Plan, Segment
from xhat.samplers.plans.policy import Option, Policy
from xhat.zoo.pairs import Pair

NAME = "<script>x</script>"
PLAN = Plan([Segment(NAME, 0, 1, 4), Segment("student", 1, 4, 4)])
STUDENT = Plan([Segment("student", 0, 4, 4)])


def policy():
    options = (
        Option("student", STUDENT, 4, 1.5, 1.4, 1.6, 0.7, True, "traced"),
        Option(NAME, PLAN, 4, 1.8, 1.6, 2.0, 0.7, False, "both seen"),
        Option("dear", PLAN, 40, 1.9, 1.7, 2.1, None, False, "both seen"),
    )
    return Policy(NAME, 1.2, "Vendi (q = 2)", 2.0, 0.5, "two prompts", options)


SHOWN = {
    "pair": lambda: Pair(
        NAME, {}, "dmd", {"base": {"num_inference_steps": 20, "guidance_scale": 3.0}}
    ),
    "points": lambda: PointTable([Point(NAME, "mid_block", "Block", (4, 8, 8), 1024)], title=NAME),
    "plan": lambda: PLAN,
    "policy": policy,
}


class Cells(HTMLParser):
    def __init__(self, text):
        super().__init__()
        self.tags, self.texts = [], []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)

    def handle_data(self, data):
        self.texts.append(data)


@pytest.mark.parametrize("name", SHOWN)
def test_a_table_whose_names_are_text(name):
    cells = Cells(SHOWN[name]()._repr_html_())
    assert "table" in cells.tags
    assert "script" not in cells.tags
    assert NAME in cells.texts


def test_a_policy_shows_what_was_chosen_and_what_may_not_be():
    cells = Cells(policy()._repr_html_())
    at = cells.texts.index("chosen")
    assert cells.texts[at : at + 4] == ["chosen", NAME, "4", "1.800 [1.600, 2.000]"]
    assert cells.texts[cells.texts.index("dear") - 1] == "not allowed"
