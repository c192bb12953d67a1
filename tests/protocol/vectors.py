"""Checks vectors.json against the codec and the messages; Python 3.8, no pytest, run on every interpreter."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

from impasto_protocol.codec import decode, encode
from impasto_protocol.errors import ProtocolError
from impasto_protocol.messages import CLIENT_MESSAGES, SERVER_MESSAGES, parse
from impasto_protocol.pairing import client_proof, code_key, server_proof
from impasto_protocol.version import Limits

__all__ = ["check_vectors", "load_vectors", "with_bytes"]


def load_vectors() -> Any:
    return json.loads(Path(__file__).with_name("vectors.json").read_text(encoding="utf-8"))


def check_vectors() -> int:
    """Every vector; how many there are. AssertionError names the first that does not hold."""
    vectors, checked = load_vectors(), 0
    for side, table in (("client", CLIENT_MESSAGES), ("server", SERVER_MESSAGES)):
        for vector in vectors[side]:
            frame, fields = bytes.fromhex(vector["frame"]), with_bytes(vector["map"])
            assert decode(frame, Limits()) == fields, vector
            message = parse(fields, table)
            assert encode(message.to_wire()) == frame, vector
            assert parse(message.to_wire(), table) == message, vector
            checked += 1
    for vector in vectors["pairing"]:
        salt, fingerprint = bytes.fromhex(vector["salt"]), bytes.fromhex(vector["fingerprint"])
        key = code_key(vector["code"], salt)
        assert key.hex() == vector["key"]
        assert client_proof(key, salt, fingerprint).hex() == vector["client_proof"]
        assert server_proof(key, salt, fingerprint, vector["token"]).hex() == vector["server_proof"]
        checked += 1
    for vector in vectors["refused"]:
        try:
            parse(decode(_expanded(vector["frame"]), Limits()), CLIENT_MESSAGES)
        except ProtocolError as error:
            assert error.code == vector["code"], (vector["what"], error)
            assert error.message.endswith("."), vector["what"]
        else:
            raise AssertionError("accepted: " + vector["what"])
        checked += 1
    return checked


def with_bytes(value: Any) -> Any:
    if isinstance(value, dict):
        if list(value) == ["hex"]:
            return bytes.fromhex(value["hex"])
        return {k: with_bytes(v) for k, v in value.items()}
    return [with_bytes(v) for v in value] if isinstance(value, list) else value


def _expanded(text: str) -> bytes:
    return bytes.fromhex(re.sub(r"(..)\*(\d+) ", lambda m: m.group(1) * int(m.group(2)), text))
