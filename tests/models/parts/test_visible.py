import pytest
import torch

from hiera_video.models import masking
from hiera_video.models.parts.visible import (
    check_decoded,
    check_visible,
    draw_decoded,
    tokens_in_order,
    tokens_of_units,
    units_of,
)
from hiera_video.utils.errors import UserError


def rows(*texts):
    """Return a bool mask from rows of 0 and 1."""
    return torch.tensor([[int(digit) for digit in text] for text in texts]).bool()


def draw(num_clips=3, ratio=0.5):
    generator = torch.Generator().manual_seed(0)
    return masking.random((2, 3, 4), num_clips=num_clips, ratio=ratio, generator=generator)


def test_units_are_listed_ascending_clip_by_clip():
    assert units_of(rows("0101", "1100", "0011")).tolist() == [[1, 3], [0, 1], [2, 3]]


def test_tokens_of_units_are_row_major_indices_unit_by_unit():
    # Tokens of a grid of 1 x 4 x 6, units of 2 x 2:   0  1 |  2  3 |  4  5
    #                                                  6  7 |  8  9 | 10 11
    #                                                 ---------------------
    #                                                 12 13 | ...
    units = torch.tensor([[1, 3], [5, 0]])
    tokens = tokens_of_units(units, grid=(1, 4, 6), unit=(1, 2, 2))
    assert tokens.tolist() == [[2, 3, 8, 9, 12, 13, 18, 19], [16, 17, 22, 23, 0, 1, 6, 7]]


def test_tokens_in_order_are_those_of_the_true_units_ascending():
    tokens = tokens_in_order(rows("110000", "000011"), grid=(4, 6), unit=(2, 2))
    assert tokens.tolist() == [[0, 1, 2, 3, 6, 7, 8, 9], [14, 15, 16, 17, 20, 21, 22, 23]]


@pytest.mark.parametrize(
    ("grid", "unit"), [((4, 6, 4), (1, 2, 2)), ((4, 6, 4), (2, 3, 1)), ((8, 4), (2, 2))]
)
def test_tokens_of_visible_and_hidden_units_are_all_tokens_once(grid, unit):
    units = [g // u for g, u in zip(grid, unit, strict=True)]
    visible = masking.random(units, num_clips=3, ratio=0.6)
    seen, hidden = (tokens_in_order(part, grid=grid, unit=unit) for part in (visible, ~visible))
    for clip in range(3):
        every = torch.cat([seen[clip], hidden[clip]]).sort().values
        assert torch.equal(every, torch.arange(torch.Size(grid).numel()))
    # By an independent calculation: each token's unit from its coordinates.
    places = torch.stack(torch.unravel_index(seen, grid), -1) // torch.tensor(unit)
    for clip in range(3):
        found = {tuple(place) for place in places[clip].tolist()}
        on = visible[clip].reshape(units).nonzero()
        assert found == {tuple(place) for place in on.tolist()}


@pytest.mark.parametrize(
    ("visible", "words"),
    [
        (torch.ones(2, 4), r"bool of shape \(2, 4\).*True = kept, got torch.float32"),
        (torch.ones(2, 4, dtype=torch.uint8), "got torch.uint8"),
        (rows("1000"), r"of shape \(2, 4\).*got torch.bool of shape \(1, 4\)"),
        (rows("10000", "10000"), r"shape \(2, 5\)"),
        (rows("1000", "1100"), "same number of mask units, at least 1, in every clip, got 1, 2"),
        (rows("0000", "0000"), "at least 1, in every clip, got 0"),
    ],
)
def test_what_is_no_mask_of_visible_units_is_refused(visible, words):
    with pytest.raises(UserError, match=f"visible must .*{words}"):
        check_visible(visible, shape=(2, 4))


def test_masks_of_visible_units_come_back_as_they_are():
    for visible in (rows("1000", "0001"), rows("1111", "1111")):
        assert torch.equal(check_visible(visible, shape=(2, 4)), visible)


def test_all_hidden_units_are_decoded_where_none_are_named():
    visible = rows("1000", "0001")
    assert torch.equal(check_decoded(None, visible), ~visible)
    some = rows("0110", "1100")
    assert torch.equal(check_decoded(some, visible), some)


@pytest.mark.parametrize(
    "decoded",
    [
        rows("1100", "1100"),  # visible in the first clip
        rows("0110", "1000"),  # not the same number
        rows("0000", "0000"),
        rows("0110", "0110")[:, :3],
        rows("0110")[0],
        torch.ones(2, 4),
    ],
)
def test_what_is_no_mask_of_units_to_decode_is_refused(decoded):
    with pytest.raises(UserError, match=r"decoded must be bool of shape \(2, 4\)"):
        check_decoded(decoded, rows("1000", "0001"))


def test_something_has_to_be_hidden():
    with pytest.raises(UserError, match="visible must hide at least one mask unit"):
        check_decoded(None, rows("1111", "1111"))


@pytest.mark.parametrize(("keep_ratio", "count"), [(0.5, 6), (0.25, 3), (0.01, 1), (0.99, 12)])
def test_a_part_of_the_hidden_units_is_drawn_to_decode(keep_ratio, count):
    visible = draw()  # 12 of 24
    decoded = draw_decoded(visible, keep_ratio=keep_ratio)
    assert decoded.dtype == torch.bool
    assert decoded.sum(1).tolist() == [count] * 3
    assert not (decoded & visible).any()
    assert torch.equal(check_decoded(decoded, visible), decoded)


def test_all_are_decoded_at_1_without_a_draw():
    state = torch.get_rng_state()
    assert draw_decoded(draw(), keep_ratio=1.0) is None
    assert torch.equal(torch.get_rng_state(), state)


def test_what_is_decoded_follows_the_seed_is_uniform_and_differs_between_clips():
    visible = draw(num_clips=1).expand(4000, -1)
    decoded = draw_decoded(visible, keep_ratio=0.5, generator=torch.Generator().manual_seed(1))
    again = draw_decoded(visible, keep_ratio=0.5, generator=torch.Generator().manual_seed(1))
    other = draw_decoded(visible, keep_ratio=0.5, generator=torch.Generator().manual_seed(2))
    assert torch.equal(decoded, again)
    assert not torch.equal(decoded, other)
    assert decoded[:, ~visible[0]].float().mean(0).sub(0.5).abs().max() < 0.05
