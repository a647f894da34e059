"""A training step in parts: what is waited for, computed, sent and held."""

import time

import pytest
import torch
from torch import nn

from hiera_video.benchmark import timing
from hiera_video.benchmark.train import variants as benchmark_train_bench
from hiera_video.benchmark.train.figures import Figures, TrainReport, TrainSettings
from hiera_video.benchmark.train.measure import measure_training, training_config
from hiera_video.benchmark.train.report import draw_training, render_training
from hiera_video.benchmark.train.step import (
    BACKWARD,
    COMMUNICATION,
    DATA,
    FORWARD,
    OPTIMIZER,
    FromLoader,
)
from hiera_video.models.build import build_model
from hiera_video.utils.errors import UserError

SMALL = (
    "DATA.NUM_FRAMES 4 DATA.SAMPLING_RATE 2 DATA.TRAIN_CROP_SIZE 32 DATA.TEST_CROP_SIZE 32 "
    "DATA_LOADER.NUM_WORKERS 0 MODEL.DROP_PATH_RATE 0.3"
)
DELAY_SEC = 0.2


def config(*overrides, data="''", batch_size=4, processes=1, bfloat16=False):
    words = [word for line in (SMALL, *overrides) for word in line.split()]
    return training_config(
        "configs/Demo/HIERA_MICRO.yaml",
        [*words, "DATA.PATH_TO_DATA_DIR", data],
        batch_size=batch_size,
        device="cpu",
        bfloat16=bfloat16,
        processes=processes,
    )


def settings(cfg, *variants, **more):
    return TrainSettings(cfg=cfg, variants=variants, rounds=2, threads=1, **more)


class Published(nn.Module):
    """Our own model in the published one's place, and slower."""

    def __init__(self, model):
        super().__init__()
        self.model = model

    def forward(self, clips):
        time.sleep(DELAY_SEC)
        return self.model(clips)

    def load_state_dict(self, state):
        self.model.load_state_dict(state)


@pytest.fixture
def published(monkeypatch):
    """Put a slow copy of our model in the published package's place."""

    monkeypatch.setattr(
        benchmark_train_bench, "published_model", lambda name, **_: Published(build_model(config()))
    )


def test_variants_take_turns_from_the_same_weights(published, tmp_path):
    report = measure_training(settings(config(), "plain", "checkpoint", "published"))
    plain, checkpoint, theirs = report.figures.values()
    assert [len(figures.phases) for figures in report.figures.values()] == [2, 2, 2]
    assert checkpoint.first_loss == pytest.approx(plain.first_loss, abs=1e-6)
    assert report.plain_losses["plain"] == pytest.approx(report.plain_losses["published"], abs=1e-6)
    assert theirs.phase_sec()[FORWARD] > DELAY_SEC
    assert plain.phase_sec()[DATA] < plain.phase_sec()[FORWARD]  # nothing is decoded
    assert min(plain.phase_sec()[name] for name in (FORWARD, BACKWARD, OPTIMIZER)) > 0
    assert 0 < checkpoint.peak_bytes <= plain.peak_bytes
    assert 0 < report.share_of_peak("plain") < 1

    table = render_training(report)
    assert "noise in memory" in table
    assert "none with one process" in table
    assert "difference 0.0e+00" in table
    draw_training(report, str(tmp_path / "step.png"))
    assert (tmp_path / "step.png").read_bytes().startswith(b"\x89PNG")
    with pytest.raises(UserError, match="could not be written"):
        draw_training(report, str(tmp_path / "none" / "step.png"))


def test_the_clips_of_a_loader_are_waited_for(tiny_set):
    cfg = config("DATA.DECODING_BACKEND pyav", data=tiny_set, bfloat16=True)
    report = measure_training(settings(cfg, "plain", steps=2))
    figures = report.figures["plain"]
    assert report.num_clips == 4
    assert figures.phase_sec()[DATA] > 0.002  # two of its videos are decoded in this process
    assert "from the config's loader" in render_training(report)


def test_a_variant_that_cannot_run_is_noted_and_the_others_go_on(monkeypatch):
    def no_room(*_, **__):
        raise torch.cuda.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(benchmark_train_bench, "published_model", no_room)
    monkeypatch.setenv("CXX", "no-such-compiler")
    report = measure_training(settings(config(), "published", "encoder", "plain"))
    assert report.figures["published"].note == "out of GPU memory with 4 clips"
    assert "no-such-compiler" in report.figures["encoder"].note
    assert len(report.figures["plain"].phases) == 2
    table = render_training(report)
    assert "out of GPU memory with 4 clips" in table
    assert "published / this (rounds)" in table


def test_two_processes_send_their_gradients():
    cfg = config(processes=2)
    report = measure_training(settings(cfg, "plain", processes=2))
    figures = report.figures["plain"]
    assert (report.processes, report.num_clips) == (2, 4)
    assert len(figures.communication) == 2
    assert figures.phase_sec()[COMMUNICATION] >= 0
    assert "backward with all-reduce minus" in render_training(report)


def test_what_is_sent_is_taken_from_the_backward_pass():
    phases = {DATA: 0.0, FORWARD: 1.0, BACKWARD: 3.0, OPTIMIZER: 1.0}
    figures = Figures(phases=[phases] * 3, communication=[0.5, 0.75, 1.0])
    assert figures.phase_sec() == {**phases, BACKWARD: 2.25, COMMUNICATION: 0.75}
    assert figures.step_sec == sum(figures.phase_sec().values()) == 5.0
    figures.communication = [-0.1]  # noise
    assert figures.phase_sec()[BACKWARD] == 3.0


def test_share_of_peak_counts_useful_operations():
    figures = {"plain": Figures(phases=[{FORWARD: 2.0}])}
    report = TrainReport(figures, 4, 1, 1, "cpu", False, False, 1e9, 4e9, {})
    assert report.share_of_peak("plain") == 4 * 1e9 / 2.0 / 4e9


def test_wrong_settings_are_told():
    with pytest.raises(UserError, match=r"--batch-size must be divisible by the 2 views.*Try 4"):
        config("AUG.NUM_SAMPLE 2", batch_size=3)
    if not torch.cuda.is_available():
        with pytest.raises(UserError, match="--device must be one of this machine"):
            measure_training(settings(config(), "plain", device="cuda"))
    masked = "TASK ssl MODEL.ARCH hiera_mae MODEL.MODEL_NAME mae_hiera_micro_8x64 MASK.RATIO 0.5"
    plain = "TEST.ENABLE False MIXUP.ENABLE False SOLVER.LABEL_SMOOTHING 0.0 MODEL.DROPOUT_RATE 0.0"
    with pytest.raises(UserError, match="TASK must be classify"):
        config(masked, plain)


def test_peak_bytes_are_those_held_at_once():
    def run():
        first = torch.empty(1000, 1000)
        second = torch.empty(500, 1000)
        del first
        return second, torch.empty(250, 1000)

    assert timing.peak_bytes(run, timing.CPU) == 6_000_000


def test_state_is_weights_buffers_and_what_the_optimizer_keeps():
    model = nn.BatchNorm1d(8)  # 2 x 8 weights, 2 x 8 statistics, one counter
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    assert timing.state_bytes(model, optimizer) == 32 * 4 + 8
    model(torch.randn(4, 8)).sum().backward()
    optimizer.step()
    assert timing.state_bytes(model, optimizer) == 48 * 4 + 8


def test_a_loader_is_read_epoch_after_epoch():
    class Loader:
        def batches(self, epoch):
            yield from ([epoch, 0], [epoch, 1])

    feed = FromLoader(Loader())
    assert [feed.next() for _ in range(4)] == [[0, 0], [0, 1], [1, 0], [1, 1]]
