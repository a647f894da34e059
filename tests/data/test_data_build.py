"""What the config's keys do to the batches: numbered videos in, their pixels read off the clips."""

import numpy as np
import pytest
import torch

from hiera_video.config import load_config
from hiera_video.data.build import build_loader, build_mixup, num_views, read_records
from hiera_video.data.records import VideoRecord

MEAN, STD = (0.3, 0.4, 0.5), (0.2, 0.25, 0.35)
NUM_FRAMES = 20  # of a video; a clip is 4 of them, 2 apart, and can begin at frame 0 to 13

# Whole frames of 64 px without augmentation, normalised by numbers that differ between channels.
PLAIN = (
    "DATA.NUM_FRAMES 4 DATA.SAMPLING_RATE 2 DATA.TRAIN_CROP_SIZE 64 DATA.TEST_CROP_SIZE 64 "
    "DATA.TRAIN_JITTER_SCALES_RELATIVE [1.0,1.0] DATA.TRAIN_JITTER_ASPECT_RELATIVE [1.0,1.0] "
    "DATA.MEAN [0.3,0.4,0.5] DATA.STD [0.2,0.25,0.35] DATA_LOADER.NUM_WORKERS 0 "
    "DATA_LOADER.NORMALIZE_ON_DEVICE False TRAIN.BATCH_SIZE 4 "
    "TEST.NUM_TEMPORAL_CLIPS 2 TEST.NUM_SPATIAL_CROPS 3 TEST.BATCH_SIZE 12"
)


def make_cfg(*overrides):
    words = [word for line in (PLAIN, *overrides) for word in line.split()]
    return load_config("configs/Demo/HIERA_MICRO.yaml", words)


def normalised(frames_THWC):
    clip_CTHW = ((frames_THWC / 255 - MEAN) / STD).transpose(3, 0, 1, 2)
    return torch.from_numpy(clip_CTHW.astype(np.float32))


def write_videos(folder, videos_NTHWC, make_video):
    return [
        VideoRecord(
            make_video(folder / f"{index}.mkv", frames_THWC, codec="ffv1", pix_fmt="bgr0"),
            index % 8,
            index,
        )
        for index, frames_THWC in enumerate(videos_NTHWC)
    ]


@pytest.fixture(scope="module")
def numbered(index_frames, make_video, tmp_path_factory):
    """Records and frames of ten videos, 64 x 96 px: video k shows the numbers 20 k to 20 k + 19."""
    frames_THWC = index_frames(10 * NUM_FRAMES, height=64, width=96)
    videos_NTHWC = frames_THWC.reshape(10, NUM_FRAMES, 64, 96, 3)
    folder = tmp_path_factory.mktemp("numbered")
    return write_videos(folder, videos_NTHWC, make_video), videos_NTHWC


@pytest.fixture(scope="module")
def short(index_frames, make_video, tmp_path_factory):
    """Records and normalised clips of eight square videos just as long as a clip: no choice."""
    videos_NTHWC = index_frames(8 * 7, height=64, width=64).reshape(8, 7, 64, 64, 3)
    records = write_videos(tmp_path_factory.mktemp("short"), videos_NTHWC, make_video)
    return records, torch.stack([normalised(frames_THWC[::2]) for frames_THWC in videos_NTHWC])


def train_clips(cfg, short, *, num_epochs=5):
    """Return the training clips of some epochs beside what they were before augmentation."""
    records, clips_NCTHW = short
    loader = build_loader(cfg, "train", records)
    batches = [batch for epoch in range(num_epochs) for batch in loader.batches(epoch)]
    plain = [clips_NCTHW[batch.video_indices_B] for batch in batches]
    return torch.cat([batch.clips_BCTHW for batch in batches]), torch.cat(plain)


def close(one_BCTHW, other_BCTHW):
    """Say for each clip whether all its numbers agree."""
    return (one_BCTHW - other_BCTHW).abs().flatten(1).amax(1) < 1e-4


def test_training_without_augmentation_reads_the_normalised_frames_once_an_epoch(short):
    records, _ = short
    clips, plain = train_clips(make_cfg(), short, num_epochs=1)
    assert len(clips) == len(records)
    assert close(clips, plain).all()


def test_test_views_are_clips_by_crops_in_the_order_of_the_list(numbered):
    records, videos_NTHWC = numbered
    batches = list(build_loader(make_cfg(), "test", records).batches())
    assert [len(batch) for batch in batches] == [12] * 5  # two videos of 6 views
    seen = []
    for batch in batches:
        for index, views_VCTHW in zip(
            batch.video_indices_B[::6].tolist(), batch.clips_BCTHW.split(6), strict=True
        ):
            frames = videos_NTHWC[index]
            expected = [
                normalised(frames[start : start + 7 : 2, :, left : left + 64])
                for start in (0, 13)
                for left in (0, 16, 32)
            ]
            assert close(views_VCTHW, torch.stack(expected)).all()
            seen.append(index)
    assert seen == list(range(10))


def test_validation_sees_the_centre_of_the_middle_clip_whatever_the_tests_views(numbered):
    records, videos_NTHWC = numbered
    cfg = make_cfg("TEST.BATCH_SIZE 4")
    assert num_views(cfg, "val") == (1, 1)
    assert num_views(cfg, "test") == (2, 3)
    batches = list(build_loader(cfg, "val", records).batches())
    assert [len(batch) for batch in batches] == [4, 4, 2]  # none is left out
    clips = torch.cat([batch.clips_BCTHW for batch in batches])
    expected = [normalised(frames_THWC[7:14:2, :, 16:80]) for frames_THWC in videos_NTHWC]
    assert close(clips, torch.stack(expected)).all()
    assert torch.cat([batch.labels_B for batch in batches]).tolist() == [i % 8 for i in range(10)]


def test_a_batch_of_the_test_holds_whole_videos_however_few_views_it_may(numbered):
    records, _ = numbered
    batches = list(build_loader(make_cfg("TEST.BATCH_SIZE 5"), "test", records[:2]).batches())
    assert [len(batch) for batch in batches] == [6, 6]


def test_a_training_epoch_is_shuffled_anew_and_leaves_a_partial_batch_out(numbered):
    records, _ = numbered
    orders = set()
    for seed in (0, 1):
        loader = build_loader(make_cfg(f"RNG_SEED {seed}"), "train", records)
        assert len(loader) == 2
        for epoch in range(4):
            batches = list(loader.batches(epoch))
            assert [len(batch) for batch in batches] == [4, 4]
            indices = torch.cat([batch.video_indices_B for batch in batches]).tolist()
            assert len(set(indices)) == 8
            orders.add(tuple(indices))
    assert len(orders) == 8


def frame_starts(cfg, split, numbered, decode_index):
    """Return the frame numbers, from its video's start on, of every clip of some epochs."""
    records, _ = numbered
    loader = build_loader(cfg, split, records[:4])
    found = []
    for epoch in range(5):
        for batch in loader.batches(epoch):
            for index, clip in zip(batch.video_indices_B, batch.clips_BCTHW, strict=True):
                frames_THWC = (clip.numpy().transpose(1, 2, 3, 0) * STD + MEAN) * 255
                numbers = [decode_index(frame_HWC) for frame_HWC in frames_THWC]
                found.append([number - NUM_FRAMES * int(index) for number in numbers])
    return np.array(found)


@pytest.mark.parametrize(
    ("keys", "spacing"),
    [
        ("", 2),
        ("DATA.SAMPLING_RATE 5", 5),
        ("DATA.TARGET_FPS 15", 4),
        ("DATA.NUM_FRAMES 6 DATA.SAMPLING_RATE 3", 3),
    ],
)
def test_dense_clips_run_forwards_at_the_configured_distance(
    short_wide, decode_index, keys, spacing
):
    cfg = make_cfg(keys)
    clips = frame_starts(cfg, "train", short_wide, decode_index)
    assert clips.shape[1] == cfg.DATA.NUM_FRAMES
    assert (np.diff(clips) == spacing).all()
    assert clips.min() >= 0
    assert clips.max() < NUM_FRAMES
    assert len(set(clips[:, 0])) > 2
    middle = (NUM_FRAMES - 1 - spacing * (cfg.DATA.NUM_FRAMES - 1) + 1) // 2
    assert (frame_starts(cfg, "val", short_wide, decode_index)[:, 0] == middle).all()


@pytest.fixture(scope="module")
def short_wide(index_frames, make_video, tmp_path_factory):
    """Like `numbered`, but of 64 x 64 px, so that a training clip shows its numbers."""
    videos_NTHWC = index_frames(4 * NUM_FRAMES, height=64, width=64)
    videos_NTHWC = videos_NTHWC.reshape(4, NUM_FRAMES, 64, 64, 3)
    folder = tmp_path_factory.mktemp("square")
    return write_videos(folder, videos_NTHWC, make_video), videos_NTHWC


def test_uniform_clips_take_a_frame_of_every_equal_part(short_wide, decode_index):
    cfg = make_cfg("DATA.SAMPLING uniform")
    clips = frame_starts(cfg, "train", short_wide, decode_index)
    assert (clips // 5 == np.arange(4)).all()  # 20 frames in 4 parts
    assert len(np.unique(np.diff(clips))) > 2
    fixed = frame_starts(cfg, "val", short_wide, decode_index)
    assert (fixed == [2, 7, 12, 17]).all()


@pytest.mark.parametrize(
    ("keys", "views"), [("AUG.NUM_SAMPLE 3", 3), ("AUG.NUM_SAMPLE 3 AUG.ENABLE False", 1)]
)
def test_repeated_augmentation_gives_views_side_by_side(short, keys, views):
    records, _ = short
    cfg = make_cfg(keys, "DATA.TRAIN_JITTER_SCALES_RELATIVE [0.3,0.9]")
    for batch in build_loader(cfg, "train", records).batches(0):
        assert len(batch) == 4 * views
        indices = batch.video_indices_B.view(4, views)
        assert (indices == indices[:, :1]).all()
        assert len(set(indices[:, 0].tolist())) == 4
        assert torch.equal(batch.labels_B, batch.video_indices_B % 8)
        for one in range(len(batch)):
            assert not any(
                torch.equal(batch.clips_BCTHW[one], batch.clips_BCTHW[i]) for i in range(one)
            )


def test_evaluation_takes_no_part_in_repeated_augmentation(short):
    records, _ = short
    (batch, *_) = build_loader(make_cfg("AUG.NUM_SAMPLE 3"), "val", records).batches()
    assert batch.video_indices_B.tolist() == list(range(8))


def test_rand_augment_is_applied_as_often_as_its_policy_says(short):
    for policy, unchanged in (("rand-m10-n1-inc1", 1 / 2), ("rand-m10-n4-inc1", 1 / 16)):
        clips, plain = train_clips(make_cfg(f"AUG.AA_TYPE {policy}"), short, num_epochs=10)
        assert close(clips, plain).float().mean().item() == pytest.approx(unchanged, abs=0.2)
    off = make_cfg("AUG.AA_TYPE rand-m10-n4-inc1 AUG.ENABLE False")
    assert close(*train_clips(off, short)).all()


def test_evaluation_is_never_augmented(short):
    records, clips_NCTHW = short
    cfg = make_cfg(
        "AUG.AA_TYPE rand-m10-n4-inc1 AUG.RE_PROB 1.0 DATA.RANDOM_FLIP True",
        "DATA.TRAIN_JITTER_SCALES_RELATIVE [0.1,0.2]",
    )
    for batch in build_loader(cfg, "val", records).batches():
        assert close(batch.clips_BCTHW, clips_NCTHW[batch.video_indices_B]).all()


def test_half_of_the_training_clips_are_mirrored_where_flipping_is_on(short):
    clips, plain = train_clips(make_cfg("DATA.RANDOM_FLIP True"), short, num_epochs=10)
    straight, mirrored = close(clips, plain), close(clips, plain.flip(-1))
    assert (straight ^ mirrored).all()
    assert mirrored.float().mean().item() == pytest.approx(0.5, abs=0.2)
    assert close(*train_clips(make_cfg("DATA.RANDOM_FLIP False"), short)).all()


def test_crops_have_the_configured_shares_and_shapes(make_video, tmp_path):
    # Red rises by 4 levels a column, green by 4 a row: the range of levels is the crop's size.
    ramp = np.arange(64, dtype=np.uint8) * 4
    frames_THWC = np.zeros((7, 64, 64, 3), dtype=np.uint8)
    frames_THWC[..., 0], frames_THWC[..., 1] = ramp, ramp[:, None]
    records = write_videos(tmp_path, frames_THWC[None], make_video)
    cfg = make_cfg(
        "DATA.TRAIN_JITTER_SCALES_RELATIVE [0.125,0.125]",
        "DATA.TRAIN_JITTER_ASPECT_RELATIVE [2.0,2.0]",
        "TRAIN.BATCH_SIZE 1",
    )
    corners = set()
    loader = build_loader(cfg, "train", records)
    for epoch in range(6):
        (batch,) = loader.batches(epoch)
        red, green = (
            (batch.clips_BCTHW[0, channel] * STD[channel] + MEAN[channel]) * 255 / 4
            for channel in (0, 1)
        )
        # An eighth of the area at twice the width: 64 * 64 / 8 = 32 * 16.
        assert (red.max() - red.min()).item() == pytest.approx(31, abs=0.6)
        assert (green.max() - green.min()).item() == pytest.approx(15, abs=0.6)
        corners.add((round(red.min().item()), round(green.min().item())))
    assert len(corners) > 3


def erased(cfg, short):
    """Return where [B, H, W] the clips differ from their frames, the same in every frame."""
    clips, plain = train_clips(cfg, short)
    touched_BTHW = ((clips - plain).abs() > 1e-4).any(1)
    touched_BHW = touched_BTHW.any(1)
    for touched, clip in zip(touched_BHW, clips, strict=True):
        if touched.any():
            rows, columns = (touched.any(dim).nonzero().flatten() for dim in (1, 0))
            box = clip[..., rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
            assert 0.01 < box[0, 0].numel() / 64**2 < 0.35
            yield touched, box
        else:
            yield touched, None


def test_erasing_fills_a_box_of_all_frames_by_the_configured_mode(short):
    constant = list(erased(make_cfg("AUG.RE_PROB 1.0 AUG.RE_MODE const"), short))
    assert all(box is not None and (box == 0).all() for _, box in constant)
    noise = [box for _, box in erased(make_cfg("AUG.RE_PROB 1.0 AUG.RE_MODE pixel"), short)]
    values = torch.cat([box.flatten() for box in noise])
    assert values.mean().item() == pytest.approx(0, abs=0.05)
    assert values.std().item() == pytest.approx(1, abs=0.05)


@pytest.mark.parametrize(
    ("keys", "share"),
    [
        ("AUG.RE_PROB 0.5", 0.5),
        ("AUG.RE_PROB 0.0", 0.0),
        ("AUG.RE_PROB 1.0 AUG.ENABLE False", 0.0),
    ],
)
def test_erasing_happens_as_often_as_configured(short, keys, share):
    found = [bool(touched.any()) for touched, _ in erased(make_cfg(keys), short)]
    assert np.mean(found) == pytest.approx(share, abs=0.2 if share else 0)


def test_only_training_replaces_videos_that_do_not_decode(short, tmp_path):
    records, _ = short
    bad = VideoRecord(str(tmp_path / "missing.mkv"), 7, 8)
    cfg = make_cfg("TRAIN.BATCH_SIZE 9")
    (batch,) = build_loader(cfg, "train", [*records, bad]).batches(0)
    assert len(batch) == 9
    assert 8 not in batch.video_indices_B
    assert torch.equal(batch.labels_B, batch.video_indices_B)
    batches = list(build_loader(cfg, "val", [*records, bad]).batches())
    assert torch.cat([batch.video_indices_B for batch in batches]).tolist() == list(range(8))
    assert [f.path for batch in batches for f in batch.failures] == [bad.path]


def test_each_split_has_its_own_list(tmp_path):
    for label, split in enumerate(("train", "val", "test")):
        (tmp_path / f"{split}.csv").write_text(f"{split}.mp4 {label}\n")
    cfg = make_cfg(f"DATA.PATH_TO_DATA_DIR {tmp_path} DATA.PATH_PREFIX /videos")
    for label, split in enumerate(("train", "val", "test")):
        assert list(read_records(cfg, split)) == [VideoRecord(f"/videos/{split}.mp4", label, 0)]


def own_shares(*overrides, draws=60):
    """Mix batches of flat clips 0, 1, 2, 3; return (kind, own share) of each, by its pixels."""
    mixup = build_mixup(make_cfg("MIXUP.ENABLE True", *overrides))
    flat_B = torch.arange(4.0)
    clips_BCTHW = flat_B.view(-1, 1, 1, 1, 1).expand(-1, 3, 2, 32, 32).clone()
    labels_B = torch.tensor([5, 1, 2, 7])
    found = []
    for seed in range(draws):
        mixed, targets = mixup(clips_BCTHW, labels_B, np.random.default_rng(seed))
        assert targets.shape == (4, 8)
        # Clip 0 shows 0 where it is its own and 3 where it is its partner.
        partner = mixed[0].mean().item() / 3
        kind = "box" if set(mixed[0].unique().tolist()) <= {0, 3} else "blend"
        expected = torch.zeros(4, 8)
        expected[range(4), labels_B] += 1 - partner
        expected[range(4), labels_B.flip(0)] += partner
        assert torch.allclose(targets, expected, atol=1e-5)
        found.append(("none" if partner == 0 else kind, 1 - partner))
    return found


def share_of(kind, found):
    return sum(one == kind for one, _ in found) / len(found)


def test_mixup_is_off_unless_enabled():
    assert build_mixup(make_cfg("MIXUP.ENABLE False")) is None


def test_mixing_is_chosen_by_its_probabilities():
    always = own_shares("MIXUP.SWITCH_PROB 0.25")
    assert share_of("box", always) == pytest.approx(0.25, abs=0.15)
    assert share_of("blend", always) == pytest.approx(0.75, abs=0.15)
    assert share_of("blend", own_shares("MIXUP.SWITCH_PROB 0.0")) == 1
    assert share_of("blend", own_shares("MIXUP.SWITCH_PROB 1.0")) == 0
    assert share_of("none", own_shares("MIXUP.PROB 0.3")) == pytest.approx(0.7, abs=0.2)
    assert share_of("none", own_shares("MIXUP.PROB 0.0")) == 1


def test_each_kind_of_mixing_has_its_own_alpha():
    # Beta(100, 100) is near 1/2, Beta(0.02, 0.02) near 0 or 1.
    def middle(found):
        return np.mean([0.3 < share < 0.7 for _, share in found])

    blends = own_shares("MIXUP.ALPHA 100 MIXUP.CUTMIX_ALPHA 0.02 MIXUP.SWITCH_PROB 0")
    assert middle(blends) == 1
    assert middle(own_shares("MIXUP.ALPHA 0.02 MIXUP.CUTMIX_ALPHA 100 MIXUP.SWITCH_PROB 0")) < 0.2
    # A box that hangs over the edge is cut off: its area is at most half the frame.
    boxes = own_shares("MIXUP.ALPHA 0.02 MIXUP.CUTMIX_ALPHA 100 MIXUP.SWITCH_PROB 1")
    assert min(share for _, share in boxes) > 0.4
    assert share_of("box", boxes) == 1
    assert share_of("box", own_shares("MIXUP.ALPHA 0")) > 0.9
    assert share_of("blend", own_shares("MIXUP.CUTMIX_ALPHA 0")) == 1
