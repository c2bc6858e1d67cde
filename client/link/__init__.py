"""The lean link's client: one process that keeps a stream, and a ClientApp fed from it."""

from client.link.application import LocalApp
from client.link.channel import ClientKeys, Endpoint
from client.link.client import LinkClient

__all__ = ["ClientKeys", "Endpoint", "LinkClient", "LocalApp"]
