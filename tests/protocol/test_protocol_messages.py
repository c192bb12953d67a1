from __future__ import annotations

import dataclasses
import importlib
import pkgutil
import re
import tomllib
from pathlib import Path
from typing import Any

import impasto_client
import impasto_protocol
import impasto_server
import pytest
from impasto_protocol import messages as m
from impasto_protocol.errors import ModelError, ProtocolError
from impasto_protocol.geometry import Box, Size
from impasto_protocol.messages import CLIENT_MESSAGES, SERVER_MESSAGES, parse
from impasto_protocol.version import PROTOCOL, VERSION, Limits

JOB = "0123abcd"
SUBMIT = m.Submit(
    7, JOB, "inpaint", {"steps": 3}, Size(64, 64), {"image": m.InputPicture("0" * 32, 8, 8, "rgba8", -3, 2)}
)


def bad(fields: dict[str, Any]) -> ProtocolError:
    with pytest.raises(ProtocolError) as caught:
        parse(fields, CLIENT_MESSAGES)
    assert caught.value.code == "protocol.bad_message"
    return caught.value


def changed(path: str, value: Any) -> dict[str, Any]:
    """SUBMIT as a map with the field at a dotted path replaced, or removed where the value is `...`."""
    fields = SUBMIT.to_wire()
    *parents, last = path.split(".")
    target: Any = fields
    for parent in parents:
        target = target[parent]
    if value is ...:
        del target[last]
    else:
        target[last] = value
    return fields


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("id", ...),
        ("id", -1),
        ("id", True),
        ("id", 1.0),
        ("job", "../../etc/passwd"),
        ("job", "x" * 65),
        ("job", ""),
        ("mode", None),
        ("mode", b"inpaint"),
        ("params", [1]),
        ("canvas", [64]),
        ("canvas", [64, "64"]),
        ("canvas", {"w": 1}),
        ("inputs", []),
        ("inputs.image", None),
        ("inputs.image.digest", "0" * 31),
        ("inputs.image.digest", "G" * 32),
        ("inputs.image.width", -1),
        ("inputs.image.width", ...),
        ("inputs.image.x", 0.5),
        ("preview", {"max_size": 0}),
        ("preview", {"interval_ms": "1"}),
    ],
)
def test_wrong_fields_are_named(path: str, value: Any) -> None:
    error = bad(changed(path, value))
    named = error.path or ""
    assert named.startswith(path), (named, path)
    assert path in error.message
    assert error.job == (JOB if path != "job" else value if len(value) <= 64 else None)
    assert error.request_id == (7 if path != "id" else None)


def test_unknown_fields_are_ignored_and_missing_optional_ones_have_defaults() -> None:
    fields = {"type": "hello", "protocol": [1, 10], "client": {"name": "x", "version": "1", "new": 1}, "later": [1]}
    assert parse(fields, CLIENT_MESSAGES) == m.Hello((1, 10), m.ClientInfo("x", "1"), "")
    assert parse({"type": "catalog", "id": 1, "rev": None}, CLIENT_MESSAGES) == m.CatalogRequest(1)
    welcome = m.Welcome((1, 0), m.ServerInfo("s", "1"), Limits()).to_wire()
    welcome["limits"] = {"frame": 5, "unheard_of": 1}
    parsed = parse(welcome, SERVER_MESSAGES)
    assert isinstance(parsed, m.Welcome) and parsed.limits == Limits(frame=5)


def test_unknown_type_is_named_and_keeps_the_id() -> None:
    with pytest.raises(ProtocolError, match="'dance'") as caught:
        parse({"type": "dance", "id": 3}, CLIENT_MESSAGES)
    assert (caught.value.code, caught.value.request_id) == ("protocol.unknown_type", 3)
    with pytest.raises(ProtocolError):
        parse(m.Queued(JOB, 1).to_wire(), CLIENT_MESSAGES)  # only a server sends it


def test_refused_put_names_its_digest() -> None:
    error = bad({"type": "put", "digest": "a" * 32, "size": 3, "offset": 0, "data": "text"})
    assert error.data == {"digest": "a" * 32} and error.path == "data"


def test_none_is_left_out() -> None:
    assert m.CatalogRequest(1).to_wire() == {"type": "catalog", "id": 1}
    assert "selection" not in m.Plan(1, "inpaint", {}, Size(2, 2)).to_wire()
    assert m.Plan(1, "inpaint", {"a": None}, Size(2, 2), Box(1, 2, 3, 4)).to_wire()["selection"] == [1, 2, 3, 4]


def test_nan_is_no_fraction() -> None:
    wire = m.Progress(JOB, "generate", 1, 2, float("nan")).to_wire()
    with pytest.raises(ProtocolError, match="fraction"):
        parse(wire, SERVER_MESSAGES)


def test_bad_catalogue_is_a_protocol_error() -> None:
    wire = m.Catalog(1, "r", (), (), (), ()).to_wire()
    for modes in ([{}], [{"name": "x", "inputs": 3}], [{"name": "x", "params": [None]}], [1]):
        with pytest.raises(ProtocolError) as caught:
            parse({**wire, "modes": modes}, SERVER_MESSAGES)
        assert caught.value.path == "modes[0]"


def test_errors_travel() -> None:
    error = ModelError("model.corrupt", "Damaged.", retryable=True, path="params.model", data={"file": "a"})
    message = m.Error.of(error, id=4, job=JOB)
    back = parse(message.to_wire(), SERVER_MESSAGES)
    assert back == message and isinstance(back, m.Error)
    raised = back.exception()
    assert isinstance(raised, ModelError)
    assert (raised.code, raised.message, raised.retryable, raised.path, raised.data) == (
        *("model.corrupt", "Damaged.", True, "params.model"),
        {"file": "a"},
    )
    assert m.ErrorInfo.of(error).exception().to_wire() == error.to_wire()


def test_messages_are_frozen_and_distinct() -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        SUBMIT.mode = "x"  # type: ignore[misc]
    assert all(name == cls.TYPE for table in (CLIENT_MESSAGES, SERVER_MESSAGES) for name, cls in table.items())


@pytest.mark.parametrize("package", [impasto_protocol, impasto_client])
def test_every_module_says_what_it_exports(package: Any) -> None:
    for info in pkgutil.iter_modules(package.__path__):
        module = importlib.import_module(f"{package.__name__}.{info.name}")
        exported = module.__all__
        assert len(exported) == len(set(exported)), info.name
        assert all(hasattr(module, name) for name in exported), info.name
        own = {
            name
            for name, value in vars(module).items()
            if not name.startswith("_") and getattr(value, "__module__", None) == module.__name__
        }
        # TypeVars have a module too and are nobody's API.
        forgotten = {name for name in own - set(exported) if type(getattr(module, name)).__name__ != "TypeVar"}
        assert not forgotten, (info.name, forgotten)


def test_one_version() -> None:
    project = tomllib.loads((Path(__file__).resolve().parents[2] / "pyproject.toml").read_text(encoding="utf-8"))
    assert VERSION == project["project"]["version"] == impasto_server.__version__


def test_the_specification_names_every_message_and_field() -> None:
    text = (Path(impasto_protocol.__file__).parents[1] / "SPEC.md").read_text(encoding="utf-8")
    spoken = set(re.findall(r"`([a-z0-9_]+)`", text))
    classes: list[Any] = [*CLIENT_MESSAGES.values(), *SERVER_MESSAGES.values(), Limits]
    classes += [m.ClientInfo, m.ServerInfo, m.InputPicture, m.PreviewWish, m.JobEntry, m.ErrorInfo]
    fields = {f.name for cls in classes for f in dataclasses.fields(cls)}
    assert not (fields | set(CLIENT_MESSAGES) | set(SERVER_MESSAGES)) - spoken
    for f in dataclasses.fields(Limits):
        assert f"`{f.name}` | {f.default} |" in text


def test_the_specification_says_which_version_it_is() -> None:
    text = (Path(impasto_protocol.__file__).parents[1] / "SPEC.md").read_text(encoding="utf-8")
    version = "{}.{}".format(*PROTOCOL)
    assert text.startswith(f"# The Impasto protocol, version {version}\n") and f"\n| {version} | " in text
