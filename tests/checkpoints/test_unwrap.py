"""Weights in the wrappings that PyTorch, timm, Lightning and DeepSpeed put around them."""

import argparse
from functools import partial

import pytest
import torch
from torch import nn
from torch.nn.parallel import DistributedDataParallel
from torch.optim.swa_utils import AveragedModel

from hiera_video.checkpoints.files import model_state, read_checkpoint
from hiera_video.checkpoints.matching import load_weights, refuse_misfits, start_from_weights
from hiera_video.checkpoints.unwrap import unwrap
from hiera_video.models.hiera import hiera_micro_8x64
from hiera_video.models.hiera_mae import mae_hiera_micro_8x64
from hiera_video.utils.errors import UserError

micro = partial(hiera_micro_8x64, num_classes=4)


@pytest.fixture
def alone(tmp_path):
    """A process group of this process."""
    store = torch.distributed.FileStore(str(tmp_path / "store"), 1)
    torch.distributed.init_process_group("gloo", store=store, rank=0, world_size=1)
    yield
    torch.distributed.destroy_process_group()


def compiled_block(model):
    for index, block in enumerate(model.blocks):
        model.blocks[index] = torch.compile(block)
    return model


class Lightning(nn.Module):
    """What a LightningModule's state dict looks like: the model, and what belongs to the loss."""

    def __init__(self, model):
        super().__init__()
        self.model = model
        self.criterion = nn.Linear(2, 2)


WRAPPERS = {
    "compile": torch.compile,
    "compiled blocks": compiled_block,
    "data parallel": nn.DataParallel,
    "distributed": DistributedDataParallel,
    "distributed and compiled": lambda model: torch.compile(DistributedDataParallel(model)),
    "compiled and distributed": lambda model: DistributedDataParallel(torch.compile(model)),
    "average": AveragedModel,
    "lightning": Lightning,
    "lightning, compiled": lambda model: Lightning(torch.compile(model)),
}


# These import the compiler, which takes seconds.
SLOW = [
    pytest.param(name, marks=pytest.mark.slow)
    if "compile" in name or "distributed" in name
    else name
    for name in WRAPPERS
]


@pytest.mark.parametrize("wrapper", SLOW)
def test_the_names_that_a_wrapper_gives_are_undone(tmp_path, alone, wrapper):
    model = micro()
    plain = {name: value.clone() for name, value in model.state_dict().items()}
    state = WRAPPERS[wrapper](model).state_dict()
    assert state.keys() != plain.keys()
    path = str(tmp_path / "w.pth")
    torch.save(state, path)
    for load in (load_weights, partial(start_from_weights, num_classes=4)):
        ours = micro()
        summary = load(ours, path, key="KEY")
        assert "unwrapped: " in str(summary)
        assert summary.missing == summary.unused == summary.reinitialised == ()
        assert all(torch.equal(value, plain[name]) for name, value in ours.state_dict().items())
    content = read_checkpoint(path, key="KEY")
    with torch.device("meta"):
        refuse_misfits(micro(), content, path=path, key="KEY")
    assert model_state(content).keys() == plain.keys()  # where no model is at hand


def lightning(state):
    return {
        "epoch": 3,
        "global_step": 120,
        "pytorch-lightning_version": "2.5.0",
        "state_dict": {f"model.{name}": value for name, value in state.items()},
        "loops": {"fit_loop": {"state_dict": {}, "epoch_progress": {"total": {"ready": 4}}}},
        "callbacks": {"ModelCheckpoint{'monitor': None}": {"best_model_score": torch.ones(())}},
        "optimizer_states": [{"state": {0: {"step": torch.ones(())}}, "param_groups": []}],
        "lr_schedulers": [],
        "hparams_name": "kwargs",
        "hyper_parameters": {"lr": 1e-3},
    }


def deepspeed(state):
    return {
        "module": {f"module.{name}": value.half() for name, value in state.items()},
        "buffer_names": [],
        "optimizer": None,
        "param_shapes": [{name: value.shape for name, value in state.items()}],
        "frozen_param_shapes": None,
        "lr_scheduler": None,
        "global_steps": 10,
        "ds_config": {"zero_optimization": {"stage": 2}},
        "ds_version": "0.14.0",
    }


def compiled(state):
    renamed = {n.replace("blocks.1.", "blocks.1._orig_mod."): v for n, v in state.items()}
    return {"model": {f"_orig_mod.module.{name}": value for name, value in renamed.items()}}


LAYOUTS = {
    "compiled": compiled,
    "lightning": lightning,
    "deepspeed": deepspeed,
    "state_dict": lambda state: {"state_dict": state, "epoch": 3, "meta": {"CLASSES": ["a"]}},
    "model": lambda state: {"model": state, "optimizer": {"state": {}}, "scaler": {"scale": 1.0}},
    "a script's arguments": lambda state: {"model": state, "args": argparse.Namespace(lr=0.1)},
    "net": lambda state: {"net": {f"module.{name}": value for name, value in state.items()}},
    "nested": lambda state: {"model": {"state_dict": state}},
    "any name": lambda state: {"student": {f"encoder.body.{n}": v for n, v in state.items()}},
}


@pytest.mark.parametrize("layout", LAYOUTS)
def test_the_layouts_of_trainers_are_undone(tmp_path, layout):
    theirs = micro()
    path = str(tmp_path / "w.pt")
    torch.save(LAYOUTS[layout](theirs.state_dict()), path)
    for load in (load_weights, partial(start_from_weights, num_classes=4)):
        ours = micro()
        summary = load(ours, path, key="KEY")
        assert "unwrapped: taken from " in str(summary)
        assert torch.allclose(ours.norm.weight, theirs.norm.weight, atol=1e-3)
        assert torch.allclose(ours.head.projection.weight, theirs.head.projection.weight, atol=1e-3)


AVERAGES = {
    "state_dict_ema": lambda plain, mean: {"state_dict": plain, "state_dict_ema": mean},
    "model_ema": lambda plain, mean: {"model": plain, "model_ema": {"module": mean}},
    "ema": lambda plain, mean: {"ema": mean, "model": plain},
    "attributes": lambda plain, mean: {
        "state_dict": {f"model.{n}": v for n, v in plain.items()}
        | {f"ema_model.module.{n}": v for n, v in mean.items()}
    },
}


@pytest.mark.parametrize("layout", AVERAGES)
def test_averaged_weights_are_preferred_and_it_is_said(tmp_path, layout):
    plain, mean = micro(), micro()
    path = str(tmp_path / "w.pt")
    torch.save(AVERAGES[layout](plain.state_dict(), mean.state_dict()), path)
    ours = micro()
    summary = load_weights(ours, path, key="KEY")
    assert torch.equal(ours.patch_embed.proj.weight, mean.patch_embed.proj.weight)
    assert "averaged weights" in str(summary)


def test_a_name_that_merely_contains_ema_is_no_average():
    plain, other = micro().state_dict(), micro().state_dict()
    found = unwrap({"model": plain, "schema_state": other, "remat": other}, plain)
    assert found.state is not other
    assert torch.equal(found.state["norm.weight"], plain["norm.weight"])
    assert found.average == ""


def test_names_that_are_the_models_own_are_left_alone():
    class Mine(nn.Module):
        def __init__(self):
            super().__init__()
            self.model = micro()
            self.extra = nn.Linear(2, 2)

    model = Mine()
    for content in (model.state_dict(), {"model_state": model.state_dict()}):
        found = unwrap(content, model.state_dict())
        assert found.state.keys() == model.state_dict().keys()
        assert found.how == ""


def test_a_model_of_any_family_is_unwrapped_by_its_own_names(tmp_path):
    theirs, ours = nn.Linear(3, 4), nn.Linear(3, 4)
    path = str(tmp_path / "w.pt")
    torch.save({"state_dict": nn.DataParallel(theirs).state_dict()}, path)
    load_weights(ours, path, key="KEY")
    assert torch.equal(ours.weight, theirs.weight)


def test_an_autoencoder_in_a_wrapper_gives_a_classifier_its_body(tmp_path):
    theirs, ours = mae_hiera_micro_8x64(), micro()
    path = str(tmp_path / "w.pt")
    torch.save({"model": nn.DataParallel(theirs).state_dict()}, path)
    summary = start_from_weights(ours, path, key="KEY", num_classes=4)
    assert torch.equal(ours.blocks[3].attn.qkv.weight, theirs.blocks[3].attn.qkv.weight)
    assert "the autoencoder's decoder was dropped" in str(summary)


def test_the_first_differing_keys_of_wrapped_weights_are_the_models(tmp_path):
    state = {f"module.{n}": v for n, v in micro().state_dict().items() if n != "norm.bias"}
    path = str(tmp_path / "w.pt")
    torch.save({"state_dict": {**state, "module.fc.bias": torch.ones(1)}}, path)
    with pytest.raises(UserError, match="norm.bias is missing; fc.bias is unknown here. Try"):
        load_weights(micro(), path, key="KEY")
    torch.save({"state_dict": {"conv1.weight": torch.ones(1), "fc.bias": torch.ones(1)}}, path)
    with pytest.raises(UserError, match=r"is missing; .*conv1.weight is unknown here; fc.bias is"):
        start_from_weights(micro(), path, key="KEY", num_classes=4)


def odd_tensors():
    return {
        "without data": torch.empty(256, device="meta"),
        "sparse": torch.ones(256).to_sparse(),
        "quantised": torch._empty_affine_quantized(
            [256], scale=0.1, zero_point=0, dtype=torch.qint8
        ),
        "memory": torch.ones(1).expand(256),
    }


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("kind", ["without data", "sparse", "quantised", "memory"])
@pytest.mark.parametrize("key", ["norm.weight", "unused"])
def test_tensors_that_are_no_ordinary_ones_are_refused(tmp_path, kind, key):
    path = str(tmp_path / "w.pt")
    torch.save({"model_state": micro().state_dict() | {key: odd_tensors()[kind]}}, path)
    with pytest.raises(UserError, match=f"KEY: .*ordinary dense.*{kind}.*model_state > {key}") as e:
        start_from_weights(micro(), path, key="KEY", num_classes=4)
    assert "\n" not in str(e.value)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"model_state": 5}, "a state dict under 'model_state', got a int"),
        ({"model_state": {}, "ema_state": [1]}, "a state dict under 'ema_state', got a list"),
        ({"model_state": {7: torch.ones(1)}}, "must have names for its weights, got the key 7"),
        ({7: torch.ones(1)}, "must have names for its weights, got the key 7"),
        ({"model_state": {"a": 1}}, "is missing"),
        ({"epoch": 3}, "is missing"),
        ({}, "is missing"),
    ],
)
def test_content_that_is_no_checkpoint_is_one_line(tmp_path, content, message):
    path = str(tmp_path / "w.pt")
    torch.save(content, path)
    with pytest.raises(UserError, match=message) as error:
        load_weights(micro(), path, key="KEY")
    assert "\n" not in str(error.value)


def test_content_that_holds_itself_over_and_over_is_walked_once(tmp_path):
    node = {"weight": torch.ones(1)}
    for _ in range(60):
        node = {f"child{index}": node for index in range(10)}
    path = str(tmp_path / "w.pt")
    torch.save({"model": node}, path)
    with pytest.raises(UserError, match="is missing"):
        load_weights(micro(), path, key="KEY")
