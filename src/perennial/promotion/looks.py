"""What monitoring found in windows of rows: one line of the registry for each window of a version.

Drift that is seen today may have begun earlier, which these lines tell. They hold aggregates alone.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import sqlalchemy as sa

from perennial.promotion.schema import looks

# windows of one version that are remembered
KEPT = 1_000


@dataclass(frozen=True)
class Look:
    """What was found in a window.

    Attributes:
        window: Fingerprint of its rows.
        position: 1, 2, … in the order in which the version's windows were looked at.
        looked_at: When it first was, aware.
        found: Plain values.
    """

    window: str
    position: int
    looked_at: datetime
    found: Mapping[str, Any]


def listed(connection: sa.Connection, name: str, number: int) -> list[Look]:
    """A version's looks in their order."""
    query = sa.select(looks).where(looks.c.name == name, looks.c.number == number)
    return [_look(row) for row in connection.execute(query.order_by(looks.c.position))]


def keep(
    connection: sa.Connection, name: str, number: int, window: str, looked_at: datetime, found: str
) -> Look:
    """Record a look, or replace what it found; place and time stay. The oldest beyond `KEPT` go."""
    own = sa.and_(looks.c.name == name, looks.c.number == number)
    this = sa.and_(own, looks.c.window == window)
    row = connection.execute(sa.select(looks).where(this)).first()
    if row is None:
        last = connection.scalar(sa.select(sa.func.max(looks.c.position)).where(own)) or 0
        values = {"position": last + 1, "looked_at": looked_at.astimezone(UTC).isoformat()}
        key = {"name": name, "number": number, "window": window}
        connection.execute(looks.insert().values(**key, **values, found=found))
        connection.execute(looks.delete().where(own, looks.c.position <= last + 1 - KEPT))
    else:
        connection.execute(looks.update().where(this).values(found=found))
    return _look(connection.execute(sa.select(looks).where(this)).one())


def _look(row: Any) -> Look:
    moment = datetime.fromisoformat(row.looked_at)
    return Look(row.window, row.position, moment, json.loads(row.found))
