# SPDX-License-Identifier: Apache-2.0
"""When a channel waits, and what its answers go to. Written against kombu 5.7.0."""

from typing import Any

from kombu.transport import redis as stock
from typing_extensions import override

from worker.transport.waits import WAIT_SECONDS


class Poller(stock.MultiChannelPoller):  # type: ignore[misc]
    """Waits on one connection per queue."""

    @override
    def get(self, callback: Any, timeout: float | None = None) -> None:
        """Look up as often as a wait ends: without an event loop nobody else gives the beat, or ends a rest."""
        super().get(callback, WAIT_SECONDS if timeout is None else min(timeout, WAIT_SECONDS))

    @override
    def _register_BRPOP(self, channel: Any) -> None:
        """Wait by moving instead of popping."""
        if not channel.is_recorded:
            super()._register_BRPOP(channel)
            return
        for name, wait in channel.waits.items():
            if not self._client_registered(channel, wait.client, name):
                wait.forget()
                self._register(channel, wait.client, name)
        channel.listen()

    @override
    def on_readable(self, fileno: int) -> Any:
        """Read an answer even if nothing may be delivered: kombu would leave the message unread, and it to nobody."""
        channel, kind = self._fd_to_chan.get(fileno, (None, None))
        if channel is not None and kind in channel.waits:
            return channel.handlers[kind]()
        return super().on_readable(fileno)

    @override
    def maybe_restore_messages(self) -> None:
        """Called every `unacked_restore_interval` by the event loop, and without one after every empty wait."""
        for channel in list(self._channels):
            if channel.is_recorded:
                channel.beat()
