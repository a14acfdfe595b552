"""Every event of the daemon's log: its name, its level, its fields, and its meaning.

There are no other events: the log takes a `LogEvent`, never a text. Levels, the page's list of actions, the counters of
actions and docs/log-events.md are all derived from these declarations. Pure.
"""

from dataclasses import dataclass
from enum import Enum, unique
from typing import Final, Literal, Protocol, Self

Level = Literal["warning", "notice", "info"]
WARNING: Final = "warning"
NOTICE: Final = "notice"
INFO: Final = "info"


@dataclass(frozen=True, slots=True)
class ActionEntry:
    """How an action is listed and counted. `subject` and `proof` are templates over the event's fields."""

    subject: str
    proof: str
    metric: str
    metric_help: str
    metric_label: str = ""  # the field that the counter is split by; "" for none


@unique
class LogEvent(Enum):
    """The value is the name in the log. A line has the declared fields that have a value."""

    level: Level
    fields: tuple[str, ...]
    meaning: str
    action: ActionEntry | None

    def __new__(cls, name: str, level: Level, fields: str, meaning: str, action: ActionEntry | None = None) -> Self:
        """`fields` are names separated by spaces."""
        member = object.__new__(cls)
        member._value_ = name
        member.level, member.fields, member.meaning, member.action = level, tuple(fields.split()), meaning, action
        return member

    # fmt: off
    # The daemon.
    STARTED = "started", INFO, "pid mode", "The daemon holds the node's lock and has started its components."
    ENDING = "ending", INFO, "", "The daemon received SIGTERM or SIGINT and shuts down."
    WAITING = "waiting", INFO, "why then", "Another daemon has the node's lock, or the lock cannot be taken."
    LOCK_LOST = "lock lost", WARNING, "why then", "The lock file was removed or replaced."
    CONFIGURATION_READ = "configuration read", INFO, "mode", "The new configuration is now in force."
    CONFIGURATION_CHANGES = (
        "configuration changes", INFO, "then",
        "A new configuration was read. It takes effect when the running pass has ended.",
    )
    CONFIGURATION_NOT_READ = (
        "configuration not read", WARNING, "why then", "The file is invalid; the previous configuration stays active."
    )
    MISSING = "missing", WARNING, "what why", "A privilege, mount or namespace that janitor needs is missing."
    COMPONENT_FAILED = (
        "component failed", WARNING, "part path why again_s",
        "A component raised an exception. `again_s` is the pause before its restart.",
    )

    # The clocks.
    DAEMON_STALLED = (
        "daemon stalled", INFO, "for_s then", "The daemon was frozen; that time does not count toward the grace period."
    )
    CLOCK_WAS_SET = (
        "clock was set", INFO, "by_s then",
        "The wall clock was set. File age is not accepted as proof until the runtime restarts.",
    )
    CLOCK_NOT_WATCHED = "clock not watched", INFO, "why then", "The kernel cannot report changes to the wall clock."
    NOTES_NOT_WRITTEN = "notes not written", WARNING, "why then", "A file in /run/janitor could not be written."

    # Passes over the leases.
    PASS = (
        "pass", INFO,
        "took_s live held pending orphaned corrupt foreign missing free used_up_in findings",
        "A pass had a different result than the one before. `free`: fewest free addresses of a network.",
    )
    PASS_INCOMPLETE = (
        "pass incomplete", WARNING, "what",
        "A pass could not check everything; `what` lists what is missing.",
    )
    PASS_FAILED = "pass failed", WARNING, "why again_s", "A pass failed; the next one starts after a pause."
    PASS_ENDED_EARLY = (
        "pass ended early", INFO, "why left",
        "A pass was stopped early; `left` is the number of actions it did not try.",
    )
    EARLIER_PASS_CUT_SHORT = (
        "earlier pass was cut short", NOTICE, "path state detail",
        "A killed pass left this action unfinished; `detail` says whether it took effect.",
    )
    ONLY_LOOKING = (
        "only looking", INFO, "why",
        "Another janitor process is changing leases, so this pass changes nothing.",
    )
    LOCK_NOT_TAKEN = (
        "lock not taken", WARNING, "why then",
        "The lock for changing leases could not be taken, so this pass changes nothing.",
    )
    MARK_NOT_WRITTEN = (
        "mark not written", INFO, "why",
        "`.janitor-node`, which marks a data directory as this node's, could not be written.",
    )
    JOURNAL_NOT_USED = (
        "journal not used", WARNING, "why then",
        "The journal could not be read or written, so this pass changes nothing.",
    )
    JOURNAL_NOT_READ = (
        "journal not read", WARNING, "why then",
        "The journal could not be read, so actions of an earlier pass are not logged yet.",
    )
    OLD_PASSES_DROPPED = (
        "old passes dropped", INFO, "passes files days",
        "Quarantined files of old passes were deleted.",
    )
    OLD_PASSES_NOT_DROPPED = (
        "old passes not dropped", WARNING, "why",
        "Quarantined files of old passes could not be deleted.",
    )

    # Actions on leases and cache entries.
    LEASE_FREED = (
        "lease freed", NOTICE, "address network pod container proof detail pass",
        "A lease that was proven dead was moved to quarantine.",
        ActionEntry("{address} of {network}", "{proof}", "janitor_leases_freed", "Leases moved to quarantine."),
    )
    LEASE_NOT_FREED = (
        "lease not freed", WARNING, "address network pod container proof detail pass",
        "A lease that was proven dead could not be moved to quarantine; `detail` says why.",
    )
    LEASE_RESERVED = (
        "lease reserved", NOTICE, "address network pod container proof detail pass",
        "The missing lease of a running pod was written.",
        ActionEntry(
            "{address} of {network}", "{proof}", "janitor_leases_reserved", "Missing leases of live pods written."
        ),
    )
    LEASE_NOT_RESERVED = (
        "lease not reserved", WARNING, "address network pod container proof detail pass",
        "The missing lease of a running pod could not be written; `detail` says why.",
    )
    CACHE_ENTRY_DISCARDED = (
        "cache entry discarded", NOTICE, "path pod container proof detail pass",
        "A damaged entry of libcni's cache was moved to quarantine.",
        ActionEntry(
            "{path}", "{proof}", "janitor_cache_entries_discarded", "Entries of libcni's cache moved to quarantine."
        ),
    )
    CACHE_ENTRY_NOT_DISCARDED = (
        "cache entry not discarded", WARNING, "path pod container proof detail pass",
        "A damaged entry of libcni's cache could not be moved to quarantine; `detail` says why.",
    )
    LEASES_SKIPPED = (
        "leases skipped", WARNING, "leases why",
        "The second check, right before freeing, did not confirm these leases; they were kept.",
    )

    # Policy rules.
    WATCHING_RULES = "watching rules", INFO, "learned pid", "The daemon watches the node's policy rules."
    RULES_NOT_WATCHED = (
        "rules not watched", WARNING, "why hint again_s",
        "The policy rules are not watched; the next attempt starts after a pause.",
    )
    RULE_LEARNED = (
        "rule learned", INFO, "rule made_by likely",
        "A rule that a profile matches was added. `likely` is the probable process if the socket is already closed.",
    )
    RULE_DELETED = (
        "rule deleted", NOTICE, "rule by likely left",
        "A rule was deleted and is not restored. `likely` is the probable process if the socket is already closed.",
    )
    RULE_RESTORED = (
        "rule restored", NOTICE, "rule profile deleted_by after_ms",
        "A rule that systemd-networkd deleted was added again.",
        ActionEntry(
            "{rule}", "deleted by {deleted_by}", "janitor_rules_restored", "Policy rules restored.", "profile"
        ),
    )
    RULE_NOT_RESTORED = (
        "rule not restored", WARNING, "rule profile by why hint",
        "A rule was not restored, for example because its owner no longer wants it or the kernel refused it.",
    )
    RULES_NOT_RESTORED = "rules not restored", WARNING, "why", "The policy rules could not be read or restored."
    RULE_RESTORE_SUSPENDED = (
        "rule restore suspended", WARNING, "rule restored then",
        "A rule was restored too often within one hour. For one hour its deletion is only reported.",
    )
    RESTORING_POSTPONED = (
        "restoring postponed", INFO, "rules for_s why",
        "Rules keep being deleted. They are restored after a pause, `for_s`.",
    )
    RULE_FORGOTTEN = (
        "rule forgotten", INFO, "rule profile why",
        "janitor no longer restores a rule, because its owner no longer wants it.",
    )
    OWN_RULE_REMOVED = "own rule removed", INFO, "rule why", "A rule that janitor added was removed again."
    RULE_GONE = "rule gone", INFO, "rule left", "A rule is gone, and systemd-networkd is not known to have deleted it."
    RULE_MISSING = "rule missing", WARNING, "rule do", "A rule that its owner should have added is missing."
    RULES_UNCERTAIN = (
        "rules uncertain", WARNING, "why hint then", "Something that a decision about rules needs cannot be read."
    )
    RULES_COME_AND_GO = (
        "rules come and go", INFO, "not_told then",
        "Rules are added and deleted so fast that `not_told` log lines were left out.",
    )
    EVENTS_LOST = (
        "events lost", WARNING, "reason then",
        "The kernel dropped notifications; all rules are compared again.",
    )
    DELETERS_OUT_OF_SIGHT = (
        "deleters out of sight", INFO, "why then",
        "Without the host PID namespace janitor cannot see who deletes a rule.",
    )
    DELETER_OUT_OF_SIGHT = (
        "deleter out of sight", INFO, "rules then", "Rules were deleted by a process that janitor cannot see."
    )
    MIRROR_NOT_READ = "mirror not read", WARNING, "why", "The saved rules of an earlier daemon cannot be used."
    MIRROR_NOT_SAVED = "mirror not saved", WARNING, "why", "The rules could not be saved for the next daemon."

    # Other components.
    SYNCING_FAILED = "syncing failed", WARNING, "why status again_s", "New leases could not be synced to disk."
    LISTENING = "listening", INFO, "address", "The HTTP port is open."
    NOT_LISTENING = "not listening", WARNING, "address why again_s", "The HTTP port could not be opened."
    TEXTFILE_NOT_WRITTEN = "textfile not written", WARNING, "why", "The file for node_exporter could not be written."
    # fmt: on


class Log(Protocol):
    """Writes one line of the log. The keywords are the fields that the event declares."""

    def __call__(self, event: LogEvent, /, **fields: object) -> None:
        """Write the line; empty fields are left out."""
