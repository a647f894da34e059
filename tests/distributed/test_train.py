"""Several processes learn what one does from the same videos."""

from pathlib import Path

import pytest
import torch

from hiera_video.engine.compiling import refuse_missing_compiler
from hiera_video.utils.errors import UserError

SSL = (
    "TASK ssl MODEL.ARCH hiera_mae MODEL.MODEL_NAME mae_hiera_micro_8x64 AUG.NUM_SAMPLE 2 "
    "DATA.TRAIN_CROP_SIZE 64 DATA.TEST_CROP_SIZE 64 MASK.DECODER_EMBED_DIM 32 "
    "MASK.DECODER_DEPTH 1 MASK.DECODER_NUM_HEADS 2 MASK.RATIO 0.5 MASK.DECODER_KEEP_RATIO 0.5 "
    "MASK.STRATEGY random AUG.ENABLE True AUG.AA_TYPE '' "
)
RANDAUGMENT = "AUG.ENABLE True AUG.AA_TYPE rand-m7-n4-mstd0.5-inc1"
MIXED = "MIXUP.ENABLE True AUG.ENABLE True AUG.NUM_SAMPLE 2 AUG.RE_PROB 0.5 "


# Float64 rounds to 1e-16, and these runs grow such a difference 70-fold (in float32 from 6e-8 to
# 4e-6). A wrong batch, mask or weighting gives more than 1e-4.
ROUNDING = 1e-12


@pytest.fixture
def trained(ranks, small_run, tmp_path):
    """Train in so many processes, in float64; return the last weights and what was said."""

    def run(num_processes, *more, name=None, epoch=2):
        name = name or f"by{num_processes}"
        ended = ranks(num_processes, *small_run(*more, name=name, double=True))
        assert ended.status == 0, ended.err
        path = tmp_path / name / "checkpoints" / f"checkpoint_epoch_{epoch:05d}.pyth"
        return torch.load(path, weights_only=True)["model_state"], ended.out

    return run


def difference(one, other):
    assert one.keys() == other.keys()
    assert {value.dtype for value in one.values()} == {torch.float64}
    return max((one[name] - other[name]).abs().max().item() for name in one)


def losses(out):
    return [line.split("loss ")[1].split(",")[0] for line in out.splitlines() if "done: l" in line]


@pytest.mark.parametrize(
    ("num_processes", "words"),
    [
        (2, MIXED + "TRAIN.BATCH_SIZE 4 SOLVER.ACCUM_STEPS 2"),
        pytest.param(2, SSL + "TRAIN.BATCH_SIZE 4 SOLVER.ACCUM_STEPS 2", marks=pytest.mark.slow),
        pytest.param(
            3, "TRAIN.BATCH_SIZE 6 AUG.AA_TYPE rand-m7-n4-mstd0.5-inc1", marks=pytest.mark.slow
        ),
        pytest.param(2, "MODEL.FREEZE_LAYERS 2 MIXUP.ENABLE True", marks=pytest.mark.slow),
        pytest.param(3, MIXED + "TRAIN.BATCH_SIZE 6 SOLVER.ACCUM_STEPS 2", marks=pytest.mark.slow),
        pytest.param(2, "MODEL.ACT_CHECKPOINT True", marks=pytest.mark.slow),
        pytest.param(3, "MODEL.ACT_CHECKPOINT True TRAIN.BATCH_SIZE 6", marks=pytest.mark.slow),
    ],
)
def test_the_weights_are_those_of_one_process(trained, num_processes, words):
    (alone, said), (shared, heard) = (trained(n, words) for n in (1, num_processes))
    assert difference(alone, shared) < ROUNDING
    assert losses(said) == losses(heard)
    batch = said.split("effective batch ")[1].split(",")[0]
    assert f"effective batch {batch}" in heard


@pytest.mark.slow
def test_unequal_shares_weigh_what_they_hold(trained, tiny_set, tmp_path):
    # 5 videos are less than a batch: 3 for one process, 2 for the other.
    lines = Path(tiny_set, "train.csv").read_text().splitlines()
    for split in ("train", "val"):
        text = "\n".join(f"{tiny_set}/{line}" for line in lines[:5])
        (tmp_path / f"{split}.csv").write_text(text)
    words = f"DATA.PATH_TO_DATA_DIR {tmp_path}"
    (alone, said), (shared, heard) = trained(1, words), trained(2, words)
    assert difference(alone, shared) < ROUNDING  # with equal weights it would be 0.1
    assert losses(said) == losses(heard)


@pytest.mark.slow
@pytest.mark.parametrize("num_processes", [2, 3])
@pytest.mark.parametrize("what", ["encoder", "step"])
def test_compiled_processes_learn_what_a_plain_one_does(trained, what, num_processes):
    try:
        refuse_missing_compiler(what, "cpu")
    except UserError as error:
        pytest.skip(str(error))
    words = f"TRAIN.BATCH_SIZE {2 * num_processes} SOLVER.ACCUM_STEPS 2"
    alone, _ = trained(1, words)
    shared, said = trained(num_processes, words, f"MODEL.COMPILE {what}")
    assert difference(alone, shared) < ROUNDING
    assert f"{num_processes} processes" in said


@pytest.mark.slow
def test_the_learning_rate_is_scaled_to_the_effective_batch_and_both_are_told(trained):
    words = "TRAIN.BATCH_SIZE 4 SOLVER.ACCUM_STEPS 2 AUG.NUM_SAMPLE 2 SOLVER.MAX_EPOCH 1 "
    scaled, said = trained(2, words + "SOLVER.BASE_BATCH_SIZE 32 SOLVER.BASE_LR 0.2", epoch=1)
    parts = "4 videos a machine x 1 x 2 accumulated x 2 views of each"
    assert f"effective batch 16 clips ({parts}), peak learning rate 0.1," in said
    plain, _ = trained(1, words + "SOLVER.BASE_BATCH_SIZE 0 SOLVER.BASE_LR 0.1", epoch=1)
    assert difference(scaled, plain) < ROUNDING
