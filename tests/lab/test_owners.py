"""Where AWX says who asks, who may do what."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

SPEC = {"name": "owned", "vms": [{"name": "a", "flavor": "cirros"}]}


@pytest.fixture
def designed(run_playbook: Any) -> Iterator[None]:
    """A slice that alice designed."""
    run = run_playbook("design_slice", slice_spec=SPEC, awx_user_name="alice")
    assert run.rc == 0, run.output
    yield
    assert run_playbook("delete_slice", slice="owned").rc == 0


@pytest.mark.usefixtures("designed")
@pytest.mark.parametrize(
    "who", [{"awx_user_name": "bob"}, {"awx_job_id": 7}, {"awx_user_name": "bob", "slices_admins": "bobby"}]
)
def test_a_stranger_is_refused(run_playbook: Any, who: dict[str, Any]) -> None:
    attempts: list[tuple[str, dict[str, Any]]] = [
        ("design_slice", {"slice_spec": {**SPEC, "owner": "bob"}}),
        ("deploy_slice", {"slice_spec": SPEC}),
        ("delete_slice", {"slice": "owned"}),
        ("backup_registry", {}),
        ("rebuild_registry", {}),
        ("audit_slices", {"remove_orphans": True}),
    ]
    for playbook, options in attempts:
        run = run_playbook(playbook, **options, **who)
        assert run.rc != 0 and run.total("changed") == 0, run.output
        assert "may not" in run.output, run.output


@pytest.mark.usefixtures("designed")
def test_owners_and_admins_are_not(run_playbook: Any) -> None:
    for who in ({"awx_user_name": "alice"}, {"awx_user_name": "bob", "slices_admins": ["bob"]}):
        run = run_playbook("delete_slice", "--check", slice="owned", **who)
        assert run.rc == 0 and run.total("changed") > 0, run.output
