# SPDX-License-Identifier: Apache-2.0
"""Answers to challenges, through the client against a token server."""

import base64
import json
import logging
import threading
import traceback
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tests.unit.registry.odd_server import Answer, Asked, OddServer
from worker.errors import AccessDenied, ImageNotFound, ProvisionerError, RegistryUnavailable, RegistryUnusable
from worker.oci.reference import Reference
from worker.registry.auth import DEFAULT_EXPIRY_SECONDS, MAX_EXPIRY_SECONDS, Authorizer, Login, token_url
from worker.registry.challenge import Challenge, Scheme
from worker.registry.channel import Channel
from worker.registry.client import RegistryClient
from worker.registry.endpoints import Origin
from worker.settings import Settings

LOGIN = Login(username="user", password="pass:word")  # noqa: S106 - of no server but the test's
BASIC = "Basic " + base64.b64encode(b"user:pass:word").decode()
MANIFEST = b"{}"
PATH = "/v2/a/b/manifests/1"


def token_answer(token: str, **more: object) -> Answer:
    """Return a token server's answer."""
    return Answer(body=json.dumps({"token": token, **more}).encode())


def wants(*headers: str, then: Answer | None = None) -> Callable[[Asked], Answer]:
    """Return a script that answers requests with one of the Authorization `headers` and challenges the others."""

    def script(asked: Asked) -> Answer:
        if asked.authorization in headers:
            return then or Answer(body=MANIFEST)
        host = asked.headers["host"]
        challenge = f'Bearer realm="http://{host}/token",service="registry {host}",scope="repository:a/b:pull"'
        return Answer(status=401, headers={"WWW-Authenticate": challenge}, body=b'{"errors": []}')

    return script


def fetch(client: RegistryClient, server: OddServer, login: Login | None = None) -> bytes:
    """Fetch the manifest."""
    return client.repository(Reference.parse(f"{server.host}/a/b:1"), login=login).manifest("1").content


def test_a_token_is_fetched_with_the_login_and_used(client: RegistryClient, server: OddServer) -> None:
    """The token server gets the password, the registry only the token."""
    server.on(PATH, wants("Bearer t1"))
    server.on("/token", token_answer("t1"))

    assert fetch(client, server, LOGIN) == MANIFEST
    asked = server.asked_for("/token")
    assert [(one.authorization, one.query) for one in asked] == [
        (BASIC, {"service": [f"registry {server.host}"], "scope": ["repository:a/b:pull"]})
    ]
    assert [one.authorization for one in server.asked_for(PATH)] == [None, "Bearer t1"]


@pytest.mark.parametrize("status", [403, 404])
def test_a_registry_that_hides_images_from_strangers_is_introduced_to(
    client: RegistryClient, server: OddServer, status: int
) -> None:
    """Such a registry sends no challenge where an image is asked for, only at its root; its token gets our scope."""

    def hide(asked: Asked) -> Answer:
        return Answer(body=MANIFEST) if asked.authorization == "Bearer t1" else Answer(status=status)

    challenge = {"WWW-Authenticate": f'Bearer realm="{server.url}/token",service="s"'}
    server.on("/v2/", Answer(status=401, headers=challenge))
    server.on("/token", token_answer("t1"))
    server.on(PATH, hide)

    assert fetch(client, server, LOGIN) == MANIFEST
    assert [one.query["scope"] for one in server.asked_for("/token")] == [["repository:a/b:pull"]]
    with pytest.raises((AccessDenied, ImageNotFound)):
        fetch(client, server)


def test_a_challenge_that_says_only_where_is_completed(client: RegistryClient, server: OddServer) -> None:
    """Some registries leave out service and scope, which the ancestor could not do without (MESOS-10092)."""

    def challenge(asked: Asked) -> Answer:
        if asked.authorization == "Bearer t1":
            return Answer(body=MANIFEST)
        return Answer(status=401, headers={"WWW-Authenticate": f'Bearer realm="{server.url}/token"'})

    server.on(PATH, challenge)
    server.on("/token", token_answer("t1"))

    assert fetch(client, server, LOGIN) == MANIFEST
    assert [one.query for one in server.asked_for("/token")] == [{"scope": ["repository:a/b:pull"]}]


def test_without_a_login_the_token_is_anonymous(client: RegistryClient, server: OddServer) -> None:
    """As public images are pulled; `access_token` is read as well."""
    server.on(PATH, wants("Bearer t1"))
    server.on("/token", Answer(body=b'{"access_token": "t1"}'))

    assert fetch(client, server) == MANIFEST
    assert [one.authorization for one in server.asked_for("/token")] == [None]


def test_a_token_is_used_until_the_registry_refuses_it(client: RegistryClient, server: OddServer) -> None:
    """One token for many requests, also from several threads; a refused one is replaced in the middle of a pull."""
    server.on(PATH, wants("Bearer t1"))
    server.on("/token", token_answer("t1"), token_answer("t2"))
    repository = client.repository(Reference.parse(f"{server.host}/a/b:1"), login=None)

    with ThreadPoolExecutor(4) as threads:
        list(threads.map(repository.manifest, ["1"] * 8))
    assert len(server.asked_for("/token")) == 1
    server.on(PATH, wants("Bearer t2"))
    assert repository.manifest("1").content == MANIFEST
    assert repository.manifest("1").content == MANIFEST
    assert len(server.asked_for("/token")) == 2


def headers_at(moments: Iterable[float], tmp_path: Path, server: OddServer) -> list[str | None]:
    """Return what the registry would be sent at each moment, after it asked for tokens."""
    now = [0.0]
    home = Origin.of(server.url)
    assert home is not None
    channel = Channel(Settings(work_dir=tmp_path, store_dir=tmp_path))
    authorizer = Authorizer(
        channel, image="i", home=home, login=None, default_scope="repository:a:pull", clock=lambda: now[0]
    )
    authorizer.accept(home, Challenge(Scheme.BEARER, f"{server.url}/token"), rejected=None)
    headers = []
    for moment in moments:
        now[0] = moment
        headers.append(authorizer.header(home))
    channel.close()
    return headers


def test_an_expired_token_is_replaced_without_asking_the_registry(tmp_path: Path, server: OddServer) -> None:
    """`expires_in` is honoured, but no shorter than the specification's minute."""
    server.on("/token", token_answer("t1", expires_in=1), token_answer("t2", expires_in=300), token_answer("t3"))

    headers = headers_at((0.0, 50.0, 60.0, 350.0, 361.0), tmp_path, server)

    assert headers == ["Bearer t1", "Bearer t1", "Bearer t2", "Bearer t2", "Bearer t3"]
    assert server.asked[0].query == {"scope": ["repository:a:pull"]}


@pytest.mark.parametrize(
    ("expires_in", "seconds"),
    [
        ("NaN", DEFAULT_EXPIRY_SECONDS),
        ("-Infinity", DEFAULT_EXPIRY_SECONDS),
        ("-1", DEFAULT_EXPIRY_SECONDS),
        ("true", DEFAULT_EXPIRY_SECONDS),
        ("[]", DEFAULT_EXPIRY_SECONDS),
        ("1e999", MAX_EXPIRY_SECONDS),
        pytest.param("9" * 400, MAX_EXPIRY_SECONDS, id="more than a float holds"),
    ],
)
def test_no_token_is_kept_for_ever(tmp_path: Path, server: OddServer, expires_in: str, seconds: float) -> None:
    """Whatever its server says of its life, numbers that are none among it."""
    server.on("/token", Answer(body=b'{"token": "t1", "expires_in": %s}' % expires_in.encode()), token_answer("t2"))

    headers = headers_at((0.0, seconds - 10, seconds), tmp_path, server)

    assert headers == ["Bearer t1", "Bearer t1", "Bearer t2"]


def test_an_identity_token_is_exchanged_by_post(client: RegistryClient, server: OddServer) -> None:
    """It is a refresh token: it goes into the body of the form and nowhere else."""
    server.on(PATH, wants("Bearer t1"))
    server.on("/token", Answer(body=b'{"access_token": "t1"}'))

    assert fetch(client, server, Login(identity_token="refresh")) == MANIFEST  # noqa: S106 - of the test's server
    [asked] = server.asked_for("/token")
    assert asked.method == "POST"
    assert b"grant_type=refresh_token" in asked.body
    assert b"refresh_token=refresh" in asked.body
    assert b"scope=repository%3Aa%2Fb%3Apull" in asked.body
    assert asked.authorization is None


def test_basic_authentication_works_without_a_token_server(client: RegistryClient, server: OddServer) -> None:
    """The password goes to the registry only after it asked."""

    def script(asked: Asked) -> Answer:
        if asked.authorization == BASIC:
            return Answer(body=MANIFEST)
        return Answer(status=401, headers={"WWW-Authenticate": 'Basic realm="x"'})

    server.on(PATH, script)

    assert fetch(client, server, LOGIN) == MANIFEST
    assert [one.authorization for one in server.asked_for(PATH)] == [None, BASIC]


@pytest.mark.parametrize("login", [None, LOGIN, Login(identity_token="x")])  # noqa: S106
def test_a_registry_that_never_is_content_denies_access(
    client: RegistryClient, server: OddServer, login: Login | None
) -> None:
    """A 401 after the answer to its challenge is final, whatever the way."""
    server.on(PATH, wants())
    server.on("/token", token_answer("t1"))

    with pytest.raises(AccessDenied, match="may not exist or need other credentials"):
        fetch(client, server, login)
    assert len(server.asked_for(PATH)) == 2


def test_basic_without_a_login_denies_access(client: RegistryClient, server: OddServer) -> None:
    """There is nothing to answer with."""
    server.on(PATH, Answer(status=401, headers={"WWW-Authenticate": "Basic"}))

    with pytest.raises(AccessDenied):
        fetch(client, server)


def test_a_redirect_to_another_registry_gets_an_anonymous_token_of_its_own(
    client: RegistryClient, server: OddServer, other_server: OddServer
) -> None:
    """The login and the first registry's token stay at home."""
    server.on(PATH, wants("Bearer home", then=Answer(status=307, headers={"Location": f"{other_server.url}{PATH}"})))
    server.on("/token", token_answer("home"))
    other_server.on(PATH, wants("Bearer away"))
    other_server.on("/token", token_answer("away"))

    assert fetch(client, server, LOGIN) == MANIFEST
    assert {one.authorization for one in other_server.asked} == {None, "Bearer away"}
    assert [one.authorization for one in other_server.asked_for("/token")] == [None]


def test_a_redirect_never_carries_authorization_to_another_host(
    client: RegistryClient, server: OddServer, other_server: OddServer
) -> None:
    """As registries send blobs to content networks."""
    server.on(PATH, wants("Bearer t1", then=Answer(status=307, headers={"Location": f"{other_server.url}/signed"})))
    server.on("/token", token_answer("t1"))
    other_server.on("/signed", Answer(body=MANIFEST))

    assert fetch(client, server, LOGIN) == MANIFEST
    assert [one.authorization for one in other_server.asked] == [None]


def test_a_token_server_that_redirects_elsewhere_takes_no_password_along(
    client: RegistryClient, server: OddServer, other_server: OddServer
) -> None:
    """The password is bound to the realm that the challenge named."""
    server.on(PATH, wants("Bearer t1"))
    server.on("/token", Answer(status=307, headers={"Location": f"{other_server.url}/token"}))
    other_server.on("/token", token_answer("t1"))

    assert fetch(client, server, LOGIN) == MANIFEST
    assert [one.authorization for one in other_server.asked] == [None]


@pytest.mark.parametrize("realm", ["http://example.com/token", "http://169.254.169.254/token", "file:///x", "token"])
def test_a_realm_that_must_not_be_asked_is_refused(client: RegistryClient, server: OddServer, realm: str) -> None:
    """A registry could have us send a password in the clear, or ask a cloud's credential server."""
    server.on(PATH, Answer(status=401, headers={"WWW-Authenticate": f'Bearer realm="{realm}"'}))

    with pytest.raises(RegistryUnusable, match="for its tokens it leads to"):
        fetch(client, server, LOGIN)


@pytest.mark.parametrize(
    ("answer", "error"),
    [
        (Answer(status=401), AccessDenied),
        (Answer(status=403), AccessDenied),
        (Answer(status=400), AccessDenied),
        (Answer(status=418), RegistryUnusable),
        (Answer(status=500), RegistryUnavailable),
        (Answer(body=b"{}"), RegistryUnusable),
        (Answer(body=b"[]"), RegistryUnusable),
        (Answer(body=b"<html>"), RegistryUnusable),
        (Answer(body=b"[" * 100_000), RegistryUnusable),
        (token_answer("a\r\nX-Injected: 1"), RegistryUnusable),
        (token_answer("ü"), RegistryUnusable),
        (Answer(body=b'{"token": 7}'), RegistryUnusable),
        (Answer(body=b" " * 65536, is_endless=True), RegistryUnusable),
    ],
)
def test_a_token_server_that_gives_no_token_is_told_apart(
    client: RegistryClient, server: OddServer, answer: Answer, error: type[ProvisionerError]
) -> None:
    """Refusals, trouble that may pass, and nonsense; endless nonsense too."""
    server.on(PATH, wants("Bearer t1"))
    server.on("/token", answer)

    with pytest.raises(error):
        fetch(client, server, LOGIN)


def test_a_busy_token_server_says_when_to_come_back(
    client: RegistryClient, server: OddServer, waits: list[float]
) -> None:
    """A long wait is the task layer's, a short one is waited here."""
    server.on(PATH, wants("Bearer t1"))
    server.on(
        "/token",
        Answer(status=429, headers={"Retry-After": "2"}),
        Answer(status=429, headers={"Retry-After": "120"}),
    )

    with pytest.raises(RegistryUnavailable) as caught:
        fetch(client, server)
    assert waits == [2.0]
    assert caught.value.retry_after_seconds == 120.0


def test_every_scope_is_a_parameter_and_the_realms_own_query_is_kept() -> None:
    """As the token specification writes them."""
    challenge = Challenge(Scheme.BEARER, "https://auth.example/token?x=1#y", "my service", "a:b:pull c:d:pull,push")

    assert (
        token_url(challenge, scope=challenge.scope)
        == "https://auth.example/token?x=1&service=my+service&scope=a%3Ab%3Apull&scope=c%3Ad%3Apull%2Cpush"
    )


def test_no_credential_is_printed(client: RegistryClient, server: OddServer, caplog: pytest.LogCaptureFixture) -> None:
    """Neither in a repr, nor in a log, nor in the traceback of a registry that sends back what it got."""

    def echo(asked: Asked) -> Answer:
        message = f"{asked.authorization} {asked.body.decode()}"
        answer = Answer(status=403, body=json.dumps({"errors": [{"code": message, "message": message}]}).encode())
        return answer if asked.authorization else wants()(asked)

    server.on(PATH, echo)
    server.on("/token", token_answer("s3cret-token"))
    login = Login(username="s3cret-user", password="s3cret-pass", identity_token="s3cret-refresh")  # noqa: S106

    with caplog.at_level(logging.DEBUG), pytest.raises(AccessDenied) as caught:
        fetch(client, server, login)
    printed = "".join(traceback.format_exception(caught.value)) + caplog.text + repr(login) + repr(vars(caught.value))
    assert "s3cret" not in printed


def test_threads_that_are_refused_together_fetch_one_token(client: RegistryClient, server: OddServer) -> None:
    """Parallel layers start with a 401 each; the first answer serves all."""
    barrier = threading.Barrier(3, timeout=20)
    answer = wants("Bearer t1")

    def together(asked: Asked) -> Answer:
        if asked.authorization is None:
            barrier.wait()
        return answer(asked)

    server.on(PATH, together)
    server.on("/token", token_answer("t1"), token_answer("t2"))
    repository = client.repository(Reference.parse(f"{server.host}/a/b:1"), login=None)

    with ThreadPoolExecutor(3) as threads:
        assert [one.content for one in threads.map(repository.manifest, ["1"] * 3)] == [MANIFEST] * 3
    assert len(server.asked_for("/token")) == 1
