"""Writes vectors.json: one example of every message as a map and as bytes. Run it when the protocol gains a message.

The file is the contract for implementations in other languages: existing entries must not change within a major
version, so look at the difference before committing it.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from impasto_protocol import messages as m
from impasto_protocol.codec import encode
from impasto_protocol.geometry import Box, Size
from impasto_protocol.pairing import (
    Pair,
    Paired,
    PairOpen,
    PairOpened,
    PairRevoke,
    client_proof,
    code_key,
    server_proof,
)
from impasto_protocol.schema import Intent, Mode, ModeInput, Param
from impasto_protocol.version import Limits

JOB = "9f1c2e64d7a84f7db5e2c1a07b6f3d21"
PIXELS = bytes(range(16))
FILE = "a3d41f0c99e25b78"
DIGEST = "09ac8c5c4e6d3a9f4f1cd0d5a1ad5a09"

LIMITS = Limits(2097152, 1048576, 4, 1073741824, 268435456, 16, 256)
INTENDED = Mode(
    *("inpaint", "Inpaint selection", "", (), ()),
    intents=(Intent("expand", "Expand", "Paint on.", {"strength": 1.0, "masked_content": "fill"}, True),),
)
MODE = Mode(
    "inpaint",
    "Inpaint selection",
    "Paint the selected region anew.",
    (ModeInput("image", "image", "Picture"), ModeInput("mask", "mask", "Selection")),
    (
        Param("steps", "integer", 20, "Steps", minimum=1, maximum=150, step=1),
        Param("padding", "number", "auto", "Padding", minimum=0, maximum=512, auto=True, ui={"unit": "px"}),
        Param("model", "string", "", "Model", choices={"from": "models", "kind": "checkpoint"}),
    ),
)

CODE = "K7QXM2RD"
SALT = bytes(range(32))
FINGERPRINT = bytes(range(64, 96))
PAIRED_TOKEN = "a token of one's own"
KEY = code_key(CODE, SALT)

CLIENT = (
    m.Hello((1, 0), m.ClientInfo("impasto_client", "0.1.0", "krita 5.2.9"), "s3cret"),
    m.CatalogRequest(1),
    m.CatalogRequest(2, "a1b2"),
    m.Plan(3, "inpaint", {"steps": 20, "prompt": "a red apple"}, Size(1920, 1080), Box(300, 200, 64, 48)),
    m.Have(4, (DIGEST,)),
    m.Put(DIGEST, 16, 0, PIXELS),
    m.Submit(
        5,
        JOB,
        "inpaint",
        {"prompt": "a red apple", "strength": 0.75, "seed": -1},
        Size(1920, 1080),
        {"image": m.InputPicture(DIGEST, 2, 2, "bgra8", 300, 200)},
        "bgra8",
        m.PreviewWish(384, 150),
    ),
    m.Submit(
        *(11, JOB, "txt2img", {"prompt": "a red apple"}, Size(1920, 1080)),
        box=Box(300, 200, 512, 512),
        on_disconnect="cancel",
        priority="front",
        replaces="0" * 32,
    ),
    m.Submit(
        *(24, JOB, "txt2img", {"prompt": "a red apple", "batch": 4}, Size(512, 512)),
        then=(
            m.ChainLink("upscale", {"scale": 4.0}, 2),
            m.ChainLink("refine", {"prompt": "a red apple", "strength": 0.3}),
        ),
    ),
    m.Cancel(6, JOB),
    m.Jobs(7),
    m.Attach(8, JOB, 2),
    m.Get(9, DIGEST, 0, 1048576),
    m.Shutdown(10),
    m.ModelsRequest(12, "lora", "ink wash", "200", 50),
    m.History(13, "20260102-101500-000001", 20, "red apple", JOB, True, True),
    m.Star(14, JOB, 0, True),
    m.Share(15, bytes(range(32)), bytes(range(32, 64))),
    m.Room(16, 67108864),
    m.Filled(17, FILE, 3),
    m.GetFile(18, DIGEST),
    m.Release(19, FILE, 4),
    m.PutNew(20, 16, 0, PIXELS),
    m.ReadParameters(21, "a red apple\nSteps: 20, Sampler: Euler, Seed: 42, Tiling: True"),
    m.ReadParameters(22, data=b"\x89PNG\r\n\x1a\n"),
    m.ReadParameters(23, digest=DIGEST),
    m.Doctor(24),
    Pair(
        *((1, 5), m.ClientInfo("impasto_client", "0.1.0", "krita 5.2.9"), "ada's laptop"),
        *(SALT, client_proof(KEY, SALT, FINGERPRINT)),
    ),
    PairOpen(24),
    PairRevoke(25, "ada's laptop"),
    m.Free(28),
    m.Further(26, "img2img", JOB, 2),
    m.Further(27, "hires", info={"mode": "txt2img", "params": {"seed": 42}}),
    m.WordsRequest(29, "tag", "long ha", 8),
)
SERVER = (
    m.Welcome((1, 0), m.ServerInfo("impasto", "0.1.0", "cpu"), LIMITS, "a1b2"),
    m.Catalog(
        1,
        "a1b2",
        (MODE,),
        ({"id": "tiny", "kind": "checkpoint", "title": "Tiny"},),
        ("euler",),
        ("karras",),
        "cpu, fp32",
        1,
    ),
    m.NotModified(2),
    m.PlanOk(3, Box(268, 168, 128, 112), Size(512, 448), 12, 20, 8.5, ("The region is small.",)),
    m.HaveOk(4, (DIGEST,)),
    m.PutOk(DIGEST, 16),
    m.Accepted(5, JOB, 0),
    m.Ok(6),
    m.JobsOk(7, (m.JobEntry(JOB, "running", "inpaint", 1735689600.5, 2),)),
    m.Data(9, DIGEST, 0, 16, PIXELS),
    m.Error("request.invalid_param", "Steps must be at least 1.", False, 5, JOB, "params.steps", {"need": "1"}),
    m.Error("protocol.bad_message", "The frame is text; send binary frames."),
    m.Queued(JOB, 1, 0),
    m.Started(JOB, 2),
    m.Progress(JOB, "generate", 5, 20, 0.25),
    m.Preview(JOB, b"\xff\xd8\xff\xd9", 96, 84, 5),
    m.Output(
        *(JOB, 3, 0, DIGEST, 2, 2, "bgra8", Box(300, 200, 2, 2), "a red apple", "generate", "soft", 42),
        {"mode": "inpaint", "params": {"seed": 42}},
    ),
    m.Finished(JOB, 4, (DIGEST,), (42,), {"generate": 8.25}, {"device": "cpu"}),
    m.Failed(JOB, 4, m.ErrorInfo("resource.out_of_memory", "Use a smaller size.", True, None, {"needed": 4096})),
    m.Cancelled(JOB, 4),
    m.CatalogChanged("c3d4"),
    m.WordsOk(29, (m.Word("long hair", 4350743), m.Word("very long hair", 0, "longer hair"))),
    m.ModelsOk(12, "a1b2", ({"id": "ink", "kind": "lora", "title": "Ink"},), 251, "250"),
    m.HistoryOk(
        13,
        (
            m.HistoryEntry(
                *(JOB, 0, 1735689600.5, DIGEST, 2, 2, "bgra8", Box(300, 200, 2, 2), "a red apple", "inpaint"),
                *("generate", "soft", 42, True, {"mode": "inpaint", "params": {"seed": 42}}),
            ),
        ),
        1,
    ),
    m.Welcome(
        *((1, 1), m.ServerInfo("impasto", "0.1.0", "cpu"), LIMITS, "a1b2"),
        m.SpoolInfo("/home/ada/.local/share/impasto/spool", "5f0e9c1b7d2a4e86"),
    ),
    m.RoomOk(16, FILE, 3, "d" * 32),
    m.File(18, DIGEST, FILE, 4, 67108864),
    m.Position(JOB, 2),
    m.PutNewOk(20, 8),
    m.PutNewOk(20, 16, DIGEST),
    m.Parameters(
        21,
        "txt2img",
        {"prompt": "a red apple", "steps": 20, "sampler": "euler", "seed": 42},
        (m.ParameterNote("unsupported", "Tiling", "True", "There is no setting for it here: seamless textures."),),
        "AUTOMATIC1111 v1.10.1",
    ),
    m.PlanOk(3, Box(0, 0, 1024, 1024), Size(512, 512), 0, 40, 8.5, (), Size(1024, 1024), 2),
    m.Catalog(
        *(28, "a1b2", (), (), (), (), "cpu, fp32", 1),
        ({"id": "fast:lcm", "title": "Fast: LCM, 6 steps", "family": "sd1", "params": {"steps": 6, "cfg": 1.5}},),
    ),
    m.Catalog(29, "a1b3", (INTENDED,), (), (), (), "cpu, fp32", 0),
    m.DoctorOk(24, "ok    impasto   Impasto 0.1.0\nBAD   disk      0.4 GiB free\n", 1),
    Paired("ada's laptop", PAIRED_TOKEN, server_proof(KEY, SALT, FINGERPRINT, PAIRED_TOKEN)),
    PairOpened(24, CODE, 600, ("127.0.0.1:40123", "192.168.1.20:7867"), FINGERPRINT.hex()),
)

REFUSED = (
    ("empty frame", b"", "protocol.bad_message"),
    ("not a map", b"\x93\x01\x02\x03", "protocol.bad_message"),
    ("truncated", encode({"type": "jobs", "id": 7})[:-1], "protocol.bad_message"),
    ("trailing byte", encode({"type": "jobs", "id": 7}) + b"\xc0", "protocol.bad_message"),
    ("integer key", b"\x81\x01\x02", "protocol.bad_message"),
    ("extension type", b"\x81\xa1a\xd4\x05\x00", "protocol.bad_message"),
    ("timestamp", b"\x81\xa1a\xd6\xff\x00\x00\x00\x00", "protocol.bad_message"),
    ("integer beyond 2^53", b"\x81\xa1a\xcf\x00\x20\x00\x00\x00\x00\x00\x01", "protocol.bad_message"),
    ("no UTF-8", b"\x81\xa1a\xa1\xff", "protocol.bad_message"),
    ("20 levels", b"\x81\xa1a" + b"\x91" * 20 + b"\xc0", "protocol.bad_message"),
    ("100000 levels", b"\x81\xa1a" + b"\x91" * 100000 + b"\xc0", "protocol.bad_message"),
    ("list that claims 2^32-1 entries", b"\x81\xa1a\xdd\xff\xff\xff\xff", "protocol.bad_message"),
    ("no type", b"\x80", "protocol.bad_message"),
    ("unknown type", encode({"type": "dance", "id": 1}), "protocol.unknown_type"),
    ("missing field", encode({"type": "cancel", "id": 1}), "protocol.bad_message"),
    ("wrong type of a field", encode({"type": "cancel", "id": "1", "job": JOB}), "protocol.bad_message"),
    (
        "a wish that is none",
        encode({**m.Submit(1, JOB, "txt2img", {}, Size(8, 8)).to_wire(), "on_disconnect": "maybe"}),
        "protocol.bad_message",
    ),
    ("a page of no entries", encode({"type": "history", "id": 1, "limit": 0}), "protocol.bad_message"),
    (
        "spool file with a path",
        encode({"type": "filled", "id": 1, "name": "../x", "generation": 1}),
        "protocol.bad_message",
    ),
    (
        "pairing without a proof",
        encode(
            {"type": "pair", "protocol": [1, 5], "client": {"name": "x", "version": "1"}, "name": "x", "salt": SALT}
        ),
        "protocol.bad_message",
    ),
    ("job id with a path", encode({"type": "cancel", "id": 1, "job": "../../x"}), "protocol.bad_message"),
)


def plain(value: Any) -> Any:
    """JSON has no bytes: they are {"hex": ...} in the file."""
    if isinstance(value, dict):
        return {k: plain(v) for k, v in value.items()}
    if isinstance(value, list):
        return [plain(v) for v in value]
    return {"hex": bytes(value).hex()} if isinstance(value, (bytes, bytearray, memoryview)) else value


def run_lengths(data: bytes) -> str:
    """Hex, but a byte that is repeated more than 64 times is written once, followed by *count."""
    out, i = [], 0
    while i < len(data):
        j = i
        while j < len(data) and data[j] == data[i]:
            j += 1
        out.append(data[i : i + 1].hex() + f"*{j - i} " if j - i > 64 else data[i:j].hex())
        i = j
    return "".join(out)


def main() -> None:
    vectors = {
        "about": "Frames of the Impasto wire, protocol 1.12; bytes in maps are {'hex': ...}; XX*N is a byte N times.",
        "client": [{"map": plain(x.to_wire()), "frame": encode(x.to_wire()).hex()} for x in CLIENT],
        "server": [{"map": plain(x.to_wire()), "frame": encode(x.to_wire()).hex()} for x in SERVER],
        "pairing": [
            {
                "code": CODE,
                "salt": SALT.hex(),
                "fingerprint": fingerprint.hex(),
                "token": PAIRED_TOKEN,
                "key": KEY.hex(),
                "client_proof": client_proof(KEY, SALT, fingerprint).hex(),
                "server_proof": server_proof(KEY, SALT, fingerprint, PAIRED_TOKEN).hex(),
            }
            for fingerprint in (FINGERPRINT, b"")
        ],
        "refused": [{"what": what, "frame": run_lengths(frame), "code": code} for what, frame, code in REFUSED],
    }
    Path(__file__).with_name("vectors.json").write_text(json.dumps(vectors, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
