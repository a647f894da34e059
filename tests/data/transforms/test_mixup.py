import numpy as np
import pytest
import torch
import torch.nn.functional as F

from hiera_video.data.transforms.crops import Box
from hiera_video.data.transforms.mixup import Mixing, Mixup, draw_cutmix, mix_clips, mix_labels


def make(**changed) -> Mixup:
    settings = {
        "mixup_alpha": 0.8,
        "cutmix_alpha": 1.0,
        "prob": 1.0,
        "switch_prob": 0.5,
        "label_smoothing": 0.1,
        "num_classes": 7,
    }
    return Mixup(**{**settings, **changed})


def numbered_clips(batch: int) -> torch.Tensor:
    """Clip i is i everywhere, so that a mixed value tells how much came from whom."""
    return torch.arange(float(batch)).view(-1, 1, 1, 1, 1).repeat(1, 3, 2, 10, 12)


@pytest.mark.parametrize("switch_prob", [0.0, 1.0])
@pytest.mark.parametrize("batch", [4, 5, 1])
def test_labels_tell_the_share_of_the_picture(switch_prob, batch):
    mixup = make(switch_prob=switch_prob, label_smoothing=0.0)
    clips, labels = numbered_clips(batch), torch.arange(batch)
    for seed in range(20):
        mixed, soft = mixup(clips, labels, np.random.default_rng(seed))
        assert soft.shape == (batch, 7)
        assert soft.dtype == torch.float32
        assert mixed.shape == clips.shape
        # The mean of clip i is own_share * i + (1 - own_share) * partner, and so is its label's.
        by_label = soft @ torch.arange(7.0)
        assert torch.allclose(mixed.mean(dim=(1, 2, 3, 4)), by_label, atol=1e-4)
        assert torch.equal(clips, numbered_clips(batch))


@pytest.mark.parametrize("label_smoothing", [0.0, 0.1, 1.0])
def test_labels_sum_to_one_and_match_a_separate_calculation(label_smoothing):
    labels = torch.tensor([0, 3, 6, 3])
    mixing = Mixing(own_share=0.7)
    soft = mix_labels(labels, mixing, num_classes=7, label_smoothing=label_smoothing)
    hot = F.one_hot(labels, 7).float() * (1 - label_smoothing) + label_smoothing / 7
    assert torch.allclose(soft, 0.7 * hot + 0.3 * hot[[3, 2, 1, 0]], atol=1e-6)
    assert torch.allclose(soft.sum(1), torch.ones(4), atol=1e-6)
    assert (soft >= 0).all()


def test_mixup_blends_with_the_mirrored_batch():
    clips = torch.randn(4, 3, 2, 5, 6)
    mixed = mix_clips(clips, Mixing(own_share=0.25))
    for i in range(4):
        assert torch.allclose(mixed[i], 0.25 * clips[i] + 0.75 * clips[3 - i], atol=1e-6)


def test_cutmix_pastes_the_partner_into_the_box_of_all_frames():
    clips = torch.randn(4, 3, 2, 8, 9)
    box = Box(2, 3, 4, 5)
    mixed = mix_clips(clips, Mixing(own_share=1 - 20 / 72, box=box))
    expected = clips.clone()
    for i in range(4):
        expected[i, :, :, 2:6, 3:8] = clips[3 - i, :, :, 2:6, 3:8]
    assert torch.equal(mixed, expected)


def test_cutmix_share_is_what_the_box_leaves_and_boxes_stay_inside():
    rng = np.random.default_rng(0)
    shares = []
    for _ in range(500):
        mixing = draw_cutmix(30, 50, alpha=1.0, rng=rng)
        box = mixing.box
        assert box is not None
        assert min(box.top, box.left, box.height, box.width) >= 0
        assert box.top + box.height <= 30
        assert box.left + box.width <= 50
        assert mixing.own_share == pytest.approx(1 - box.height * box.width / 1500)
        shares.append(mixing.own_share)
    assert np.mean(shares) > 0.55  # above Beta(1, 1)'s 0.5: boxes are cut off at the edges
    assert min(shares) < 0.25
    assert max(shares) > 0.9


def test_kinds_come_at_their_rates():
    rng = np.random.default_rng(0)

    def rates(mixup: Mixup) -> tuple[float, float]:
        drawn = [mixup.draw(64, 64, rng=rng) for _ in range(2000)]
        cutmix = np.mean([mixing.box is not None for mixing in drawn])
        unmixed = np.mean([m.box is None and m.own_share == 1.0 for m in drawn])
        return float(cutmix), float(unmixed)

    assert rates(make(switch_prob=0.3)) == pytest.approx((0.3, 0.0), abs=0.04)
    assert rates(make(prob=0.6, switch_prob=0.5)) == pytest.approx((0.3, 0.4), abs=0.04)
    assert rates(make(mixup_alpha=0.0, switch_prob=0.0)) == (1.0, 0.0)
    assert rates(make(cutmix_alpha=0.0, switch_prob=1.0))[0] == 0.0


def test_lambda_is_beta_distributed():
    rng = np.random.default_rng(0)
    mixup = make(cutmix_alpha=0.0)
    shares = np.array([mixup.draw(8, 8, rng=rng).own_share for _ in range(4000)])
    assert shares.mean() == pytest.approx(0.5, abs=0.02)
    assert shares.var() == pytest.approx(1 / (4 * (2 * 0.8 + 1)), abs=0.006)


def test_same_seed_same_batch_and_prob_0_only_smooths():
    clips, labels = torch.randn(4, 3, 2, 8, 8), torch.arange(4)
    first = make()(clips, labels, np.random.default_rng(3))
    second = make()(clips, labels, np.random.default_rng(3))
    assert torch.equal(first[0], second[0])
    assert torch.equal(first[1], second[1])
    mixed, soft = make(prob=0.0)(clips, labels, np.random.default_rng(3))
    assert torch.equal(mixed, clips)
    assert soft.max() == pytest.approx(0.9 + 0.1 / 7)


@pytest.mark.parametrize(
    ("changed", "name"),
    [
        ({"mixup_alpha": 0.0, "cutmix_alpha": 0.0}, "mixup_alpha and cutmix_alpha"),
        ({"mixup_alpha": -1.0}, "mixup_alpha and cutmix_alpha"),
        ({"prob": 1.2}, "prob"),
        ({"switch_prob": -0.1}, "switch_prob"),
        ({"label_smoothing": 2.0}, "label_smoothing"),
        ({"num_classes": 0}, "num_classes"),
    ],
)
def test_bad_settings_are_refused_by_name(changed, name):
    with pytest.raises(ValueError, match=f"^{name} must be .* got "):
        make(**changed)
