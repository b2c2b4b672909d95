"""How every page is made from its template."""

from __future__ import annotations

from jinja2 import Environment, PackageLoader, StrictUndefined


def pages() -> Environment:
    """Templates of this room: what they are given is escaped, and what they miss is an error."""
    return Environment(
        loader=PackageLoader("perennial.reporting", "."),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
