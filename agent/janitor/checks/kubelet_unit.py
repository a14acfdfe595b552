"""KUB002 to KUB007: how systemd reads the kubelet's unit, drop-ins and environment files."""

import difflib
from collections.abc import Iterator

from janitor.core.leases.judgement import Judgement
from janitor.core.model.codes import Code
from janitor.core.model.evidence import Evidence, Unknown
from janitor.core.model.evidence_node import Assignment, Unit
from janitor.core.model.finding_ids import FindingId, Severity
from janitor.core.model.findings import Finding, Skipped
from janitor.core.model.fix import NEW_LINE, Command, Fix, Part, Patch, Snippet
from janitor.core.model.reason import because
from janitor.core.node.kubelet_unit import Overruled, counting, mended, overruled, unreached
from janitor.core.node.node_view import component, kubelet_unit, kubernetes_missing
from janitor.core.node.rejoining import rejoin

_IDS = (FindingId.KUB002, FindingId.KUB003, FindingId.KUB004, FindingId.KUB005, FindingId.KUB006, FindingId.KUB007)

_EXTRA = "KUBELET_EXTRA_ARGS"
_WANTED = (_EXTRA, "KUBELET_KUBEADM_ARGS")
# Without one of these the kubelet is a different node, or unknown to the cloud.
_DECISIVE = ("--cloud-provider", "--node-ip", "--hostname-override", "--provider-id", "--container-runtime-endpoint")
_RESTART = Command("systemctl daemon-reload && systemctl restart kubelet")


def check(evidence: Evidence, judgement: Judgement) -> Iterator[Finding | Skipped]:
    """Only with a kubelet.service: k3s, RKE2 and k0s have none."""
    node = evidence.node_config
    unit = kubelet_unit(node)
    if unit is None:
        reason = kubernetes_missing(node) or (node.units.reason if isinstance(node.units, Unknown) else None)
        yield Skipped(_IDS, reason or because(Code.NO_KUBELET_UNIT, where=node.distribution or "this node"))
        return
    yield from _blanked(unit, evidence)
    yield from _reset(unit)
    kubelet = component(evidence.node_config, "kubelet")
    yield from _strays(unit, kubelet.argv if kubelet else ())
    yield from _stale(unit)
    yield from _shadowed(unit)
    yield from _syntax(unit)


def _blanked(unit: Unit, evidence: Evidence) -> Iterator[Finding]:
    """KUB002: a variable set by Environment= that a file sets differently; the file takes precedence."""
    for one in overruled(unit):
        now = f"'{one.file.value}'" if one.file.value else "nothing"
        lost = list(one.lost)
        yield Finding.of(
            FindingId.KUB002, one.variable,
            f"{one.variable} is set in {_file(one.inline)}, but {one.file.source} sets it to {now}, which overrides "
            f"it: the kubelet does not get {' '.join(lost)}",
            (
                f'{one.inline.source}: Environment="{one.variable}={one.inline.value}"',
                f"{one.file.source}: {one.variable}={one.file.value}",
            ),
            "EnvironmentFile= overrides every Environment=, whatever the order of the drop-ins (systemd.exec(5)). The "
            f"packages ship that file with an empty {one.variable}=. {_consequence(lost)}",
            Fix.of(*_diff(unit, one), *_joined(evidence, lost)),
        )  # fmt: skip


def _consequence(lost: list[str]) -> str:
    if "--cloud-provider=external" not in lost:
        return "(kubernetes-sigs/cluster-api-provider-vsphere#68)"
    return (
        "Without --cloud-provider=external the node gets no providerID, and the cluster-autoscaler removes its server "
        "after 15 minutes, although 'kubectl get nodes' lists it (kubernetes/autoscaler#8013, #6106, hccm#513)."
    )


def _joined(evidence: Evidence, lost: list[str]) -> tuple[str | Part, ...]:
    """What to do after correcting the file; a node that joined without the cloud provider's flag needs more."""
    if "--cloud-provider=external" not in lost:
        return ("then: ", _RESTART)
    return ("then: ", Command("systemctl daemon-reload"), ", and ", *rejoin(evidence))


def _diff(unit: Unit, one: Overruled) -> tuple[str | Part, ...]:
    """The change of the file that takes effect, as a patch if one is sure to work. People restart the service."""
    text = dict(unit.written).get(one.file.source)
    new = mended(text, one) if text is not None else None
    if text is None or new is None:
        return (f"in {one.file.source}, add to {one.variable}: ", Snippet(" ".join(one.lost)), NEW_LINE)
    old, changed = text.splitlines(keepends=True), new.splitlines(keepends=True)
    lines = difflib.unified_diff(old, changed, f"a{one.file.source}", f"b{one.file.source}")
    patch = "".join(line if line.endswith("\n") else f"{line}\n\\ No newline at end of file\n" for line in lines)
    return (Command("patch -p1 -d /"), ", and this:", Patch(one.file.source, patch))


def _file(one: Assignment) -> str:
    return one.source.rpartition(":")[0] or one.source


def _reset(unit: Unit) -> Iterator[Finding]:
    """KUB003: a later ExecStart= that omits variables which are set."""
    used = {name for name in _WANTED if f"${name}" in unit.exec_start or f"${{{name}}}" in unit.exec_start}
    lost = [n for n in _WANTED if n not in used and any(a.variable == n and a.value for a in unit.assignments)]
    if lost:
        names = " ".join(f"${name}" for name in lost)
        yield Finding.of(
            FindingId.KUB003, "ExecStart", f"the kubelet's ExecStart does not use {names}, which are set",
            (f"{unit.exec_source}: ExecStart={unit.exec_start}",
             *(f"{a.source}: {a.variable}={a.value}" for a in unit.assignments if a.variable in lost and a.value)),
            "systemd uses the last ExecStart=, and the kubelet gets only the variables in it.",
            Fix.of(f"append {names} to the ExecStart in {unit.exec_source.rpartition(':')[0]}; then: ", _RESTART),
        )  # fmt: skip


def _strays(unit: Unit, running: tuple[str, ...]) -> Iterator[Finding]:
    """KUB004: a file with flags that nothing reads. Not reported if the kubelet has them anyway: it is a leftover."""
    for path in unit.strays:
        lost = unreached(unit, path, running)
        if not lost:
            continue
        counts = counting(unit, _EXTRA)
        meant = _EXTRA in unit.exec_start and not (counts and counts.value)
        decisive = any(word.partition("=")[0] in _DECISIVE for word in lost)
        yield Finding.of(
            FindingId.KUB004, path,
            f"{path} sets {_EXTRA}, but nothing reads it: the kubelet does not get {' '.join(lost)}",
            (f"{unit.name} reads: {', '.join(file.path for file in unit.environment_files) or 'no file at all'}",
             *((f"{counts.source} sets {_EXTRA} to: {counts.value}",) if counts and counts.value else ())),
            "Debian's package reads /etc/default/kubelet and the RPM /etc/sysconfig/kubelet; one release had them "
            "swapped (kubernetes/release#3276).",
            _moved(unit, path, lost),
            severity=(Severity.ERROR if decisive else Severity.WARNING) if meant else Severity.INFO,
        )  # fmt: skip


def _moved(unit: Unit, path: str, lost: tuple[str, ...]) -> Fix:
    """Where the words belong. Never copy the file over another one: that may hold all of the kubelet's flags."""
    words = Snippet(" ".join(lost))
    if_wanted = f"if these flags are still wanted ({path} may be left over from another installation), "
    counts = counting(unit, _EXTRA)
    if _EXTRA not in unit.exec_start:
        return Fix.of(f"{if_wanted}add them where this kubelet gets its flags from: ", words)
    if counts and not counts.from_file and counts.value:
        return Fix.of(f"{if_wanted}add them to {_EXTRA} in {_file(counts)}: ", words)
    files = [file for file in unit.environment_files if file.path.endswith("/kubelet")]
    target = counts.source if counts and counts.from_file else next((f.path for f in files), "")
    if not target:
        drop_in = Snippet(f"EnvironmentFile=-{path}")
        return Fix.of(f"{if_wanted}add a drop-in to {unit.name} with ", drop_in, "; then: ", _RESTART)
    if any(file.path == target and file.state == "missing" for file in files):
        line = Snippet(f'{_EXTRA}="{words.text}"')
        return Fix.of(f"{if_wanted}create {target} with the line ", line, "; then: ", _RESTART)
    nothing = Assignment(_EXTRA, "", target, True)
    file = counts if counts and counts.from_file else nothing
    return Fix.of(if_wanted, *_diff(unit, Overruled(_EXTRA, nothing, file, lost)), "then: ", _RESTART)


def _stale(unit: Unit) -> Iterator[Finding]:
    if unit.need_reload or unit.newer:
        evidence = [f"{path} was changed after the kubelet was started" for path in unit.newer]
        if unit.need_reload:
            evidence.append(
                "systemd reports that the unit's files have changed since it read them (NeedDaemonReload=yes)"
            )
        yield Finding.of(
            FindingId.KUB005, unit.name, "the kubelet still runs with the old content of its files",
            tuple(evidence), "A change takes effect when systemd has reloaded the files and the kubelet has been "
                             "restarted.",
            Fix.of(_RESTART),
        )  # fmt: skip


def _shadowed(unit: Unit) -> Iterator[Finding]:
    for path, by in unit.shadowed:
        yield Finding.of(
            FindingId.KUB006, path, f"{path} is not read: {by} has the same name",
            (f"read: {by}", f"not read: {path}"),
            "If several drop-ins have the same name, systemd reads only the one with the highest precedence "
            "(systemd.unit(5)).",
            Fix.of(f"rename the one in /etc, or copy the content of {path} into it; then: ", _RESTART),
        )  # fmt: skip


def _syntax(unit: Unit) -> Iterator[Finding]:
    if unit.complaints:
        argv = [word for word in unit.argv[1:] if not word.startswith(("--kubeconfig", "--bootstrap"))]
        yield Finding.of(
            FindingId.KUB007, unit.name,
            f"systemd reads the kubelet's files differently than intended: {unit.complaints[0]}",
            (*unit.complaints, f"so its command line becomes: {' | '.join(argv) or '(nothing)'}"),
            "systemd does not parse these files as a shell does.",
            Fix.of("correct the files named above; then: ", _RESTART),
        )  # fmt: skip
