"""Simulation engines: grids that run clients in this process."""
