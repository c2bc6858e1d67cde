"""The revisions, named by the schema that each makes."""
