# Copyright (c) 2026, cloudrepo contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import json

import pytest
from ansible_collections.cloudrepo.slices.plugins.module_utils import _lab as lab

WORKER = lab.Host("worker1", "10.0.10.1")
NETWORK = lab.Host("network1", "10.0.10.4", uplink=True)
PASSWD = "root:x:0:0:root:/root:/bin/bash\nalice:x:1000:1000::/home/alice:/bin/bash\n"
# Recorded from /proc/PID/stat; the name of the second process was chosen to mislead.
STAT = (
    "15931 (cat) R 15920 15920 3124 0 -1 4194304 102 0 0 0 0 0 0 0 20 0 1 0 344652 3133440 412 "
    "18446744073709551615 94801694928896 94801694948777 140727940112560 0 0 0 0 0 0 0 0 0 17 0 0 0 0 0 0"
)
ROUTES = json.loads(
    '[{"dst":"default","gateway":"192.0.2.1","dev":"eth0","flags":[]},'
    '{"dst":"10.0.10.0/24","dev":"slmgmt0","protocol":"kernel","scope":"link","prefsrc":"10.0.10.254","flags":[]},'
    '{"dst":"192.0.2.0/24","dev":"eth0","protocol":"kernel","scope":"link","prefsrc":"192.0.2.2","flags":[]}]'
)


def files_of(host: lab.Host) -> dict[str, lab.File]:
    databases = {"passwd": PASSWD, "group": "root:x:0:\n", "shadow": "root:*:19000::::::\n"}
    return {
        file.path: file for file in lab.disk_files(host, [WORKER, NETWORK], databases, "ssh-ed25519 AAAA lab\n", "K")
    }


@pytest.mark.parametrize("name", ["(cat)", "(a) Z 1 (b c)"])
def test_start_time_is_field_22_whatever_the_name(name: str) -> None:
    assert lab.start_time(STAT.replace("(cat)", name)) == 344652


def test_a_zombie_has_ended() -> None:
    assert lab.start_time(STAT.replace(" R ", " Z ")) is None


def test_the_user_gets_a_free_id_or_keeps_the_one_he_has() -> None:
    assert lab.user_id(PASSWD) == 1001
    assert lab.user_id(PASSWD + "ubuntu:x:1500:1500::/elsewhere:/bin/sh\n") == 1500


def test_an_entry_replaces_its_namesake_only() -> None:
    assert lab.replace_entry("ubuntu:old\nubuntu2:x\n", "ubuntu:new") == "ubuntu2:x\nubuntu:new\n"


def test_own_and_default_routes_are_no_clash() -> None:
    assert lab.clashes(["10.0.10.0/24"], ROUTES, ["slmgmt0"]) == []


@pytest.mark.parametrize("destination", ["10.0.10.0/24", "10.0.0.0/8", "10.0.10.7"])
def test_a_route_into_the_labs_network_is_a_clash(destination: str) -> None:
    routes = [*ROUTES, {"dst": destination, "dev": "tun0", "flags": []}]
    assert lab.clashes(["10.0.10.0/24"], routes, ["slmgmt0"]) == [destination + " dev tun0"]


def test_only_what_is_missing_is_plugged_in() -> None:
    assert lab.bridge_commands({"slmgmt0", "sltrunk0"}) == []
    assert not any("slmgmt0" in line for line in lab.bridge_commands({"slmgmt0"}))
    assert lab.cable_commands(WORKER, 4711, {"slm-worker1"}) == [
        "link add slt-worker1 type veth peer name trunk0 netns 4711",
        "link set slt-worker1 addrgenmode none master sltrunk0 up",
    ]
    assert lab.cable_commands(WORKER, 4711, set())[0].endswith("mgmt0 address 02:00:0a:00:0a:01 netns 4711")


def test_only_the_host_with_the_uplink_knows_a_resolver() -> None:
    assert files_of(WORKER)["etc/resolv.conf"].content == ""
    assert files_of(NETWORK)["etc/resolv.conf"].content == "nameserver 203.0.113.1\n"


def test_the_ssh_user_of_a_host() -> None:
    files = files_of(WORKER)
    assert files["etc/passwd"].content == PASSWD + "ubuntu:x:1001:1001::/home/ubuntu:/bin/bash\n"
    assert files["etc/sudoers.d/90-ubuntu"].mode == 0o440
    key = files["home/ubuntu/.ssh/authorized_keys"]
    assert (key.content, key.mode, key.owned_by_user) == ("ssh-ed25519 AAAA lab\n", 0o600, True)


def test_a_host_finds_the_others_by_name() -> None:
    assert lab.hosts_file("worker1", [WORKER, NETWORK]).splitlines()[1:] == ["127.0.1.1 worker1", "10.0.10.4 network1"]


def test_known_hosts_are_addresses() -> None:
    assert lab.known_hosts([WORKER], {"worker1": "ssh-ed25519 AAAA worker1\n"}) == "10.0.10.1 ssh-ed25519 AAAA\n"


@pytest.mark.parametrize(
    ("host", "reason"),
    [
        (lab.Host("work;er", "10.0.10.2"), "a name is"),
        (lab.Host("a-name-too-long", "10.0.10.2"), "a name is"),
        (lab.Host("w", "10.0.11.2"), "no address in 10.0.10.0/24"),
        (lab.Host("w", "ten"), "no address in 10.0.10.0/24"),
        (lab.Host("w", "10.0.10.254"), "taken"),
        (lab.Host("worker1", "10.0.10.2"), "taken"),
        (lab.Host("internet", "10.0.10.2"), "taken"),
    ],
)
def test_bad_hosts_are_refused_by_name(host: lab.Host, reason: str) -> None:
    lab.check_hosts([WORKER])
    with pytest.raises(lab.LabError, match=r"^hosts\[1\] %r: .*%s" % (host.name, reason)):
        lab.check_hosts([WORKER, host])


def test_each_uplink_has_an_address_of_its_own() -> None:
    other = lab.Host("network2", "10.0.10.5", uplink=True)
    outside, inside = lab.uplink_commands(other, [NETWORK, WORKER, other], 4711)
    assert outside[0] == "link add slu-network2 type veth peer name uplink0 address 02:00:cb:00:71:03 netns 4711"
    assert inside[0] == "address add 203.0.113.3/24 dev uplink0"
    assert (
        lab.uplink_commands(NETWORK, [NETWORK, WORKER, other], 4711)[1][0] == "address add 203.0.113.2/24 dev uplink0"
    )
