"""The rows of a query as a source."""

from __future__ import annotations

from collections.abc import Mapping
from decimal import Decimal
from typing import Any

import pyarrow as pa
import sqlalchemy as sa

from perennial.errors import DataError


def is_query(spec: Any) -> bool:
    """Whether a source is ``{sql: QUERY, url: DATABASE}``."""
    return isinstance(spec, Mapping) and "sql" in spec


def has_password(spec: Mapping[str, Any]) -> bool:
    """Whether a query's address holds a password."""
    return sa.make_url(str(spec["url"])).password is not None


def read_query(spec: Mapping[str, Any], *, where: str) -> pa.Table:
    """Run a query and take all of its rows; nothing that it may have changed is kept.

    Args:
        spec: ``sql``, and ``url`` as SQLAlchemy writes one.
        where: The source, for messages; the address is masked in it.

    Raises:
        DataError: A key is missing or unknown, the database is not to be reached, the query is
            refused, or a column's values have no common type.
    """
    if set(spec) != {"sql", "url"} or not all(isinstance(one, str) for one in spec.values()):
        raise DataError(
            f"A query takes sql and url, as text; here are {', '.join(map(str, spec))}.",
            where=where,
            mend='write \'{sql: "select ...", url: "postgresql://..."}\'',
        )
    try:
        url = sa.make_url(spec["url"])
        engine = sa.create_engine(url)
        with engine.connect() as connection:
            result = connection.execute(sa.text(spec["sql"]))
            names, rows = list(result.keys()), result.fetchall()
        engine.dispose()
    except (sa.exc.SQLAlchemyError, ImportError, ValueError) as error:
        reason = str(getattr(error, "orig", None) or error).splitlines()[0]
        raise DataError(
            f"The query failed: {reason}",
            where=where,
            mend="try query and address in the database's own client; a driver that is missing is "
            "installed with pip",
        ) from error
    return pa.table([_column(name, rows, at, where) for at, name in enumerate(names)], names=names)


def masked(spec: Mapping[str, Any]) -> str:
    """A query for messages, without its password."""
    try:
        url = sa.make_url(str(spec.get("url"))).render_as_string(hide_password=True)
    except sa.exc.ArgumentError:
        url = "?"
    return f"{spec.get('sql')} ({url})"


def _column(name: str, rows: Any, at: int, where: str) -> pa.Array:
    values = [row[at] for row in rows]
    try:
        return pa.array([float(v) if isinstance(v, Decimal) else v for v in values])
    except (pa.ArrowInvalid, pa.ArrowTypeError, pa.ArrowNotImplementedError) as error:
        raise DataError(
            f"Column {name!r} cannot be read: {str(error).splitlines()[0]}",
            where=where,
            mend="cast it in the query to one type: a number, text or a date",
        ) from error
