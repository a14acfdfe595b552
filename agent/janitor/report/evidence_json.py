"""Evidence as JSON and back: what `janitor collect` writes and `--evidence` reads."""

import msgspec

from janitor.core.addresses import make_range
from janitor.core.evidence import EVIDENCE_VERSION, Evidence, Unknown, known
from janitor.report.json_bytes import indented


def encode(evidence: Evidence) -> bytes:
    """One JSON object; bytes are base64 in it."""
    return indented(evidence, indent=1)


def decode(data: bytes) -> Evidence:
    """The evidence, exactly as it was. ValueError says, in one sentence, what is wrong with `data`."""
    try:
        version = msgspec.json.decode(data, type=_Version).version
        if version != EVIDENCE_VERSION:
            raise ValueError(
                f"it has version {version} and this janitor reads version {EVIDENCE_VERSION}: use the janitor that "
                "collected it"
            )
        evidence = msgspec.json.decode(data, type=Evidence)
        for network in known(evidence.networks):
            if not isinstance(network.range_sets, Unknown):
                for part in (part for parts in network.range_sets for part in parts):
                    make_range(part.subnet, part.start, part.end, part.gateway)
        return evidence
    except msgspec.DecodeError as error:
        raise ValueError(f"it is not what 'janitor collect' writes ({error})") from None


class _Version(msgspec.Struct):
    version: int
