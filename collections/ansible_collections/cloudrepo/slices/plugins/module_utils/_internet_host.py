# Copyright (c) 2026, cloudrepo contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The internet VLAN's gateway on this host: found, and changed."""

from __future__ import annotations

import os
from typing import List, Optional

from ansible_collections.cloudrepo.slices.plugins.module_utils import _internet, _iproute, _nft, _ovs, _sysctl
from ansible_collections.cloudrepo.slices.plugins.module_utils._reconcile import Action
from ansible_collections.cloudrepo.slices.plugins.module_utils._runner import CommandError, run

# One slice at a time: they share a table, a port and the last one's duty to remove both.

_IP_FORWARD = "/proc/sys/net/ipv4/ip_forward"


def scan(options: _internet.Options) -> _internet.Host:
    """What there is on this host.

    Raises:
        ValueError: Open vSwitch does not answer.
        CommandError: another program failed.
    """
    try:
        ovs = _ovs.parse_scan(run(_ovs.scan()))
    except CommandError as error:
        raise ValueError("%s: run the playbook prepare_hosts" % _ovs.explain(error)) from error
    network = _iproute.parse_scan(run(_iproute.scan(None), stdin=_iproute.SCAN))
    return view(options, ovs, network, scan_table())


def scan_table() -> Optional[_nft.Listing]:
    """The table that all slices share, if it exists."""
    return _listing(None)


def view(
    options: _internet.Options, ovs: _ovs.Database, network: _iproute.Network, table: Optional[_nft.Listing]
) -> _internet.Host:
    """The host as one slice's module sees it: what all slices have in common, and the slice's own namespace."""
    host = _internet.Host(
        ovs=ovs,
        network=network,
        sysctls={},
        ip_forward=_is_router(),
        table=table,
        inside=_listing(options.namespace) if options.namespace and _exists(options.namespace) else None,
    )
    names = [*_internet.gateway_ports(host), str(_internet.uplink(options, host))]
    devices = set(names) & set(host.network.devices)
    return host._replace(sysctls={name: _sysctl.read(name, _internet.GATEWAY_SETTINGS) for name in devices})


def apply(actions: List[Action], options: _internet.Options, host: _internet.Host) -> None:
    """Do the actions.

    Raises:
        ValueError: Open vSwitch refused, or the namespace does not exist, and nothing was done.
        CommandError: another program failed.
        OSError: a setting could not be written.
    """
    plan = _internet.steps(actions, options, host)
    if plan.inner_rules and not _exists(str(options.namespace)):
        raise ValueError("namespace %s does not exist" % options.namespace)
    _nft_script(None, plan.rules)
    _nft_script(options.namespace, plan.inner_rules)
    _transaction(plan.detach)
    _transaction(plan.connect)
    for device, values in plan.sysctls.items():
        _sysctl.write(device, values)
    if plan.lines:
        run(_iproute.batch(None), stdin="".join(line + "\n" for line in plan.lines))
    _nft_script(None, plan.last_rules)


def _listing(namespace: Optional[str]) -> Optional[_nft.Listing]:
    try:
        return _nft.parse(run(_inside(namespace, _nft.listing(_internet.TABLE))))
    except CommandError as error:
        if "No such file or directory" in error.stderr:
            return None
        raise


def _nft_script(namespace: Optional[str], script: str) -> None:
    if script:
        run(_inside(namespace, _nft.script()), stdin=script)


def _inside(namespace: Optional[str], argv: List[str]) -> List[str]:
    return _iproute.ip(None, "netns", "exec", namespace, *argv) if namespace else argv


def _transaction(commands: List[_ovs.Command]) -> None:
    if not commands:
        return
    try:
        run(_ovs.transaction(commands))
    except CommandError as error:
        raise ValueError(_ovs.explain(error)) from error


def _exists(namespace: str) -> bool:
    return os.path.exists(os.path.join(_iproute.NETNS_DIR, namespace))


def _is_router() -> bool:
    with open(_IP_FORWARD, encoding="ascii") as file:
        return file.read().strip() != "0"
