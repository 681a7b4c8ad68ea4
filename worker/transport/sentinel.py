# SPDX-License-Identifier: Apache-2.0
"""The transport over Redis Sentinel: ours consumes, kombu's finds the master, for the blocking waits as well.

After a failover the connections are lost as with any restart, and the next ones are made to the new master. Nothing is
overridden here but what both sides define.
"""

from kombu.transport import redis as stock

from worker.transport.channel import Channel, Transport


class SentinelChannel(Channel, stock.SentinelChannel):  # type: ignore[misc]
    """Delivers as `Channel` does, over connections of kombu's `SentinelChannel`."""

    from_transport_options = (*stock.SentinelChannel.from_transport_options, *Channel.from_transport_options)


class SentinelTransport(Transport, stock.SentinelTransport):  # type: ignore[misc]
    """What `sentinel://` means in a worker's process."""

    Channel = SentinelChannel
