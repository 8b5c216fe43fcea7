"""`mmaudio serve`: the web page and the HTTP service."""

import argparse
import ipaddress
import socket
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING

from mmaudio.console import UsageError, log, usable_device

if TYPE_CHECKING:
    from fastapi import FastAPI

    from mmaudio.web.jobs import Engine

HELP = """\
A web page for people, and an HTTP service for programs (described at /docs).

examples:
  mmaudio serve
  mmaudio serve --host 0.0.0.0 --token "$(openssl rand -hex 16)" --queue 50
"""
INSTALL = "pip install 'mmaudio[web]'"


def add_serve_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--host", default="127.0.0.1", help="address to listen on (%(default)s: this machine alone; 0.0.0.0: anybody)"
    )
    parser.add_argument("--port", type=int, default=7860, help="(%(default)s)")
    parser.add_argument(
        "--token", help="let in only those who know it: as bearer token, or as the password that browsers ask for"
    )
    parser.add_argument(
        "--variant", default="auto", help="the one that is used unless another is asked for (the best on this machine)"
    )
    parser.add_argument("--device", help="cpu, cuda, cuda:1, mps (default: the best one here)")
    parser.add_argument(
        "--output", default="output/server", metavar="DIR",
        help="jobs and results, which are deleted after an hour (%(default)s)",
    )  # fmt: skip
    parser.add_argument("--queue", type=int, default=16, metavar="N", help="jobs that may wait (%(default)s)")
    parser.add_argument(
        "--disk", type=float, default=20.0, metavar="GB",
        help="of finished results; the oldest go before their time if there are more (%(default)g)",
    )  # fmt: skip
    parser.set_defaults(run=serve)


def serve(args: argparse.Namespace) -> int:
    if args.token is not None and not args.token.strip():  # an unset shell variable
        raise UsageError("--token is empty: give one, or leave the option out")
    if args.queue < 1:
        raise UsageError(f"--queue {args.queue}: must be at least 1")
    if not args.disk > 0:  # NaN is not
        raise UsageError(f"--disk {args.disk:g}: must be above 0")
    if not args.host:  # would be anybody
        raise UsageError("--host is empty: give an address, or leave the option out")
    if not args.output:
        raise UsageError("--output is empty: give a folder")
    device = usable_device(args.device)
    try:
        from mmaudio.web.guard import own_names
        from mmaudio.web.server import Server
        from mmaudio.web.service import create_app
    except ModuleNotFoundError as error:
        raise UsageError(f"serving needs {error.name}: {INSTALL}") from error
    with closing(listen(args.host, args.port)) as listening, closing(make_engine(args, device)) as engine:
        host, port = listening.getsockname()[:2]
        hosts = own_names(args.host) if args.token is None and is_loopback(host) else None
        app = create_app(engine, args.token, hosts)
        has_page = mount_page(app, engine)
        address = f"http://{f'[{host}]' if ':' in host else host}:{port}/"
        log(f"variants: {', '.join(engine.variants)}; up to {args.queue} jobs wait; results in {args.output}")
        if args.token is None and not is_loopback(host):
            log("note: anybody who reaches this machine can use it; --token keeps strangers out")
        log(f"{address if has_page else address + 'docs'} (Ctrl-C stops)")
        Server(app, engine).run(sockets=[listening])
    return 0


def make_engine(args: argparse.Namespace, device) -> "Engine":
    from mmaudio.catalogue import best_installed, load, whereabouts
    from mmaudio.variants import VARIANTS
    from mmaudio.web.jobs import Engine

    name = best_installed() if args.variant == "auto" else args.variant
    first = load(name, device)  # weights that are missing are fetched before anybody waits for them
    others = [v for v in VARIANTS.values() if whereabouts(v, v.files.present.values()) != "missing"]
    variants = {variant.name: variant for variant in (first.variant, *others)}

    def pipeline(wanted: str):
        return load(name if wanted == first.variant.name else wanted, device)

    return Engine(
        pipeline, Path(args.output), variants, max_queue=args.queue, max_batch=8 if first.device.type == "cuda" else 2,
        max_disk=args.disk * 1e9,
    )  # fmt: skip


def listen(host: str, port: int) -> socket.socket:
    """Bound before anything is loaded. Raises UsageError."""
    try:
        return socket.create_server((host, port), family=socket.AF_INET6 if ":" in host else socket.AF_INET)
    except (OSError, OverflowError) as error:  # a port over 65535 overflows
        raise UsageError(f"cannot listen on {host}:{port} ({error}); choose another --host or --port") from error


def is_loopback(host: str) -> bool:
    return ipaddress.ip_address(host).is_loopback


def mount_page(app: "FastAPI", engine: "Engine") -> bool:
    """The page at "/"; False, with a line that says how to get it, if its library is missing."""
    try:
        from mmaudio.web.page import mount
    except ModuleNotFoundError as error:
        log(f"no web page, as {error.name} is missing: {INSTALL}")
        return False
    mount(app, engine)
    return True
