"""Everything that slices may have on this host, as JSON: `lines`, the same for the same state, and `pids`.

Looks by itself, not through the collection's modules.
"""

from __future__ import annotations

import json
import os
import re
import socket
import subprocess
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any

FOLDERS = (Path("/var/lib/cloudrepo"), Path("/run/cloudrepo"))
# What all slices share, and what stays. The journal of a write that was cut off goes with SQLite's next one.
SHARED = re.compile(r"/(vm_images|dnsmasq|vms|registry|lock(/\w+)?|slices\.sqlite-journal)$")
QUIET = re.compile(r"/leases$|\.log$|\.sqlite|\.pid$|\.sock$")
QCOW2 = b"QFI\xfb"


def output(*argv: str) -> str:
    return subprocess.run(argv, check=True, capture_output=True, encoding="utf-8", timeout=20).stdout


def processes() -> dict[str, int]:
    """PIDs by the pidfile, or else the whole command line, of processes that have to do with slices."""
    found = {}
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            words = path.read_bytes().decode(errors="replace").split("\0")
        except OSError:  # it ended in between
            continue
        if any(word.startswith(f"{folder}/") or f"={folder}/" in word for word in words for folder in FOLDERS):
            pidfiles = [word for word in words if word.endswith(".pid")]
            name = pidfiles[0].rpartition("=")[2] if pidfiles else " ".join(words)
            found[f"{Path(words[0]).name} {name}"] = int(path.parent.name)
    return found


def status(folder: Path) -> str:
    """What a VM's QEMU says about itself."""
    with socket.socket(socket.AF_UNIX) as connection:
        connection.settimeout(20)
        connection.connect(str(folder / "qmp.sock"))
        with connection.makefile("rw") as talk:
            talk.readline()
            for command in ("qmp_capabilities", "query-status"):
                talk.write(json.dumps({"execute": command}) + "\n")
                talk.flush()
                answer = talk.readline()
                while "event" in json.loads(answer):
                    answer = talk.readline()
    return str(json.loads(answer)["return"]["status"])


def taps(pid: int) -> list[str]:
    found = []
    for path in Path(f"/proc/{pid}/fdinfo").iterdir():
        with suppress(FileNotFoundError):
            found += re.findall(r"^iff:\t(.+)$", path.read_text(), re.MULTILINE)
    return sorted(found)


def vms(pids: dict[str, int]) -> list[str]:
    lines = []
    for name, pid in pids.items():
        if name.startswith("qemu-system"):
            folder = Path(name.split()[1]).parent
            try:
                said = status(folder)
            except (OSError, ValueError, KeyError) as error:
                said = f"silent: {error}"
            lines.append(f"vm {folder.parent.name}/{folder.name} {said} {' '.join(taps(pid))}")
    return lines


def interfaces(where: str, enter: tuple[str, ...]) -> list[str]:
    lines = []
    for link in json.loads(output(*enter, "ip", "-json", "address")):
        if link["ifname"] in ("lo", "ovs-netdev"):
            continue
        state = "up" if "UP" in link["flags"] else "down"
        # Addresses that the kernel makes come late.
        addresses = [f"{a['local']}/{a['prefixlen']}" for a in link["addr_info"] if a["family"] == "inet"]
        lines.append(f"interface {where} {link['ifname']} {state} {link.get('ifalias', '')} {' '.join(addresses)}")
    return lines


def plain(value: Any) -> Any:
    """A value of OVSDB's JSON: its maps and sets as ours."""
    if isinstance(value, list) and len(value) == 2 and value[0] in ("map", "set"):
        return {key: plain(one) for key, one in value[1]} if value[0] == "map" else [plain(one) for one in value[1]]
    return value


def ovs() -> list[str]:
    lines = []
    for table, columns in (("Port", "name,tag,trunks,vlan_mode,external_ids"), ("Interface", "name,type,error")):
        listed = json.loads(output("ovs-vsctl", "--timeout=15", "--format=json", f"--columns={columns}", "list", table))
        for row in listed["data"]:
            values = dict(zip(listed["headings"], map(plain, row), strict=True))
            lines.append(f"OVS {table} {json.dumps(values, sort_keys=True)}")
    for flow in output("ovs-ofctl", "--names", "--no-stats", "dump-flows", "br-int").splitlines():
        if "actions=" in flow:
            lines.append(f"flow {flow.strip()}")
    return lines


def firewall(where: str, enter: tuple[str, ...]) -> list[str]:
    lines = []
    for entry in json.loads(output(*enter, "nft", "--json", "list", "ruleset"))["nftables"]:
        for kind, thing in entry.items():
            thing.pop("handle", None)
            elements = thing.pop("elem", [])
            lines.append(f"nft {where} {kind} {json.dumps(thing, sort_keys=True)}")
            lines += [f"nft {where} element of {thing.get('name')}: {json.dumps(one)}" for one in elements]
    return [line for line in lines if " metainfo " not in line]


def files() -> list[str]:
    lines = []
    for folder in FOLDERS:
        for path in sorted(folder.rglob("*")):
            try:
                found = path.lstat()
                text = content(path) if path.is_file() else ""
            except FileNotFoundError:
                continue
            if SHARED.search(str(path)):
                continue
            lines.append(f"file {oct(found.st_mode)} {found.st_uid} {path}{text}")
    return lines


def content(path: Path) -> str:
    """A disk's base image, or the lines of a small file of ours."""
    if QUIET.search(str(path)):
        return ""
    with path.open("rb") as file:
        head = file.read(8192)
        if head.startswith(QCOW2):
            offset, size = int.from_bytes(head[8:16], "big"), int.from_bytes(head[16:20], "big")
            file.seek(offset)
            return f" on {file.read(size).decode()}" if offset else ""
    return " " + head.decode(errors="replace") if path.stat().st_size <= 8192 else ""


def namespaces() -> list[str]:
    folder = Path("/run/netns")
    return sorted(path.name for path in folder.iterdir()) if folder.is_dir() else []


def snapshot() -> dict[str, Any]:
    pids = processes()
    lines = [f"process {name}" for name in pids] + vms(pids) + files()
    tools: list[Callable[[], list[str]]] = [ovs]
    for where in ("host", *namespaces()):
        enter = () if where == "host" else ("ip", "netns", "exec", where)
        lines.append(f"namespace {where}")
        tools += [partial(interfaces, where, enter), partial(firewall, where, enter)]
    for tool in tools:
        try:
            lines += tool()
        except (subprocess.SubprocessError, ValueError) as error:
            lines.append(f"error {error} {getattr(error, 'stderr', '')}")
    return {"lines": sorted(lines), "pids": pids}


if __name__ == "__main__":
    os.umask(0o022)
    print(json.dumps(snapshot()))
