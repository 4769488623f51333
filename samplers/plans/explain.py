"""A policy in words: what was chosen, by which numbers, and what it was chosen from."""

from __future__ import annotations

from html import escape

from xhat.samplers.plans.policy import Option, Policy


def explained(policy: Policy) -> str:
    """Several lines: the choice, its prediction, the look, and a table of every option with its
    verdict.
    """
    chosen, student = policy.option(policy.chosen), policy.option("student")
    lines = [
        f"Chosen: {chosen.name}, at {chosen.evaluations:g} evaluations a picture, "
        f"{chosen.evaluations / student.evaluations:.2f} × the student's {student.evaluations:g}. The budget of "
        f"{policy.budget:g} × allows {policy.allowed:g}.",
        f"Why: of the {sum(map(policy.fits, policy.options))} options that may be taken it is the most diverse: "
        f"{policy.measure} {interval(chosen)}, {chosen.because}.",
        _gap(policy, chosen, student),
    ]
    if policy.least_fidelity is not None and chosen.fidelity is not None:
        lines.append(
            f"Fidelity: {chosen.fidelity:.3f} expected; no option below {policy.least_fidelity:.3f} is taken."
        )
    if policy.look is not None:
        lines.append(_look(policy))
    return "\n".join([*lines, f"Fitted on {policy.setting}.", "", table(policy)])


def interval(option: Option) -> str:
    """mean [low, high]"""
    return f"{option.diversity:.3f} [{option.low:.3f}, {option.high:.3f}]"


def _gap(policy: Policy, chosen: Option, student: Option) -> str:
    gap, gain = policy.goal - student.diversity, chosen.diversity - student.diversity
    if gap <= 0:
        return (
            f"Gap: the base's own pictures, at {policy.goal:.3f}, are no more diverse than the student's, at "
            f"{student.diversity:.3f}: there is no loss to undo."
        )
    return (
        f"Gap: the student has {student.diversity:.3f}, the base's own pictures {policy.goal:.3f}; the plan should "
        f"restore {gain:+.3f}, {gain / gap:.0%} of what was lost."
    )


def _look(policy: Policy) -> str:
    look = policy.look
    assert look is not None
    needing = sum(value <= look.threshold for value in look.spreads)
    return (
        f"Adaptive: a prompt gets this plan where the spread of the student's first x̂₀ is at or below "
        f"{look.threshold:.4f}, else the student alone: {needing} of the {len(look.spreads)} prompts it was fitted on, "
        f"whose spreads are {min(look.spreads):.4f} to {max(look.spreads):.4f}. There the plan is expected to add at "
        f"least {look.worth:.0%} of the student's diversity on average."
    )


def table(policy: Policy) -> str:
    """Every option, the most diverse first: cost, prediction, and why it was not taken."""
    width = max(len(option.name) for option in policy.options)
    head = f"{'':{width}}  {'evals':>5}  {policy.measure:>22}  {'fidelity':>8}"
    rows = [head]
    for option in sorted(policy.options, key=lambda o: -o.diversity):
        fidelity = "" if option.fidelity is None else f"{option.fidelity:.3f}"
        rows.append(
            f"{option.name:{width}}  {option.evaluations:5g}  {interval(option):>22}  {fidelity:>8}  "
            f"{_verdict(policy, option)}"
        )
    return "\n".join(rows)


def _verdict(policy: Policy, option: Option) -> str:
    how = "measured" if option.measured else "predicted"
    if option.name == policy.chosen:
        return f"{how}, chosen"
    if policy.fits(option):
        return f"{how}, less diverse"
    return (
        f"{how}, {'over the budget' if option.evaluations > policy.allowed else 'fidelity too low'}"
    )


def html_table(policy: Policy) -> str:
    """The options as an HTML table, the chosen one and those that may not be taken marked; for
    notebooks.
    """
    head = "".join(
        f"<th>{escape(n)}</th>"
        for n in ("", "plan", "evaluations", policy.measure, "source", "fidelity")
    )
    body = "".join(_html_row(policy, option) for option in policy.options)
    caption = escape(explained(policy).partition("\n")[0])
    return f"<table><caption>{caption}</caption><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"


def _html_row(policy: Policy, option: Option) -> str:
    mark = (
        "chosen" if option.name == policy.chosen else "" if policy.fits(option) else "not allowed"
    )
    fidelity = "" if option.fidelity is None else f"{option.fidelity:.2f}"
    source = "measured" if option.measured else "predicted"
    cells = (mark, option.name, f"{option.evaluations:g}", interval(option), source, fidelity)
    return "<tr>" + "".join(f"<td>{escape(cell)}</td>" for cell in cells) + "</tr>"
