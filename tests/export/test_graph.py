import json
import os
import resource
import signal
import sys

import numpy as np
import pytest
import torch

from hiera_video.export import graph
from hiera_video.export.graph import (
    CHECKED_BATCHES,
    FACTS_ENTRY,
    export_graphs,
    require_onnx,
)
from hiera_video.models.baselines import x3d_s
from hiera_video.models.hiera import Hiera, hiera_base_16x224, hiera_micro_8x64
from hiera_video.models.mvit import mvit_micro_64
from hiera_video.utils.errors import UserError

FACTS = {"class_names": ["left", "é"]}


@pytest.fixture(scope="module")
def model():
    torch.manual_seed(0)
    small = {"embed_dim": 8, "stages": (1, 1), "q_pool": 1, "mask_unit_attn": (True, False)}
    return hiera_micro_8x64(num_classes=2, **small).eval()


def export(model, folder, *formats, shape=(3, 8, 64, 64), **more):
    return export_graphs(model, str(folder), formats, clip_shape=shape, facts=FACTS, **more)


@pytest.fixture(scope="module")
def pt2(model, tmp_path_factory):
    folder = tmp_path_factory.mktemp("pt2")
    return export(model, folder, "pt2")[0]


@pytest.fixture(scope="module")
def onnx(model, tmp_path_factory):
    for package in ("onnx", "onnxscript", "onnxruntime"):
        pytest.importorskip(package)
    folder = tmp_path_factory.mktemp("onnx")
    return export(model, folder, "onnx")[0]


def clips(batch, shape=(3, 8, 64, 64)):
    return torch.randn(batch, *shape, generator=torch.Generator().manual_seed(batch))


def test_a_pt2_runs_any_batch_as_the_model_does(model, pt2):
    assert set(pt2.differences) == set(CHECKED_BATCHES) == {1, 3}
    assert max(pt2.differences.values()) <= 1e-4
    assert f"largest difference from the eager model {max(pt2.differences.values()):.1e}" in str(
        pt2
    )
    read = {FACTS_ENTRY: ""}
    program = torch.export.load(pt2.path, extra_files=read).module()
    for batch in (1, 2, 5):
        torch.testing.assert_close(program(clips(batch)), model(clips(batch)), atol=1e-5, rtol=0)
    assert json.loads(read[FACTS_ENTRY]) == FACTS
    assert os.listdir(os.path.dirname(pt2.path)) == ["model.pt2"]
    assert pt2.num_bytes == os.path.getsize(pt2.path)


def test_a_pt2_refuses_more_clips_than_one_pass_of_attention_takes(pt2):
    program = torch.export.load(pt2.path)
    (limits,) = program.range_constraints.values()
    assert limits.lower <= 1
    assert limits.upper == 65535 // 16


def test_an_onnx_runs_any_batch_as_the_model_does(model, onnx):
    import onnx as onnx_package
    import onnxruntime

    onnx_package.checker.check_model(onnx.path, full_check=True)
    session = onnxruntime.InferenceSession(onnx.path, providers=["CPUExecutionProvider"])
    (given,), (put_out,) = session.get_inputs(), session.get_outputs()
    assert (given.name, given.shape) == ("clips", ["batch", 3, 8, 64, 64])
    assert (put_out.name, put_out.shape) == ("logits", ["batch", 2])
    for batch in (1, 2, 5):
        (logits,) = session.run(["logits"], {"clips": clips(batch).numpy()})
        expected = model(clips(batch)).detach().numpy()
        np.testing.assert_allclose(logits, expected, atol=1e-5, rtol=0)
    metadata = session.get_modelmeta().custom_metadata_map
    assert json.loads(metadata[FACTS_ENTRY]) == FACTS
    assert max(onnx.differences.values()) <= 1e-4


@pytest.mark.parametrize("simplify", ["", "abc"])
def test_a_step_from_mvitv2_runs_any_batch_in_both_formats(simplify, tmp_path):
    require_onnx()
    torch.manual_seed(0)
    small = {"embed_dim": 8, "stages": (1, 1), "q_pool": 1, "mask_unit_attn": (True, False)}
    step = mvit_micro_64(simplify=simplify, num_classes=2, head_init_scale=1.0, **small).eval()
    for checked in export(step, tmp_path, "pt2", "onnx", shape=(3, 64, 64)):
        assert set(checked.differences) == {1, 3}
        assert max(checked.differences.values()) <= 1e-5
        assert checked.largest_logit > 0.01


class HeedsNoExport(Hiera):
    """Another function while it is exported than afterwards, as a wrong exporter would make."""

    def forward(self, clips_BX):
        return super().forward(clips_BX) + (0.01 if torch.compiler.is_exporting() else 0.0)


def another_function():
    small = {"embed_dim": 8, "stages": (1, 1), "input_size": (32, 32), "q_pool": 1}
    return HeedsNoExport(num_classes=2, mask_unit_attn=(True, False), **small).eval()


def test_a_file_that_differs_is_not_kept(tmp_path):
    with pytest.raises(UserError, match=r"--tolerance .* got 0.0001 for 0.01 at batch 1 of pt2"):
        export(another_function(), tmp_path, "pt2", shape=(3, 32, 32))
    assert os.listdir(tmp_path) == []
    (done,) = export(another_function(), tmp_path, "pt2", shape=(3, 32, 32), tolerance=0.1)
    assert done.differences[3] == pytest.approx(0.01, abs=1e-4)


def test_a_model_that_gives_no_numbers_agrees_with_nothing(tmp_path):
    model = another_function()
    torch.nn.init.constant_(model.head.projection.bias, float("nan"))
    with pytest.raises(UserError, match="got 1 for nan at batch 1 of pt2"):
        export(model, tmp_path, "pt2", shape=(3, 32, 32), tolerance=1)
    assert os.listdir(tmp_path) == []


def test_a_model_that_cannot_be_exported_is_one_line(tmp_path):
    class Undecided(torch.nn.Module):
        def forward(self, clips_BX):
            return clips_BX.mean((2, 3)) if clips_BX.sum() > 0 else clips_BX.amax((2, 3))

    with pytest.raises(UserError, match="--format must be one that the model .*, got pt2") as error:
        export(Undecided().eval(), tmp_path, "pt2", shape=(3, 8, 8))
    assert "\n" not in str(error.value)
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize("name", ["pt2", pytest.param("onnx", marks=pytest.mark.slow)])
def test_a_disk_that_is_full_leaves_the_file_of_before(name, tmp_path):
    if name == "onnx":
        pytest.importorskip("onnxscript")
    before = b"the one of before"
    (tmp_path / f"model.{name}").write_bytes(before)
    old = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)  # an error in its place
    resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, old[1]))
    try:
        with pytest.raises(UserError, match="--output must be a folder that can be written to"):
            export(another_function(), tmp_path, name, shape=(3, 32, 32))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, old)
        signal.signal(signal.SIGXFSZ, handler)
    assert os.listdir(tmp_path) == [f"model.{name}"]
    assert (tmp_path / f"model.{name}").read_bytes() == before


def test_an_output_that_is_a_file_is_refused(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match="--output must be a folder that can be written to"):
        export(another_function(), tmp_path / "file", "pt2", shape=(3, 32, 32))


def test_packages_that_are_missing_are_named(monkeypatch, tmp_path):
    monkeypatch.setattr(sys, "path", [])
    monkeypatch.setattr(sys, "path_importer_cache", {})
    for package in ("onnx", "onnxscript", "onnxruntime"):
        monkeypatch.delitem(sys.modules, package, raising=False)
    with pytest.raises(UserError, match=r"got no onnx and no onnxscript and no .*'\.\[export\]'"):
        require_onnx()


@pytest.mark.slow
def test_weights_too_large_for_one_onnx_lie_beside_it(model, tmp_path, monkeypatch):
    runtime = pytest.importorskip("onnxruntime")
    monkeypatch.setattr(graph, "_ONNX_MAX_BYTES", 1000)
    export(model, tmp_path / "first", "onnx")
    (tmp_path / "first").rename(tmp_path / "elsewhere")
    names = sorted(os.listdir(tmp_path / "elsewhere"))
    assert names == ["model.onnx", "model.onnx.data"]
    session = runtime.InferenceSession(
        tmp_path / "elsewhere/model.onnx", providers=["CPUExecutionProvider"]
    )
    (logits,) = session.run(["logits"], {"clips": clips(2).numpy()})
    np.testing.assert_allclose(logits, model(clips(2)).detach().numpy(), atol=1e-5, rtol=0)


@pytest.mark.slow
def test_a_convolutional_baseline_is_exported_too(tmp_path):
    torch.manual_seed(0)
    model = x3d_s(input_size=(4, 32, 32), num_classes=3).eval()
    for done in export(model, tmp_path, "pt2", "onnx", shape=(3, 4, 32, 32)):
        assert max(done.differences.values()) <= 1e-4


@pytest.mark.slow
def test_video_hiera_b_agrees_within_1e_4(tmp_path):
    """Random weights, and a classifier that makes logits of 61, far beyond a trained model's."""
    torch.manual_seed(0)
    model = hiera_base_16x224(num_classes=400, head_init_scale=30.0).eval()
    done = export(model, tmp_path, "pt2", "onnx", shape=(3, 16, 224, 224))
    for one in done:
        assert set(one.differences) == {1, 3}
        assert max(one.differences.values()) <= 1e-4
        assert one.largest_logit > 10
