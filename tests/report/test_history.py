import pytest
import simplejson

from hiera_video.report.history import read_history
from hiera_video.report.parts import Missing


def line(kind, **values):
    return f"[01/02 03:04:05] json_stats: {simplejson.dumps({'_type': kind, **values})}\n"


def epoch(number, loss, of=3):
    return line("train_epoch", epoch=f"{number}/{of}", loss=loss, epoch_sec=10.0)


def iteration(number, done, loss, of=3):
    return line("train_iter", epoch=f"{number}/{of}", iter=f"{done}/10", loss=loss, lr=0.1)


def read(tmp_path, text):
    path = tmp_path / "stdout.log"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return read_history(str(path))


def test_figures_stand_at_the_epochs_that_were_finished_by_then(tmp_path):
    lines = [iteration(1, 5, 3.0), iteration(1, 10, 2.0), epoch(1, 2.5), iteration(2, 5, 1.0)]
    validation = line("val_epoch", epoch="1/3", top1_acc=40.0, views="1x1")
    history = read(tmp_path, "".join([*lines, validation]))
    assert history.by_iteration["loss"] == [(0.5, 3.0), (1.0, 2.0), (1.5, 1.0)]
    assert history.by_epoch["loss"] == [(1, 2.5)]
    assert history.validations == {"top1_acc": [(1, 40.0)]}
    assert (history.finished, history.max_epoch) == (1, 3)
    assert history.total("epoch_sec") == 10.0


def test_what_a_resumed_run_did_again_counts_once(tmp_path):
    first = [epoch(1, 3.0), epoch(2, 2.0), iteration(3, 5, 1.9)]
    again = [iteration(2, 5, 2.4), iteration(2, 10, 2.2), epoch(2, 2.3)]
    history = read(tmp_path, "".join([*first, *again]))
    assert history.by_epoch["loss"] == [(1, 3.0), (2, 2.3)]
    assert history.by_iteration["loss"] == [(1.5, 2.4), (2.0, 2.2)]


def test_validations_that_a_resumed_run_has_not_come_to_again_do_not_count(tmp_path):
    def validation(number, top1):
        return line("val_epoch", epoch=f"{number}/3", top1_acc=top1)

    before = epoch(1, 0.9) + validation(1, 30.0) + epoch(2, 0.8) + validation(2, 90.0)
    inside = read(tmp_path, before + iteration(2, 5, 0.7))
    assert inside.validations["top1_acc"] == [(1, 30.0)]
    assert inside.finished == 1
    again = read(tmp_path, before + iteration(2, 5, 0.7) + epoch(2, 0.7) + validation(2, 40.0))
    assert again.validations["top1_acc"] == [(1, 30.0), (2, 40.0)]
    short = read(tmp_path, before + epoch(2, 0.7))  # too short for a line of an iteration
    assert short.validations["top1_acc"] == [(1, 30.0)]


def test_broken_lines_are_counted_and_the_others_read(tmp_path):
    broken = [
        b'[01/02] json_stats: {"_type": "train_epoch", "epoch": "1/3", "lo\n',
        b"json_stats: \xff\xfe\x00\n",
        b"json_stats: [1, 2]\n",
        b'json_stats: {"_type": "train_epoch", "epoch": "one"}\n',
        b'json_stats: {"_type": "train_iter", "epoch": "1/3", "iter": "1/0"}\n',
    ]
    history = read(tmp_path, b"".join([epoch(1, 3.0).encode(), *broken, epoch(2, 2.0).encode()]))
    assert history.num_broken == len(broken)
    assert history.by_epoch["loss"] == [(1, 3.0), (2, 2.0)]


def test_a_loss_that_was_no_number_leaves_a_gap(tmp_path):
    history = read(tmp_path, epoch(1, 3.0) + epoch(2, None) + epoch(3, 1.0))
    assert history.by_epoch["loss"] == [(1, 3.0), (3, 1.0)]
    assert history.finished == 3


def test_why_a_run_stopped_is_told_until_it_starts_again(tmp_path):
    start = "[01/02 03:04:05] hiera_video 0.1.0, torch 2.13.0+cpu, Linux\n"
    stopped = "[01/02 03:04:05] stopped: the disk is full\n"
    history = read(tmp_path, start + stopped)
    assert history.versions == "hiera_video 0.1.0, torch 2.13.0+cpu"
    assert history.stopped == "stopped: the disk is full"
    assert read(tmp_path, start + stopped + start).stopped == ""


def test_a_log_that_is_not_there_is_said_to_be_missing(tmp_path):
    assert isinstance(read_history(str(tmp_path / "stdout.log")), Missing)


@pytest.mark.parametrize("absurd", ["NaN", "Infinity", "-1e308", "9" * 400, "true", '"much"', "[]"])
def test_figures_that_no_chart_could_hold_are_left_out(tmp_path, absurd):
    history = read(tmp_path, epoch(1, 3.0) + epoch(2, 7.5).replace("7.5", absurd) + epoch(3, 1.0))
    assert history.by_epoch["loss"] == [(1, 3.0), (3, 1.0)]
    assert history.finished == 3
