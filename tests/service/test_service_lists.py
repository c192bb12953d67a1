"""A catalogue of ten thousand models: the message stays small, pages and search give the rest."""

from __future__ import annotations

import asyncio
import itertools
from pathlib import Path
from typing import Any

from impasto_client.client import Client
from impasto_client.endpoint import Endpoint
from impasto_client.transfers import whole_catalog
from impasto_protocol import messages as wire
from impasto_protocol.home import Endpoint as Record
from impasto_server.service.catalogue import Model
from impasto_server.service.facts import Facts

from tests.service.fakes import TOKEN, connected, running, settings_for


def many() -> tuple[Model, ...]:
    """300 checkpoints, then 9,700 others."""
    checkpoints = [Model(f"dream-{n:03d}", Path(f"dream-{n:03d}"), Facts("checkpoint", "sd1")) for n in range(300)]
    loras = [Model(f"ink-{n:04d}", Path(f"ink-{n:04d}"), Facts("lora", "sd1", title=f"Ink {n}")) for n in range(9700)]
    return (*checkpoints, *loras)


def client_of(record: Record, sent: list[str]) -> Client:
    """A blocking client that notes the types of its requests."""
    endpoint = Endpoint(record.host, record.port, TOKEN, record.pid, record.version, record.protocol)
    client = Client.connect(endpoint, wire.ClientInfo("test", "0"), lambda message: None, lambda error: None)
    send = client._connection.send

    def noted(message: wire.Message) -> bytes:
        sent.append(message.TYPE)
        return send(message)

    client._connection.send = noted  # type: ignore[method-assign]
    return client


def test_pages_of_models(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with running(settings_for(tmp_path)) as (server, endpoint), connected(endpoint) as peer:
            server.catalogue.models = many()
            catalog: Any = await peer.ask(wire.CatalogRequest)
            assert len(catalog.models) == 200 and catalog.models_total == 10000
            kinds = [m["kind"] for m in catalog.models]
            assert kinds == ["checkpoint"] * 100 + ["lora"] * 100, "every kind has its share of the first page"
            page: Any = await peer.ask(wire.ModelsRequest, "lora", limit=10**6)
            assert len(page.models) == 500 and page.total == 9700 and page.rev == catalog.rev
            following: Any = await peer.ask(wire.ModelsRequest, "lora", after=page.next, limit=3)
            assert [m["id"] for m in following.models] == ["ink-0500", "ink-0501", "ink-0502"]
            found: Any = await peer.ask(wire.ModelsRequest, search="INK 424")
            assert {m["id"] for m in found.models} >= {"ink-0424", "ink-4240"} and found.next is None
            assert all("424" in m["id"] for m in found.models)
            last: Any = await peer.ask(wire.ModelsRequest, after="9" * 4000)
            assert last.models == () and last.next is None
            for bad in ("x", "-1", "²"):
                refused: Any = await peer.ask(wire.ModelsRequest, after=bad)
                assert (refused.code, refused.path) == ("request.invalid_param", "after")

    asyncio.run(scenario())


def test_the_client_asks_for_pages_as_it_needs_them(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with running(settings_for(tmp_path)) as (server, endpoint):
            server.catalogue.models = many()

            def use() -> None:
                sent: list[str] = []
                client = client_of(endpoint, sent)
                try:
                    models = client.models("lora", page=50)
                    assert sent == []
                    assert [m["id"] for m in itertools.islice(models, 60)][-1] == "ink-0059"
                    assert sent == ["models"] * 2
                    assert len({m["id"] for m in client.models(page=500)}) == 10000
                    # What the editor's list is made of holds every checkpoint.
                    catalog = client.catalog()
                    assert catalog is not None
                    whole = whole_catalog(client, catalog)
                    ids = [m["id"] for m in whole.models]
                    assert ids[:300] == [f"dream-{n:03d}" for n in range(300)] and whole.models_total == 10000
                    assert ids[300:] == [f"ink-{n:04d}" for n in range(1000)], "and the first of what else is chosen"
                finally:
                    client.close()

            await asyncio.to_thread(use)

    asyncio.run(scenario())


def test_the_client_reads_the_history(tmp_path: Path) -> None:
    from tests.service.fakes import ask_submit

    async def scenario() -> None:
        async with running(settings_for(tmp_path)) as (_, endpoint), connected(endpoint) as peer:
            await ask_submit(peer, "j", params={"steps": 1, "prompt": "many"})
            await peer.end("j")

            def use() -> None:
                client = client_of(endpoint, [])
                try:
                    entries = list(client.history(page=2, info=True))
                    assert [e.index for e in entries] == [2, 1, 0] and entries[0].info is not None
                    assert len(client.fetch(entries[0].digest)) == entries[0].width * entries[0].height * 4
                    client.star("j", 1)
                    assert [e.index for e in client.history(starred=True)] == [1]
                finally:
                    client.close()

            await asyncio.to_thread(use)

    asyncio.run(scenario())
