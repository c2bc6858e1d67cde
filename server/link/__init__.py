"""The lean link's server: one long-lived stream for each client, and a Grid on top of them."""

from server.link.grid import LinkGrid
from server.link.listen import ServerKeys

__all__ = ["LinkGrid", "ServerKeys"]
