"""List whatever a host has of a slice: processes, interfaces, OVS ports, namespaces, files, firewall entries.

Usage: leftovers.py SLICE ID
Prints a JSON list of lines. Looks by itself, not through the collection's modules.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

STATE = "/var/lib/cloudrepo"
RUN = "/run/cloudrepo"


def output(*argv: str) -> str:
    return subprocess.run(argv, check=True, capture_output=True, encoding="utf-8").stdout


def paths(name: str) -> list[str]:
    """Folders end in a slash, so that `web` is not taken for `web2`."""
    return [
        f"{STATE}/vm_images/{name}/",
        f"{STATE}/dnsmasq/{name}/",
        f"{RUN}/vms/{name}/",
        f"{RUN}/dnsmasq/{name}.pid",
    ]


def processes(name: str) -> list[str]:
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            words = path.read_bytes().decode(errors="replace").split("\0")
        except OSError:  # it ended in between
            continue
        program = Path(words[0]).name
        if any(owned in word for owned in paths(name) for word in words):
            found.append(f"process {path.parent.name} {program}")
    return found


def interfaces(name: str) -> list[str]:
    links: list[dict[str, Any]] = json.loads(output("ip", "-json", "link"))
    stamp = re.compile(rf"\bslice={name}(\s|$)")
    return [f"interface {link['ifname']}" for link in links if stamp.search(link.get("ifalias", ""))]


def ovs_ports(name: str) -> list[str]:
    query = ("--format=json", "--columns=name", "find", "Port", f"external_ids:cloudrepo-slice={name}")
    return [f"OVS port {row[0]}" for row in json.loads(output("ovs-vsctl", *query))["data"]]


def flows(slice_id: str) -> list[str]:
    """Their cookies end in the slice's ID."""
    cookie = f"cookie=0xc10d5ec0{int(slice_id):08x}/-1"
    dumps = [
        output("ovs-ofctl", "--no-stats", "dump-flows", bridge, cookie)
        for bridge in output("ovs-vsctl", "list-br").split()
    ]
    return [f"flow {line.strip()}" for dump in dumps for line in dump.splitlines() if "actions=" in line]


def namespaces(slice_id: str) -> list[str]:
    path = Path(f"/run/netns/slice-{slice_id}")
    return [f"namespace {path.name}"] if path.exists() else []


def firewall(name: str) -> list[str]:
    rules = output("nft", "list", "ruleset").splitlines()
    mine = re.compile(rf'comment "(.*[^a-z0-9-])?{name}([^a-z0-9-].*)?"')
    return [f"nftables: {line.strip()[:120]}" for line in rules if mine.search(line)]


def leftovers(name: str, slice_id: str) -> list[str]:
    return [
        *processes(name),
        *interfaces(name),
        *ovs_ports(name),
        *flows(slice_id),
        *namespaces(slice_id),
        *(f"file {path}" for path in paths(name) if Path(path).exists()),
        *firewall(name),
    ]


if __name__ == "__main__":
    print(json.dumps(leftovers(sys.argv[1], sys.argv[2])))
