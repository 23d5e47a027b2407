# Copyright (c) 2026, cloudrepo contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import re
from ipaddress import IPv4Interface

from ansible_collections.cloudrepo.slices.plugins.module_utils import _openflow

from .vlan_hosts import recorded

MAC = "52:54:00:03:e9:00"
ROUTER, SERVER = "02:00:0a:3c:07:01", "02:00:0a:3c:07:fe"
PEERS = [_openflow.Peer("10.60.7.1", ROUTER), _openflow.Peer("10.60.7.254", SERVER)]
ROUTED = _openflow.Security(MAC, IPv4Interface("10.60.7.10/24"), PEERS, ROUTER, SERVER)
LINK = _openflow.Security(MAC, IPv4Interface("192.168.100.10/24"), None, None, None)


def test_what_was_added_is_what_ovs_ofctl_prints() -> None:
    found = _openflow.parse_dump(recorded("ovs-ofctl"))
    assert sorted(flow.text for flow in found if flow.port == 1) == _openflow.flows(1000, ROUTED)
    assert [flow.text for flow in found if flow.port == 2] == _openflow.flows(1000, None)
    assert {(flow.slice_id, flow.port) for flow in found} == {(1000, 1), (1000, 2)}


def test_without_peers_a_guest_talks_with_anybody_under_its_own_name() -> None:
    found = _openflow.parse_dump(recorded("ovs-ofctl-link"))
    assert sorted(flow.text for flow in found) == _openflow.flows(1000, LINK)
    assert [text for text in _openflow.flows(1000, LINK) if "NORMAL" in text and f"dl_src={MAC}" not in text] == []


def test_an_empty_dump_has_no_flows() -> None:
    assert _openflow.parse_dump("NXST_FLOW reply (xid=0x4):\n") == []


def test_a_flow_of_somebody_elses_making_is_told_from_ours() -> None:
    [flow] = _openflow.parse_dump(
        " cookie=0xc10d5ec0000003e8, duration=1.5s, table=0, n_packets=7, n_bytes=9, idle_timeout=9, idle_age=1,"
        " priority=10,in_port=1 actions=NORMAL"
    )
    assert flow.text == "cookie=0xc10d5ec0000003e8,priority=10,idle_timeout=9 actions=NORMAL"


def test_what_passes_among_strangers_has_one_receiver() -> None:
    passing = [text for text in _openflow.flows(1000, ROUTED) if "NORMAL" in text]
    receivers = [re.search("(?:mod_dl_dst:|dl_dst=)(02[0-9a-f:]+)", text) for text in passing]
    assert [receiver and receiver[1] for receiver in receivers].count(None) == 0 and len(passing) == 7


def test_without_a_router_there_are_only_peers() -> None:
    alone = _openflow.flows(1000, ROUTED._replace(router_mac=None))
    routed = set(_openflow.flows(1000, ROUTED)) - set(alone)
    assert sorted(text.partition(",priority=")[2] for text in routed) == [
        f"20,ip,dl_dst=02:00:0a:3c:07:01,dl_src={MAC},nw_src=10.60.7.10 actions=NORMAL",
        "30,ip,nw_dst=10.60.7.0/24 actions=drop",
    ]
