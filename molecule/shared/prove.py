"""Prove a slice with packets: on the network node, ask every guest over SSH from the slice's namespace.

Usage: SLICE_RECORD=<JSON> GUEST_KEY=<SSH key of the guests' root> prove.py SECONDS OUTSIDE
Guests get SECONDS to boot. OUTSIDE is an address in the outside world.
Prints JSON: what was looked at, and a line for each proof and each problem.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NamedTuple

Record = dict[str, Any]
INTERNET_VLAN = 400


class Check(NamedTuple):
    """A command for the guest's shell, and whether it has to succeed."""

    kind: str
    text: str
    command: str
    succeeds: bool = True


class Guest:
    def __init__(self, vm: Record, key: str, namespace: str) -> None:
        self.vm = vm
        self.name: str = vm["name"]
        self.internet: Record | None = next((i for i in vm["interfaces"] if i["vlan"] == INTERNET_VLAN), None)
        self.addresses: dict[str, str] = {i["name"]: i["address"] for i in vm["interfaces"] if i["address"]}
        links_first = sorted((i for i in vm["interfaces"] if i["address"]), key=lambda i: i["link"] is None)
        self.ssh = f"ip netns exec {namespace} ssh -F none -i {key} -l root".split()
        for option in (
            "BatchMode=yes",
            "ConnectTimeout=5",
            "IdentitiesOnly=yes",
            "LogLevel=ERROR",
            "StrictHostKeyChecking=no",
            "UserKnownHostsFile=/dev/null",
        ):
            self.ssh += ["-o", option]
        # A VM without any address can't be asked.
        self.answers = bool(links_first)
        self.ssh += [plain(interface["address"]) for interface in links_first[:1]]

    def run(self, script: str) -> str:
        """Standard output of a script in the guest's shell."""
        done = subprocess.run(
            [*self.ssh, script], stdin=subprocess.DEVNULL, capture_output=True, encoding="utf-8", timeout=120
        )
        if done.returncode != 0:
            raise OSError(done.stderr.strip() or "the guest closed the connection")
        return done.stdout

    def wait(self, deadline: float) -> None:
        while True:
            try:
                self.run("true")
                return
            except (OSError, subprocess.TimeoutExpired):
                if time.monotonic() > deadline:
                    raise
                time.sleep(1)


def plain(address: str) -> str:
    return address.partition("/")[0]


def seen_addresses(output: str) -> set[str]:
    """`ip -o -4 addr` as "eth1 192.168.100.10/24"."""
    words = [line.split() for line in output.splitlines()]
    return {f"{line[1]} {line[3]}" for line in words if line[1] != "lo"}


def seen_macs(output: str) -> dict[str, str]:
    """`ip -o link` as interface -> MAC, in the guest's order."""
    macs = {}
    for line in output.splitlines():
        if "link/ether" in line:
            words = line.split()
            macs[words[1].rstrip(":").partition("@")[0]] = words[words.index("link/ether") + 1]
    return macs


def seen_default_routes(output: str) -> list[str]:
    """Interfaces of the default routes in `ip route`."""
    defaults = [line.split() for line in output.splitlines() if line.startswith("default")]
    return [words[words.index("dev") + 1] for words in defaults]


def compare(what: str, want: Any, have: Any) -> list[str]:
    return [] if want == have else [f"{what}: expected {want}, the guest has {have}"]


def inspect(guest: Guest) -> list[str]:
    """Problems with what the guest itself says about its interfaces."""
    output = guest.run("ip -o link; echo ==; ip -o -4 addr; echo ==; ip route")
    links, addresses, routes = output.split("==\n")
    interfaces = guest.vm["interfaces"]
    return [
        *compare(f"{guest.name} MACs", [(i["name"], i["mac"]) for i in interfaces], list(seen_macs(links).items())),
        *compare(
            f"{guest.name} addresses",
            {f"{n} {a}" for n, a in guest.addresses.items()},
            seen_addresses(addresses),
        ),
        *compare(
            f"{guest.name} default routes",
            [i["name"] for i in interfaces if i["default_route"]],
            seen_default_routes(routes),
        ),
    ]


def link_checks(guest: Guest, link: Record, guests: dict[str, Guest]) -> list[Check]:
    """Every other guest of a link, by address and by name."""
    own = {end["interface"] for end in link["endpoints"] if end["vm"] == guest.name}
    checks = []
    for end in link["endpoints"]:
        address = guests[end["vm"]].addresses.get(end["interface"])
        if end["vm"] == guest.name or address is None:
            continue
        peer, where = plain(address), f"{end['vm']} on link {link['number']}"
        for interface in own & set(guest.addresses):
            # -I: over this link and no other.
            checks.append(Check("by_address", f"pings {where}: {peer}", f"ping -c 1 -W 5 -I {interface} {peer}"))
        server = plain(link["server_address"])
        resolves = f"nslookup {end['vm']} {server} | grep -qw {peer.replace('.', '[.]')}"
        checks.append(Check("by_name", f"pings {where}: by name", f"{resolves} && ping -c 1 -W 5 {end['vm']}"))
    return checks


def isolation_checks(guest: Guest, internet: Record, record: Record, guests: dict[str, Guest]) -> list[Check]:
    """On the internet VLAN: no other guest, and nobody with a source address that is not the guest's."""
    checks = []
    own = internet["name"]
    for address in internet_neighbours(guest, guests):
        ping = f"ping -c 1 -W 2 -I {own} {address}"
        checks.append(Check("isolated", f"does not reach {address} on the internet VLAN", ping, False))
    server, spoofed = plain(record["internet"]["server_address"]), spoofed_address(plain(internet["address"]))
    command = (
        f"ping -c 1 -W 5 {server} && ip addr add {spoofed}/32 dev {own} && "
        f"{{ ping -c 1 -W 2 -I {spoofed} {server}; heard=$?; ip addr del {spoofed}/32 dev {own}; [ $heard != 0 ]; }}"
    )
    checks.append(Check("spoofed", f"is not heard as {spoofed} by {server}", command))
    return checks


def spoofed_address(address: str) -> str:
    """Another address of the subnet, another one for each guest: they lie at the same time."""
    subnet, _, last = address.rpartition(".")
    return f"{subnet}.{255 - int(last)}"


def internet_neighbours(guest: Guest, guests: dict[str, Guest]) -> dict[str, str]:
    """The MAC of every other guest on the internet VLAN, by its address."""
    others = [other.internet for other in guests.values() if other.internet and other is not guest]
    return {plain(interface["address"]): interface["mac"] for interface in others}


def introduce(guest: Guest, guests: dict[str, Guest]) -> None:
    """Tell a guest the MACs of the others, so that it is not for want of ARP that packets don't arrive."""
    if guest.internet:
        known = internet_neighbours(guest, guests).items()
        guest.run("\n".join(["set -e", *(f"arp -i {guest.internet['name']} -s {a} {mac}" for a, mac in known)]))


def forget(guest: Guest, guests: dict[str, Guest]) -> None:
    """Undo what ``introduce`` did."""
    if guest.internet:
        known = internet_neighbours(guest, guests)
        guest.run("\n".join(["set -e", *(f"arp -i {guest.internet['name']} -d {address}" for address in known)]))


def checks_of(guest: Guest, record: Record, guests: dict[str, Guest], outside: str) -> list[Check]:
    checks: list[Check] = []
    for link in record["links"]:
        if any(end["vm"] == guest.name for end in link["endpoints"]):
            checks += link_checks(guest, link, guests)
    if guest.internet:
        checks.append(Check("internet", f"reaches {outside} through NAT", f"ping -c 1 -W 5 {outside}"))
        checks += isolation_checks(guest, guest.internet, record, guests)
    else:
        checks.append(Check("no_internet", f"does not reach {outside}", f"ping -c 1 -W 2 {outside}", False))
    return checks


def perform(guest: Guest, checks: list[Check]) -> list[bool]:
    """Whether each check came out as it has to."""
    lines = [f"if ({check.command}) >/dev/null 2>&1; then echo yes; else echo no; fi" for check in checks]
    answers = guest.run("\n".join(lines)).split()
    return [answer == ("yes" if check.succeeds else "no") for check, answer in zip(checks, answers, strict=True)]


def prove(record: Record, key: str, seconds: float, outside: str) -> Record:
    guests = {vm["name"]: Guest(vm, key, f"slice-{record['id']}") for vm in record["vms"]}
    deadline = time.monotonic() + seconds
    counts: Counter[str] = Counter(vms=len(guests), links=len(record["links"]))
    proofs: list[str] = []
    problems: list[str] = []
    asked = {name: guest for name, guest in guests.items() if guest.answers}
    if len(asked) < len(guests):
        counts["without_address"] = len(guests) - len(asked)

    def examine(guest: Guest) -> None:
        try:
            guest.wait(deadline)
            problems.extend(inspect(guest))
            introduce(guest, guests)
        except (OSError, subprocess.TimeoutExpired, ValueError) as error:
            problems.append(f"{guest.name}: {error}")

    with ThreadPoolExecutor(max_workers=16) as pool:
        list(pool.map(examine, asked.values()))
        if problems:
            return {"counts": counts, "proofs": proofs, "problems": problems}
        plans = {name: checks_of(guest, record, guests, outside) for name, guest in asked.items()}
        results = dict(zip(asked, pool.map(perform, asked.values(), plans.values()), strict=True))
        list(pool.map(lambda guest: forget(guest, guests), asked.values()))
    for guest in asked.values():
        counts["addresses"] += len(guest.addresses)
        counts["default_routes"] += sum(interface["default_route"] for interface in guest.vm["interfaces"])
        proofs += [f"{guest.name} has {address} on {name}" for name, address in guest.addresses.items()]
        for check, passed in zip(plans[guest.name], results[guest.name], strict=True):
            counts[check.kind] += 1
            (proofs if passed else problems).append(f"{guest.name} {check.text}" + ("" if passed else ": NO"))
    return {"counts": counts, "proofs": proofs, "problems": problems}


def main() -> None:
    with tempfile.NamedTemporaryFile("w", encoding="utf-8") as key:
        key.write(os.environ["GUEST_KEY"].strip() + "\n")
        key.flush()
        record = json.loads(os.environ["SLICE_RECORD"])
        print(json.dumps(prove(record, key.name, float(sys.argv[1]), sys.argv[2])))


if __name__ == "__main__":
    main()
