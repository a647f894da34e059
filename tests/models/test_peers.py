"""Models of other libraries behind MODEL.ARCH: what they cost, compute, learn and refuse."""

import builtins
import inspect

import pytest
import torch
import torch.nn.functional as F

from hiera_video.checkpoints.matching import load_weights
from hiera_video.engine.launch import launch
from hiera_video.flops.count import count
from hiera_video.models import baselines, peers, timm_image, torchvision_video
from hiera_video.utils.compat import import_pytorchvideo, import_torchvision
from hiera_video.utils.errors import UserError
from hiera_video.utils.lookup import public_functions

# Multiply-adds (10^9) as published, without batch norms; docs/peers.md has the sources.
PUBLISHED = {
    baselines.x3d_s: 1.96,
    baselines.x3d_m: 4.73,
    baselines.x3d_l: 18.37,
    baselines.slowfast_r50: 65.7,
    torchvision_video.mvit_v1_b: 70.5,
    torchvision_video.mvit_v2_s: 64.5,
    torchvision_video.swin3d_t: 88,
    torchvision_video.swin3d_s: 166,
    torchvision_video.swin3d_b: 282,
    timm_image.vit_base_patch16_224: 17.6,
    timm_image.swin_tiny_patch4_window7_224: 4.5,
    timm_image.swin_small_patch4_window7_224: 8.7,
    timm_image.swin_base_patch4_window7_224: 15.4,
    timm_image.convnext_tiny: 4.5,
    timm_image.convnext_small: 8.7,
    timm_image.convnext_base: 15.4,
    timm_image.mvitv2_tiny: 4.7,
    timm_image.mvitv2_small: 7.0,
    timm_image.mvitv2_base: 10.2,
    peers.videomae_small: 57,
    peers.videomae_base: 180,
    peers.published_hiera_base_224: 9.4,
    peers.published_hiera_base_16x224: 102,
    peers.published_hiera_large_16x224: 413,
}
# A small clip that each takes.
TINY = {
    baselines.x3d_s: (4, 32, 32),
    baselines.x3d_m: (4, 32, 32),
    timm_image.swin_base_patch4_window7_224: (64, 64),
    timm_image.convnext_base: (64, 64),
    peers.videomae_base: (4, 32, 32),
    baselines.slow_r50: (2, 32, 32),
    baselines.slowfast_r50: (8, 32, 32),
    torchvision_video.mvit_v2_s: (4, 32, 32),
    torchvision_video.swin3d_t: (4, 32, 32),
    torchvision_video.s3d: (8, 32, 32),
    timm_image.vit_base_patch16_224: (32, 32),
    timm_image.mvitv2_tiny: (32, 32),
    peers.videomae_small: (4, 32, 32),
    peers.published_hiera_base_224: (32, 32),
    baselines.x3d_l: (4, 32, 32),
    baselines.r2plus1d_r50: (4, 32, 32),
    baselines.csn_r101: (8, 32, 32),
    torchvision_video.mvit_v1_b: (4, 32, 32),
    torchvision_video.swin3d_s: (4, 32, 32),
    torchvision_video.swin3d_b: (4, 32, 32),
    timm_image.swin_tiny_patch4_window7_224: (64, 64),
    timm_image.swin_small_patch4_window7_224: (64, 64),
    timm_image.convnext_tiny: (64, 64),
    timm_image.convnext_small: (64, 64),
    timm_image.mvitv2_small: (32, 32),
    timm_image.mvitv2_base: (32, 32),
    timm_image.mvitv2_large: (32, 32),
    peers.published_hiera_base_16x224: (2, 32, 32),
    peers.published_hiera_large_16x224: (2, 32, 32),
}


def needs_its_library(make):
    for module, name in ((timm_image, "timm"), (peers, "transformers"), (peers, "hiera")):
        if make.__module__ == module.__name__:
            import_torchvision()
            pytest.importorskip(name, reason="the peers extra is not installed")


def build(make, size, **settings):
    needs_its_library(make)
    torch.manual_seed(0)
    return make(input_size=size, **({"head_dropout": 0.0} | settings))


def clips_for(size, num_clips=2):
    generator = torch.Generator().manual_seed(1)
    return torch.randn(num_clips, 3, *size, generator=generator)


def named(value):
    return getattr(value, "__name__", None)


def test_every_peer_is_trained_in_some_test():
    for module in (baselines, torchvision_video, timm_image, peers):
        assert set(public_functions(module).values()) <= TINY.keys()


QUICK = {
    *(baselines.x3d_s, baselines.x3d_m, baselines.slowfast_r50, torchvision_video.mvit_v2_s),
    *(timm_image.vit_base_patch16_224, timm_image.swin_base_patch4_window7_224),
    *(timm_image.convnext_base, peers.videomae_base),
}


# The smallest of each library.
SMALLEST = {
    *(baselines.x3d_s, baselines.slowfast_r50, torchvision_video.mvit_v2_s),
    *(timm_image.mvitv2_tiny, peers.videomae_small),
}


def some_slow(cases, quick):
    """Mark the cases slow that are not in `quick`."""
    return [
        pytest.param(make, value, marks=() if make in quick else pytest.mark.slow, id=named(make))
        for make, value in cases.items()
    ]


@pytest.mark.parametrize(("make", "published"), some_slow(PUBLISHED, QUICK))
def test_multiply_adds_are_the_published_ones(make, published):
    needs_its_library(make)
    with torch.device("meta"):
        model = make()
    size = inspect.signature(make).parameters["input_size"].default
    cost = count(model, torch.empty(1, 3, *size, device="meta"))
    assert not cost.incomplete
    assert cost.multiply_adds / 1e9 == pytest.approx(published, rel=0.01)


def overfits(make, size):
    """Train on one batch for a few steps; return the first and the last loss."""
    model = build(make, size, num_classes=4).train()
    clips, labels = clips_for(size, 4), torch.arange(4)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4)
    losses = []
    for _ in range(10):
        loss = F.cross_entropy(model(clips), labels)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    return losses[0], min(losses[-3:])


@pytest.mark.parametrize(("make", "size"), some_slow(TINY, SMALLEST))
def test_one_batch_is_learnt_by_heart(make, size):
    first, last = overfits(make, size)
    assert last < 0.8 * first


@pytest.mark.parametrize(
    "make", [baselines.slowfast_r50, torchvision_video.mvit_v2_s, peers.videomae_small], ids=named
)
def test_logits_are_no_probabilities_and_the_same_without_gradients(make):
    model = build(make, TINY[make], num_classes=5).eval()
    clips = clips_for(TINY[make])
    with torch.no_grad():
        logits = model(clips)
    assert logits.shape == (2, 5)
    assert not torch.allclose(logits.sum(1), torch.ones(2), atol=1e-3)


def test_slowfast_gets_every_fourth_frame_as_in_pyslowfast():
    ours = build(baselines.slowfast_r50, (8, 32, 32), num_classes=5).eval()
    theirs = import_pytorchvideo("models.slowfast").create_slowfast(
        model_depth=50,
        slowfast_fusion_conv_kernel_size=(7, 1, 1),
        head_pool_kernel_sizes=((2, 1, 1), (8, 1, 1)),
        model_num_class=5,
    )
    theirs.load_state_dict(ours.state_dict())
    clips = clips_for((8, 32, 32))
    with torch.no_grad():
        assert torch.equal(ours(clips), theirs.eval()([clips[:, :, [0, 7]], clips]))


def test_a_video_model_of_another_size_is_the_librarys_own():
    import_torchvision()
    from torchvision.models.video import mvit_v1_b, mvit_v2_s, swin3d_t

    for make, library in (
        (torchvision_video.mvit_v1_b, mvit_v1_b),
        (torchvision_video.mvit_v2_s, mvit_v2_s),
        (torchvision_video.swin3d_t, swin3d_t),
    ):
        with torch.device("meta"):
            ours, theirs = make(num_classes=400), library()
        assert (
            str(ours) == str(theirs).replace("p=0.1, mode", "p=0.0, mode") or make is not swin3d_t
        )
        shapes = {name: value.shape for name, value in theirs.state_dict().items()}
        assert {name: value.shape for name, value in ours.state_dict().items()} == shapes


def test_drop_path_and_dropout_reach_the_library():
    swin = build(torchvision_video.swin3d_t, (4, 32, 32), drop_path_rate=0.2)
    rates = [m.stochastic_depth.p for m in swin.modules() if hasattr(m, "stochastic_depth")]
    assert rates[0] == 0
    assert rates[-1] == pytest.approx(0.2)
    assert rates == sorted(rates)
    mvit = build(torchvision_video.mvit_v2_s, (4, 32, 32), drop_path_rate=0.2, head_dropout=0.3)
    assert mvit.blocks[-1].stochastic_depth.p == pytest.approx(0.2)
    assert mvit.head[0].p == 0.3
    vit = build(timm_image.vit_base_patch16_224, (32, 32), drop_path_rate=0.2, head_dropout=0.3)
    assert vit.blocks[-1].drop_path1.drop_prob == pytest.approx(0.2)
    assert vit.head_drop.p == 0.3


def test_weights_of_the_library_load_by_their_own_names(tmp_path):
    import_torchvision()
    from torchvision.models.video import mvit_v2_s

    theirs = mvit_v2_s().eval()
    torch.save(theirs.state_dict(), tmp_path / "mvit_v2_s.pth")
    ours = torchvision_video.mvit_v2_s(num_classes=400).eval()
    load_weights(ours, str(tmp_path / "mvit_v2_s.pth"))
    assert all(torch.equal(v, theirs.state_dict()[k]) for k, v in ours.state_dict().items())


@pytest.mark.parametrize(
    "words",
    [
        "ARCH baselines MODEL.MODEL_NAME slowfast_r50 DATA.NUM_FRAMES 8",
        "ARCH torchvision_video MODEL.MODEL_NAME mvit_v2_s",
        "ARCH timm_image MODEL.MODEL_NAME mvitv2_tiny DATA.NUM_FRAMES 1",
        "ARCH peers MODEL.MODEL_NAME videomae_small",
        pytest.param(
            "ARCH peers MODEL.MODEL_NAME published_hiera_base_224 DATA.NUM_FRAMES 1",
            marks=pytest.mark.slow,
        ),
    ],
)
def test_a_peer_of_each_library_trains_validates_and_is_tested(small_cfg, words):
    needs_its_library({"timm": timm_image.mvitv2_tiny, "peers": peers.videomae_small}.get(
        words.split()[1].split("_")[0], baselines.x3d_s
    ))  # fmt: skip
    cfg = small_cfg(f"MODEL.{words} SOLVER.MAX_EPOCH 1 TEST.NUM_TEMPORAL_CLIPS 1")
    result = launch(cfg)
    assert result.num_evaluated == 8


@pytest.mark.slow
@pytest.mark.parametrize("make", TINY, ids=named)
def test_every_peer_trains_validates_and_is_tested(small_cfg, make):
    needs_its_library(make)
    frames, side = (1, *TINY[make])[-3:][0], TINY[make][-1]
    family = make.__module__.rpartition(".")[2]
    cfg = small_cfg(
        f"MODEL.ARCH {family} MODEL.MODEL_NAME {make.__name__} SOLVER.MAX_EPOCH 1",
        f"DATA.NUM_FRAMES {frames} DATA.TRAIN_CROP_SIZE {side} DATA.TEST_CROP_SIZE {side}",
        "TEST.NUM_TEMPORAL_CLIPS 1 TRAIN.BATCH_SIZE 4",
    )
    assert launch(cfg).num_evaluated == 8


@pytest.mark.parametrize(
    ("make", "settings", "message"),
    [
        (baselines.x3d_s, {"drop_path_rate": 0.1}, "MODEL.DROP_PATH_RATE must be 0 for x3d_s"),
        (baselines.x3d_s, {"input_size": (8, 64, 16)}, "x3d_s must be square and >= 32 px"),
        (baselines.slow_r50, {"input_size": (8, 40, 40)}, "divisible by 32, got"),
        (baselines.slowfast_r50, {"input_size": (6, 64, 64)}, "frames divisible by 4, got"),
        (baselines.slowfast_r50, {"input_size": (64, 64)}, "number of frames divisible by 4"),
        (torchvision_video.mvit_v2_s, {"input_size": (3, 64, 64)}, "divisible by .2, 32, 32."),
        (torchvision_video.swin3d_t, {"head_dropout": 0.1}, "whose head has no dropout, got 0.1"),
        (torchvision_video.s3d, {"drop_path_rate": 0.1}, "has no paths to drop"),
        (timm_image.convnext_tiny, {"input_size": (8, 64, 64)}, "Try DATA.NUM_FRAMES 1"),
        (peers.videomae_base, {"drop_path_rate": 0.1}, "MODEL.DROP_PATH_RATE must be 0 for video"),
        (peers.videomae_base, {"input_size": (3, 64, 64)}, "divisible by .2, 16, 16."),
        (peers.published_hiera_base_224, {"input_size": (40, 40)}, "divisible by .32, 32."),
    ],
    ids=named,
)
def test_what_a_peer_lacks_is_refused(make, settings, message):
    with pytest.raises(UserError, match=message) as caught:
        make(**settings)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("make", "library"),
    [
        (timm_image.convnext_tiny, "timm"),
        (peers.videomae_base, "transformers"),
        (peers.published_hiera_base_224, "hiera"),
    ],
    ids=named,
)
def test_a_missing_library_is_told(make, library, monkeypatch):
    import_torchvision()
    plain = builtins.__import__

    def without(name, *arguments, **keywords):
        if name.split(".")[0] == library:
            raise ImportError(name)
        return plain(name, *arguments, **keywords)

    import importlib

    by_name = importlib.import_module

    def module_without(name, *arguments):
        if name.split(".")[0] == library:
            raise ImportError(name)
        return by_name(name, *arguments)

    monkeypatch.setattr(builtins, "__import__", without)
    monkeypatch.setattr(importlib, "import_module", module_without)
    with pytest.raises(UserError, match=r"must be installed .* Try pip install -e '.\[peers\]'"):
        make()
