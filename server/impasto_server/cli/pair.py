"""`impasto pair`: the code by which another computer or a sandboxed editor gets a token; the list of them."""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager

from impasto_client.client import Client
from impasto_client.endpoint import read_endpoint
from impasto_client.paired import read_paired, write_paired
from impasto_client.pairing import pair
from impasto_protocol.errors import ResourceError
from impasto_protocol.home import home_folder, pairings_file
from impasto_protocol.messages import Ok
from impasto_protocol.pairing import PairOpen, PairOpened, PairRevoke, shown_code

from ..service.home import ensure_home, single_instance
from ..service.pairings import PairedClient, Pairings
from .generate import client_info

__all__ = ["add_arguments", "run"]


def add_arguments(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the verb `pair`."""
    parser = subparsers.add_parser("pair", help="let another computer or a sandboxed editor use this server")
    what = parser.add_mutually_exclusive_group()
    what.add_argument("--list", action="store_true", help="who has been paired with this server")
    what.add_argument("--revoke", metavar="NAME", help="take a paired computer's access back")
    what.add_argument(
        "--with",
        dest="server",
        nargs=2,
        metavar=("ADDRESS", "CODE"),
        help="make the editors of this computer use the server at ADDRESS, which shows CODE",
    )
    what.add_argument("--use", metavar="ADDRESS", help="go back to a server that was paired with before")
    what.add_argument("--here", action="store_true", help="make the editors use this computer's own server again")


def run(args: argparse.Namespace) -> int:
    """Do what was asked; a code where nothing else was."""
    if args.server:
        server = pair(args.server[0], args.server[1], client_info())
        print(f"Paired with {server.name}; the editors of this computer use it now. `impasto pair --here` ends that.")
    elif args.use or args.here:
        write_paired(read_paired().choose(args.use or ""))
        print(f"The editors of this computer use {args.use or 'its own server'} now.")
    elif args.list:
        _list()
    elif args.revoke:
        _revoke(args.revoke)
    else:
        _open()
    return 0


def _open() -> None:
    with _server() as client:
        if client is None:
            raise ResourceError(
                "resource.server_start",
                "No server is running to pair with; start it with `impasto serve`, for other computers with "
                "`impasto serve --host ADDRESS --tls`.",
            )
        told = client.ask(PairOpen, PairOpened)
    print(f"Code:     {shown_code(told.code)}    (for one computer or editor, {told.seconds // 60} minutes)")
    for number, address in enumerate(told.addresses):
        where = "an editor on this computer" if number == 0 else "another computer"
        print(f"Address:  {address}    ({where})")
    if len(told.addresses) == 1:
        print("Other computers cannot reach this server; `impasto serve --host ADDRESS --tls` lets them.")
    print("Type both in the editor, or there: impasto pair --with ADDRESS CODE")


def _list() -> None:
    clients = _kept().clients
    if not clients:
        print("Nobody has been paired with this server.", file=sys.stderr)
    for client in clients:
        print(f"{client.name}    {client.client}, paired {_day(client.created)}, {_last(client)}")


def _revoke(name: str) -> None:
    with _server() as client:
        if client is not None:
            client.ask(lambda id: PairRevoke(id, name), Ok)
        else:
            ensure_home(home_folder())
            with single_instance(home_folder()):
                _kept().revoke(name)
    print(f"{name} can no longer use this server.")


def _kept() -> Pairings:
    return Pairings(pairings_file(home_folder()))


@contextmanager
def _server() -> Iterator[Client | None]:
    """A client of the running server as its own user, or None where none runs."""
    endpoint = read_endpoint(home_folder())
    if endpoint is None:
        yield None
        return
    client = Client.connect(endpoint, client_info(), lambda message: None, lambda error: None, files=False)
    try:
        yield client
    finally:
        client.close()


def _last(client: PairedClient) -> str:
    return f"last here {_day(client.used)}" if client.used else "not here since"


def _day(seconds: float) -> str:
    return time.strftime("%Y-%m-%d %H:%M", time.localtime(seconds))
