# Copyright (c) 2026, cloudrepo contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The floor: shell scripts, one for each host, that make the same slice as the product with nothing around it. Pure.

They are made from the product's own plan, argument lists and configuration files, so VMs, TAPs, ports, OpenFlow rules,
namespace, gateways and DHCP are the same. What a product needs and a script does not is left out: registry, locks,
checks of what is there, manifests, fsync, limits and sessions of the VMs' own, undoing what failed. Numbers and names
are of a kind that no slice has, and no deploy takes for one.
"""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

from ansible_collections.cloudrepo.slices.plugins.module_utils import (
    _dnsmasq,
    _dnsmasq_process,
    _iproute,
    _openflow,
    _ovs,
    _qemu,
    _qemu_img,
    _specs,
)
from ansible_collections.cloudrepo.slices.plugins.module_utils._overlays import size_in_bytes
from ansible_collections.cloudrepo.slices.plugins.module_utils._reconcile import State
from ansible_collections.cloudrepo.slices.plugins.module_utils._vlan_ports import Host, Options, actions
from ansible_collections.cloudrepo.slices.plugins.module_utils._vlan_steps import Steps, steps
from ansible_collections.cloudrepo.slices.plugins.plugin_utils._addressing import FIRST_VNC_PORT
from ansible_collections.cloudrepo.slices.plugins.plugin_utils._placement import Room, Worker
from ansible_collections.cloudrepo.slices.plugins.plugin_utils._planning import plan
from ansible_collections.cloudrepo.slices.plugins.plugin_utils._settings import Cluster, NetworkNode, Settings
from ansible_collections.cloudrepo.slices.plugins.plugin_utils._spec import parse_flavors, parse_spec

from .rings import BLANK, BLANK_MB, FLAVORS, OWNER, Record, ring

BASE_DIR = "/var/lib/slices-bench"
RUN_DIR = "/run/slices-bench"
BRIDGE = "br-int"
USER = "slices-qemu"

_FIRST_ID = 900000
_FIRST_VLAN = 3500
_FIRST_VNC = 20000
_GROUP = 900000  # Of devices, by which they are deleted.
_PLENTY = Room(10**6, 10**9, 10**9)
# Whatever the audit or a deploy would take for a slice's.
_OTHER_NAMES = (
    (r"\btap_(\d+)_eth(\d+)", r"bt\1e\2"),
    (r"\bgw_vlan(\d+)", r"bgw\1"),
    (rf"\bslice-{_FIRST_ID}\b", f"bench-{_FIRST_ID}"),
    ("0xc10d5ec0", "0xbe7cbe7c"),
    ("cloudrepo", "bench"),
)

_PORT = "bt[0-9]+e[0-9]+|bgw[0-9]+"
_GUEST = "^guest=(floor[0-9]+/|loops-)"  # Among a QEMU's arguments, the floor's or the loops'.

# Says by its exit status that a host has nothing of any floor, which is so before a deploy and after a delete.
NOTHING_LEFT = " && ".join(
    f"! {found}"
    for found in (
        f"ls -d {RUN_DIR}/*/ 2>/dev/null",
        f"ip -br link | grep -E '^({_PORT}) '",
        f"ovs-vsctl list-ports {BRIDGE} | grep -xE '{_PORT}'",
        "ip netns | grep '^bench-'",
        "virsh -q list --all --name | grep '^loops-'",
        # The brackets keep it from finding itself.
        f"grep -lszE '^{RUN_DIR[:-1]}[{RUN_DIR[-1]}]/' /proc/[0-9]*/cmdline",
    )
)

# Removes whatever a run that was ended left behind.
CLEAN = f"""\
for name in $(virsh -q list --all --name | grep '^loops-'); do virsh -q destroy $name; virsh -q undefine $name; done
kill -9 $(find {RUN_DIR} -name '*.pid' -exec cat {{}} + 2>/dev/null) 2>/dev/null
for name in $(ovs-vsctl list-ports {BRIDGE} | grep -xE '{_PORT}'); do ovs-vsctl del-port $name; done
for name in $(ip -br link | grep -oE '^({_PORT}) '); do ip link delete dev $name; done
for name in $(ip netns | grep -o '^bench-[0-9]*'); do ip netns delete $name; done
rm -rf {RUN_DIR} {BASE_DIR}
"""

# Guests begin when all else is done, as those that run take CPU from the starts of others. What QEMU itself offers to
# wait for its start is forbidden by its sandbox.
_AWAIT = """\
import json, socket, sys, time

def ask(lines, word, **arguments):
    lines.write(json.dumps({"execute": word, "arguments": arguments}) + "\\n")
    lines.flush()
    return next(answer for answer in map(json.loads, lines) if "return" in answer)["return"]

def connect(path):
    while True:
        try:
            peer = socket.socket(socket.AF_UNIX)
            peer.connect(path)
            return peer
        except OSError:
            time.sleep(0.01)

for path, down in json.loads(sys.argv[1]).items():
    with connect(path) as peer, peer.makefile("rw") as lines:
        ask(lines, "qmp_capabilities")
        for card in down:
            ask(lines, "set_link", name=card, up=False)
        ask(lines, "cont")
        while ask(lines, "query-status")["status"] != "running":
            time.sleep(0.01)
"""


class Scripts(NamedTuple):
    """What a host runs: to make its share, to say by its exit status whether all of it is there, and to remove it."""

    deploy: str
    check: str
    delete: str


def scripts(count: int, workers: Sequence[str], node: str, settings: Mapping[str, Any]) -> dict[str, Scripts]:
    """The scripts of a ring of ``count`` VMs, by host.

    Args:
        count: the number of VMs and of links.
        workers: the names of the workers.
        node: the name of the network node.
        settings: the accelerator and nic_offload of the inventory.
    """
    planned = planned_floor(count, workers, node)
    name = str(planned["slice"]["name"])
    made = {}
    for host, share in planned["hosts"].items():
        options = _options(planned["slice"], share, node if host == node else None)
        ports = _ports(options)
        if host == node:
            own = _node_scripts(name, share["network"], ports)
        else:
            own = _worker_scripts(name, share, ports, settings)
        made[host] = Scripts(*(renamed(script) for script in own))
    return made


def planned_floor(count: int, workers: Sequence[str], node: str) -> Record:
    """What the planner says of the ring, with numbers far from those that the registry gives out."""
    images = {BLANK: BLANK_MB * 2**20}
    cluster = Cluster([Worker(host, host, room=_PLENTY) for host in workers], [NetworkNode(node, node)], images)
    settings = Settings(quota=10**6, reserved_vlans=tuple(range(1, _FIRST_VLAN)))
    registry = {"revision": 0, "next_id": _FIRST_ID, "last_worker": "", "slices": []}
    spec = parse_spec(ring(f"floor{count}", count))
    planned = plan(spec, OWNER, parse_flavors(FLAVORS), cluster, registry, settings)
    for share in planned["hosts"].values():
        for vm in share["vms"]:
            vm["vnc_port"] += _FIRST_VNC - FIRST_VNC_PORT
    return planned


def renamed(text: str) -> str:
    """A script, or data as JSON, with names that no slice has."""
    for pattern, other in _OTHER_NAMES:
        text = re.sub(pattern, other, text)
    return text


def _filled(item: Mapping[str, Any], spec: Mapping[str, Any]) -> Record:
    """An item of a module's list with the defaults that the module would give it."""
    return {key: item.get(key, field.get("default")) for key, field in spec.items()}


def _options(record: Record, share: Record, node: str | None) -> Options:
    return Options(
        slice=record["name"],
        slice_id=record["id"],
        bridge=BRIDGE,
        namespace=f"slice-{record['id']}" if node else None,
        tap_user=USER,
        ports=[_filled(port, _specs.PORT) for port in share["ports"]],
        present=True,
        purge=True,
        owner=record["owner"],
        vlan_pool=record["vlan_pool"],
    )


class _Ports(NamedTuple):
    options: Options
    steps: Steps
    on_bridge: list[str]


def _ports(options: Options) -> _Ports:
    bridge = _ovs.Bridge(options.bridge, True)
    empty = Host(_ovs.Database({options.bridge: bridge}, {}), _iproute.Network({}, {}), None, {})
    on_bridge = [port["name"] for port in options.ports if port["vlan"] is not None]
    return _Ports(options, steps(actions(options, empty), options, empty), on_bridge)


# --- workers ------------------------------------------------------------------------------------------------------


def _worker_scripts(slice_name: str, share: Record, ports: _Ports, settings: Mapping[str, Any]) -> Scripts:
    configs = machines(share, settings)
    places = {name: _qemu.vm_paths(BASE_DIR, RUN_DIR, slice_name, name) for name in configs}
    sizes = {overlay["name"]: size_in_bytes(overlay["size_gb"]) for overlay in share["overlays"]}
    taps = [str(port["name"]) for port in ports.options.ports]
    pidfiles = f"{RUN_DIR}/{slice_name}/*/qemu.pid"
    folders = [place.folder for place in places.values()]
    logs = [place.console_log for place in places.values()]
    # Empty overlays of one size on one image are equal: one is created, and the others are copies.
    blanks = {size: f"{BASE_DIR}/{slice_name}/blank_{size}.qcow2" for size in sizes.values()}
    starts = [
        f"{{ cp --sparse=always {blanks[sizes[name]]} {place.disk}"
        f" && chown {USER}: {place.disk} && exec {_line(_start(slice_name, name, configs[name], place, settings))};"
        f" }} </dev/null >{place.qemu_log} 2>&1 &"
        for name, place in places.items()
    ]
    awaited = {
        place.qmp: [_qemu.nic_id(nic["name"]) for nic in configs[name]["interfaces"] if not nic["connected"]]
        for name, place in places.items()
    }
    deploy = [
        _batch(None, [line.text for line in ports.steps.prepare]),
        f"mkdir -p {BASE_DIR}/{slice_name} {_line(folders)}",
        f"touch {_line(logs)}",
        f"chown {USER}: {_line([*folders, *logs])}",
        *(_line(_qemu_img.create_argv(path, size, f"{BASE_DIR}/{BLANK}", "qcow2")) for size, path in blanks.items()),
        *starts,
        *_connect(ports),
        *_sysctls(ports.steps, None),
        _line(["python3", "-I", "-c", _AWAIT, json.dumps(awaited)]),
    ]
    check = [
        # In any folder, so that it serves for the loops as well.
        f"[ $(grep -lszE '{_GUEST}' /proc/[0-9]*/cmdline | wc -l) = {len(configs)} ]",
        *_check_ports(ports, taps),
    ]
    delete = [
        f"pids=$(cat {pidfiles})",
        "kill -9 $pids",
        _line(_ovs.transaction(_ovs.del_port(name) for name in ports.on_bridge)),
        _line(_openflow.delete_slice(BRIDGE, ports.options.slice_id)),
        _delete(None, taps),
        f"rm -r {BASE_DIR}/{slice_name} {RUN_DIR}/{slice_name}",
        "for pid in $pids; do while kill -0 $pid 2>/dev/null; do sleep 0.01; done; done",
    ]
    return Scripts(*map(_script, (deploy, check, delete)))


def machines(share: Record, settings: Mapping[str, Any]) -> dict[str, State]:
    """What QEMU is started with for each VM of a share, by name."""
    vms = [_filled(vm, _specs.VM) for vm in share["vms"]]
    return _qemu.parse(vms, {"vnc_listen": "127.0.0.1", "user": USER, **settings}, {})


def _start(slice_name: str, name: str, config: State, place: _qemu.Paths, settings: Mapping[str, Any]) -> list[str]:
    become = ["setpriv", f"--reuid={USER}", f"--regid={USER}", "--clear-groups", "--no-new-privs"]
    return [*become, *_qemu.argv(slice_name, name, config, place, settings["accelerator"])]


# --- the network node ---------------------------------------------------------------------------------------------


def _node_scripts(slice_name: str, network: Record, ports: _Ports) -> Scripts:
    namespace = str(ports.options.namespace)
    place = _dnsmasq_process.Place(f"{BASE_DIR}/dnsmasq", f"{RUN_DIR}/dnsmasq.pid", namespace)
    service = _dnsmasq_process.parse(
        slice_name,
        {
            "upstream_servers": None,
            "domain": network["domain"],
            "lease_time": 3600,
            "networks": network["networks"],
            "names": network["names"],
        },
    )
    files = {name: state for name, state in _dnsmasq_process.wanted(place, service).items() if "mode" in state}
    folder = files.pop(_dnsmasq_process.FOLDER)
    reads = [f"--conf-file={place.path(_dnsmasq.CONF)}"]
    devices = [str(port["name"]) for port in ports.options.ports]
    deploy = [
        _line(_iproute.ip(None, "netns", "add", namespace)),
        *_connect(ports),
        _batch(None, [line.text for line in ports.steps.place]),
        _line(["ip", "netns", "exec", namespace, "bash", "-c", "\n".join(_sysctls(ports.steps, namespace))]),
        _batch(namespace, [line.text for line in ports.steps.settle]),
        f"mkdir -p -m {folder['mode']} {place.folder} {RUN_DIR}",
        *(_here(f"cat >{place.path(name)}", state.get("content", "")) for name, state in files.items()),
        f"chmod 600 {_line(place.path(name) for name in files)}",
        f"chown {_dnsmasq.USER} {_line(place.path(name) for name, state in files.items() if state['owner'] != 'root')}",
        _line(["ip", "netns", "exec", namespace, "dnsmasq", *reads, f"--pid-file={place.pidfile}"]),
    ]
    check = [
        f"kill -0 $(find {RUN_DIR} -name dnsmasq.pid -exec cat {{}} +)",
        f"[ $(ip -n {namespace} -4 -br address | grep -c bgw) = {len(devices)} ]",
        *_check_ports(ports, []),
    ]
    delete = [
        f"kill -9 $(cat {place.pidfile})",
        _delete(namespace, devices),
        _line(_ovs.transaction(_ovs.del_port(name) for name in ports.on_bridge)),
        _line(_iproute.ip(None, "netns", "delete", namespace)),
        f"rm -r {place.folder} {place.pidfile}",
    ]
    return Scripts(*map(_script, (deploy, check, delete)))


# --- both ---------------------------------------------------------------------------------------------------------


def _connect(ports: _Ports) -> list[str]:
    lines = [_line(_ovs.transaction(ports.steps.connect))]
    if ports.steps.secure:
        lines.append(_here(_line(_openflow.change(BRIDGE)), "".join(f"{line}\n" for line in ports.steps.secure)))
    return lines


def _sysctls(made: Steps, namespace: str | None) -> list[str]:
    return [
        # A kernel without IPv6 has nothing to turn off.
        f"[ ! -e {path} ] || echo {value} >{path}"
        for change in [*made.deafen, *made.sysctls]
        if change.namespace == namespace
        for setting, value in change.values.items()
        for path in [f"/proc/sys/net/{setting.replace('.', f'/conf/{change.name}/')}"]
    ]


def _check_ports(ports: _Ports, taps: Sequence[str]) -> list[str]:
    lines = [f"[ $(ovs-vsctl list-ports {BRIDGE} | grep -cxE '{_PORT}') = {len(ports.on_bridge)} ]"]
    if taps:
        lines.append(f"[ $(ip -br link show up | grep -cE '^({_PORT}) ') = {len(taps)} ]")
    return lines


def _line(argv: Iterable[str]) -> str:
    return shlex.join(argv)


def _batch(namespace: str | None, lines: Iterable[str]) -> str:
    return _here(_line(_iproute.batch(namespace)), "".join(f"{line}\n" for line in lines))


def _delete(namespace: str | None, names: Iterable[str]) -> str:
    """One wait of the kernel for all of them."""
    return _batch(namespace, [*(_iproute.set_group(name, _GROUP) for name in names), _iproute.delete_group(_GROUP)])


def _here(command: str, text: str) -> str:
    return f"{command} <<'END'\n{text}END"


def _script(lines: Iterable[str]) -> str:
    return "\n".join(["set -eu -o pipefail", "cd /", *lines, ""])
