"""The rows of a query as a source: one that reads, over a connection that cannot write."""

from __future__ import annotations

import re
from collections.abc import Mapping
from decimal import Decimal
from pathlib import Path
from typing import Any

import pyarrow as pa
import sqlalchemy as sa

from perennial.errors import DataError, first_line
from perennial.masking import mask_text

_READS = ("select", "with", "values", "table")
# what is quoted or a comment, where a semicolon ends nothing
_QUOTED = re.compile(
    r"""'(?:[^']|'')*'|"(?:[^"]|"")*"|`[^`]*`|(\$\w*\$).*?\1|--[^\n]*|/\*.*?\*/""", re.DOTALL
)


def is_query(spec: Any) -> bool:
    """Whether a source is ``{sql: QUERY, url: DATABASE}``."""
    return isinstance(spec, Mapping) and "sql" in spec


def read_query(spec: Mapping[str, Any], *, where: str) -> pa.Table:
    """Run a query and take all of its rows.

    A query is one statement that begins with ``select``, ``with``, ``values`` or ``table``. SQLite
    is opened read-only, PostgreSQL and MySQL in a read-only transaction; whatever another database
    lets such a query change is rolled back.

    Args:
        spec: ``sql``, sent as it is, without parameters, and ``url`` as SQLAlchemy writes one.
        where: The source, for messages, without a password.

    Raises:
        DataError: A key is missing or unknown, the query is none that only reads, the database is
            not there or not to be reached, the query is refused, or a column's values have no
            common type.
    """
    if set(spec) != {"sql", "url"} or not all(isinstance(one, str) for one in spec.values()):
        raise DataError(
            f"A query takes sql and url, as text; here are {', '.join(map(str, spec))}.",
            where=where,
            mend='write \'{sql: "select ...", url: "postgresql://..."}\'',
        )
    query = spec["sql"]
    _refuse_statements(query, where)
    try:
        engine = sa.create_engine(_address(spec["url"], where))
        try:
            names, rows = _rows(engine, query)
        finally:
            engine.dispose()
    except (sa.exc.SQLAlchemyError, ImportError, ValueError, TypeError, OverflowError) as error:
        reason = mask_text(first_line(getattr(error, "orig", None) or error))
        parameter = "; a word behind a colon or a question mark is a parameter, and none is given: "
        raise DataError(
            f"The query failed: {reason}",
            where=where,
            mend="try query and address in the database's own client; a driver that is missing is "
            "installed with pip"
            + (
                f"{parameter}write cast(a as integer) for a::int"
                if re.search("[:?]", query)
                else ""
            ),
        ) from error
    return pa.table([_column(name, rows, at, where) for at, name in enumerate(names)], names=names)


def _refuse_statements(query: str, where: str) -> None:
    """Refuse what is not one statement that reads."""
    bare = _QUOTED.sub(" ", query).strip().rstrip("; \n\t")
    first = re.match(r"[(\s]*(\w*)", bare)
    # some databases let a backslash escape a quote, and what is quoted cannot be told there
    several = ";" in bare or ("\\" in query and ";" in query.strip().rstrip("; \n\t"))
    if several or first is None or first[1].lower() not in _READS:
        raise DataError(
            "A source is one statement that reads, and this is "
            + ("more than one." if several else f"{first[1] if first else ''!r}."),
            where=where,
            mend="write a single select, without a semicolon; nothing is ever changed by a source",
        )


def _address(text: str, where: str) -> sa.URL:
    """An address; a SQLite file's is read-only, and the file has to be there."""
    url = sa.make_url(text)
    name = url.database
    if url.get_backend_name() != "sqlite" or not name or name.startswith((":memory:", "file:")):
        is_file = url.get_backend_name() == "sqlite" and (name or "").startswith("file:")
        return url.update_query_dict({"mode": "ro"}) if is_file else url
    path = Path(name).expanduser().absolute()
    if not path.is_file():
        raise DataError(
            f"There is no database {path}.",
            where=where,
            mend="three slashes before a relative path, four before an absolute one: "
            "sqlite:///shop.db, sqlite:////srv/shop.db",
        )
    return url.set(database=path.as_uri()).update_query_dict({"mode": "ro", "uri": "true"})


def _rows(engine: sa.Engine, query: str) -> tuple[list[str], list[Any]]:
    with engine.connect() as connection:
        if engine.dialect.name == "postgresql":
            connection = connection.execution_options(postgresql_readonly=True)
        if engine.dialect.name in ("mysql", "mariadb"):
            connection.exec_driver_sql("set session transaction read only")
        # as it is: a colon or a percent sign stands for no parameter
        bare = connection.execution_options(no_parameters=True)
        result = bare.exec_driver_sql(query)
        return list(result.keys()), list(result.fetchall())


def _column(name: str, rows: Any, at: int, where: str) -> pa.Array:
    values = [row[at] for row in rows]
    try:
        return pa.array([float(v) if isinstance(v, Decimal) else v for v in values])
    except (
        pa.ArrowInvalid,
        pa.ArrowTypeError,
        pa.ArrowNotImplementedError,
        OverflowError,
    ) as error:
        raise DataError(
            f"Column {name!r} cannot be read: {first_line(error)}",
            where=where,
            mend="cast it in the query to one type: a number, text or a date",
        ) from error
