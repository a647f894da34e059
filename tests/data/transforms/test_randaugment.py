import numpy as np
import pytest
import torch

from hiera_video.data.transforms.randaugment import (
    OPERATIONS,
    Operation,
    Policy,
    apply_operation,
    draw_operations,
    operation_at,
    parse_policy,
    rand_augment,
)

FILL = (115.0, 115.0, 115.0)


@pytest.mark.parametrize(
    ("text", "policy"),
    [
        ("rand-m7-mstd0.5-inc1", Policy(7.0, 2, 0.5)),  # MAE-ST, and PySlowFast's ViT-L
        ("rand-m7-n4-mstd0.5-inc1", Policy(7.0, 4, 0.5)),  # PySlowFast's MViT
        ("rand-inc1-n2-m9", Policy(9.0, 2, 0.0)),
        ("rand-m9-n3-mstd0.5", Policy(9.0, 3, 0.5, increasing=False)),
        ("rand-m9-n6-mstd101-inc1", Policy(9.0, 6, 101.0)),
        ("rand-m15-mmax20-p0.3-inc1", Policy(15.0, 2, 0.0, 0.3, 20.0)),
        ("rand", Policy(10.0, 2, 0.0, 0.5, 10.0, increasing=False)),
    ],
)
def test_parse_policy_reads_what_timm_reads(text, policy):
    assert parse_policy(text) == policy


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("", "''"),
        ("augmix-m5-n4-inc1", "'augmix-m5-n4-inc1'"),
        ("rand-m7-n4-w0-inc1", "the set 'w0'"),
        ("rand-m7-tweights-inc1", "the set 'tweights'"),
        ("rand-m7-n4-p1.5-inc1", "'p1.5'"),
        ("rand-m7-n4-mstdinf-inc1", "'mstdinf'"),
        ("rand-m7-z4-inc1", "'z4'"),
        ("rand-m-n4-inc1", "'m'"),
        ("rand-m7.5.1-n4-inc1", "'m7.5.1'"),
        ("rand-m7-m8-n4-inc1", "'m8' again"),
        ("rand-m7--n4-inc1", "''"),
        ("rand-m11-n4-inc1", "or a larger mmax, got 'm11'"),
        ("rand-m21-mmax20-inc1", "'m21'"),
        ("rand-mmax0-inc1", "'mmax0'"),
        ("rand-m7-n0-inc1", "'n0'"),
        ("rand-m7-n1.5-inc1", "'n1.5'"),
        (f"rand-m7-n{'9' * 400}-inc1", "'ninf'"),
        (f"rand-m7-n{10**30}-inc1", "'n1e+30'"),
        ("rand-m7-n4-inc0", "'inc0'"),
    ],
)
def test_parse_policy_names_what_it_refuses(text, named):
    with pytest.raises(ValueError, match=r"^AUG.AA_TYPE must .*, got .* Try rand-") as error:
        parse_policy(text)
    assert named in str(error.value)


def test_draws_are_uniform_over_the_fifteen_operations_and_half_are_applied():
    rng = np.random.default_rng(0)
    counts = dict.fromkeys(OPERATIONS, 0)
    applied = [len(draw_operations(Policy(7.0, 4, 0.5), rng=rng)) for _ in range(3000)]
    for _ in range(3000):
        for operation in draw_operations(Policy(7.0, 4, 0.5), rng=rng):
            counts[operation.name] += 1
    assert len(OPERATIONS) == 15
    assert np.mean(applied) == pytest.approx(2.0, abs=0.06)
    assert np.mean([n == 0 for n in applied]) == pytest.approx(1 / 16, abs=0.015)
    assert min(counts.values()) > 320  # 400 expected, standard deviation 19
    assert max(counts.values()) < 480


def arguments(policy: Policy, name: str, draws: int = 4000) -> np.ndarray:
    rng = np.random.default_rng(1)
    drawn = (draw_operations(policy, rng=rng) for _ in range(draws))
    return np.array([op.argument for ops in drawn for op in ops if op.name == name])


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("AutoContrast", {0.0}),
        ("Equalize", {0.0}),
        ("Invert", {0.0}),
        ("Rotate", {-21.0, 21.0}),
        ("Posterize", {2.0}),
        ("Solarize", {77.0}),
        ("SolarizeAdd", {77.0}),
        ("Color", {0.37, 1.63}),
        ("Contrast", {0.37, 1.63}),
        ("Brightness", {0.37, 1.63}),
        ("Sharpness", {0.37, 1.63}),
        ("ShearX", {-0.21, 0.21}),
        ("ShearY", {-0.21, 0.21}),
        ("TranslateX", {-0.315, 0.315}),
        ("TranslateY", {-0.315, 0.315}),
    ],
)
def test_arguments_at_magnitude_7(name, expected):
    assert {round(a, 9) for a in arguments(Policy(7.0, 4), name, draws=400)} == expected


@pytest.mark.parametrize(
    ("name", "weakest", "strongest"),
    [
        ("Rotate", {0.0}, {-30.0, 30.0}),
        ("Posterize", {4.0}, {0.0}),
        ("Solarize", {256.0}, {0.0}),
        ("SolarizeAdd", {0.0}, {110.0}),
        ("Color", {1.0}, {0.1, 1.9}),
        ("TranslateX", {0.0}, {-0.45, 0.45}),
    ],
)
def test_arguments_grow_stronger_with_magnitude(name, weakest, strongest):
    assert {round(a, 9) for a in arguments(Policy(0.0, 4), name, draws=200)} == weakest
    assert {round(a, 9) for a in arguments(Policy(10.0, 4), name, draws=200)} == strongest


def test_magnitude_noise_is_gaussian_and_clamped_and_signs_are_even():
    degrees = arguments(Policy(7.0, 4, 0.5), "Rotate")
    assert np.abs(degrees).mean() == pytest.approx(21.0, abs=0.3)
    assert np.abs(degrees).std() == pytest.approx(1.5, abs=0.2)
    assert np.mean(degrees > 0) == pytest.approx(0.5, abs=0.07)
    clamped = np.abs(arguments(Policy(9.0, 4, 3.0), "Rotate"))
    assert clamped.max() == 30.0
    assert np.mean(clamped == 30.0) == pytest.approx(0.37, abs=0.07)  # P(z > 1/3)


@pytest.mark.parametrize(
    ("name", "at_2", "at_10"),
    [
        ("Posterize", {0.0}, {4.0}),
        ("Solarize", {51.0}, {256.0}),
        ("SolarizeAdd", {22.0}, {110.0}),
        ("Color", {0.46}, {1.9}),
        ("Sharpness", {0.46}, {1.9}),
        ("Rotate", {-6.0, 6.0}, {-30.0, 30.0}),
    ],
)
def test_arguments_of_the_set_without_inc(name, at_2, at_10):
    weak, strong = parse_policy("rand-m2-n4"), parse_policy("rand-n4")
    assert {round(a, 9) for a in arguments(weak, name, draws=200)} == at_2
    assert {round(a, 9) for a in arguments(strong, name, draws=200)} == at_10


def test_a_magnitude_may_be_uniform_and_operations_certain():
    policy = parse_policy("rand-m8-n4-p1-mstd101-inc1")
    assert len(draw_operations(policy, rng=np.random.default_rng(0))) == 4
    degrees = np.abs(arguments(policy, "Rotate"))
    assert degrees.max() < 24.0
    assert np.quantile(degrees, (0.25, 0.5, 0.75)) == pytest.approx([6.0, 12.0, 18.0], abs=1.0)


@pytest.mark.parametrize("name", OPERATIONS)
@pytest.mark.parametrize("text", ["rand-m100-mmax100-inc1", "rand-m100-mmax100"])
def test_operations_beyond_full_strength_run(name, text):
    frames = torch.randint(0, 256, (1, 3, 16, 20), dtype=torch.uint8)
    for sign in (1, -1):
        operation = operation_at(name, parse_policy(text), 100.0, sign)
        assert apply_operation(frames, operation, fill=FILL).shape == frames.shape


@pytest.mark.parametrize("name", OPERATIONS)
def test_operation_treats_identical_frames_alike_and_leaves_its_input(name):
    frame = torch.randint(20, 230, (1, 3, 19, 23), dtype=torch.uint8)
    frames = frame.repeat(3, 1, 1, 1)
    argument = OPERATIONS[name].argument_of(0.7, 1)
    result = apply_operation(frames, Operation(name, argument), fill=FILL)
    assert result.shape == frames.shape
    assert result.dtype == torch.uint8
    assert torch.equal(result, result[:1].expand_as(result))
    assert not torch.equal(result, frames)
    assert torch.equal(frames, frame.expand_as(frames))


def test_rand_augment_follows_its_seed_and_stays_constant_over_time():
    frames = torch.randint(0, 256, (1, 3, 20, 24), dtype=torch.uint8).repeat(4, 1, 1, 1)
    policy = parse_policy("rand-m7-n4-mstd0.5-inc1")

    def augmented(seed: int) -> torch.Tensor:
        return rand_augment(frames, policy=policy, rng=np.random.default_rng(seed), fill=FILL)

    results = [augmented(seed) for seed in range(12)]
    for seed, result in enumerate(results):
        assert torch.equal(result, augmented(seed))
        assert torch.equal(result, result[:1].expand_as(result))
    assert len({result.numpy().tobytes() for result in results}) > 8


def test_rand_augment_applies_the_drawn_operations_in_order():
    frames = torch.randint(0, 256, (2, 3, 20, 24), dtype=torch.uint8)
    policy = Policy(7.0, 4, 0.5)
    drawn = draw_operations(policy, rng=np.random.default_rng(5))
    assert len(drawn) >= 2
    expected = frames
    for operation in drawn:
        expected = apply_operation(expected, operation, fill=FILL)
    result = rand_augment(frames, policy=policy, rng=np.random.default_rng(5), fill=FILL)
    assert torch.equal(result, expected)
