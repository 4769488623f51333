"""Templates of the pages: what is put in is escaped, unless a template made it."""

from __future__ import annotations

from typing import Any

from markupsafe import Markup


def render_template(template: str, **fields: Any) -> Markup:
    """The template of a name in ``templates/`` with its fields filled in."""
    from jinja2 import Environment, PackageLoader, select_autoescape

    environment = Environment(
        loader=PackageLoader("xhat.figures.report"), autoescape=select_autoescape(["html", "j2"])
    )
    return Markup(environment.get_template(template).render(**fields))
