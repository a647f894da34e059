"""The config in a checkpoint is text that anyone may have written."""

from http.server import BaseHTTPRequestHandler, HTTPServer
from threading import Thread

import pytest

from hiera_video.checkpoints.saved_config import saved_settings
from hiera_video.config import ConfigError, load_config, load_saved_config, to_yaml

# Ten lines that stand for 10^9 values.
BOMB = "a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n" + "".join(
    f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 10)}]\n" for n in range(1, 9)
)
MAPS = "m0: &m0 {k: 1}\n" + "".join(
    f"m{n}: &m{n} {{a: *m{n - 1}, b: *m{n - 1}, c: *m{n - 1}}}\n" for n in range(1, 30)
)
BROKEN = {
    "lists of aliases": BOMB,
    "mappings of aliases": MAPS,
    "merged aliases": MAPS + "<<: [*m29, *m28]\n",
    "a long text": "a: [" + "1, " * 200_000 + "]",
    "nested too deep": "a: " + "[" * 500,
    "itself": "a: &a {b: *a}\n",
    "no YAML": "- [",
    "not text": "a: \x00",
}


@pytest.fixture
def asked():
    """Requests that a server of this machine got; the first item is its URL."""
    heard = []

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self):
            heard.append(self.path)
            self.send_error(404)

        def log_message(self, *_):
            pass

    with HTTPServer(("127.0.0.1", 0), Handler) as server:
        Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        heard.append(f"http://127.0.0.1:{server.server_address[1]}")
        yield heard
        server.shutdown()


def test_a_saved_config_opens_nothing_else(tmp_path, asked):
    other = tmp_path / "other.yaml"
    other.write_text("RNG_SEED: 7\n")
    for base in (f"{asked[0]}/a.yaml", str(other), f"[{other}]"):
        with pytest.raises(ConfigError, match=r"config\.yaml:1: _BASE_.*must not be in a saved"):
            load_saved_config(f"_BASE_: {base}\n", "config.yaml")
    assert len(asked) == 1
    assert load_config(str(other)).RNG_SEED == 7


def test_a_saved_config_comes_back():
    cfg = load_config("configs/Demo/HIERA_MICRO.yaml", ["RNG_SEED", "5"])
    assert load_saved_config(to_yaml(cfg), "config.yaml") == cfg
    assert saved_settings(to_yaml(cfg))["RNG_SEED"] == 5
    assert saved_settings(to_yaml(cfg))["MODEL.NUM_CLASSES"] == cfg.MODEL.NUM_CLASSES


@pytest.mark.parametrize("kind", BROKEN)
def test_broken_yaml_is_refused_at_once(tmp_path, kind):
    file = tmp_path / "config.yaml"
    file.write_text(BROKEN[kind])
    for load in (
        lambda: load_config(str(file)),
        lambda: load_saved_config(BROKEN[kind], "config.yaml"),
    ):
        with pytest.raises(ConfigError) as error:
            load()
        assert len(str(error.value)) < 3000
    saved_settings(BROKEN[kind])


@pytest.mark.parametrize("text", [None, 5, b"a: 1", "", "5", "[1]", *BROKEN.values()])
def test_what_cannot_be_read_has_no_settings(text):
    assert saved_settings(text) == {}


def test_aliases_of_a_plain_config_are_fine(tmp_path):
    file = tmp_path / "config.yaml"
    file.write_text("DATA: {MEAN: &m [0.5, 0.5, 0.5], STD: *m}\n")
    assert load_config(str(file)).DATA.STD == (0.5, 0.5, 0.5)
