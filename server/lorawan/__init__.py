"""A grid of LoRaWAN devices behind ChirpStack."""

from server.lorawan.grid import LoraGrid

__all__ = ["LoraGrid"]
