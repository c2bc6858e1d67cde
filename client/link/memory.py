"""What a client remembers across restarts of its process: the run, and its application's state."""

from __future__ import annotations

import base64
import json
import logging
from dataclasses import dataclass, field
from pathlib import Path

from flwr.app import ConfigRecord, RecordDict

from recast_core.errors import RecastError
from recast_core.files import read_text, write_atomically
from recast_core.setting_values import Value

logger = logging.getLogger("recast.link")


@dataclass
class LinkMemory:
    """A file that is written again whenever it has something new to say.

    Attributes:
        session: of the server that the rest belongs to; 0: none.
        settings: of the run.
        state: the application's; of its records, configurations of bytes are kept.
    """

    path: Path
    session: int = 0
    settings: dict[str, Value] = field(default_factory=dict)
    state: RecordDict = field(default_factory=RecordDict)
    _written: str = ""

    @classmethod
    def load(cls, path: Path) -> LinkMemory:
        """What is in the file; nothing if there is none or it is damaged."""
        try:
            found = json.loads(read_text(path))
            state = RecordDict(
                {
                    name: ConfigRecord({key: base64.b64decode(v) for key, v in record.items()})
                    for name, record in found["state"].items()
                }
            )
            return cls(path, int(found["session"]), dict(found["settings"]), state)
        except FileNotFoundError:
            return cls(path)
        except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
            logger.warning("%s is damaged and starts anew: %s", path, error)
            return cls(path)

    def begin(self, session: int, settings: dict[str, Value]) -> None:
        """Another server process: what belonged to the last one is forgotten."""
        self.session, self.settings, self.state = session, settings, RecordDict()
        self.keep()

    def keep(self) -> None:
        """Write the file, if anything has changed.

        Where that fails the client goes on: it loses only that a restart could have gone on too.
        """
        state = {
            name: {
                key: base64.b64encode(value).decode()
                for key, value in record.items()
                if isinstance(value, bytes)
            }
            for name, record in self.state.config_records.items()
        }
        text = json.dumps({"session": self.session, "settings": self.settings, "state": state})
        if text != self._written:
            try:
                write_atomically(self.path, text.encode())
            except RecastError as error:
                logger.warning("after a restart this client starts anew: %s", error)
            else:
                self._written = text
