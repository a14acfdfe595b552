"""What systemd-networkd does to other software's rules and routes, by its version and settings.

Since v248 (and v247.4) it deletes every rule that is not `proto kernel` whenever it configures a link. The opt-out came
with v249 and was backported to v248.8 and v247.10 (systemd/systemd#19287). Deletion is the default in every release.
"""

import re
from fnmatch import fnmatchcase

from janitor.core.model.routing import Link, Networkd, NetworkdSetting, NetworkFile

DROP_IN = "/etc/systemd/networkd.conf.d/50-janitor.conf"
DROP_IN_TEXT = """\
# Written by janitor: what pod networking makes is not networkd's to delete.
[Network]
ManageForeignRoutingPolicyRules=no
ManageForeignRoutes=no
"""
NEXT_HOPS = "ManageForeignNextHops=no\n"

RULES, ROUTES = "ManageForeignRoutingPolicyRules", "ManageForeignRoutes"


def release(version: str) -> tuple[int, int | None]:
    """(252, 38) for `252.38-1~deb12u1`; the second is None if the version lacks it. (0, None) without a version."""
    match = re.match(r"(\d+)(?:\.(\d+))?", version)
    if match is None:
        return 0, None
    minor = match[2]
    # Debian's first upload of a release has no minor number, and the version in a library's name never has one.
    return int(match[1]), int(minor) if minor else 0 if "-" in version else None


def wipes(version: str) -> bool:
    """Whether this version deletes foreign rules. An unknown version counts as one that does."""
    major, minor = release(version)
    return major == 0 or major >= 248 or (major == 247 and (minor is None or minor >= 4))


def has_opt_out(version: str) -> bool | None:
    """Whether this version has the opt-out; None if the version is not precise enough."""
    major, minor = release(version)
    if major >= 249:
        return True
    first = {248: 8, 247: 10}.get(major)
    if major == 0 or (first is not None and minor is None):
        return None
    return first is not None and minor is not None and minor >= first


def drop_in_text(version: str) -> str:
    """The drop-in that turns deletion off. Next hops are included from v256 on: older versions would warn."""
    return DROP_IN_TEXT + NEXT_HOPS * (release(version)[0] >= 256)


def setting(networkd: Networkd, name: str) -> NetworkdSetting | None:
    """The assignment of a setting that takes effect; None if no file sets it, which means yes."""
    return next((one for one in networkd.settings if one.name == name), None)


def is_off(networkd: Networkd, name: str) -> bool:
    """Whether the files say no. The running process may have started before they did."""
    found = setting(networkd, name)
    return found is not None and found.value == "no"


def overruled_by(networkd: Networkd) -> str:
    """`file:line` of a yes that is read after janitor's drop-in; "" if there is none."""
    said = setting(networkd, RULES)
    if said is None or said.value == "no" or ".conf.d/" not in said.file:
        return ""
    later = said.file.rpartition("/")[2] > DROP_IN.rpartition("/")[2]
    return f"{said.file}:{said.line}" if later else ""


def restart_pending(networkd: Networkd, name: str) -> bool:
    """Whether the file that says no is newer than the running process, which therefore has not read it."""
    found = setting(networkd, name)
    return found is not None and found.value == "no" and bool(networkd.pid) and found.changed_ns > networkd.started_ns


def deletes(networkd: Networkd) -> bool:
    """Whether the running process deletes foreign rules, judging by its version and its files."""
    told = is_off(networkd, RULES) and not restart_pending(networkd, RULES)
    return wipes(networkd.version) and not told and not keeps_everything(networkd)


def keeps_everything(networkd: Networkd) -> bool:
    """Whether all of its links keep what they find: KeepConfiguration=yes (measured on 252, 257 and 262)."""
    files = {link.network_file for link in networkd.links if link.network_file}
    keeping = {file.path for file in networkd.network_files if file.keeps == "yes"}
    return bool(files) and files <= keeping


def configures(networkd: Networkd, link: Link) -> str:
    """The `.network` file with which networkd manages the link; "" if it does not manage it.

    The state of the running networkd decides; without one for the link, the first file that matches its name.
    """
    for known in networkd.links:
        if known.index == link.index and known.state not in ("", "pending", "initialized"):
            return known.network_file if known.state != "unmanaged" else ""
    for file in networkd.network_files:
        if file.names and matches(file, link.name):
            return "" if file.unmanaged else file.path
    return ""


def matches(file: NetworkFile, name: str) -> bool:
    """[Match] Name= of systemd.network(5): globs; a `!` before the first one inverts the whole match."""
    patterns = list(file.names)
    inverted = patterns[0].startswith("!")
    patterns[0] = patterns[0].removeprefix("!")
    return any(fnmatchcase(name, pattern) for pattern in patterns) != inverted
