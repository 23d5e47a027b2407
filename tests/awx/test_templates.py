"""AWX's job templates ask for what the playbooks take, and for nothing that only an operator may decide."""

from __future__ import annotations

import json
import subprocess
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import yaml

from .surveys import problems

ROOT = Path(__file__).resolve().parents[2]
COLLECTION = ROOT / "collections" / "ansible_collections" / "cloudrepo" / "slices"

# Quotas, admins, paths and passwords are an operator's: whoever adds one here should know.
MAY_DECIDE = set(
    "slice slice_spec output slices_allow_restart slices_keep_failed slices_wait_for_leases slices_lease_timeout"
    " probe remove_orphans".split()
)
# Where one of them is needed, a survey that asks for both can require neither.
EITHER = {"slice", "slice_spec"}
NEEDS_A_SLICE = {"plan", "delete"}


class _Loader(yaml.SafeLoader):
    """Knows Ansible's tag for what is no template."""


_Loader.add_constructor("!unsafe", lambda _loader, node: str(node.value))


@cache
def load(path: str) -> Any:
    """A YAML file of the collection."""
    return yaml.load((COLLECTION / path).read_text(encoding="utf-8"), _Loader)


TEMPLATES = {
    template["playbook"]: template for template in load("playbooks/vars/awx_templates.yml")["slices_awx_templates"]
}
QUESTIONS = [
    pytest.param(playbook, question, id=f"{playbook}-{question['variable']}")
    for playbook, template in TEMPLATES.items()
    for question in template["survey"]
]


def entry_points(playbook: str) -> set[str]:
    """The entry points of the role that a playbook runs."""
    text = (COLLECTION / "playbooks" / f"{playbook}.yml").read_text(encoding="utf-8")
    return {line.split(":")[1].strip() for line in text.splitlines() if line.strip().startswith("tasks_from:")}


def options(playbook: str) -> dict[str, Any]:
    """What a playbook takes, by its role's argument specs."""
    specs = load("roles/slice/meta/argument_specs.yml")["argument_specs"]
    return {name: option for entry in entry_points(playbook) for name, option in specs[entry]["options"].items()}


def asked_as(option: dict[str, Any]) -> dict[str, Any]:
    """Type, choices and default of the question for an option."""
    kind, default = option["type"], option.get("default")
    if kind == "bool":
        return {"type": "multiplechoice", "choices": ["false", "true"], "default": str(default).lower()}
    if "choices" in option:
        return {"type": "multiplechoice", "choices": option["choices"], "default": default}
    if kind == "int":
        return {"type": "integer", "default": default}
    return {"type": {"str": "text", "dict": "textarea"}[kind], "default": ""}


def test_there_is_a_template_for_each_thing_a_user_does() -> None:
    assert list(TEMPLATES) == ["design_slice", "deploy_slice", "delete_slice", "show_slices", "audit_slices"]


@pytest.mark.parametrize(("playbook", "question"), QUESTIONS)
def test_a_survey_asks_for_options_of_its_playbook(playbook: str, question: dict[str, Any]) -> None:
    assert problems(question) == []
    assert question["variable"] in MAY_DECIDE
    option = options(playbook)[question["variable"]]
    asked = {name: question.get(name) for name in ("type", "choices", "default")}
    expected = {"choices": None, **asked_as(option)}
    asks_for = {other["variable"] for other in TEMPLATES[playbook]["survey"]}
    only_way = (
        question["variable"] in EITHER and not asks_for >= EITHER and bool(NEEDS_A_SLICE & entry_points(playbook))
    )
    if only_way:
        expected["default"] = None
    assert asked == expected
    assert question["required"] is (option.get("required", False) or only_way)


def test_a_survey_asks_nothing_twice() -> None:
    for template in TEMPLATES.values():
        variables = [question["variable"] for question in template["survey"]]
        assert len(variables) == len(set(variables))


def _tasks() -> list[tuple[str, dict[str, Any]]]:
    (play,) = load("playbooks/awx_setup.yml")
    return [(name, task[name]) for task in play["tasks"] for name in task if name.startswith("awx.awx.")]


def _options(*modules: str) -> dict[str, Any]:
    """What modules take, by their own documentation."""
    argv = ["ansible-doc", "--json", "--type", "module", *modules]
    docs = json.loads(subprocess.run(argv, cwd=ROOT, check=True, capture_output=True, text=True).stdout)
    return {name: docs[name]["doc"]["options"] for name in modules}


def test_the_modules_of_awx_know_what_they_are_given() -> None:
    """AWX's API ignores unknown fields without a word, and ansible-playbook looks at arguments only when it runs."""
    modules = {name for name, _ in _tasks()}
    options = _options(*modules)
    assert len(modules) == 7
    assert [(name, key) for name, args in _tasks() for key in args if key not in options[name]] == []


def test_every_prompt_that_somebody_switched_on_is_taken_back() -> None:
    """What a module is not given it leaves as it is."""
    (ours,) = [args for name, args in _tasks() if name == "awx.awx.job_template"]
    prompts = [name for name in _options("awx.awx.job_template")["awx.awx.job_template"] if name.startswith("ask_")]
    assert len(prompts) >= 16
    assert {name: ours.get(name) for name in prompts} == dict.fromkeys(prompts, False)
    assert ours["limit"] == ""


def _records(name: str) -> Any:
    return json.loads((Path(__file__).parent / "records" / f"{name}.json").read_text(encoding="utf-8"))[name]


def test_this_is_what_awx_was_asked_about() -> None:
    """What changes here has to be shown to a running AWX: `record.py` does that."""
    recorded = _records("definitions")
    (template_args,) = [args for name, args in _tasks() if name == "awx.awx.job_template"]
    plain = {name: value for name, value in template_args.items() if isinstance(value, bool | int) or value == ""}
    for ours, awx in zip(TEMPLATES.values(), recorded["job_templates"], strict=True):
        assert awx["survey_spec"]["spec"] == ours["survey"]
        assert {name: awx[name] for name in plain} == plain
        assert (awx["name"], awx["description"]) == (ours["name"], ours["description"])
        assert awx["playbook"] == f"playbooks/{ours['playbook']}.yml" and (ROOT / awx["playbook"]).is_file()
        # Whoever launches a template answers its survey, and that is all.
        assert [name for name, value in awx.items() if name.startswith("ask_") and value] == []
        assert (awx["allow_simultaneous"], awx["job_slice_count"]) == (True, 1)
        assert (ROOT / json.loads(awx["extra_vars"])["slices_dir"]).is_dir()
    (kind,) = recorded["credential_types"]
    (ours,) = [args for name, args in _tasks() if name == "awx.awx.credential_type"]
    assert (kind["inputs"], kind["injectors"]) == (ours["inputs"], ours["injectors"])
    (source,) = recorded["inventory_sources"]
    assert (ROOT / source["source_path"]).is_file()


@pytest.mark.parametrize("record", _records("surveys")[:-1], ids=lambda record: str(record["case"]))
def test_questions_are_judged_at_least_as_awx_does(record: dict[str, Any]) -> None:
    assert bool(problems(record["question"])) is not record["sound"]
    assert record["status"] == 200 or not record["sound"]


def test_awx_lets_through_what_we_refuse() -> None:
    lax = {record["case"] for record in _records("surveys") if record["status"] == 200 and not record["sound"]}
    assert lax >= {"a default above the most", "a variable with a space", "an unknown key", "a job template"}


LAUNCHES = [
    pytest.param(record, id=f"{record['template']}-{record['answers']}"[:70]) for record in _records("launches")
]


@pytest.mark.parametrize("record", LAUNCHES)
def test_answers_are_taken_refused_or_left_to_the_playbook(record: dict[str, Any]) -> None:
    if record["sound"]:
        assert record["status"] == 201
    elif record["status"] == 400:
        assert list(record["answer"]) == ["variables_needed_to_start"]
    else:
        # Before any host is asked: the lab may well be down.
        playbook = next(name for name in TEMPLATES if name.startswith(record["template"]))
        argv = ["ansible-playbook", f"playbooks/{playbook}.yml", "-e", json.dumps(record["job"]["extra_vars"])]
        done = subprocess.run(argv, cwd=ROOT, capture_output=True, text=True)
        assert done.returncode == 2, done.stdout
        assert "unreachable=1" not in done.stdout and "failed=1" in done.stdout, done.stdout


def test_what_nobody_was_asked_for_has_no_effect() -> None:
    (record,) = [record for record in _records("launches") if "prompts" in record]
    template = next(template for template in _records("definitions")["job_templates"] if "delete" in template["name"])
    assert record["job"]["extra_vars"] == {**json.loads(template["extra_vars"]), "slice": "web", "output": "text"}
    assert (record["job"]["limit"], record["job"]["job_type"], record["job"]["job_slice_count"]) == ("", "run", 1)
    assert record["ignored"]["extra_vars"].keys() == record["answers"].keys() - {"slice"}


def test_a_job_says_who_launched_it() -> None:
    """The variables that make the AWX user the owner, which no answer replaces."""
    variables = yaml.safe_load(_records("job")["extravars"].replace("!unsafe ", ""))
    assert (variables["awx_user_name"], variables["awx_job_id"] > 0) == ("alice", True)
