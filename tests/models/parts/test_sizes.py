import pytest
import torch

import hiera_video
from hiera_video.models.hiera_mae import mae_hiera_micro_8x64
from hiera_video.models.parts.sizes import SIZES
from hiera_video.utils.errors import UserError


@pytest.mark.parametrize("prefix", ["", "mae_"])
@pytest.mark.parametrize(("size", "clip"), [("tiny", "224"), ("base_plus", "16x224")])
def test_a_callers_settings_override_the_sizes(prefix, size, clip):
    with torch.device("meta"):
        model = getattr(hiera_video, f"{prefix}hiera_{size}_{clip}")(
            input_size=(32, 64, 96) if "x" in clip else (64, 96), drop_path_rate=0.4
        )
    assert model.grid == ((16, 16, 24) if "x" in clip else (16, 24))
    assert model.plans[0].dim == SIZES[size]["embed_dim"]
    assert len(model.blocks) == sum(SIZES[size]["stages"])
    assert model.blocks[-1].drop_path.drop_prob == pytest.approx(0.4)
    assert model.q_pool == (2 if prefix else 3)


@pytest.mark.parametrize(
    ("name", "classes"), [("hiera_base_224", 1000), ("hiera_base_16x224", 400)]
)
def test_the_classes_are_those_of_the_published_data(name, classes):
    with torch.device("meta"):
        assert getattr(hiera_video, name)().head.projection.out_features == classes
        assert getattr(hiera_video, name)(num_classes=7).head.projection.out_features == 7


def test_the_decoder_is_the_published_one_unless_the_caller_says():
    with torch.device("meta"):
        model = hiera_video.mae_hiera_base_16x224()
        other = hiera_video.mae_hiera_base_16x224(
            decoder_embed_dim=384, decoder_depth=4, decoder_num_heads=6
        )
        heads8 = hiera_video.mae_hiera_base_16x224(decoder_num_heads=8)
    assert (len(model.decoder_blocks), model.decoder_embed.out_features) == (8, 512)
    assert model.decoder_blocks[0].attn.num_heads == 16
    assert (len(other.decoder_blocks), other.decoder_embed.out_features) == (4, 384)
    assert other.decoder_blocks[0].attn.num_heads == 6
    assert model.decoder_grid == (8, 14, 14)
    shapes = [
        {name: value.shape for name, value in m.state_dict().items()} for m in (model, heads8)
    ]
    assert shapes[0] == shapes[1]


def test_the_micro_autoencoder_has_the_micro_classifiers_body():
    classifier, mae = hiera_video.hiera_micro_8x64(), mae_hiera_micro_8x64()
    body = {n: v.shape for n, v in classifier.state_dict().items() if "head" not in n[:4]}
    theirs = {n: v.shape for n, v in mae.state_dict().items()}
    assert {n: s for n, s in body.items() if not n.startswith("norm.")}.items() <= theirs.items()


def test_a_setting_that_the_model_does_not_have_is_no_silence():
    with pytest.raises(TypeError, match="num_clases"):
        hiera_video.hiera_tiny_224(num_clases=3)
    with pytest.raises(UserError, match="q_pool must be 0 to 3"):
        hiera_video.mae_hiera_tiny_224(q_pool=4)


def test_a_checkpoint_without_pretrained_is_no_silence():
    with pytest.raises(UserError, match="must come with pretrained=True, got 'mae_k400'"):
        hiera_video.hiera_base_16x224(checkpoint="mae_k400")
