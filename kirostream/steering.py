"""The settings of a gateway that runs: what its rooms go by now, and who hands them others.

A room that can go by other settings has an `adopt`; the composition root lists them here. A change comes from a person
(the panel, SIGHUP) by way of the `SettingsEditor`, which lets only live settings through. The editor is made when it is
first asked for: a gateway whose settings nobody looks at does not load it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from kirostream.errors import SettingsError
from kirostream.settings import Settings, Sources
from kirostream.telemetry.facts import SettingsRefused, SettingsReloaded
from kirostream.telemetry.recorder import Recorder

if TYPE_CHECKING:
    from kirostream.settings_file import SettingsEditor


class Steering:
    """Holds the settings that act.

    Args:
        settings: those of the start.
        sources: where they were read; None: they cannot be read again.
        recorder: told of what changes.
    """

    def __init__(self, settings: Settings, sources: Sources | None, recorder: Recorder) -> None:
        self.now = settings
        """What the rooms go by."""
        self.adopters: list[Callable[[Settings], None]] = []
        """Told of all settings, when one of them has changed."""
        self._start = settings
        self._sources = sources
        self._recorder = recorder
        self._dress: Callable[[Settings], Settings] = lambda settings: settings
        self._editor: SettingsEditor | None = None

    def __repr__(self) -> str:
        return f"<Steering of {len(self.adopters)} rooms>"

    def dress(self, how: Callable[[Settings], Settings]) -> None:
        """Have the rooms go by what `how` makes of the settings, now and later."""
        self._dress = how
        self.now = how(self._start)

    @property
    def editor(self) -> SettingsEditor:
        """Shows and changes them.

        Raises:
            SettingsError: nobody has said where they are from.
        """
        if self._editor is None:
            if self._sources is None:
                raise SettingsError("This gateway was not told where its settings are, so it cannot read them again.")
            from kirostream.settings_file import SettingsEditor

            self._editor = SettingsEditor(self._sources, acting=self._start, heed=self._adopt)
        return self._editor

    async def reload(self) -> None:
        """Read the settings again. What cannot be used changes nothing, and is told of."""
        try:
            done = await self.editor.reload()
        except SettingsError as error:
            self._recorder.record(SettingsRefused(message=error.message))
        else:
            self._recorder.record(SettingsReloaded(now=", ".join(done.now), waiting=", ".join(done.waiting)))

    def _adopt(self, settings: Settings) -> None:
        self.now = self._dress(settings)
        for adopt in self.adopters:
            adopt(self.now)
