"""Clips of one frame are images for the model."""

import torch

from hiera_video.config import load_config
from hiera_video.engine.launch import launch
from hiera_video.models.build import build_model
from hiera_video.models.hiera import hiera_tiny_224
from hiera_video.models.hiera_mae import mae_hiera_tiny_224

IMAGES = "DATA.NUM_FRAMES 1 MODEL.MODEL_NAME hiera_tiny_224 SOLVER.MAX_EPOCH 1"


def test_a_model_of_images_learns_and_is_tested_on_single_frames(small_cfg):
    result = launch(small_cfg(IMAGES))
    assert result.num_evaluated == 8


def test_a_model_of_images_pretrains_on_single_frames(small_cfg):
    cfg = small_cfg(
        "TASK ssl TEST.ENABLE False MODEL.ARCH hiera_mae DATA.NUM_FRAMES 1 SOLVER.MAX_EPOCH 1",
        "DATA.TRAIN_CROP_SIZE 64 DATA.TEST_CROP_SIZE 64",
        "MODEL.MODEL_NAME mae_hiera_tiny_224 MASK.RATIO 0.5 MASK.STRATEGY random",
        "MASK.DECODER_EMBED_DIM 32 MASK.DECODER_DEPTH 1 MASK.DECODER_NUM_HEADS 4",
    )
    launch(cfg)


def test_a_clip_of_one_frame_is_its_image():
    torch.manual_seed(0)
    images = torch.randn(2, 3, 64, 64)
    model = hiera_tiny_224(input_size=(64, 64), num_classes=5, head_init_scale=1.0).eval()
    assert torch.equal(model(images), model(images.unsqueeze(2)))
    autoencoder = mae_hiera_tiny_224(input_size=(64, 64), decoder_embed_dim=32, decoder_depth=1)
    visible = torch.tensor([[True, False, False, True]] * 2)
    one, other = (autoencoder(clips, visible) for clips in (images, images.unsqueeze(2)))
    assert torch.equal(one.loss, other.loss)
    assert torch.equal(one.target, other.target)


def test_one_frame_builds_a_model_of_images():
    words = "DATA.NUM_FRAMES 1 DATA.TRAIN_CROP_SIZE 64 MODEL.MODEL_NAME hiera_tiny_224"
    model = build_model(load_config("configs/Demo/HIERA_MICRO.yaml", words.split()))
    assert model.input_size == (64, 64)
