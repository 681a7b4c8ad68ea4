# SPDX-License-Identifier: Apache-2.0
"""The transport is what a worker gets, and kombu and Celery are what it was written against."""

import inspect
import json
import subprocess
import sys
from collections.abc import Callable
from hashlib import sha256

import pytest
from celery import Task
from celery.app.backends import by_name, by_url
from celery.backends.base import Backend
from celery.backends.redis import RedisBackend, SentinelBackend
from celery.concurrency.asynpool import AsynPool
from celery.concurrency.prefork import TaskPool as PreforkPool
from celery.worker.consumer import Consumer
from kombu.transport import redis as stock
from kombu.transport import virtual

from tasks.base import PatientTask
from tasks.consumer import Consumer as OurConsumer
from worker.results import RedisBackend as OurRedisBackend
from worker.transport import SentinelTransport, Transport
from worker.transport.channel import Channel
from worker.transport.poller import Poller
from worker.transport.qos import QoS
from worker.transport.sentinel import SentinelChannel

# When one of these fails: read what changed in kombu or Celery, see whether the override and its reason still hold, and
# only then write the new digest. First what is overridden, then what is called or relied on.
_READ = {
    stock.Transport.__init__: "4fc30e8fa54d",
    stock.Transport.register_with_event_loop: "4b835642e4a9",
    stock.Transport.on_readable: "27a1038f2518",
    stock.MultiChannelPoller.get: "e0f960e0c328",
    stock.MultiChannelPoller._register_BRPOP: "85724582464a",
    stock.MultiChannelPoller.on_readable: "c0d99f241607",
    stock.MultiChannelPoller.maybe_restore_messages: "6c267815d521",
    stock.MultiChannelPoller.maybe_check_brpop_health: "0dc592e46353",
    stock.MultiChannelPoller._register: "327dc991dcc1",
    stock.MultiChannelPoller._client_registered: "a16964c3e3d2",
    stock.MultiChannelPoller._update_brpop_polling: "de7b4600acf5",
    stock.MultiChannelPoller.on_poll_init: "0a605e782492",
    stock.MultiChannelPoller.on_poll_start: "414f76caaa67",
    stock.MultiChannelPoller.handle_event: "a96a90b9df4b",
    stock.Channel.__init__: "f189bdebe243",
    stock.Channel.basic_consume: "34e0da85e689",
    stock.Channel.basic_cancel: "d2e3a03a48d2",
    stock.Channel._basic_cancel: "f799ede50375",
    stock.Channel._brpop_start: "06723d707ddf",
    stock.Channel._brpop_read: "c42518699709",
    stock.Channel._put: "1c0cf9749576",
    stock.Channel._q_for_pri: "f3997660680d",
    stock.Channel._get_pool: "d6e689f654ff",
    stock.Channel._create_client: "dae92bc4075d",
    stock.Channel._on_connection_disconnect: "9eab3394f78b",
    stock.Channel.close: "101e9b9cdad4",
    stock.Channel._connparams: "e9a4295085a8",
    stock.Channel._disconnect_pools: "db50da048a22",
    stock.SentinelChannel.__init__: "d9fde0a9c550",
    stock.SentinelChannel._get_pool: "6abc6e5c81e1",
    stock.SentinelChannel._sentinel_managed_pool: "bde54a2d6e93",
    Task.retry: "82cd910b5966",
    Task.replace: "67e061cbfc22",
    Task.on_replace: "f7626130e660",
    by_name: "d1cf56022827",
    by_url: "f87b47d5a6e4",
    Backend._ensure_retryable: "5ca5123211d1",
    Backend._sleep: "c05c25216a58",
    Backend.on_backend_retryable_error: "a422a7a84c4c",
    RedisBackend.exception_safe_to_retry: "044064c96091",
    RedisBackend.on_chord_part_return: "ed0b7a2ee79f",
    SentinelBackend._get_sentinel_instance: "2856638a7bfa",
    SentinelBackend._get_pool: "eba0a0422c5a",
    SentinelBackend._params_from_url: "8a087ec5d320",
    stock.QoS.append: "35c655f6ecc6",
    stock.QoS.ack: "1bc15a4ddf54",
    stock.QoS.reject: "747a02434344",
    stock.QoS.restore_visible: "d4a4a40a3eaf",
    virtual.QoS.can_consume: "787f80092f8d",
    virtual.QoS.restore_unacked_once: "c81f3d0fb29b",
    virtual.Channel.basic_consume: "0fec96269493",
    virtual.Channel.basic_ack: "3b4278c757b4",
    virtual.Channel.basic_reject: "d49bbd211da7",
    virtual.Channel.close: "26368e1cadfc",
    virtual.Transport._deliver: "799e242f3ec5",
    Consumer.start: "53bd1abe3456",
    Consumer.on_connection_error_after_connected: "4f84dbfff329",
    Consumer.on_close: "e96d425dce0a",
    Consumer.ensure_connected: "3f79cf3bb6d6",
    Consumer.loop_args: "796ea4005eae",
    PreforkPool.on_stop: "ab83bf6652cb",
    AsynPool._track_child_process: "18b122697979",
    Consumer.on_ready: "16eff40603fe",
    Consumer.on_decode_error: "e3538c586a7f",
    Consumer.shutdown: "a081dc7db4a9",
}


def digest(function: Callable[..., object]) -> str:
    """Return the beginning of the digest of a function's source."""
    return sha256(inspect.getsource(function).encode()).hexdigest()[:12]


@pytest.mark.parametrize("function", _READ, ids=lambda function: function.__qualname__)
def test_what_was_read_is_what_is_installed(function: Callable[..., object]) -> None:
    """Written against kombu 5.7.0 and Celery 5.7.0, whose internals are nobody's contract."""
    assert digest(function) == _READ[function]


@pytest.mark.parametrize(
    ("ours", "theirs"),
    [
        (Transport, stock.Transport),
        (Channel, stock.Channel),
        (SentinelTransport, stock.SentinelTransport),
        (SentinelChannel, stock.SentinelChannel),
        (QoS, stock.QoS),
        (Poller, stock.MultiChannelPoller),
        (OurConsumer, Consumer),
        (OurRedisBackend, RedisBackend),
        (PatientTask, Task),
    ],
)
def test_every_override_was_read(ours: type, theirs: type) -> None:
    """Whatever is overridden is in the table, at the class that defines it."""
    names = [name for name, value in vars(ours).items() if inspect.isfunction(value) and hasattr(theirs, name)]

    assert [name for name in names if getattr(theirs, name) not in _READ] == []


def test_a_worker_consumes_with_it_and_others_keep_kombus() -> None:
    """By the URL that everybody has; what only looks, such as Flower, sees the same URL."""
    program = """
import json, sys
import worker.celery, kombu
from worker.transport import select
before = type(kombu.Connection("redis://h/0").transport).__module__
select()
urls = "redis://h/0", "rediss://h/0", "sentinel://h/0;sentinel://i/0"
after = [type(kombu.Connection(url).transport).__module__ for url in urls]
print(json.dumps([before, after, kombu.Connection("redis://h:1/0").as_uri()]))
"""
    made = subprocess.run([sys.executable, "-c", program], check=True, capture_output=True, text=True)

    ours = "worker.transport.channel"
    theirs = "kombu.transport.redis"
    assert json.loads(made.stdout) == [theirs, [ours, ours, "worker.transport.sentinel"], "redis://:**@h:1/0"]
