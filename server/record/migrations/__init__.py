"""How a registry of before becomes one of today: a revision for each schema, by Alembic."""
