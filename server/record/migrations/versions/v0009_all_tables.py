"""Schema 9, whatever a registry had before: the tables that it lacks, and all kinds of bytes.

What earlier schemas lacked were tables alone. This is what the tables were then, and stays so.
"""

from __future__ import annotations

from typing import Any

import sqlalchemy as sa
from alembic import op

revision = "0009"
down_revision = None

_LARGE = sa.BigInteger().with_variant(sa.Integer(), "sqlite")
_BEFORE, _AFTER = "'metrics', 'control')", "'metrics', 'control', 'keys', 'shares')"


def upgrade() -> None:
    """Create what is not there."""
    there = set(sa.inspect(op.get_bind()).get_table_names())
    made = set()

    def table(name: str, *parts: Any, **options: Any) -> None:
        if name not in there:
            made.add(name)
            op.create_table(name, *parts, **options)

    def index(name: str, of: str, columns: list[str]) -> None:
        if of in made:
            op.create_index(name, of, columns)

    _runs_and_tasks(table)
    _rounds(table, index)
    _evaluations(table, index)
    _traffic(table, index)
    _others(table)
    if "ledger" in there and op.get_bind().dialect.name == "sqlite":
        _widen()


def _widen() -> None:
    """Let a ledger of before take the kinds of later, as SQLite's documentation says it is done."""
    bind = op.get_bind()
    bind.exec_driver_sql("PRAGMA writable_schema = ON")
    bind.exec_driver_sql(
        "UPDATE sqlite_master SET sql = replace(sql, ?, ?) WHERE name = 'ledger'",
        (_BEFORE, _AFTER),
    )
    bind.exec_driver_sql("PRAGMA writable_schema = RESET")


def _runs_and_tasks(table: Any) -> None:
    """Runs, and what is known of their tasks and clients."""
    table(
        "runs",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("status", sa.String(), nullable=False),
        sa.Column("command", sa.String(), nullable=False),
        sa.Column("config", sa.JSON(), nullable=False),
        sa.Column("versions", sa.JSON(), nullable=False),
        sa.Column("bank_sha256", sa.LargeBinary(), nullable=False),
        sa.Column("started", sa.String(), nullable=False),
        sa.Column("finished", sa.String(), nullable=True),
        sa.Column("closed", sa.Boolean(), nullable=False),
        sa.CheckConstraint("status IN ('running', 'finished', 'interrupted', 'failed')"),
        sa.CheckConstraint("length(bank_sha256) = 32"),
        sa.PrimaryKeyConstraint("id"),
        sqlite_autoincrement=True,
    )
    table(
        "client_names",
        sa.Column("run", sa.Integer(), nullable=False),
        sa.Column("client", sa.String(), nullable=False),
        sa.Column("name", sa.String(), nullable=False),
        sa.CheckConstraint("name <> ''"),
        sa.ForeignKeyConstraint(["run"], ["runs.id"]),
        sa.PrimaryKeyConstraint("run", "client"),
    )
    table(
        "tasks",
        sa.Column("run", sa.Integer(), nullable=False),
        sa.Column("number", sa.Integer(), nullable=False),
        sa.Column("name", sa.String(), nullable=False),
        sa.Column("classes", sa.Integer(), nullable=False),
        sa.Column("examples", sa.Integer(), nullable=False),
        sa.Column("clients", sa.Integer(), nullable=False),
        sa.Column("source", sa.String(), nullable=False),
        sa.CheckConstraint("classes >= 0 AND examples >= 0 AND clients >= 0 AND name <> ''"),
        sa.ForeignKeyConstraint(["run"], ["runs.id"]),
        sa.PrimaryKeyConstraint("run", "number"),
        sa.UniqueConstraint("run", "name"),
    )
    table(
        "class_names",
        sa.Column("run", sa.Integer(), nullable=False),
        sa.Column("task", sa.Integer(), nullable=False),
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("name", sa.String(), nullable=False),
        sa.CheckConstraint("id >= 0 AND name <> ''"),
        sa.ForeignKeyConstraint(["run", "task"], ["tasks.run", "tasks.number"]),
        sa.PrimaryKeyConstraint("run", "task", "id"),
    )
    table(
        "shares",
        sa.Column("run", sa.Integer(), nullable=False),
        sa.Column("task", sa.Integer(), nullable=False),
        sa.Column("client", sa.String(), nullable=False),
        sa.Column("train_examples", sa.Integer(), nullable=False),
        sa.Column("test_examples", sa.Integer(), nullable=False),
        sa.CheckConstraint("train_examples >= 0 AND test_examples >= 0"),
        sa.ForeignKeyConstraint(["run", "task"], ["tasks.run", "tasks.number"]),
        sa.PrimaryKeyConstraint("run", "task", "client"),
    )


def _rounds(table: Any, index: Any) -> None:
    """What rounds left."""
    table(
        "heads",
        sa.Column("run", sa.Integer(), nullable=False),
        sa.Column("task", sa.Integer(), nullable=False),
        sa.Column("kind", sa.String(), nullable=False),
        sa.Column("content", sa.LargeBinary(), nullable=False),
        sa.ForeignKeyConstraint(["run", "task"], ["tasks.run", "tasks.number"]),
        sa.PrimaryKeyConstraint("run", "task"),
    )
    table(
        "held_back",
        sa.Column("run", sa.Integer(), nullable=False),
        sa.Column("task", sa.Integer(), nullable=False),
        sa.Column("round", sa.Integer(), nullable=False),
        sa.Column("client", sa.String(), nullable=False),
        sa.Column("share", sa.Double(), nullable=False),
        sa.CheckConstraint("round > 0 AND share BETWEEN 0 AND 1"),
        sa.ForeignKeyConstraint(["run", "task"], ["tasks.run", "tasks.number"]),
        sa.PrimaryKeyConstraint("run", "task", "round", "client"),
    )
    table(
        "privacy",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("run", sa.Integer(), nullable=False),
        sa.Column("task", sa.Integer(), nullable=False),
        sa.Column("round", sa.Integer(), nullable=False),
        sa.Column("kind", sa.String(), nullable=False),
        sa.Column("noise", sa.Double(), nullable=False),
        sa.Column("rate", sa.Double(), nullable=False),
        sa.Column("sampling", sa.String(), nullable=False),
        sa.Column("clip", sa.Double(), nullable=False),
        sa.Column("threshold", sa.Double(), nullable=False),
        sa.Column("within", sa.Double(), nullable=True),
        sa.Column("task_epsilon", sa.Double(), nullable=False),
        sa.Column("epsilon", sa.Double(), nullable=False),
        sa.Column("delta", sa.Double(), nullable=False),
        sa.Column("seeded", sa.Boolean(), nullable=False),
        sa.CheckConstraint("kind IN ('central', 'local')"),
        sa.CheckConstraint("sampling IN ('all', 'fixed', 'poisson')"),
        sa.CheckConstraint("round > 0 AND noise > 0 AND clip > 0 AND rate > 0 AND rate <= 1"),
        sa.ForeignKeyConstraint(["run", "task"], ["tasks.run", "tasks.number"]),
        sa.PrimaryKeyConstraint("id"),
    )
    index("ix_privacy_run", "privacy", ["run"])
    table(
        "rounds",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("run", sa.Integer(), nullable=False),
        sa.Column("task", sa.Integer(), nullable=False),
        sa.Column("round", sa.Integer(), nullable=False),
        sa.Column("count", sa.Integer(), nullable=False),
        sa.Column("coefficients", sa.LargeBinary(), nullable=False),
        sa.Column("examples", sa.Integer(), nullable=False),
        sa.Column("clients", sa.Integer(), nullable=False),
        sa.Column("seconds", sa.Double(), nullable=False),
        sa.Column("accuracy", sa.Double(), nullable=True),
        sa.Column("recorded", sa.String(), nullable=False),
        sa.CheckConstraint("accuracy BETWEEN 0 AND 1"),
        sa.CheckConstraint("round > 0 AND count >= 0 AND examples >= 0 AND clients >= 0"),
        sa.ForeignKeyConstraint(["run", "task"], ["tasks.run", "tasks.number"]),
        sa.PrimaryKeyConstraint("id"),
        sa.UniqueConstraint("run", "task", "round"),
    )


def _evaluations(table: Any, index: Any) -> None:
    """What was measured."""
    table(
        "accuracies",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("run", sa.Integer(), nullable=False),
        sa.Column("task", sa.Integer(), nullable=False),
        sa.Column("round", sa.Integer(), nullable=False),
        sa.Column("after_task", sa.Integer(), nullable=False),
        sa.Column("accuracy", sa.Double(), nullable=False),
        sa.Column("head_only_accuracy", sa.Double(), nullable=True),
        sa.Column("examples", sa.Integer(), nullable=False),
        sa.Column("clients", sa.Integer(), nullable=False),
        sa.CheckConstraint("accuracy BETWEEN 0 AND 1 AND head_only_accuracy BETWEEN 0 AND 1"),
        sa.CheckConstraint("round >= 0 AND examples > 0 AND clients > 0"),
        sa.ForeignKeyConstraint(["run", "after_task"], ["tasks.run", "tasks.number"]),
        sa.ForeignKeyConstraint(["run", "task"], ["tasks.run", "tasks.number"]),
        sa.PrimaryKeyConstraint("id"),
    )
    index("ix_accuracies_run", "accuracies", ["run"])
    table(
        "baselines",
        sa.Column("run", sa.Integer(), nullable=False),
        sa.Column("task", sa.Integer(), nullable=False),
        sa.Column("after_task", sa.Integer(), nullable=False),
        sa.Column("name", sa.String(), nullable=False),
        sa.Column("accuracy", sa.Double(), nullable=False),
        sa.CheckConstraint("accuracy BETWEEN 0 AND 1 AND name <> ''"),
        sa.ForeignKeyConstraint(["run", "task"], ["tasks.run", "tasks.number"]),
        sa.PrimaryKeyConstraint("run", "task", "after_task", "name"),
    )
    table(
        "medians",
        sa.Column("evaluation", sa.Integer(), nullable=False),
        sa.Column("median", sa.Double(), nullable=False),
        sa.CheckConstraint("median BETWEEN 0 AND 1"),
        sa.ForeignKeyConstraint(["evaluation"], ["accuracies.id"]),
        sa.PrimaryKeyConstraint("evaluation"),
    )


def _traffic(table: Any, index: Any) -> None:
    """Bytes and refusals."""
    table(
        "ledger",
        sa.Column("id", _LARGE, nullable=False),
        sa.Column("run", sa.Integer(), nullable=False),
        sa.Column("task", sa.String(), nullable=True),
        sa.Column("round", sa.Integer(), nullable=False),
        sa.Column("client", sa.String(), nullable=False),
        sa.Column("direction", sa.String(), nullable=False),
        sa.Column("kind", sa.String(), nullable=False),
        sa.Column("layer", sa.String(), nullable=False),
        sa.Column("bytes", _LARGE, nullable=False),
        sa.CheckConstraint("direction IN ('up', 'down')"),
        sa.CheckConstraint(
            "kind IN ('bank', 'coefficients', 'head', 'metrics', 'control', 'keys', 'shares')"
        ),
        sa.CheckConstraint("layer IN ('payload', 'message', 'wire')"),
        sa.CheckConstraint("bytes >= 0 AND round >= 0"),
        sa.ForeignKeyConstraint(["run", "task"], ["tasks.run", "tasks.name"]),
        sa.ForeignKeyConstraint(["run"], ["runs.id"]),
        sa.PrimaryKeyConstraint("id"),
    )
    index("ix_ledger_run", "ledger", ["run"])
    table(
        "refusals",
        sa.Column("id", _LARGE, nullable=False),
        sa.Column("run", sa.Integer(), nullable=False),
        sa.Column("client", sa.String(), nullable=False),
        sa.Column("task", sa.String(), nullable=True),
        sa.Column("round", sa.Integer(), nullable=False),
        sa.Column("reason", sa.String(), nullable=False),
        sa.Column("detail", sa.String(), nullable=False),
        sa.CheckConstraint("round >= 0 AND reason <> ''"),
        sa.ForeignKeyConstraint(["run", "task"], ["tasks.run", "tasks.name"]),
        sa.ForeignKeyConstraint(["run"], ["runs.id"]),
        sa.PrimaryKeyConstraint("id"),
    )
    index("ix_refusals_run", "refusals", ["run"])


def _others(table: Any) -> None:
    """What tasks went back from."""
    table(
        "rewinds",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("run", sa.Integer(), nullable=False),
        sa.Column("task", sa.Integer(), nullable=False),
        sa.Column("round", sa.Integer(), nullable=False),
        sa.Column("before", sa.Integer(), nullable=False),
        sa.Column("asked", sa.String(), nullable=False),
        sa.Column("done", sa.String(), nullable=True),
        sa.CheckConstraint("round >= 0 AND before > round"),
        sa.ForeignKeyConstraint(["run", "task"], ["tasks.run", "tasks.number"]),
        sa.PrimaryKeyConstraint("id"),
    )
    table(
        "rewound_accuracies",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("rewind", sa.Integer(), nullable=False),
        sa.Column("round", sa.Integer(), nullable=False),
        sa.Column("after_task", sa.Integer(), nullable=False),
        sa.Column("accuracy", sa.Double(), nullable=False),
        sa.Column("examples", sa.Integer(), nullable=False),
        sa.Column("clients", sa.Integer(), nullable=False),
        sa.ForeignKeyConstraint(["rewind"], ["rewinds.id"]),
        sa.PrimaryKeyConstraint("id"),
    )
    table(
        "rewound_rounds",
        sa.Column("rewind", sa.Integer(), nullable=False),
        sa.Column("round", sa.Integer(), nullable=False),
        sa.Column("count", sa.Integer(), nullable=False),
        sa.Column("coefficients", sa.LargeBinary(), nullable=False),
        sa.Column("examples", sa.Integer(), nullable=False),
        sa.Column("clients", sa.Integer(), nullable=False),
        sa.Column("recorded", sa.String(), nullable=False),
        sa.ForeignKeyConstraint(["rewind"], ["rewinds.id"]),
        sa.PrimaryKeyConstraint("rewind", "round"),
    )
