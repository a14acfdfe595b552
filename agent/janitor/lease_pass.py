"""One pass of the daemon over the leases: look, carry out what is allowed, and say how the node is then.

Runs in a process of its own (host/child.py). While it only looks, SIGTERM ends it at once: there is nothing to be put
in order. Once it changes something, SIGTERM ends it after the batch at hand; a kill is what the journal is for.
"""

import signal
from collections import Counter
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Final

from janitor.cleaning import Look, carry_out, look
from janitor.core.action import Policy
from janitor.core.judgement import FREEABLE
from janitor.core.outcome import Outcome
from janitor.host.files import said
from janitor.host.journal import Journal
from janitor.host.locks import DAEMON, Busy, only_janitor
from janitor.host.procfs import clock
from janitor.host.undo import purge, recover
from janitor.pipeline import Options
from janitor.report.document import make_report
from janitor.report.page import page
from janitor.report.pass_lines import Event, FindingFigures, Line, Looked, NetworkFigures

_NAMES: Final = {"free": "lease", "discard": "cache entry", "reserve": "lease"}
_DONE: Final = {"free": "freed", "discard": "discarded", "reserve": "reserved"}


@dataclass(frozen=True, slots=True)
class Order:
    """What to do. `tidy`: bring what was cut short to an end, and drop old passes."""

    options: Options
    policy: Policy
    keep_days: float
    tidy: bool


def lease_pass(order: Order, tell: Callable[[Line], None]) -> None:
    """One pass from beginning to end; tells each action once it is written down, and at last what there is now."""
    began = clock()

    def say(event: str, **fields: str) -> None:
        tell(Event(event, fields))

    def acted(pass_id: str, outcome: Outcome) -> None:
        action, name = outcome.action, _NAMES[outcome.action.kind]
        done = outcome.event == "done"
        event = f"{name} {_DONE[action.kind]}" if done else f"{name} not {_DONE[action.kind]}"
        entry = action.kind == "discard"
        fields = {
            **({"path": action.path} if entry else {"address": action.name, "network": action.network}),
            "pod": action.pod, "container": action.container_id, "proof": "; ".join(action.proof),
            "detail": outcome.detail, "pass": pass_id,
        }  # fmt: skip
        tell(Event(event, fields, action.kind if done else ""))

    with ExitStack() as held:
        alone = _alone(order, held, say)
        now = _look(order, alone, say)
        changed = alone and _act(order, now, say, acted)
        if changed:
            now = _look(order, alone, say)
    tell(_looked(now, began.boottime_ns))


def _alone(order: Order, held: ExitStack, say: Callable[..., None]) -> bool:
    """Whether this pass may change something; where not, it looks all the same."""
    try:
        held.enter_context(only_janitor(order.options.root, DAEMON))
    except Busy as busy:
        say("only looking", why=str(busy))
    except OSError as error:
        say("lock not taken", why=said(error), then="this pass only looks")
    else:
        return True
    return False


def _look(order: Order, note: bool, say: Callable[..., None]) -> Look:
    try:
        return look(order.options, order.policy, note=note)
    except OSError as error:
        say("notes not written", why=said(error), then="no lease can be proven dead by watching it")
        return look(order.options, order.policy, note=False)


def _act(order: Order, now: Look, say: Callable[..., None], acted: Callable[[str, Outcome], None]) -> bool:
    """Do what is planned. Whether anything was."""
    if not (now.plan.actions or order.tidy):
        return False
    asked: list[int] = []
    signal.signal(signal.SIGTERM, lambda number, _: asked.append(number))
    journal, root = Journal(order.options.root), order.options.root
    try:
        journal.load()
        for entry in recover(root, journal):
            name = f"{entry.action['directory']}/{entry.action['name']}"
            say("earlier pass was cut short", path=name, state=entry.state, detail=entry.detail)
    except OSError as error:
        say("journal not used", why=said(error), then="nothing is changed")
        return False
    anything = False
    if now.plan.actions:
        hands, both, work = carry_out(now, order.options, order.policy, journal, stop=lambda: bool(asked))
        for why, number in Counter(r.reason for r in both.refusals if r not in now.plan.refusals).items():
            say("left alone", leases=str(number), why=why)
        for outcome in work:
            acted(hands.pass_id, outcome)
            anything = True
    if not asked:
        boot_id = now.evidence.boot_id
        try:
            purge(root, journal, order.keep_days, boot_id if isinstance(boot_id, str) else "")
        except OSError as error:
            say("old passes not dropped", why=said(error))
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    return anything and not asked


def _looked(now: Look, began_ns: int) -> Looked:
    report = make_report(now.evidence, now.judgement, now.findings)
    wall = clock().realtime_ns
    ages = [
        (wall - lease.file.mtime_ns) / 1e9
        for lease in now.judgement.leases
        if lease.verdict in FREEABLE and lease.file is not None
    ]
    numbers = Counter((finding.id, finding.severity) for finding in now.findings)
    # Whatever could not be seen at all is complained of by SCAN001 and SCAN002.
    unseen = [part.reason for part in now.judgement.unseen]
    unseen += [finding.summary for finding in now.findings if finding.status == "unknown" and finding.id != "SCAN001"]
    waits = [refusal.wait_s for refusal in now.plan.refusals if refusal.wait_s]
    return Looked(
        at=wall / 1e9,
        took_s=(clock().boottime_ns - began_ns) / 1e9,
        unseen=tuple(dict.fromkeys(unseen)),
        networks=tuple(
            NetworkFigures(n.name, n.data_dir, n.capacity, n.free, n.freeable, n.verdicts)
            for n in report.networks
            if n.in_scope
        ),
        findings=tuple(FindingFigures(*key, number) for key, number in sorted(numbers.items())),
        oldest_orphan_s=max(ages, default=None),
        soonest_s=min(waits, default=None),
        page=page(report, wall / 1e9),
    )
