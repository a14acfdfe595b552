"""Evidence goes through JSON without loss, and gives the same findings afterwards."""

from dataclasses import replace

from hypothesis import given, settings
from hypothesis import strategies as st

from janitor.core.model.evidence import EVIDENCE_VERSION, AddressRange, Evidence, known
from janitor.passes.scan import diagnose
from janitor.report.document import make_report, to_json
from janitor.report.evidence_json import decode, encode
from tests.property.strategies import evidences
from tests.reasons import not_seen


@given(evidences())
@settings(max_examples=500, deadline=None)
def test_round_trip(evidence: Evidence) -> None:
    assert decode(encode(evidence)) == evidence


@given(evidences())
@settings(max_examples=200, deadline=None)
def test_the_same_findings(evidence: Evidence) -> None:
    again = decode(encode(evidence))
    assert to_json(make_report(evidence, diagnose(evidence))) == to_json(make_report(again, diagnose(again)))


RANGE = st.just(AddressRange("10.52.0.0/24", "10.52.0.1", "10.52.0.254", "10.52.0.1"))  # others are refused
st.register_type_strategy(AddressRange, RANGE)


@given(st.from_type(Evidence))
@settings(max_examples=200, deadline=None)
def test_round_trip_of_any_value_of_the_types(evidence: Evidence) -> None:
    same_version = replace(evidence, version=EVIDENCE_VERSION)
    assert decode(encode(same_version)) == same_version


@given(st.from_type(Evidence), st.binary(min_size=1, max_size=20))
@settings(max_examples=200, deadline=None)
def test_names_that_are_no_utf_8_end_nothing(evidence: Evidence, name: bytes) -> None:
    """A pod may call its mounts, links and processes so; Python keeps such bytes as surrogates."""
    odd = name.decode("utf-8", "surrogateescape") + "\udcff"
    processes = tuple(replace(one, name=odd) for one in known(evidence.processes))
    evidence = replace(evidence, version=EVIDENCE_VERSION, processes=processes, boot_id=not_seen(f"reading {odd}"))
    again = decode(encode(evidence))
    assert len(known(again.processes)) == len(processes)
    assert to_json(make_report(again, diagnose(again)))
    assert to_json(make_report(evidence, diagnose(evidence)))
