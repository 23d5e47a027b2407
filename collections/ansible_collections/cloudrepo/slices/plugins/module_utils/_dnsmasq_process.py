# Copyright (c) 2026, cloudrepo contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""One slice's dnsmasq on this host: its folder, its process, and how both are brought to what is wanted."""

from __future__ import annotations

import os
import pwd
import signal
import stat
import time
from typing import Any, Dict, List, Mapping, NamedTuple, Optional

from ansible_collections.cloudrepo.slices.plugins.module_utils import _dnsmasq
from ansible_collections.cloudrepo.slices.plugins.module_utils._dnsmasq import (
    CONF,
    HOSTS,
    LEASES,
    NAMES,
    OPTIONS,
    USER,
)
from ansible_collections.cloudrepo.slices.plugins.module_utils._folders import (
    remove_file,
    remove_parts,
    tidy,
    write_whole,
)
from ansible_collections.cloudrepo.slices.plugins.module_utils._iproute import NETNS_DIR
from ansible_collections.cloudrepo.slices.plugins.module_utils._reconcile import Action, State
from ansible_collections.cloudrepo.slices.plugins.module_utils._runner import run

RUN_DIR = "/run/cloudrepo/dnsmasq"
RESOLV_CONFS = ("/etc/resolv.conf", "/run/systemd/resolve/resolv.conf")

FOLDER = "folder"
PROCESS = "process"
# dnsmasq reads its configuration once, as root; everything else again and again, as its own user.
OWNERS = {CONF: "root", HOSTS: USER, OPTIONS: USER, NAMES: USER, LEASES: USER}
RELOADED = (HOSTS, OPTIONS, NAMES)

_STOP_SECONDS = 5.0


class Place(NamedTuple):
    """Where the slice's dnsmasq is: its folder, its pidfile and the namespace that it runs in."""

    folder: str
    pidfile: str
    namespace: str

    def path(self, name: str) -> str:
        """The path of one of the folder's files."""
        return os.path.join(self.folder, name)


def place(state_dir: str, slice_name: str, namespace: str) -> Place:
    """The place of a slice's dnsmasq."""
    return Place(os.path.join(state_dir, slice_name), os.path.join(RUN_DIR, "%s.pid" % slice_name), namespace)


def host_nameservers() -> List[str]:
    """The name servers that the host asks, as far as a namespace can ask them too."""
    for path in RESOLV_CONFS:
        servers = _dnsmasq.parse_nameservers(_read(path) or "")
        if servers:
            return servers
    return []


def parse(slice_name: str, options: Mapping[str, Any]) -> _dnsmasq.Service:
    """The module's options checked, with what they leave to the slice and to this host.

    Raises:
        ValueError: an option is wrong.
        ItemError: an item of a list is.
    """
    upstream = options["upstream_servers"]
    if upstream is None:
        outside = any(network["internet"] for network in options["networks"])
        upstream = host_nameservers() if outside else []
    domain = options["domain"] or "%s.internal" % slice_name
    return _dnsmasq.parse_service(domain, options["lease_time"], options["networks"], options["names"], upstream)


def wanted(where: Place, service: _dnsmasq.Service) -> Dict[str, State]:
    """The state of every resource of a dnsmasq that serves ``service``."""
    files = _dnsmasq.render(service, where.folder)
    want: Dict[str, State] = {FOLDER: {"owner": "root", "mode": "0711"}}
    for name, content in files.items():
        want[name] = {"owner": OWNERS[name], "mode": "0600", "content": content}
    want[LEASES] = {"owner": OWNERS[LEASES], "mode": "0600", "stale": []}
    want[PROCESS] = {"running": True, "namespace": where.namespace}
    return want


def observed(where: Place, service: Optional[_dnsmasq.Service]) -> Dict[str, State]:
    """The state of every resource that exists. Without a service no lease is stale."""
    have: Dict[str, State] = {}
    if os.path.isdir(where.folder):
        have[FOLDER] = _metadata(where.folder)
    for name in (CONF, HOSTS, OPTIONS, NAMES):
        content = _read(where.path(name))
        if content is not None:
            have[name] = dict(_metadata(where.path(name)), content=content)
    leases = _read(where.path(LEASES))
    if leases is not None:
        stale = _dnsmasq.split_stale(_dnsmasq.parse_leases(leases), service)[1] if service else []
        have[LEASES] = dict(_metadata(where.path(LEASES)), stale=[lease.line for lease in stale])
    pid = running_pid(where)
    if pid is not None:
        have[PROCESS] = {"running": True, "namespace": _namespace_of(pid)}
    elif os.path.exists(where.pidfile):
        have[PROCESS] = {"running": False, "namespace": ""}
    return have


def running_pid(where: Place) -> Optional[int]:
    """The process that the pidfile names, if that is alive and the dnsmasq of this slice."""
    text = (_read(where.pidfile) or "").strip()
    if not text.isdigit():
        return None
    return int(text) if is_dnsmasq(int(text), where.path(CONF)) else None


def is_dnsmasq(pid: int, conf: str, proc: str = "/proc") -> bool:
    """Whether process ``pid`` is a dnsmasq started with the configuration file ``conf``."""
    argv = (_read(os.path.join(proc, str(pid), "cmdline")) or "").split("\0")
    return os.path.basename(argv[0]) == "dnsmasq" and _conf_argument(conf) in argv[1:]


def needs_restart(actions: List[Action]) -> bool:
    """Whether the changes take a new process, or only a signal to read some files again."""
    return any(action.name in (CONF, LEASES, PROCESS) for action in actions)


def apply(actions: List[Action], where: Place, service: _dnsmasq.Service) -> None:
    """Make the changes. A restart keeps the leases, a reload keeps the process.

    Raises:
        OSError: a file could not be written or a process not be ended.
        CommandError: dnsmasq did not start.
    """
    if not os.path.exists(os.path.join(NETNS_DIR, where.namespace)):
        raise OSError("namespace %s does not exist" % where.namespace)
    if not _is_user(USER):
        raise OSError("there is no user %s: run the playbook prepare_hosts" % USER)
    changed = {action.name: action for action in actions}
    os.makedirs(where.folder, mode=0o711, exist_ok=True)
    os.makedirs(os.path.dirname(where.pidfile), mode=0o755, exist_ok=True)
    remove_parts(where.folder)
    if FOLDER in changed:
        os.chown(where.folder, 0, 0)
        os.chmod(where.folder, 0o711)
    restart = needs_restart(actions)
    if restart:
        # Stopped before anything is written: if this run ends halfway, the next one starts it.
        _stop(where)
    for name, action in changed.items():
        if action.after is not None and "content" in action.after:
            _write(where.path(name), action.after["content"], OWNERS[name])
    if LEASES in changed:
        _write(where.path(LEASES), _without_stale(where, service), OWNERS[LEASES])
    if restart:
        _start(where)
    elif any(name in changed for name in RELOADED):
        _reload(where)


def remove(where: Place) -> None:
    """Stop the slice's dnsmasq and remove its files.

    Raises:
        OSError: the process did not end.
    """
    _stop(where)
    for name in OWNERS:
        remove_file(where.path(name))
    if os.path.isdir(where.folder):
        tidy(where.folder)


def _start(where: Place) -> None:
    run(
        [
            "ip",
            "netns",
            "exec",
            where.namespace,
            "dnsmasq",
            _conf_argument(where.path(CONF)),
            "--pid-file=%s" % where.pidfile,
        ]
    )


def _reload(where: Place) -> None:
    pid = running_pid(where)
    if pid is not None:
        os.kill(pid, signal.SIGHUP)


def _stop(where: Place) -> None:
    """End the process, gently at first, and remove its pidfile."""
    for sign in (signal.SIGTERM, signal.SIGKILL):
        pid = running_pid(where)
        if pid is None:
            break
        _end(pid, sign, where)
    pid = running_pid(where)
    if pid is not None:
        raise OSError("dnsmasq (process %d) does not end" % pid)
    remove_file(where.pidfile)


def _end(pid: int, sign: signal.Signals, where: Place) -> None:
    try:
        os.kill(pid, sign)
    except ProcessLookupError:
        return
    deadline = time.monotonic() + _STOP_SECONDS
    while is_dnsmasq(pid, where.path(CONF)) and time.monotonic() < deadline:
        time.sleep(0.01)


def _without_stale(where: Place, service: _dnsmasq.Service) -> str:
    """The leases file without the leases that nobody may renew, read once its writer has ended."""
    good = _dnsmasq.split_stale(_dnsmasq.parse_leases(_read(where.path(LEASES)) or ""), service)[0]
    return "".join(lease.line + "\n" for lease in good)


def _conf_argument(conf: str) -> str:
    return "--conf-file=%s" % conf


def _namespace_of(pid: int) -> str:
    """Name of the process's network namespace; empty if that was deleted under it, and it serves nobody."""
    for name in os.listdir(NETNS_DIR) if os.path.isdir(NETNS_DIR) else []:
        if os.path.samefile("/proc/%d/ns/net" % pid, os.path.join(NETNS_DIR, name)):
            return name
    return ""


def _is_user(name: str) -> bool:
    try:
        pwd.getpwnam(name)
    except KeyError:
        return False
    return True


def _read(path: str) -> Optional[str]:
    try:
        with open(path, encoding="utf-8", errors="replace") as file:
            return file.read()
    except (FileNotFoundError, ProcessLookupError):
        return None


def _metadata(path: str) -> Mapping[str, Any]:
    found = os.stat(path)
    try:
        owner = pwd.getpwuid(found.st_uid).pw_name
    except KeyError:
        owner = str(found.st_uid)
    return {"owner": owner, "mode": "%04o" % stat.S_IMODE(found.st_mode)}


def _write(path: str, content: str, owner: str) -> None:
    write_whole(path, content, 0o600)
    os.chown(path, pwd.getpwnam(owner).pw_uid, 0)
