"""Flower: the real one, on our Celery app, with a page for pods (`monitoring.pods_page`). `podyard flower` runs it.

Flower can start and revoke tasks, so whoever reaches its API can run programs. Without a password its API stays off
(Flower's own rule), and an address that other machines reach is refused.
"""

import ipaddress
import os
from collections.abc import Mapping

from celery import Celery

from routing.config import sections
from routing.config.settings import Settings
from routing.standalone import part, part_errors


def run(settings: Settings, *, app: Celery) -> None:
    """Serve until SIGTERM or SIGINT. Raises EmbeddedError for settings that are not safe or a port in use."""
    arguments = command_line(settings.flower, environ=os.environ)
    part.require_free_port(settings.flower.address, settings.flower.port, setting="flower.port")
    from routing.monitoring import pods_page

    pods_page.install(settings.database.url)
    # In this process: our page is put into Flower's own tables, and the password stands on no command line.
    app.start(["flower", *arguments])


def command_line(flower: sections.Flower, *, environ: Mapping[str, str]) -> list[str]:
    """The options that Flower gets from us; others are set as it documents: `FLOWER_…` variables, flowerconfig.py."""
    has_password = flower.basic_auth or environ.get("FLOWER_BASIC_AUTH") or environ.get("FLOWER_AUTH")
    if not has_password and not _is_loopback(flower.address):
        raise part_errors.EmbeddedError(
            f"flower.address = {flower.address!r} can be reached from other machines and Flower has no password:"
            " set flower.basic_auth to user:password, or flower.address to 127.0.0.1"
        )
    arguments = [f"--address={flower.address}", f"--port={flower.port}"]
    if flower.basic_auth:
        arguments.append(
            f"--basic_auth={flower.basic_auth}"
        )  # seen by this process alone: it is no argument of a program
    return arguments


def _is_loopback(address: str) -> bool:
    try:
        return ipaddress.ip_address(address).is_loopback
    except ValueError:
        return address == "localhost"
