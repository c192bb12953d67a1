"""Pickles are read without running anything in them: hostile ones are refused by name, damaged ones with a sentence."""

from __future__ import annotations

import collections
import json
import os
import pickle
import subprocess
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from impasto_protocol.errors import ModelError
from impasto_server.engine.identify import ModelInfo, identify_file
from impasto_server.engine.load import load_checkpoint
from impasto_server.engine.modelfile import header_of, open_model
from impasto_server.engine.pickles import open_pickle, pickle_header, read_pickle
from safetensors.torch import save_file

from tests.tiny import FACTS, tiny_tensors, write_tiny_checkpoint, write_tiny_pickle

CPU = torch.device("cpu")


class Hostile:
    def __reduce__(self) -> tuple[Any, ...]:
        return (os.system, ("touch pwned",))


def save_zip(path: Path) -> None:
    torch.save({"state_dict": Hostile()}, path)


def save_old(path: Path) -> None:
    torch.save({"state_dict": Hostile()}, path, _use_new_zipfile_serialization=False)


def save_protocol_2(path: Path) -> None:
    path.write_bytes(pickle.dumps({"a": Hostile()}, protocol=2))


def save_protocol_4(path: Path) -> None:
    path.write_bytes(pickle.dumps({"a": Hostile()}, protocol=4))


@pytest.mark.parametrize("save", [save_zip, save_old, save_protocol_2, save_protocol_4])
def test_a_pickle_that_runs_code_is_refused_by_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, save: Callable[[Path], None]
) -> None:
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "model.ckpt"
    save(path)
    with pytest.raises(ModelError) as caught:
        read_pickle(path)
    assert caught.value.code == "model.unsafe"
    assert caught.value.data["global"] == f"{os.name}.system"
    assert f"{os.name}.system" in caught.value.message
    assert not (tmp_path / "pwned").exists()


def test_a_pickled_module_is_refused_by_name(tmp_path: Path) -> None:
    torch.save({"model": torch.nn.Linear(2, 2)}, tmp_path / "m.pt")
    with pytest.raises(ModelError) as caught:
        read_pickle(tmp_path / "m.pt")
    assert caught.value.code == "model.unsafe" and caught.value.data["global"] == "torch.nn.modules.linear.Linear"


def test_a_pickle_of_tensors_is_read(tmp_path: Path) -> None:
    torch.save({"string_to_param": {"*": torch.ones(2, 8)}, "step": 3}, tmp_path / "e.pt")
    assert torch.equal(read_pickle(tmp_path / "e.pt")["string_to_param"]["*"], torch.ones(2, 8))


@pytest.mark.parametrize("data", [b"", b"((((", b"\xff" * 64, b"PK\3\4" + b"\0" * 60, b"}q\0."])
def test_broken_pickles(tmp_path: Path, data: bytes) -> None:
    path = tmp_path / "e.pt"
    path.write_bytes(data)
    try:
        assert read_pickle(path) == {}
    except ModelError as error:
        assert error.code == "model.corrupt"


def test_a_pickle_with_flipped_bytes_is_read_or_refused(tmp_path: Path) -> None:
    for zipped in (True, False):
        torch.save({"a": torch.ones(2), "b": [1, "x"]}, tmp_path / "e.pt", _use_new_zipfile_serialization=zipped)
        whole = (tmp_path / "e.pt").read_bytes()
        for at in range(0, min(len(whole), 700), 9):
            (tmp_path / "f.pt").write_bytes(whole[:at] + bytes([whole[at] ^ 0x55]) + whole[at + 1 :])
            try:
                read_pickle(tmp_path / "f.pt")
            except ModelError as error:
                assert error.code in ("model.corrupt", "model.unsafe")


def refused(path: Path) -> ModelError:
    with pytest.raises(ModelError) as caught:
        pickle_header(path)
    assert path.name in caught.value.message
    return caught.value


def crafted(*opcodes: bytes) -> bytes:
    return b"\x80\x02" + b"".join(opcodes) + b"."


def word(text: str) -> bytes:
    raw = text.encode()
    return b"X" + len(raw).to_bytes(4, "little") + raw


@pytest.mark.parametrize(
    ("program", "name"),
    [
        (crafted(b"cbuiltins\neval\n", word("1"), b"\x85R"), "builtins.eval"),
        (crafted(b"c__builtin__\ngetattr\n"), "__builtin__.getattr"),
        (b"\x80\x04" + word("torch._utils") + word("os.system") + b"\x93.", "torch._utils.os.system"),
        (crafted(b"ctorch\nload\n"), "torch.load"),
        (crafted(b"cnumpy\nfromfile\n"), "numpy.fromfile"),
        (crafted(b"ccollections.abc\nsys\n"), "collections.abc.sys"),
        (b"(S'true'\nios\nsystem\n.", "os.system"),
    ],
)
def test_names_are_matched_whole(tmp_path: Path, program: bytes, name: str) -> None:
    path = tmp_path / "m.pt"
    path.write_bytes(program)
    error = refused(path)
    assert error.code == "model.unsafe" and error.data["global"] == name


REBUILD = b"ctorch._utils\n_rebuild_tensor_v2\n"
STORAGE = b"(U\x07storagectorch\nFloatStorage\nU\x010U\x03cpuK\x04tQ"
TENSOR = REBUILD + b"(" + STORAGE + b"K\0K\x02\x85K\x01\x85\x89NtR"


@pytest.mark.parametrize(
    ("program", "reason"),
    [
        # A tensor that is changed after it was checked, a stand-in that is given another meaning, a class that is.
        (crafted(TENSOR, b"}U\x06offsetJ\x9c\xff\xff\xffsb"), "changes what it has made"),
        (crafted(b"ctorch\nFloatStorage\n}U\x05dtypeU\x03F64sb"), "changes what it has made"),
        (crafted(REBUILD, b"}U\x04callNsb"), "changes what it has made"),
        (crafted(b"ctorch.nn.modules.container\nParameterDict\n}U\x01aNsb"), "not a complete pickle"),
        # Sizes that are none.
        (crafted(TENSOR.replace(b"K\0K\x02", b"J\xff\xff\xff\xffK\x02")), "makes no sense"),
        (crafted(TENSOR.replace(b"K\x01\x85", b"J\xff\xff\xff\xff\x85")), "makes no sense"),
        (crafted(TENSOR.replace(b"K\x02\x85", b"K\x05\x85")), "beyond its storage"),
        (crafted(TENSOR.replace(b"K\x04tQ", b"K\x05tQ")), "shorter than its index says"),
        (crafted(TENSOR.replace(STORAGE, b"N")), "not a complete pickle"),
        (crafted(b"U\x01aQ"), "no storage"),
    ],
)
def test_what_the_machine_could_be_told_to_do_to_its_stand_ins(tmp_path: Path, program: bytes, reason: str) -> None:
    path = tmp_path / "m.pt"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("m/data.pkl", program)
        archive.writestr("m/data/0", bytes(16))
    error = refused(path)
    assert error.code == "model.corrupt" and reason in error.message
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("m/data.pkl", crafted(b"}U\x01a", TENSOR, b"s"))
        archive.writestr("m/data/0", bytes(16))
    assert pickle_header(path).shapes == {"a": (2,)}


def test_containers_too_deep_inside_one_another_do_not_end_the_process(tmp_path: Path) -> None:
    """The hash of a key of a million nested tuples ran over the end of the stack."""
    many = 1_000_000
    names = {
        "a key": crafted(b"}K\x01", b"\x85" * many, b"K\x01s"),
        "by the memo": crafted(b"}K\x01", b"\x85q\0h\0\x86" * (many // 5), b"K\x01s"),
        "of threes": crafted(b"}K\x01", b"NN\x87" * (many // 3), b"K\x01s"),
        "of marks": crafted(b"}(K\x01", b"t(" * 1000, b"K\x01s"),
        "a frozen set": b"\x80\x04}(K\x01\x91K\x01s.",
        "a long array": b"\x80\x05\x96" + (1 << 40).to_bytes(8, "little") + b".",
        "an extension": crafted(b"\x82\x01"),
    }
    code = (
        "import sys; from impasto_protocol.errors import ModelError\n"
        "from impasto_server.engine.pickles import pickle_header\n"
        "for path in sys.argv[1:]:\n"
        "    try: pickle_header(path)\n"
        "    except ModelError as error: print(error.code)\n"
    )
    for name, program in names.items():
        (tmp_path / name).write_bytes(program)
    env = {"PYTHONPATH": os.pathsep.join(sys.path)}
    paths = [str(tmp_path / name) for name in names]
    ran = subprocess.run([sys.executable, "-c", code, *paths], capture_output=True, text=True, env=env)
    assert ran.returncode == 0 and ran.stdout.split() == ["model.corrupt"] * len(names), ran.stderr
    # Lists and tables may lie as deep as they like: nothing follows them.
    (tmp_path / "lists").write_bytes(crafted(b"]" * 100_000, b"a" * 99_999))
    assert pickle_header(tmp_path / "lists").shapes == {}


@settings(max_examples=300, deadline=None)
@given(st.binary(max_size=120), st.sampled_from([b"", b"\x80\x02", b"\x80\x02c", b"\x80\x04"]))
def test_any_bytes_are_read_or_refused(tmp_path_factory: pytest.TempPathFactory, data: bytes, start: bytes) -> None:
    path = tmp_path_factory.getbasetemp() / "fuzz.pt"
    path.write_bytes(start + data)
    try:
        pickle_header(path)
    except ModelError as error:
        assert error.code in ("model.corrupt", "model.unsafe")


@pytest.mark.parametrize("zipped", [True, False])
def test_tensors_of_every_kind_are_what_was_saved(tmp_path: Path, zipped: bool) -> None:
    whole = torch.randn(6, 4)
    saved = {
        "plain": whole,
        "turned": whole.t(),
        "part of another": whole[2:4, 1:3],
        "parameter": torch.nn.Parameter(torch.randn(3)),
        "half": torch.randn(5).half(),
        "bfloat": torch.randn(5).bfloat16(),
        "long": torch.arange(3),
        "bytes": torch.arange(3, dtype=torch.uint8),
        "truth": torch.tensor([True, False]),
        "one": torch.tensor(2.5),
        "none": torch.empty(0, 3),
        "eight bits": torch.randn(4).to(torch.float8_e4m3fn),
    }
    path = tmp_path / "t.pt"
    torch.save(collections.OrderedDict(saved), path, _use_new_zipfile_serialization=zipped)
    header = pickle_header(path)
    assert header.shapes == {name: tuple(value.shape) for name, value in saved.items()}
    with open_pickle(path) as tensors:
        for name, value in saved.items():
            read = tensors.get_tensor(name)
            assert read.dtype == value.dtype and torch.equal(read.float(), value.detach().float()), name


def test_what_trainers_leave_in_a_checkpoint_is_passed_over(tmp_path: Path) -> None:
    state = collections.OrderedDict(a=torch.ones(2))
    state._metadata = {"": {"version": 1}}  # type: ignore[attr-defined]
    torch.save(
        {
            "epoch": 3,
            "global_step": np.int64(840000),
            "scores": np.float64(0.5),
            "callbacks": {"x": {"best": torch.tensor(0.1), "array": np.arange(3)}},
            "names": {"a", "b"},
            "size": torch.Size([1, 2]),
            "device": torch.device("cpu"),
            "state_dict": state,
        },
        tmp_path / "m.ckpt",
    )
    assert pickle_header(tmp_path / "m.ckpt").shapes == {"a": (2,)}


def test_the_class_that_lightning_leaves_as_a_key(tmp_path: Path) -> None:
    program = crafted(
        b"}U\x09callbacks}cpytorch_lightning.callbacks.model_checkpoint\nModelCheckpoint\n}U\x04bestNssU\x01aK\x01s"
    )
    (tmp_path / "m.ckpt").write_bytes(program)
    assert pickle_header(tmp_path / "m.ckpt").shapes == {}


@pytest.mark.parametrize("wrapper", ["state_dict", "params_ema", "params", "model"])
def test_wrapped_and_prefixed_tensors(tmp_path: Path, wrapper: str) -> None:
    torch.save({wrapper: {"module.a": torch.ones(2), "module.b": torch.ones(3)}, "step": 1}, tmp_path / "m.pth")
    assert pickle_header(tmp_path / "m.pth").shapes == {"a": (2,), "b": (3,)}


def test_the_smoothed_weights_go_before_the_others(tmp_path: Path) -> None:
    torch.save({"params": {"a": torch.zeros(2)}, "params_ema": {"a": torch.ones(2)}}, tmp_path / "m.pth")
    with open_pickle(tmp_path / "m.pth") as tensors:
        assert torch.equal(tensors.get_tensor("a"), torch.ones(2))


def test_parameter_dicts_of_old_embeddings(tmp_path: Path) -> None:
    torch.save({"string_to_param": torch.nn.ParameterDict({"x": torch.ones(2, 8)}), "step": 5}, tmp_path / "e.pt")
    assert pickle_header(tmp_path / "e.pt").shapes == {"string_to_param.x": (2, 8)}


def rewritten(path: Path, change: Callable[[str, bytes], tuple[str, bytes] | None], compress: int = 0) -> None:
    with zipfile.ZipFile(path) as archive:
        members = [(name, archive.read(name)) for name in archive.namelist()]
    with zipfile.ZipFile(path, "w", compress) as archive:
        for name, data in members:
            changed = change(name, data)
            if changed is not None:
                archive.writestr(*changed)


def test_damaged_archives(tmp_path: Path) -> None:
    path = tmp_path / "m.ckpt"
    changes: dict[str, Any] = {
        "missing": lambda n, d: None if n.endswith("data/0") else (n, d),
        "shorter": lambda n, d: (n, d[:-4]) if n.endswith("data/0") else (n, d),
        "byte order": lambda n, d: (n, b"big") if n.endswith("byteorder") else (n, d),
        "not one of": lambda n, d: None if n.endswith("data.pkl") else (n, d),
        "too long": lambda n, d: (n, d + bytes(9 << 20)) if n.endswith("data.pkl") else (n, d),
        "TorchScript": lambda n, d: (n.replace("version", "constants.pkl"), d),
    }
    for reason, change in changes.items():
        torch.save({"a": torch.ones(64)}, path)
        rewritten(path, change)
        error = refused(path)
        assert reason in error.message, error.message
        assert error.code == ("model.unsupported" if reason == "TorchScript" else "model.corrupt")
    torch.save({"a": torch.ones(64)}, path)
    rewritten(path, lambda n, d: (n, d), zipfile.ZIP_DEFLATED)
    assert "compressed" in refused(path).message


@pytest.mark.parametrize("zipped", [True, False])
def test_a_truncated_pickle_is_refused_at_every_length(tmp_path: Path, zipped: bool) -> None:
    path = tmp_path / "m.ckpt"
    torch.save({"a": torch.ones(100), "b": torch.ones(3)}, path, _use_new_zipfile_serialization=zipped)
    whole = path.read_bytes()
    for length in range(0, len(whole), 11):
        path.write_bytes(whole[:length])
        assert refused(path).code == "model.corrupt"


def test_files_with_the_wrong_ending_say_so(tmp_path: Path) -> None:
    save_file({"a": torch.ones(1)}, str(tmp_path / "really.ckpt"))
    torch.save({"a": torch.ones(1)}, tmp_path / "archive.safetensors")
    torch.save({"a": torch.ones(1)}, tmp_path / "old.safetensors", _use_new_zipfile_serialization=False)
    (tmp_path / "page.ckpt").write_text("<!DOCTYPE html><html>Log in</html>")
    (tmp_path / "page.safetensors").write_text("\n<html>Log in</html>")
    for name, said in (
        ("really.ckpt", "rename it to really.safetensors"),
        ("archive.safetensors", "rename it to archive.ckpt"),
        ("old.safetensors", "rename it to old.ckpt"),
        ("page.ckpt", "web page"),
        ("page.safetensors", "web page"),
    ):
        with pytest.raises(ModelError, match=said) as caught:
            header_of(tmp_path / name)
        assert caught.value.code == "model.corrupt"


# ---- whole checkpoints


@pytest.mark.parametrize("zipped", [True, False])
@torch.no_grad()
def test_a_pickled_checkpoint_computes_what_the_safetensors_one_does(tmp_path: Path, zipped: bool) -> None:
    safe = write_tiny_checkpoint(tmp_path / "a.safetensors")
    path = write_tiny_pickle(tmp_path / "b.ckpt", zipped=zipped)
    found = identify_file(path)
    assert isinstance(found, ModelInfo) and (found.kind, found.family) == ("checkpoint", "sd1")
    one, other = (load_checkpoint(p, device=CPU, dtype=torch.float32) for p in (safe, path))
    for part in ("unet", "vae", "text_encoder"):
        ours, theirs = getattr(one, part).state_dict(), getattr(other, part).state_dict()
        assert ours.keys() == theirs.keys() and all(torch.equal(ours[name], theirs[name]) for name in ours)
    assert one.identity != other.identity


def test_a_pickle_in_the_networks_format_stays_in_the_file(tmp_path: Path) -> None:
    """Where nothing is converted the tensors are views of the mapping."""
    path = write_tiny_pickle(tmp_path / "b.ckpt", half=False)
    name = "model.diffusion_model.input_blocks.0.0.weight"
    with open_model(path) as tensors:
        one, again = tensors.get_tensor(name), tensors.get_tensor(name)
        assert one.data_ptr() == again.data_ptr()
    assert torch.equal(one, tiny_tensors(half=False)[name]), "it outlives the context"


def test_listing_reads_the_index_alone(tmp_path: Path) -> None:
    """A file of 8 GB that is a hole is listed with 1 GB of memory, in a process without torch."""
    torch.save({"state_dict": {"a": torch.ones(4)}}, tmp_path / "small.ckpt")
    path = tmp_path / "large.ckpt"
    with zipfile.ZipFile(path, "w", allowZip64=True) as archive:
        program = crafted(
            b"}U\x01a",
            TENSOR.replace(b"K\x04t", b"\x8a\x05\0\0\0\x80\0t").replace(b"K\x02\x85", b"\x8a\x05\0\0\0\x80\0\x85"),
            b"s",
        )
        archive.writestr("m/data.pkl", program)
        info = zipfile.ZipInfo("m/data/0")
        with archive.open(info, "w", force_zip64=True) as member:
            member.write(b"")
        assert archive.fp is not None
        hole = 4 * 0x80000000
        info.file_size = info.compress_size = hole
        archive.start_dir += hole
        archive.fp.seek(archive.start_dir)
    code = (
        "import sys, resource; resource.setrlimit(resource.RLIMIT_AS, (1 << 30, 1 << 30));"
        "from impasto_server.engine.pickles import pickle_header;"
        f"print(pickle_header({str(path)!r}).shapes, 'torch' in sys.modules)"
    )
    env = {"PYTHONPATH": os.pathsep.join(sys.path)}
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=env)
    assert ran.stdout.split("}") == ["{'a': (2147483648,)", " False\n"], ran.stderr


def test_facts_of_a_pickle_come_from_its_sidecar(tmp_path: Path) -> None:
    path = write_tiny_pickle(tmp_path / "b.ckpt")
    (tmp_path / "b.json").write_text(json.dumps({"impasto.config": {**FACTS, "native_size": 128}}))
    found = identify_file(path)
    assert isinstance(found, ModelInfo) and found.native_size == 128
