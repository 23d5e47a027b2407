"""Asks a running AWX what it makes of our job templates, and writes its answers to `records`.

`CONTROLLER_HOST=… CONTROLLER_USERNAME=… CONTROLLER_PASSWORD=… python tests/awx/record.py`, as an administrator, after
`playbooks/awx_setup.yml`. Only for an AWX of which nothing is needed any more: it launches every template, as the
user `alice` that it makes, and leaves the jobs there.
"""

from __future__ import annotations

import base64
import json
import os
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any

RECORDS = Path(__file__).parent / "records"
ALICE = {"username": "alice", "password": "alices-password"}

# What of an object is ours, and no matter of IDs and times.
TEMPLATE_FIELDS = (
    "name description job_type playbook extra_vars limit allow_simultaneous job_slice_count survey_enabled"
    " become_enabled ask_credential_on_launch ask_diff_mode_on_launch ask_execution_environment_on_launch"
    " ask_forks_on_launch"
    " ask_instance_groups_on_launch ask_inventory_on_launch ask_job_slice_count_on_launch ask_job_type_on_launch"
    " ask_labels_on_launch ask_limit_on_launch ask_scm_branch_on_launch ask_skip_tags_on_launch ask_tags_on_launch"
    " ask_timeout_on_launch ask_variables_on_launch ask_verbosity_on_launch"
).split()
PLACES = {
    "projects": "name scm_type scm_url scm_update_on_launch".split(),
    "inventories": ["name"],
    "inventory_sources": "name source source_path overwrite overwrite_vars update_on_launch".split(),
    "execution_environments": "name image pull".split(),
    "credential_types": "name kind inputs injectors".split(),
}

_INTEGER = {"type": "integer", "default": 5, "min": 1, "max": 10}
_CHOICE = {"type": "multiplechoice", "default": "text", "choices": ["text", "json"]}
# What a question says in place of, or beside, what every question has; and whether it is a sound one.
QUESTIONS: list[tuple[str, bool, dict[str, Any]]] = [
    ("text", True, {"type": "text", "default": "", "min": 0, "max": 32}),
    ("integer", True, _INTEGER),
    ("choice", True, _CHOICE),
    ("an unknown type", False, {"type": "boolean"}),
    ("required is no boolean", False, {"type": "text", "required": "false"}),
    ("a choice without choices", False, {"type": "multiplechoice"}),
    ("a default that is no choice", False, {**_CHOICE, "default": "xml"}),
    ("a default that is part of a choice", False, {**_CHOICE, "choices": "text\njson", "default": "son"}),
    ("choices that are no text", False, {"type": "multiplechoice", "choices": [True, False]}),
    ("a boolean as the default of text", False, {"type": "text", "default": False}),
    ("text as the default of an integer", False, {**_INTEGER, "default": "5"}),
    ("a boolean as the default of an integer", False, {**_INTEGER, "default": True}),
    ("text as a limit", False, {**_INTEGER, "max": "10"}),
    ("a default below the least", False, {**_INTEGER, "default": 0}),
    ("a default above the most", False, {**_INTEGER, "default": 11}),
    ("a default that is too long", False, {"type": "text", "default": "abc", "max": 2}),
    ("a least above the most", False, {"type": "integer", "min": 10, "max": 1}),
    ("a variable with a space", False, {"type": "text", "variable": "two words"}),
    ("a variable that is no name", False, {"type": "text", "variable": "two-words"}),
    ("an empty variable", False, {"type": "text", "variable": ""}),
    ("an unknown key", False, {"type": "text", "defualt": "a"}),
    ("a default of a required question", False, {"type": "text", "required": True, "default": "a"}),
]

_SPEC = "{name: two, topology: {type: line, vms: 2, flavor: cirros}}"
# A template, what alice sends, and whether the answers are right: AWX can't know all that our plays refuse.
LAUNCHES: list[tuple[str, bool, dict[str, Any]]] = [
    ("design", True, {"slice": "web"}),
    ("design", True, {"slice_spec": _SPEC, "output": "json"}),
    ("design", False, {}),
    ("design", False, {"slice": 5}),
    ("design", False, {"slice": "w" * 33}),
    ("design", False, {"slice": "../web"}),
    ("design", False, {"slice_spec": {"name": "two"}}),
    ("design", False, {"slice_spec": "{name: two"}),
    ("design", False, {"slice_spec": "[two]"}),
    ("design", False, {"slice_spec": _SPEC.replace("vms", "vm")}),
    ("design", False, {"slice": "web", "output": "xml"}),
    ("deploy", True, {"slice_spec": _SPEC}),
    (
        "deploy",
        True,
        {
            "slice": "web",
            "slices_allow_restart": "true",
            "slices_keep_failed": "true",
            "slices_wait_for_leases": "true",
            "slices_lease_timeout": 30,
            "output": "json",
        },
    ),
    ("deploy", False, {"slice": "web", "slices_allow_restart": True}),
    ("deploy", False, {"slice": "web", "slices_keep_failed": "perhaps"}),
    ("deploy", False, {"slice": "web", "slices_wait_for_leases": ""}),
    ("deploy", False, {"slice": "web", "slices_lease_timeout": 0}),
    ("deploy", False, {"slice": "web", "slices_lease_timeout": 3601}),
    ("deploy", False, {"slice": "web", "slices_lease_timeout": "30"}),
    ("delete", True, {"slice": "web"}),
    ("delete", False, {}),
    ("delete", False, {"slice": ""}),
    ("delete", False, {"slice": " web"}),
    ("show", True, {}),
    ("show", True, {"slice": "web", "output": "json"}),
    ("show", False, {"output": "yaml"}),
    ("audit", True, {}),
    ("audit", True, {"slice": "web", "probe": "true", "remove_orphans": "true"}),
    ("audit", False, {"probe": "maybe"}),
    ("audit", False, {"remove_orphans": "yes"}),
]
# What nobody is asked for is ignored, and so it has no effect.
UNASKED = {
    "slice": "web",
    "slices_admins": ["alice"],
    "slices_quota": 1000,
    "slices_dir": "/etc",
    "awx_user_name": "bob",
    "ansible_connection": "local",
}
PROMPTS = {"limit": "kvm1", "job_type": "check", "job_slice_count": 3, "credentials": [], "verbosity": 5, "forks": 1}


class Awx:
    """The API, asked by one user."""

    def __init__(self, username: str, password: str) -> None:
        self._host = os.environ["CONTROLLER_HOST"].rstrip("/")
        self._token = base64.b64encode(f"{username}:{password}".encode()).decode()

    def __call__(self, method: str, path: str, body: Any = None) -> tuple[int, Any]:
        """Status and answer."""
        request = urllib.request.Request(
            f"{self._host}/api/v2/{path}",
            method=method,
            data=None if body is None else json.dumps(body).encode(),
            headers={"Authorization": f"Basic {self._token}", "Content-Type": "application/json"},
        )
        try:
            with urllib.request.urlopen(request, timeout=60) as answer:
                return answer.status, json.loads(answer.read() or b"{}")
        except urllib.error.HTTPError as error:
            return error.code, json.loads(error.read() or b"{}")

    def get(self, path: str) -> Any:
        """What is there, which has to be."""
        status, answer = self("GET", path)
        if status != 200:
            raise SystemExit(f"{path}: {status} {answer}")
        return answer


def _templates(awx: Awx) -> dict[str, dict[str, Any]]:
    found = awx.get("job_templates/?name__startswith=Slices:&organization__name=Default&order_by=id")["results"]
    return {template["name"].removeprefix("Slices: "): template for template in found}


def _definitions(awx: Awx, templates: dict[str, dict[str, Any]]) -> dict[str, Any]:
    return {
        "job_templates": [
            {field: template[field] for field in TEMPLATE_FIELDS}
            | {"survey_spec": awx.get(f"job_templates/{template['id']}/survey_spec/")}
            for template in templates.values()
        ],
        **{
            kind: [
                {field: found[field] for field in fields}
                for found in awx.get(f"{kind}/?order_by=id")["results"]
                if not found.get("managed")
            ]
            for kind, fields in PLACES.items()
        },
    }


def _surveys(awx: Awx, template: dict[str, Any]) -> list[dict[str, Any]]:
    """Each question, put to AWX as a survey of a template that is there for nothing else."""
    _, copy = awx("POST", f"job_templates/{template['id']}/copy/", {"name": "Scratch"})
    records = []
    for case, sound, changes in QUESTIONS:
        question = {"question_name": "Number", "variable": "number", "required": False, **changes}
        survey = {"name": "", "description": "", "spec": [question]}
        status, answer = awx("POST", f"job_templates/{copy['id']}/survey_spec/", survey)
        records.append({"case": case, "sound": sound, "question": question, "status": status, "answer": answer})
    status, answer = awx("PATCH", f"job_templates/{copy['id']}/", {"job_slice_count": 0, "no_such_field": 1})
    records.append({"case": "a job template", "sound": False, "status": status, "slices": answer["job_slice_count"]})
    awx("DELETE", f"job_templates/{copy['id']}/")
    return records


def _alice(awx: Awx, templates: dict[str, dict[str, Any]]) -> Awx:
    """Someone who may launch the templates, and nothing else."""
    awx("POST", "users/", ALICE)
    (user,) = awx.get("users/?username=alice")["results"]
    awx("PATCH", f"users/{user['id']}/", ALICE)
    for template in templates.values():
        role = template["summary_fields"]["object_roles"]["execute_role"]["id"]
        awx("POST", f"roles/{role}/users/", {"id": user["id"]})
    return Awx(**ALICE)


def _launch(alice: Awx, template: dict[str, Any], request: dict[str, Any]) -> dict[str, Any]:
    status, answer = alice("POST", f"job_templates/{template['id']}/launch/", request)
    if status != 201:
        return {"status": status, "answer": answer}
    _, job = alice("GET", f"jobs/{answer['job']}/")
    kept = {field: job[field] for field in ("job_type", "limit", "job_slice_count", "allow_simultaneous")}
    return {
        "status": status,
        "ignored": answer["ignored_fields"],
        "job": {
            **kept,
            "extra_vars": json.loads(job["extra_vars"]),
            "launched_by": job["summary_fields"]["created_by"]["username"],
        },
    }


def _launches(alice: Awx, templates: dict[str, dict[str, Any]]) -> list[dict[str, Any]]:
    records = [
        {"template": name, "sound": sound, "answers": answers}
        | _launch(alice, templates[name], {"extra_vars": answers})
        for name, sound, answers in LAUNCHES
    ]
    request = {"extra_vars": UNASKED, **PROMPTS}
    return [
        *records,
        {"template": "delete", "sound": True, "answers": UNASKED, "prompts": PROMPTS}
        | _launch(alice, templates["delete"], request),
    ]


def main() -> None:
    """Write what AWX says."""
    awx = Awx(os.environ["CONTROLLER_USERNAME"], os.environ["CONTROLLER_PASSWORD"])
    templates = _templates(awx)
    alice = _alice(awx, templates)
    version = awx.get("ping/")["version"]
    records = {
        "definitions": _definitions(awx, templates),
        "surveys": _surveys(awx, templates["show"]),
        "launches": _launches(alice, templates),
    }
    for name, record in records.items():
        text = json.dumps({"awx": version, name: record}, indent=1, ensure_ascii=False)
        (RECORDS / f"{name}.json").write_text(text + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
