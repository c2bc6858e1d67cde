"""Whatever puts the parts together: the command, the simulation engines, benchmarks, reports."""
