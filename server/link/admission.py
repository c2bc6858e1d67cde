"""Whether clients may go on: what is the same for every transport that has sessions."""

from __future__ import annotations

from server.link.identity import DeniedError
from server.link.revocations import Revocations, UnreadableListError
from server.link.session import RefusedFrameError, Session, Stream
from server.link.sessions import Sessions


class Admission:
    """Looks up certificates in the list of revoked ones, and refuses whoever is on it."""

    def __init__(self, sessions: Sessions, revocations: Revocations) -> None:
        self._sessions = sessions
        self._revocations = revocations

    def admit(self, name: str, serial: int | None, *, look: bool = True) -> None:
        """Let a certificate pass.

        Raises:
            DeniedError: it is revoked.
            RefusedFrameError: nobody can tell whether it is.
        """
        try:
            revoked = self._revocations.revoked(serial, look=look)
        except UnreadableListError as error:
            raise RefusedFrameError("no-revocations", str(error), retry=True) from error
        if revoked:
            raise DeniedError(f"the certificate of {name} has been revoked", name)

    def may_go_on(self, session: Session, stream: Stream, *, look: bool = True) -> bool:
        """Whether a client that has joined is still welcome; if not, its stream says why."""
        try:
            self.admit(session.name, session.serial, look=look)
        except DeniedError as error:
            if not session.expelled:
                self._sessions.expel(session)
            stream.refused = error
        except RefusedFrameError as error:
            stream.refused = error
        else:
            return True
        stream.wake()
        return False

    def expel_revoked(self) -> list[Stream]:
        """Refuse whoever may not go on; returns their streams that have not ended yet."""
        ending = []
        look = True
        for session in self._sessions.all():
            stream = session.stream
            if stream is not None:
                if not self.may_go_on(session, stream, look=look):
                    ending.append(stream)
                look = False
        return ending
