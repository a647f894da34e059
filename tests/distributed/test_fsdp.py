"""FSDP learns what DDP does, and its checkpoints hold the same, written while training goes on."""

import shutil

import pytest
import simplejson
import torch

from hiera_video import Predictor
from hiera_video.checkpoints import distributed
from hiera_video.checkpoints.files import read_checkpoint
from hiera_video.checkpoints.run_folder import last_checkpoint
from hiera_video.config import load_config
from hiera_video.engine.compiling import refuse_missing_compiler
from hiera_video.engine.launch import launch
from hiera_video.export.state_dict import export_checkpoint
from hiera_video.utils.errors import UserError

SHARED = "TRAIN.BATCH_SIZE 4 SOLVER.ACCUM_STEPS 2 MIXUP.ENABLE True TRAIN.EMA_DECAY 0.9 "
SSL = (
    "TASK ssl MODEL.ARCH hiera_mae MODEL.MODEL_NAME mae_hiera_micro_8x64 TRAIN.EMA_DECAY 0.9 "
    "DATA.TRAIN_CROP_SIZE 64 DATA.TEST_CROP_SIZE 64 MASK.DECODER_EMBED_DIM 32 "
    "MASK.DECODER_DEPTH 1 MASK.DECODER_NUM_HEADS 2 MASK.RATIO 0.5 "
)
FSDP = "DIST.STRATEGY fsdp "

# In float64, so that what differs by more than this is a fault, whatever the processor's rounding.
ROUNDING = 1e-12

# The parts of a training loop, in both ways in the same processes.
STEPS = """
import sys
from datetime import timedelta
import torch
from torch.distributed import destroy_process_group, init_process_group
from hiera_video.config import load_config
from hiera_video.engine.parallel import data_parallel
from hiera_video.engine.compiling import compile_for_training
from hiera_video.engine.ema import WeightAverage
from hiera_video.engine.parallel.fsdp import gathered, is_share, is_sharded, total_norm, whole
from hiera_video.models.build import build_model
from hiera_video.utils import dist

def learn(cfg, frozen):
    torch.manual_seed(0)
    model = build_model(cfg).double()
    for parameter in list(model.parameters())[:frozen]:
        parameter.requires_grad_(False)
    compile_for_training(model, cfg.MODEL.COMPILE)
    wrapped = data_parallel.wrap(cfg, model, torch.device("cpu"))
    assert is_sharded(model) == (cfg.DIST.STRATEGY == "fsdp")
    optimizer = torch.optim.SGD(model.parameters(), lr=0.02, momentum=0.9)
    average = WeightAverage(model, 0.9)
    generator, norms = torch.Generator().manual_seed(dist.rank()), []
    for iteration in range(6):
        clips = torch.randn(2, 3, 4, 32, 32, generator=generator).double()
        with data_parallel.gradients(wrapped, ends_group=iteration % 2 == 1):
            (wrapped(clips).square().mean() / 2).backward()
        if iteration % 2:
            norm = torch.nn.utils.clip_grad_norm_(model.parameters(), 0.1)
            norms.append(total_norm(norm))
            optimizer.step()
            average.update()
            optimizer.zero_grad(set_to_none=True)
    shares = [is_share(value) for value in model.state_dict().values()]
    assert all(shares) if is_sharded(model) else not any(shares)
    here = gathered(model)
    with average.in_place():
        averaged = {name: value.clone() for name, value in gathered(model).items()}
    moments = whole(optimizer.state_dict())["state"]
    if dist.is_main():
        here |= {f"{n}/{k}": v for n, state in moments.items() for k, v in state.items()}
    return norms, here, averaged

def main():
    init_process_group("gloo", timeout=timedelta(seconds=60))
    small = "DATA.NUM_FRAMES 4 DATA.TRAIN_CROP_SIZE 32 DATA.TEST_CROP_SIZE 32 NUM_GPUS 0 ".split()
    for more, frozen in (("False", 0), ("True", 3)):
        words = [*small, *sys.argv[1:], "MODEL.ACT_CHECKPOINT", more, "DIST.STRATEGY"]
        found = [
            learn(load_config("configs/Demo/HIERA_MICRO.yaml", [*words, strategy]), frozen)
            for strategy in ("ddp", "fsdp")
        ]
        (norms, weights, averaged), (norms_f, weights_f, averaged_f) = found
        assert len(norms) == 3 and min(norms) > 1, norms
        torch.testing.assert_close(norms_f, norms, rtol=1e-12, atol=0)
        torch.testing.assert_close(weights_f, weights, rtol=0, atol=1e-12)
        torch.testing.assert_close(averaged_f, averaged, rtol=0, atol=1e-12)
    destroy_process_group()

main()
"""


@pytest.mark.parametrize("num_processes", [2, pytest.param(3, marks=pytest.mark.slow)])
def test_steps_of_shares_are_those_of_whole_models(ranks, script, num_processes):
    ended = ranks(num_processes, script(STEPS))
    assert ended.status == 0, ended.err


@pytest.mark.slow
@pytest.mark.parametrize("num_processes", [2, 3])
@pytest.mark.parametrize("what", ["encoder", "step"])
def test_compiled_shares_learn_the_same(torchrun, script, what, num_processes):
    try:
        refuse_missing_compiler(what, "cpu")
    except UserError as error:
        pytest.skip(str(error))
    # Each process compiles, minutes long where they share cores.
    ended = torchrun(num_processes, script(STEPS), "MODEL.COMPILE", what, timeout_sec=2400)
    assert ended.status == 0, ended.err


@pytest.fixture
def trained(ranks, small_run, tmp_path):
    """Train in so many processes; return the last checkpoint and what was said."""

    def run(num_processes, *more, name, double=True):
        ended = ranks(num_processes, *small_run(*more, name=name, double=double))
        assert ended.status == 0, ended.err
        path = last_checkpoint(str(tmp_path / name))
        assert ("fsdp" in " ".join(more) and num_processes > 1) == path.endswith(".dcp")
        return content_of(path), ended.out

    return run


def content_of(path):
    if distributed.is_folder(str(path)):
        return distributed.read(str(path), key="X", optimizer=True)
    return torch.load(path, weights_only=True)


def difference(one, other):
    assert one.keys() == other.keys()
    assert all(one[name].shape == other[name].shape for name in one)
    return max((one[name] - other[name]).abs().max().item() for name in one)


def moments(content):
    states = content["optimizer_state"]["state"]
    return {str(number): state["exp_avg"] for number, state in states.items()}


def validations(out):
    return [line.split("] ")[1] for line in out.splitlines() if " validation" in line]


@pytest.mark.slow
@pytest.mark.parametrize("num_processes", [2, 3])
@pytest.mark.parametrize("words", [SHARED, SSL], ids=["classify", "ssl"])
def test_fsdp_has_the_weights_of_ddp(trained, words, tmp_path, num_processes):
    words += f"TRAIN.BATCH_SIZE {2 * num_processes} "
    ddp, said = trained(num_processes, words, name="ddp")
    fsdp, heard = trained(num_processes, FSDP + words, name="fsdp")
    assert ddp.keys() == fsdp.keys()
    for state in ("model_state", "ema_state"):
        assert difference(ddp[state], fsdp[state]) < ROUNDING
    assert validations(said) == validations(heard)
    assert bool(validations(said)) == words.startswith(SHARED)
    if words.startswith(SHARED):
        best = torch.load(tmp_path / "fsdp/checkpoints/checkpoint_best.pyth", weights_only=True)
        assert best["model_state"].keys() == fsdp["ema_state"].keys()


ADAM = (
    "TRAIN.BATCH_SIZE 6 SOLVER.ACCUM_STEPS 1 TRAIN.EMA_DECAY 0.9 SOLVER.OPTIMIZING_METHOD adamw "
    "SOLVER.BASE_LR 1e-3 TRAIN.CHECKPOINT_PERIOD 1 "
)


@pytest.fixture
def resumed(trained, tmp_path):
    """Go on from another run's checkpoint after one epoch."""

    def run(num_processes, words, name, *, source="whole"):
        there, here = (tmp_path / run / "checkpoints" for run in (source, name))
        here.mkdir(parents=True)
        (path,) = there.glob("checkpoint_epoch_00001.*")
        (shutil.copytree if path.is_dir() else shutil.copy)(path, here / path.name)
        content, said = trained(num_processes, words, name=name)
        assert "resumed after epoch 1" in said
        return content

    return run


@pytest.mark.slow
def test_a_run_goes_on_bit_for_bit_and_in_any_form(trained, resumed):
    random = ADAM + "MODEL.DROP_PATH_RATE 0.3 MIXUP.ENABLE True "
    whole, _ = trained(2, FSDP + random, name="whole")
    again = resumed(2, FSDP + random, "again")
    for state in ("model_state", "ema_state"):
        assert difference(whole[state], again[state]) == 0
    assert difference(moments(whole), moments(again)) == 0
    by_ddp = resumed(2, random, "ddp")
    assert difference(moments(whole), moments(by_ddp)) < ROUNDING


@pytest.mark.slow
def test_a_run_goes_on_with_another_number_of_processes(trained, resumed):
    whole, _ = trained(2, FSDP + ADAM, name="whole")
    for num_processes, strategy in ((3, FSDP), (1, FSDP), (1, "")):
        other = resumed(num_processes, strategy + ADAM, f"by{num_processes}{strategy[:4]}")
        assert difference(moments(whole), moments(other)) < ROUNDING
        assert other["ema_steps"] == whole["ema_steps"]
    trained(2, ADAM, name="ddp")
    from_file = resumed(2, FSDP + ADAM, "from_file", source="ddp")
    assert difference(moments(whole), moments(from_file)) < ROUNDING


@pytest.mark.slow
def test_all_that_takes_a_checkpoint_takes_shares(trained, tmp_path, tiny_set):
    first, _ = trained(2, FSDP + SHARED + "TEST.ENABLE True", name="first", double=False)
    results = simplejson.loads((tmp_path / "first" / "test_results.json").read_text())
    start = tmp_path / "first" / "checkpoints" / "checkpoint_epoch_00002.dcp"
    assert results["checkpoint"] == str(start)
    still = f"TRAIN.CHECKPOINT_FILE_PATH {start} SOLVER.BASE_LR 1e-20 SOLVER.WEIGHT_DECAY 0.0 "
    for strategy in ("", FSDP):
        second, said = trained(2, strategy + still, name=f"second{strategy[:4]}", double=False)
        assert "started from" in said
        assert difference(first["ema_state"], second["model_state"]) < 1e-7
    test = f"TRAIN.ENABLE False TEST.ENABLE True TEST.CHECKPOINT_FILE_PATH {start}"
    words = [*test.split(), "OUTPUT_DIR", str(tmp_path / "tested")]
    launch(load_config(str(tmp_path / "first" / "config.yaml"), words))
    tested = simplejson.loads((tmp_path / "tested" / "test_results.json").read_text())
    assert tested["top1_acc"] == results["top1_acc"]
    assert Predictor(str(start))(f"{tiny_set}/{first_video(tiny_set)}").top(1)
    for ending, ema in ((".pyth", False), (".safetensors", True)):
        out = str(tmp_path / f"weights{ending}")
        export_checkpoint(str(start), out, ema=ema)
        plain = read_checkpoint(out, key="X")
        state = plain.get("model_state", plain)
        assert difference(state, first["ema_state" if ema else "model_state"]) == 0


def first_video(folder):
    with open(f"{folder}/val.csv", encoding="utf-8") as file:
        return file.readline().split()[0]


@pytest.mark.slow
def test_bfloat16_keeps_float32_weights(trained):
    content, _ = trained(
        2, FSDP + SHARED + "TRAIN.MIXED_PRECISION True", name="mixed", double=False
    )
    assert {value.dtype for value in content["model_state"].values()} == {torch.float32}


MASKS = """
from datetime import timedelta
import torch
from torch.distributed import destroy_process_group, init_process_group
from hiera_video.engine.parallel.fsdp import gathered, shard
from hiera_video.models import hiera_mae

torch.cuda.set_device(0)
init_process_group("cpu:gloo,cuda:nccl", timeout=timedelta(seconds=60))
model = hiera_mae.mae_hiera_micro_8x64().cuda()
shard(model, torch.device("cuda"), mixed_precision=True)
seen = []
encode = model.encode
model.encode = lambda clips, visible: seen.append(visible.device.type) or encode(clips, visible)
visible = torch.zeros(2, model.num_units, dtype=torch.bool)
visible[:, :4] = True
with torch.autocast("cuda", torch.bfloat16):
    model(torch.randn(2, 3, 8, 64, 64).cuda(), visible).loss.backward()
assert all(p.grad.dtype == torch.float32 for p in model.parameters() if p.grad is not None)
assert seen == ["cpu"]
assert {value.device.type for value in gathered(model).values()} == {"cuda"}
destroy_process_group()
"""


@pytest.mark.gpu
def test_masks_stay_on_the_cpu(ranks, script):
    ended = ranks(1, script(MASKS))
    assert ended.status == 0, ended.err
