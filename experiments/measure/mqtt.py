"""MQTT: ``recast serve --mqtt``, a broker, and a ``recast join --mqtt`` for each client."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from experiments.measure.link import LinkDeployment
from experiments.measure.mosquitto import Mosquitto
from experiments.measure.relay import Relays
from protos.mqtt import SERVER
from recast_core.settings import Settings


class MqttDeployment(LinkDeployment):
    """A :class:`~experiments.measure.deployment.Deployment` through a broker.

    A relay is between each client and the broker; the server talks to it directly.
    """

    def __init__(self, folder: Path, relays: Relays, clients: int, *, secure: bool = False) -> None:
        """Prepare; nothing runs yet. The arguments are the link's."""
        super().__init__(folder, relays, clients, secure=secure)
        self.broker: Mosquitto | None = None

    def start(self, settings: Settings) -> None:
        """Start the broker, and the server, which waits for ``begin`` when all have joined."""
        self.make_certificates()
        self.broker = Mosquitto(
            self._folder, self._processes.__enter__(), self._port, secure=self._secure
        )
        self.broker.start()
        super().start(settings)

    def _names(self) -> Sequence[str]:
        return [*super()._names(), SERVER]

    def _server_options(self) -> list[str]:
        return ["--mqtt", self._url(self._port), *self._certs()]

    def _client_options(self, port: int) -> list[str]:
        return ["--mqtt", self._url(port), *self._certs()]

    def _url(self, port: int) -> str:
        return f"{'mqtts' if self._secure else 'mqtt'}://localhost:{port}"

    def _certs(self) -> list[str]:
        return ["--certs", str(self._certificates)]
