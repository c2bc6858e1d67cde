"""A device of a LoRaWAN network: frames in, frames out."""

from client.lorawan.application import application
from client.lorawan.device import Device

__all__ = ["Device", "application"]
