# Copyright (c) 2026, cloudrepo contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Deploy, show, audit and delete slices of the Ansible collection ``cloudrepo.slices`` from Python."""

from ._api import audit, delete, deploy, design, show
from ._play import Options
from .errors import SliceCancelled, SliceError
from .events import Event, Status
from .results import (
    VM,
    AuditResult,
    Failure,
    Finding,
    Interface,
    Link,
    Probe,
    Result,
    ShowResult,
    Slice,
    SliceResult,
    Step,
)

__all__ = [
    "VM",
    "AuditResult",
    "Event",
    "Failure",
    "Finding",
    "Interface",
    "Link",
    "Options",
    "Probe",
    "Result",
    "ShowResult",
    "Slice",
    "SliceCancelled",
    "SliceError",
    "SliceResult",
    "Status",
    "Step",
    "audit",
    "delete",
    "deploy",
    "design",
    "show",
]
