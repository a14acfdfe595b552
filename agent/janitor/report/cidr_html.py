"""`janitor cidr -o html`: a self-contained page that is readable without colour."""

from importlib import resources

import jinja2

from janitor.report.cidr_document import PlanReport
from janitor.report.cidr_picture import LEGEND
from janitor.report.cidr_table import headline


def to_html(report: PlanReport) -> str:
    """The report as a page. Every value is escaped: it may come from somebody else's file."""
    environment = jinja2.Environment(autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True)
    source = resources.files("janitor.report").joinpath("cidr.html.j2").read_text()
    classes = {"P": "pods", "S": "services", "n": "nodes", "+": "several", "!": "hit", ".": "free"}
    return environment.from_string(source).render(
        report=report, headline=headline(report), legend=LEGEND, classes=classes
    )
