"""`janitor cidr -o html`: one page that needs nothing beside itself, and can be read without colour."""

from importlib import resources

import jinja2

from janitor.report.cidr_document import PlanReport
from janitor.report.cidr_picture import LEGEND
from janitor.report.cidr_table import headline


def to_html(report: PlanReport) -> str:
    """The report as a page. Every value is escaped: it may come from a file that somebody sent."""
    environment = jinja2.Environment(autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True)
    source = resources.files("janitor.report").joinpath("cidr.html.j2").read_text()
    classes = {"P": "pods", "S": "services", "n": "nodes", "+": "several", "!": "hit", ".": "free"}
    return environment.from_string(source).render(
        report=report, headline=headline(report), legend=LEGEND, classes=classes
    )
