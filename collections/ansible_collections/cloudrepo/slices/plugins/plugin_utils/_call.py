# Copyright (c) 2026, cloudrepo contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Run what the modules of deploys do on a host, without Ansible's own library on the way.

Packing that library costs the controller 0.15 s for each module, and compiling it costs a host as much for each call.
What these modules do needs none of it: their options are checked here, and they are sent as Python's bytecode, beside
the source for a host with another Python. The connection, its user and its privileges are the action's own.

Where Ansible does not pipeline, a task runs in the background, or no Python is known for a host yet, they run as any
module does.
"""

from __future__ import annotations

import fcntl
import io
import json
import marshal
import shlex
import zipfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, nullcontext, suppress
from importlib.machinery import SourceFileLoader
from importlib.util import MAGIC_NUMBER
from pathlib import Path
from types import CodeType, MappingProxyType, ModuleType
from typing import IO, Any, NamedTuple, cast

from ansible import constants
from ansible.errors import AnsibleValueOmittedError
from ansible.module_utils.common.arg_spec import ArgumentSpecValidator, ValidationResult
from ansible.module_utils.common.parameters import remove_values
from ansible.module_utils.errors import UnsupportedError
from ansible.plugins.action import ActionBase
from ansible.vars.clean import remove_internal_keys

from ..module_utils import _called
from ..module_utils._answer import Result

_PACKAGE = _called.__package__
_FOLDER = Path(_called.__file__).parent
# PEP 552: bytecode that belongs to a hash of its source, which is not looked at.
_UNCHECKED = (1).to_bytes(4, "little") + bytes(8)
_DISCOVERED = ("", "auto", "auto_legacy", "auto_silent", "auto_legacy_silent")

# On standard input are one line that reads the code, the code, one line with the order, and what that may be about.
# Not on the command line, which sudo logs.
_COMMAND = "import sys; exec(eval(sys.stdin.buffer.readline()))"
# The working folder is no place to import from. Some builds of Python have no memfd_create.
_BOOT = """
import os, sys
sys.path[:] = filter(None, sys.path)
if hasattr(os, "memfd_create"):
    code = open(os.memfd_create("cloudrepo.slices"), "wb")
else:
    import tempfile
    code = tempfile.TemporaryFile()
code.write(sys.stdin.buffer.read(SIZE))
code.flush()
sys.path.insert(0, "/proc/self/fd/%d" % code.fileno())
from PACKAGE._called import main
main(sys.stdin.buffer.readline())
""".replace("PACKAGE", _PACKAGE)


class Module(NamedTuple):
    """A module: its name, the file of ``module_utils`` that has its options and does its work, and which function does.

    ``suboptions`` are the specs of what options consist of whose documentation says so in words only.
    """

    name: str
    room: ModuleType
    function: str = "ensure"
    suboptions: Mapping[str, Mapping[str, Any]] = MappingProxyType({})

    @property
    def full_name(self) -> str:
        """The name by which Ansible knows it."""
        return f"cloudrepo.slices.{self.name}"

    @property
    def file(self) -> str:
        """The name of its file."""
        return self.room.__name__.rpartition(".")[2]

    @property
    def arguments(self) -> dict[str, dict[str, Any]]:
        """The specs of all options. Paths are texts until they are on the host whose paths they are."""
        return {
            option: {**spec, "type": "str"} if spec["type"] == "path" else spec
            for option, spec in self.room.ARGUMENTS.items()
        }

    @property
    def paths(self) -> list[str]:
        """The options that are paths."""
        return [option for option, spec in self.room.ARGUMENTS.items() if spec["type"] == "path"]

    @property
    def secrets(self) -> list[str]:
        """The options that nobody may read."""
        return [option for option, spec in self.room.ARGUMENTS.items() if spec.get("no_log")]


# What writes to the standard input of a command on a host.
Send = Callable[[IO[bytes]], None]


def can_send(action: ActionBase, variables: dict[str, Any]) -> bool:
    """Whether a call can be followed by more than fits into memory: it is our own, over Ansible's SSH connection."""
    connection = action._connection
    # Another's of that name, or that builds on it, may send in another way.
    ansibles = getattr(connection, "ansible_name", "") == "ansible.builtin.ssh"
    return _own_python(action, variables) is not None and ansibles and hasattr(connection, "_send_initial_data")


def call(
    action: ActionBase,
    module: Module,
    args: Mapping[str, Any],
    variables: dict[str, Any],
    send: Send | None = None,
) -> Result:
    """Have a module do its work on the host that an action is connected to.

    Args:
        action: the one that asks.
        module: what is to be done.
        args: its options.
        variables: the task's variables.
        send: writes what the module reads from its standard input, where ``can_send``.

    Returns:
        What the module returns. If nothing came that is an answer, ``module_stdout`` and ``module_stderr``, as of any.
    """
    python = _own_python(action, variables)
    if python is None:
        result: Result = action._execute_module(
            module_name=module.full_name,
            module_args=dict(args),
            task_vars=variables,
            wrap_async=action._task.async_val,
        )
        return result
    params, errors = checked(module, args)
    if errors:
        return {"failed": True, "msg": f"{module.name}: {'; '.join(errors)}"}
    code = _code(module.file)
    boot = repr(_BOOT.replace("SIZE", str(len(code)))).encode()
    with _followed_by(action._connection, send) if send else nullcontext():
        said = action._low_level_execute_command(
            f"{action._compute_environment_string()} {shlex.join([python, '-c', _COMMAND, module.full_name])}".strip(),
            in_data=b"\n".join([boot, code]) + _order(module, params, action, variables) + b"\n",
        )
    secrets = [text for option in module.secrets for text in _texts(params.get(option))]
    answer: Result = {**_answer(said), "invocation": {"module_args": _told(module, params)}}
    if secrets:  # Without any, going through a large answer costs time for nothing.
        answer = remove_values(answer, secrets)
    if action._discovered_interpreter_key:  # By a call before this one, whose answer the action did not pass on.
        answer["ansible_facts"] = {action._discovered_interpreter_key: action._discovered_interpreter}
    return answer


def checked(module: Module, args: Mapping[str, Any]) -> tuple[dict[str, Any], list[str]]:
    """A module's options with their types and defaults, or what is wrong with them."""
    required_if = getattr(module.room, "REQUIRED_IF", None)
    found = ArgumentSpecValidator(module.arguments, required_if=required_if).validate(dict(args))
    params, errors = dict(found.validated_parameters), _messages(found)
    for option, spec in module.suboptions.items():
        if not errors:
            part = ArgumentSpecValidator(spec).validate(params[option])
            params[option] = part.validated_parameters
            errors += [f"{option}: {message}" for message in _messages(part)]
    return params, errors


def _messages(found: ValidationResult) -> list[str]:
    return [
        f"unsupported parameters: {error.msg}" if isinstance(error, UnsupportedError) else error.msg
        for error in found.errors.errors
    ]


@contextmanager
def _followed_by(connection: Any, send: Send) -> Iterator[None]:
    """Have Ansible's SSH connection send more after a command's input, which it wants to have in memory."""

    def send_all(pipe: IO[bytes], data: bytes, *_process: Any) -> None:
        # A host that ends early closes the pipe, and why it did is in its answer.
        with suppress(BrokenPipeError), pipe:
            pipe.write(data)
            send(pipe)

    connection._send_initial_data = send_all
    try:
        yield
    finally:
        del connection._send_initial_data


def _own_python(action: ActionBase, variables: Mapping[str, Any]) -> str | None:
    """The Python of the host, if modules can be run in our own way there."""
    if action._task.async_val or not action._is_pipelining_enabled("new"):
        return None
    return _python(action, variables) or None


def _python(action: ActionBase, variables: Mapping[str, Any]) -> str | None:
    """The Python of the host, as Ansible would choose it; None if it has to look for one first."""
    host = action._task.delegate_to
    known = variables["ansible_delegated_vars"][host] if host else variables
    if getattr(action._connection, "_remote_is_local", False):
        return known.get("ansible_playbook_python")
    try:
        named = action._templar.template(constants.config.get_config_value("INTERPRETER_PYTHON", variables=known))
    except AnsibleValueOmittedError:
        return None
    if named and str(named).strip() not in _DISCOVERED:
        return str(named).strip()
    return (known.get("ansible_facts") or {}).get("discovered_interpreter_python")


def _order(module: Module, params: Mapping[str, Any], action: ActionBase, variables: Mapping[str, Any]) -> bytes:
    unlogged = constants.config.get_config_value("DEFAULT_NO_TARGET_SYSLOG", variables=variables)
    told = " ".join(f"{option}={value}" for option, value in _told(module, params).items())
    order = {
        "module": module.file,
        "function": module.function,
        "params": params,
        "paths": {option: params[option] for option in module.paths if params.get(option) is not None},
        "check_mode": bool(action._task.check_mode),
        "diff": bool(action._task.diff),
        "log": "" if action._task.no_log or unlogged else f"Invoked with {told}",
    }
    return json.dumps(order).encode()


def _told(module: Module, params: Mapping[str, Any]) -> dict[str, Any]:
    """The options that callbacks and the host's log are told: those that neither are secret nor grow with the slice."""
    return {
        option: value
        for option, value in params.items()
        if option not in module.secrets and not isinstance(value, (dict, list))
    }


def _texts(value: Any) -> Iterator[str]:
    """All texts in a value."""
    if isinstance(value, Mapping):
        value = list(value.values())
    if isinstance(value, (list, tuple)):
        for each in value:
            yield from _texts(each)
    elif value:
        yield str(value)


def _answer(said: Mapping[str, Any]) -> Result:
    """The answer is one line; a login or a logout may have printed others."""
    for line in reversed(said["stdout"].splitlines()):
        with suppress(ValueError):
            found = json.loads(line)
            if isinstance(found, dict):
                # Ansible would obey: a host could add others to the inventory, or change them.
                found.pop("ansible_facts", None)
                remove_internal_keys(found)
                return found
    lines = f"{said['stdout']}\n{said['stderr']}".split("\n")
    return {
        "failed": True,
        "msg": f"The module gave no answer (rc={said['rc']}): {next(filter(None, reversed(lines)), 'it said nothing')}",
        "module_stdout": said["stdout"],
        "module_stderr": said["stderr"],
        "rc": said["rc"],
    }


def _code(room: str) -> bytes:
    """What a host needs for a file of ``module_utils``. The first process of a run packs it for all others."""
    run_dir = constants.DEFAULT_LOCAL_TMP  # type: ignore[attr-defined]  # Settings become attributes when they load.
    path = Path(run_dir) / f"cloudrepo.slices.{room}.zip"
    with open(path.with_suffix(".lock"), "w", encoding="ascii") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not path.exists():
            part = path.with_suffix(".part")
            part.write_bytes(pack(room))
            part.replace(path)
    return path.read_bytes()


def pack(room: str) -> bytes:
    """A zip of ``_called``, a file of ``module_utils`` and all that they import, each as source and as bytecode."""
    packed = io.BytesIO()
    folder = _PACKAGE.replace(".", "/")
    with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as archive:
        for depth in range(_PACKAGE.count(".") + 1):
            archive.writestr(f"{folder.rsplit('/', depth)[0]}/__init__.py", b"")
        for name, code in _needed("_called", room):
            archive.write(_FOLDER / f"{name}.py", f"{folder}/{name}.py")
            archive.writestr(f"{folder}/{name}.pyc", MAGIC_NUMBER + _UNCHECKED + marshal.dumps(code))
    return packed.getvalue()


def _needed(*names: str) -> Iterator[tuple[str, CodeType]]:
    """These files of ``module_utils`` and those that they import, at whatever depth, with their bytecode."""
    available = {path.stem for path in _FOLDER.glob("_*.py")}
    waiting, seen = list(names), set(names)
    while waiting:
        name = waiting.pop()
        full_name = f"{_PACKAGE}.{name}"
        # Python keeps it beside the source, or makes it now.
        code = cast(CodeType, SourceFileLoader(full_name, str(_FOLDER / f"{name}.py")).get_code(full_name))
        yield name, code
        found = {word.removeprefix(f"{_PACKAGE}.") for word in _words(code)} & available - seen
        waiting += sorted(found)
        seen |= found


def _words(code: CodeType) -> Iterator[str]:
    """The names in a piece of bytecode, those that it imports among them."""
    yield from code.co_names
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            yield from _words(constant)
