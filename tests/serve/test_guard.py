"""Test which hosts and origins the server answers."""

import pytest

from .serving import FORM, checkpoint, client, content, form, serving

__all__ = ["checkpoint", "client", "content"]  # fixtures


@pytest.mark.parametrize(
    "host",
    [
        "example.org",
        "example.org:8000",
        "",
        "127.0.0.1@example.org",
        "localhost.example.org",
        "10.0.0.1",
        "[::1",
    ],
)
def test_a_foreign_host_is_refused(client, content, host):
    for method, path in (("GET", "/"), ("POST", "/predict")):
        reply = client.ask(method, path, form(content), {**FORM, "Host": host})
        assert (reply.status, list(reply.content)) == (403, ["error"])


@pytest.mark.parametrize("host", ["localhost", "LOCALHOST:1", "127.0.0.1:9", "[::1]:8000"])
def test_names_of_this_machine_are_welcome(client, host):
    assert client.ask("GET", "/", headers={"Host": host}).status == 200


def test_pages_of_elsewhere_get_nothing(client, content):
    for headers in (
        {"Origin": "https://example.org"},
        {"Origin": "null"},
        {"Origin": "http://localhost:1"},
        {"Sec-Fetch-Site": "cross-site"},
        {"Sec-Fetch-Site": "same-site"},
    ):
        reply = client.ask("POST", "/predict", form(content), {**FORM, **headers})
        assert (reply.status, reply.error) == (403, "Requests of other pages are refused.")
    wish = {"Origin": client.service.url, "Access-Control-Request-Method": "POST"}
    for method, headers in (("OPTIONS", wish), ("GET", {"Origin": client.service.url})):
        reply = client.ask(method, "/predict", headers=headers)
        assert not [name for name in reply.headers if name.lower().startswith("access-control")]
    same = {"Origin": client.service.url, "Sec-Fetch-Site": "same-origin"}
    assert client.ask("POST", "/predict", form(content), {**FORM, **same}).status == 200


def test_a_name_that_is_allowed_is_welcome(checkpoint, tmp_path):
    with serving(checkpoint, tmp_path, allow_hosts=["my.lan"]) as client:
        assert client.ask("GET", "/", headers={"Host": "MY.lan:8000"}).status == 200
        assert client.ask("GET", "/", headers={"Host": "other.lan"}).status == 403
