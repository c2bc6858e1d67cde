"""The client of a federation whose messages go through an MQTT broker."""

from client.mqtt.access import ClientAccess
from client.mqtt.client import MqttClient

__all__ = ["ClientAccess", "MqttClient"]
