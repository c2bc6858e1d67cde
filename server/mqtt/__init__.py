"""A grid through an MQTT broker: the link's sessions, with topics in place of streams."""

from server.mqtt.grid import MqttGrid

__all__ = ["MqttGrid"]
