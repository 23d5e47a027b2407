# Copyright (c) 2026, cloudrepo contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The slice that is broken, the one beside it that must not notice, and what of them can be compared."""

from __future__ import annotations

import re
import subprocess
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import Any

from . import lab
from .lab import Record, Snapshot

BROKEN = "broken"
BYSTANDER = "bystander"
BLANK = "blank.qcow2"
MICRO = "cirros-0.6.2-x86_64-disk.img"
CACHE = lab.ROOT / ".cache" / "faults"
IMAGES = CACHE / "images"
SETTINGS: dict[str, Any] = {
    "slices_image_dir": str(IMAGES),
    "slices_flavors": [
        # The guests of the broken slice boot nothing: who lives and who is connected can be seen from outside.
        {"name": "blank", "cores": 1, "memory_gb": 0.0625, "disk_gb": 0.0625, "image": BLANK},
        {"name": "micro", "cores": 1, "memory_gb": 0.25, "disk_gb": 0.0625, "image": MICRO},
    ],
}


def _ring(numbers: list[int], internet: set[int]) -> list[dict[str, Any]]:
    workers = {number: f"worker{place // 2 + 1}" for place, number in enumerate(numbers)}
    return [
        {"name": f"vm{n}", "flavor": "blank", "interfaces": 2, "worker": workers[n], "internet": n in internet}
        for n in numbers
    ]


def _links(numbers: list[int]) -> list[dict[str, Any]]:
    ends = zip(numbers, [*numbers[1:], numbers[0]], strict=True)
    return [
        {"name": f"l{place}", "endpoints": [f"vm{a}:eth2", f"vm{b}:eth1"], "port_security": place == 3}
        for place, (a, b) in enumerate(ends, start=1)
    ]


def spec(version: str) -> dict[str, Any]:
    """A ring of six over three workers. Between its versions a VM, two links and who has internet change."""
    numbers = {"A": [1, 2, 3, 4, 5, 6], "B": [1, 2, 3, 4, 5, 7]}[version]
    internet = {"A": {1}, "B": {1, 2}}[version]
    return {"name": BROKEN, "owner": "faults", "vms": _ring(numbers, internet), "links": _links(numbers)}


BYSTANDER_SPEC = {
    "name": BYSTANDER,
    "owner": "bystander",
    "vms": [
        {"name": "a", "flavor": "micro", "worker": "worker1"},
        {"name": "b", "flavor": "micro", "worker": "worker2", "internet": True},
        {"name": "c", "flavor": "micro", "worker": "worker2"},
    ],
    "links": [{"name": "ab", "endpoints": ["a:eth1", "b:eth1"]}, {"name": "bc", "endpoints": ["b:eth2", "c:eth1"]}],
}


def make_images() -> None:
    IMAGES.mkdir(parents=True, exist_ok=True)
    blank = IMAGES / BLANK
    if not blank.exists():
        subprocess.run(["qemu-img", "create", "-q", "-f", "qcow2", str(blank), "64M"], check=True)
    micro = IMAGES / MICRO
    if not micro.exists():
        micro.symlink_to(f"/var/cache/cloudrepo-lab/images/{MICRO}")


def forget_image() -> None:
    """Take the broken slice's base image out of the workers' caches, so that it has to be sent."""
    for host in lab.WORKERS:
        lab.run_in(host, "rm", "-f", f"{lab.BASE_DIR}/{BLANK}", f"{lab.BASE_DIR}/{BLANK}.json")


# --- comparing


def allocations(record: Record) -> dict[str, Any]:
    """Every number that a record holds, by what it is for."""
    found: dict[str, Any] = {"id": record["id"], "vlan_pool": record["vlan_pool"]}
    for vm in record["vms"]:
        found[vm["name"]] = (vm["id"], vm["vnc_port"], vm["worker"])
        for interface in vm["interfaces"]:
            where = f"{vm['name']}:{interface['name']}"
            found[f"{where} card"] = (interface["mac"], interface["tap"])
            # One that is connected later gets its address then.
            if interface["vlan"] is not None:
                found[f"{where} network"] = (interface["vlan"], interface["address"])
    for link in record["links"]:
        found[f"link {link['name']}"] = (link["vlan"], link["subnet"], link["server_address"])
    return found


def changed_allocations(before: Record, after: Record) -> list[str]:
    """What both have, and have differently. A connection that the changed spec moves elsewhere is not the same one."""
    one, other = allocations(before), allocations(after)
    return [f"{key}: {one[key]} became {other[key]}" for key in one if key in other and one[key] != other[key]]


def names_of(record: Record) -> dict[str, str]:
    """A name for each number of a record, so that two deploys of one spec can be compared."""
    names = {str(record["id"]): "SLICE", f"slice-{record['id']}": "NAMESPACE", f"inet_{record['id']}": "INET"}
    first, size = record["vlan_pool"]["first"], record["vlan_pool"]["size"]
    names[f"{first}-{first + size - 1}"] = "POOL"
    for vm in record["vms"]:
        names[str(vm["id"])] = f"VM({vm['name']})"
        names[str(vm["vnc_port"])] = f"VNC({vm['name']})"
        for interface in vm["interfaces"]:
            card = f"{vm['name']}:{interface['name']}"
            names |= {interface["mac"]: f"MAC({card})", interface["tap"]: f"TAP({card})"}
            if interface["address"]:
                names[interface["address"]] = names[interface["address"].partition("/")[0]] = f"ADDRESS({card})"
    for link in record["links"]:
        label = f"LINK({link['name']})"
        names |= {str(link["vlan"]): f"VLAN{label}", f"gw_vlan{link['vlan']}": f"GW{label}"}
        names |= {f"vlan{link['vlan']}": f"TAG{label}"}
        if link["subnet"]:
            names |= {link["subnet"]: f"SUBNET{label}", link["subnet"].partition("/")[0]: f"SUBNET{label}"}
        if link["server_address"]:
            server = link["server_address"]
            names |= {server: f"SERVER{label}", server.partition("/")[0]: f"SERVER{label}"}
    if record["internet"]:
        server = record["internet"]["server_address"]
        names |= {server: "SERVER", server.partition("/")[0]: "SERVER"}
    return names


def normal(line: str, names: dict[str, str], pattern: re.Pattern[str]) -> str:
    line = pattern.sub(lambda found: names[found[0]], line)
    if line.startswith("file "):
        first, *rest = line.split("\n")
        return "\n".join([first, *sorted(rest)])  # Some are in the order of their numbers.
    # Flows have numbers in hexadecimal and combined with others; the comments of rules have a digest of them.
    if line.startswith("flow "):
        return re.sub(r"0x[0-9a-f]+|\d+", "#", line)
    return re.sub(r" #[0-9a-f]{8}\b", "", line) if line.startswith("nft ") else line


def normal_lines(lines: Counter[str], names: dict[str, str]) -> Counter[str]:
    words = "|".join(re.escape(word) for word in sorted(names, key=len, reverse=True))
    pattern = re.compile(rf"(?<![\w.])(?:{words})(?!\w|\.\d)")
    result: Counter[str] = Counter()
    for line, count in lines.items():
        result[normal(line, names, pattern)] += count
    return result


def differences(want: dict[str, Counter[str]], have: dict[str, Counter[str]]) -> list[str]:
    """What hosts lack (-) and what they have too much (+)."""
    found = []
    for host in want:
        lacking, extra = (list(lines.elements()) for lines in (want[host] - have[host], have[host] - want[host]))
        changed = {line.partition("\n")[0] for line in lacking} & {line.partition("\n")[0] for line in extra}
        found += [f"{host}: - {line[:300]}" for line in lacking if line.partition("\n")[0] not in changed]
        found += [f"{host}: + {line[:300]}" for line in extra if line.partition("\n")[0] not in changed]
        for first in sorted(changed):
            one, other = (
                Counter(line.split("\n"))
                for lines in (lacking, extra)
                for line in lines
                if line.partition("\n")[0] == first
            )
            found.append(f"{host}: {first}: {list((one - other).elements())} became {list((other - one).elements())}")
    return found


_CACHED = re.compile(rf"file \S+ \S+ {re.escape(lab.BASE_DIR)}/{re.escape(BLANK)}(\.json)?(\s|$)")


def is_cache(line: str) -> bool:
    """The cached base image may be there or not; halves of it, which have other names, may not."""
    return _CACHED.match(line) is not None


def apart_from(lines: dict[str, Counter[str]], others: dict[str, Counter[str]]) -> dict[str, Counter[str]]:
    """What is there beside other things, and without the cached image."""
    return {h: Counter({x: n for x, n in (lines[h] - others[h]).items() if not is_cache(x)}) for h in lines}


def broken_vms(snapshot: Snapshot) -> dict[str, int]:
    """PIDs of the broken slice's VMs."""
    return {
        name.rpartition("/")[0].rpartition("/")[2]: pid
        for pids in snapshot.pids.values()
        for name, pid in pids.items()
        if name.startswith("qemu-system") and f"/{BROKEN}/" in name
    }


# --- the bystander

_SSH = """
    BatchMode=yes ConnectTimeout=5 GlobalKnownHostsFile=/dev/null IdentitiesOnly=yes IdentityAgent=none LogLevel=ERROR
    StrictHostKeyChecking=no UserKnownHostsFile=/dev/null ControlMaster=auto ControlPersist=600
""".split()
KEY = "/var/cache/cloudrepo-lab/id_ed25519"
_SEQ = re.compile(r"^64 bytes from .* seq=(\d+) ", re.MULTILINE)
OUTSIDE = "203.0.113.1"


class Ping:
    """A ping that runs in a guest all the time, and of which no reply may be missing."""

    def __init__(self, guest: Guest, name: str, target: str) -> None:
        self.guest = guest
        self.name = name
        self.log = f"/run/ping-{len(guest.pings)}"
        self.offset = 0
        self.last = -1
        guest.run(f"setsid ping -i 0.2 {target} </dev/null >{self.log} 2>&1 &")
        guest.pings.append(self)

    def problems(self) -> list[str]:
        deadline = time.monotonic() + 8
        seen: set[int] = set()
        text = ""
        while True:
            text += self.guest.run(f"tail -c +{self.offset + len(text) + 1} {self.log}")
            seen = {int(number) for number in _SEQ.findall(text)}
            missing = sorted(set(range(self.last + 1, max(seen, default=self.last))) - seen)
            # The last line may be half written, and the one before it may have overtaken another.
            if seen and not missing:
                break
            if time.monotonic() > deadline:
                break
            time.sleep(0.3)
        problem = []
        if not seen:
            problem = [f"{self.name}: no reply any more: {text[-200:]!r}"]
        elif missing:
            problem = [f"{self.name}: {len(missing)} replies lost: {missing[:10]}"]
        whole = text.rpartition("\n")[0]
        self.offset += len(whole) + 1 if whole else 0
        self.last = max((int(number) for number in _SEQ.findall(whole + "\n")), default=self.last)
        return problem


class Guest:
    """A guest of the bystander, reached by SSH from the slice's namespace."""

    def __init__(self, record: Record, name: str, sockets: str) -> None:
        vm = next(vm for vm in record["vms"] if vm["name"] == name)
        self.addresses = {i["name"]: i["address"].partition("/")[0] for i in vm["interfaces"] if i["address"]}
        self.pings: list[Ping] = []
        self.namespace = f"run/netns/slice-{record['id']}"
        options = [word for option in (*_SSH, f"ControlPath={sockets}/{name}") for word in ("-o", option)]
        self.ssh = ["ssh", "-F", "none", "-l", "root", "-i", KEY, *options]
        self.ssh.append(next(self.addresses[i] for i in ("eth1", "eth2") if i in self.addresses))

    def run(self, script: str, seconds: float = 30) -> str:
        deadline = time.monotonic() + seconds
        while True:
            try:
                enter = ["nsenter", f"--net={lab.root_of(lab.NODE) / self.namespace}"]
                done = subprocess.run(
                    [*enter, *self.ssh, script], stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=60
                )
            except subprocess.TimeoutExpired:
                raise OSError(f"no answer from {self.ssh[-1]}") from None
            if done.returncode == 0:
                return done.stdout
            if time.monotonic() > deadline:
                raise OSError(f"{self.ssh[-1]}: {done.stderr.strip()}")
            time.sleep(0.5)


class Bystander:
    """The slice that runs all the time, beside the broken one on the same hosts."""

    def __init__(self) -> None:
        lab.playbook("deploy_slice", slice_spec=BYSTANDER_SPEC, slices_wait_for_leases=True, **SETTINGS)
        self.watch()

    def watch(self) -> None:
        """Start its pings, and note what it has."""
        record = lab.record_of(BYSTANDER)
        assert record
        self.record = record
        self.sockets = tempfile.mkdtemp(prefix="faults-ssh-")
        a, b, c = (Guest(record, name, self.sockets) for name in "abc")
        for guest in (a, b, c):
            guest.run("killall ping; true", 300)
        self.pings = [
            Ping(a, "a to b on another worker", b.addresses["eth1"]),
            Ping(a, "a to c through the gateway", c.addresses["eth1"]),
            Ping(b, "b to the internet", OUTSIDE),
        ]

    def problems(self, only_layer_2: bool = False) -> list[str]:
        """Lost replies, and a record that is another one."""
        found = []
        if only_layer_2:  # The connections went with the node.
            for socket in Path(self.sockets).iterdir():
                socket.unlink()
        for ping in self.pings[:1] if only_layer_2 else self.pings:
            try:
                found += ping.problems()
            except OSError as error:
                found.append(f"{ping.name}: {error}")
        try:
            now = lab.record_of(BYSTANDER)
        except Exception as error:
            return [*found, f"registry: {error}"]
        if now != self.record:
            found.append(f"its record is not as before: {now}")
        return [f"bystander: {problem}" for problem in found]
