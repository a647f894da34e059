import logging
import re
import threading
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer

import pytest
import torch
from safetensors.torch import save_file

from hiera_video.checkpoints import files, matching
from hiera_video.checkpoints.published import load_published, published_files
from hiera_video.models.hiera import Hiera, hiera_micro_8x64
from hiera_video.models.hiera_mae import MaskedAutoencoderHiera, mae_hiera_micro_8x64
from hiera_video.utils import cache, io
from hiera_video.utils.errors import UserError

# Stand-ins for the published files: what a name means does not depend on the model's size.
NAME, MAE_NAME = "hiera_base_16x224", "mae_hiera_base_16x224"
IMAGE = {"input_size": (64, 64), "embed_dim": 8, "stages": (1, 1, 1, 1), "num_classes": 5}


class Handler(SimpleHTTPRequestHandler):
    def do_GET(self):
        self.server.asked.append(self.path)
        if not self.server.breaks_off:
            super().do_GET()
            return
        self.send_response(200)
        self.send_header("Content-Length", "1000000")
        self.end_headers()
        self.wfile.write(b"x" * 1000)

    def log_message(self, *_):
        pass


@pytest.fixture(autouse=True)
def no_weights_yet(tmp_path, monkeypatch):
    monkeypatch.delenv("HIERA_VIDEO_WEIGHTS", raising=False)
    monkeypatch.setenv("FVCORE_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    monkeypatch.setattr(logging.getLogger("hiera_video"), "propagate", True)  # a run stops it


@pytest.fixture
def mirror(tmp_path, monkeypatch):
    """A folder of published files, and HIERA_VIDEO_WEIGHTS naming it."""
    folder = tmp_path / "mirror"
    folder.mkdir()
    monkeypatch.setenv("HIERA_VIDEO_WEIGHTS", str(folder))
    return folder


@pytest.fixture
def site(tmp_path, monkeypatch):
    """A server in place of the authors', and its folder."""
    folder = tmp_path / "site"
    folder.mkdir()
    with ThreadingHTTPServer(("127.0.0.1", 0), partial(Handler, directory=folder)) as server:
        server.asked, server.breaks_off, server.folder = [], False, folder
        url = f"http://127.0.0.1:{server.server_address[1]}/"
        monkeypatch.setattr(files, "HIERA_URL", url)
        threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        yield server
        server.shutdown()


def save(path, model):
    torch.save({"model_state": model.state_dict()}, path)
    return str(path)


def same(ours, theirs, names):
    state = theirs.state_dict()
    return all(torch.equal(ours.state_dict()[name], state[name]) for name in names)


def test_every_published_model_has_its_files():
    assert published_files("hiera_tiny_224") == {
        "mae_in1k_ft_in1k": "hiera_tiny_224.pth",
        "mae_in1k": "mae_hiera_tiny_224.pth",
    }
    assert published_files("hiera_base_plus_16x224") == {
        "mae_k400_ft_k400": "hiera_base_plus_16x224.pth",
        "mae_k400": "mae_hiera_base_plus_16x224.pth",
    }
    assert published_files("mae_hiera_huge_224") == {"mae_in1k": "mae_hiera_huge_224.pth"}
    assert published_files("mae_hiera_large_16x224") == {"mae_k400": "mae_hiera_large_16x224.pth"}
    for name in ("hiera_tiny_16x224", "hiera_micro_8x64", "mae_hiera_micro_8x64", "mae_mae_x", ""):
        assert published_files(name) == {}
    assert files.HIERA_URL == "https://dl.fbaipublicfiles.com/hiera/"


def test_the_default_comes_from_the_folder_of_copies(mirror, caplog):
    theirs, ours = hiera_micro_8x64(), hiera_micro_8x64()
    save(mirror / f"{NAME}.pth", theirs)
    summary = load_published(ours, NAME)
    assert same(ours, theirs, theirs.state_dict())
    assert summary.missing == summary.reinitialised == summary.unused == ()
    assert caplog.text == ""  # nothing was downloaded


def test_safetensors_of_the_same_name_do_as_well(mirror):
    theirs, ours = hiera_micro_8x64(), hiera_micro_8x64()
    save_file(theirs.state_dict(), mirror / f"{NAME}.safetensors")
    load_published(ours, NAME, "mae_k400_ft_k400")
    assert same(ours, theirs, theirs.state_dict())


def test_pretrained_weights_leave_a_classifiers_norm_and_head_fresh(mirror):
    theirs, ours = mae_hiera_micro_8x64(), hiera_micro_8x64(num_classes=7)
    save(mirror / f"mae_{NAME}.pth", theirs)
    head = ours.head.projection.weight.clone()
    summary = load_published(ours, NAME, "mae_k400")
    assert {name.split(".")[0] for name in summary.missing} == {"norm", "head"}
    assert same(ours, theirs, summary.loaded)
    assert torch.equal(ours.head.projection.weight, head)
    assert "decoder was dropped" in str(summary)


def test_an_autoencoder_takes_all_of_its_weights(mirror):
    theirs, ours = mae_hiera_micro_8x64(), mae_hiera_micro_8x64()
    save(mirror / f"{MAE_NAME}.pth", theirs)
    summary = load_published(ours, MAE_NAME)
    assert set(summary.loaded) == set(theirs.state_dict())
    assert same(ours, theirs, summary.loaded)


def test_images_too(mirror):
    theirs, ours = Hiera(**IMAGE), Hiera(**{**IMAGE, "input_size": (96, 96)})
    save(mirror / "hiera_tiny_224.pth", theirs)
    assert load_published(ours, "hiera_tiny_224").interpolated == ("pos_embed",)
    size = {name: value for name, value in IMAGE.items() if name != "num_classes"}
    theirs, ours = MaskedAutoencoderHiera(**size), Hiera(**IMAGE)
    save(mirror / "mae_hiera_tiny_224.pth", theirs)
    summary = load_published(ours, "hiera_tiny_224", "mae_in1k")
    assert same(ours, theirs, summary.loaded)
    assert "q_pool 2" in str(summary)


def test_another_number_of_classes_keeps_a_fresh_head(mirror):
    save(mirror / f"{NAME}.pth", hiera_micro_8x64(num_classes=400))
    summary = load_published(hiera_micro_8x64(num_classes=6), NAME)
    assert summary.reinitialised == ("head.projection.weight", "head.projection.bias")


def test_a_file_under_anothers_name_is_refused(mirror):
    classifier, autoencoder = hiera_micro_8x64(), mae_hiera_micro_8x64()
    save(mirror / f"{NAME}.pth", autoencoder)
    save(mirror / f"{MAE_NAME}.pth", classifier)
    with pytest.raises(UserError, match=r"'mae_k400_ft_k400' of hiera_base.*no head\.projection"):
        load_published(classifier, NAME)
    with pytest.raises(UserError, match="'mae_k400' of mae_hiera_base_16x224, but has no mask_to"):
        load_published(autoencoder, MAE_NAME)


@pytest.mark.parametrize("kind", ["path", "Path", "url"])
def test_paths_and_urls_are_checkpoints_too(tmp_path, site, kind, monkeypatch):
    monkeypatch.setattr(files, "HIERA_URL", "https://127.0.0.1:1/")
    theirs, ours = hiera_micro_8x64(num_classes=3), hiera_micro_8x64(num_classes=3)
    path = site.folder / "own.pth"
    save(path, theirs)
    url = f"http://127.0.0.1:{site.server_address[1]}/own.pth"
    load_published(ours, NAME, {"path": str(path), "Path": path, "url": url}[kind])
    assert same(ours, theirs, theirs.state_dict())


def test_a_model_that_is_not_published_loads_files_alone(tmp_path):
    theirs = hiera_micro_8x64()
    load_published(hiera_micro_8x64(), "hiera_micro_8x64", save(tmp_path / "w.pyth", theirs))
    for checkpoint in (None, "mae_k400"):
        with pytest.raises(UserError, match="no weights of hiera_micro_8x64 are published"):
            load_published(hiera_micro_8x64(), "hiera_micro_8x64", checkpoint)


def test_unknown_names_are_told_the_known_ones():
    with pytest.raises(UserError) as error:
        load_published(hiera_micro_8x64(), NAME, "mae_k40")
    assert str(error.value) == (
        "checkpoint must be one of mae_k400_ft_k400, mae_k400 for hiera_base_16x224, a file or a "
        "URL, got 'mae_k40'. Did you mean mae_k400?"
    )
    for path in ("none.pth", "folder/none"):
        with pytest.raises(UserError, match="does not exist"):
            load_published(hiera_micro_8x64(), NAME, path)


def test_a_folder_of_copies_that_is_none_is_named(tmp_path, monkeypatch, site):
    (tmp_path / "file").touch()
    for folder in (tmp_path / "none", tmp_path / "file"):
        monkeypatch.setenv("HIERA_VIDEO_WEIGHTS", str(folder))
        with pytest.raises(UserError, match="HIERA_VIDEO_WEIGHTS must be a folder") as error:
            load_published(hiera_micro_8x64(), NAME)
        assert str(folder) in str(error.value)
    assert site.asked == []


def test_what_the_folder_lacks_is_downloaded_once_and_the_licence_told(mirror, site, caplog):
    theirs, ours = hiera_micro_8x64(), hiera_micro_8x64()
    save(site.folder / f"{NAME}.pth", theirs)
    load_published(ours, NAME)
    assert same(ours, theirs, theirs.state_dict())
    assert [record.levelname for record in caplog.records] == ["WARNING"]
    assert "CC-BY-NC 4.0" in caplog.text
    load_published(ours, NAME)
    assert site.asked == [f"/{NAME}.pth"]
    assert caplog.text.count("CC-BY-NC") == 1


def test_the_licence_is_told_for_a_url_of_theirs_in_a_config_too(site, caplog):
    save(site.folder / "w.pth", hiera_micro_8x64())
    matching.load_weights(hiera_micro_8x64(), f"{files.HIERA_URL}w.pth", key="KEY")
    assert "CC-BY-NC 4.0" in caplog.text


@pytest.mark.parametrize("ending", [".pth", ".safetensors"])
def test_a_url_of_theirs_in_a_config_comes_from_the_folder_of_copies(mirror, site, caplog, ending):
    theirs, ours = hiera_micro_8x64(), hiera_micro_8x64()
    if ending == ".pth":
        save(mirror / f"{NAME}.pth", theirs)
    else:
        save_file(theirs.state_dict(), mirror / f"{NAME}.safetensors")
    caplog.set_level(logging.INFO, "hiera_video")
    matching.load_weights(ours, f"{files.HIERA_URL}{NAME}.pth", key="KEY")
    assert same(ours, theirs, theirs.state_dict())
    assert site.asked == []
    assert [record.levelname for record in caplog.records] == ["INFO"]
    assert f"{NAME}.pth is read from {mirror / NAME}{ending}" in caplog.text
    other = f"http://localhost:{site.server_address[1]}/{NAME}.pth"  # of others, the URL is asked
    with pytest.raises(UserError, match="giving the path of the file"):
        matching.load_weights(ours, other, key="KEY")
    assert site.asked == [f"/{NAME}.pth"]


def test_offline_a_config_is_told_the_folder_too(monkeypatch):
    monkeypatch.setattr(files, "HIERA_URL", "http://127.0.0.1:1/hiera/")
    with pytest.raises(UserError, match="and export HIERA_VIDEO_WEIGHTS=that_folder") as error:
        files.read_checkpoint("http://127.0.0.1:1/hiera/w.pth", key="KEY")
    assert one_line(error).startswith("KEY: 'http://127.0.0.1:1/hiera/w.pth' could not be fetched")


def one_line(error):
    assert "\n" not in str(error.value)
    return str(error.value)


def test_offline_it_is_said_what_to_download_and_where_to_put_it(monkeypatch, tmp_path):
    monkeypatch.setattr(files, "HIERA_URL", "http://127.0.0.1:1/hiera/")
    with pytest.raises(UserError) as error:
        load_published(hiera_micro_8x64(), NAME)
    assert re.search(
        r"^checkpoint: 'http://127.0.0.1:1/hiera/hiera_base_16x224.pth' could not be fetched "
        r"\(.*refused.*\)\. Try downloading it by hand and putting it into a folder, and export "
        r"HIERA_VIDEO_WEIGHTS=that_folder\.$",
        one_line(error),
    )
    monkeypatch.setenv("HIERA_VIDEO_WEIGHTS", str(tmp_path))
    with pytest.raises(UserError, match=f"putting it into '{tmp_path}'"):
        load_published(hiera_micro_8x64(), NAME)


def test_a_download_that_breaks_off_does_not_stand_in_the_way_of_the_next(site):
    theirs, ours = hiera_micro_8x64(), hiera_micro_8x64()
    save(site.folder / f"{NAME}.pth", theirs)
    site.breaks_off = True
    with pytest.raises(UserError, match="broke off after 1000 of 1000000 bytes") as error:
        load_published(ours, NAME)
    one_line(error)
    site.breaks_off = False
    load_published(ours, NAME)
    assert same(ours, theirs, theirs.state_dict())


def test_a_page_that_came_for_the_file_is_not_kept(site):
    theirs, ours = hiera_micro_8x64(), hiera_micro_8x64()
    (site.folder / f"{NAME}.pth").write_text("<html>please log in</html>")
    with pytest.raises(UserError, match="not a readable checkpoint") as error:
        load_published(ours, NAME)
    assert files.HIERA_URL in one_line(error)
    assert not io.is_file(cache.cached_path(f"{files.HIERA_URL}{NAME}.pth"))
    save(site.folder / f"{NAME}.pth", theirs)
    load_published(ours, NAME)
    assert same(ours, theirs, theirs.state_dict())
