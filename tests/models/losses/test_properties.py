"""What a loss must do whatever its formula: stay finite, be lowest at the truth, and not share upstream's defects."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch

from models.losses import Estimates, apply_head, get_loss, list_losses
from models.losses.distances import ratio_masks
from models.losses.learned import AdversarialLoss

from .conftest import BATCH, HOP, STEMS

OURS = [name for name in list_losses() if not name.endswith("_upstream")]
SILENT = {
    "one stem of one item": torch.ones(BATCH, STEMS).index_put((torch.tensor(0), torch.tensor(2)), torch.tensor(0.0)),
    "one whole item": torch.ones(BATCH, STEMS).index_fill(0, torch.tensor(1), 0.0),
    "everything": torch.zeros(BATCH, STEMS),
}


def value_and_gradient(name: str, estimates: Estimates) -> tuple[torch.Tensor, torch.Tensor]:
    value = get_loss(name)(estimates)
    (gradient,) = torch.autograd.grad(value, estimates.masks)
    return value.detach(), gradient


@pytest.mark.parametrize("silent", SILENT)
@pytest.mark.parametrize("name", OURS)
def test_finite_in_silence(make: Callable[..., Estimates], name: str, silent: str) -> None:
    value, gradient = value_and_gradient(name, make(gains=SILENT[silent]))
    assert torch.isfinite(value)
    assert torch.isfinite(gradient).all()


@pytest.mark.parametrize("name", [n for n in OURS if get_loss(n).domain != "mask"])
def test_finite_for_masks_of_zero(make: Callable[..., Estimates], name: str) -> None:
    value, gradient = value_and_gradient(name, make(masks=torch.zeros(3, 4, 2, 12, 129)))
    assert torch.isfinite(value)
    assert torch.isfinite(gradient).all()


@pytest.mark.parametrize("name", [n for n in OURS if n not in ("dissimilarity", "adversarial")])
def test_lowest_at_the_truth(truth: Estimates, name: str) -> None:
    """Where one stem plays alone its mask is one, and masks, magnitudes and waveforms are true at once."""
    loss, masks = get_loss(name), truth.masks.detach()
    best = float(loss(truth).detach())
    torch.manual_seed(0)
    for size in (0.02, 0.3):
        for _ in range(5):
            wrong = Estimates(
                (masks + size * torch.randn(masks.shape)).abs(),
                truth.mixture,
                truth.targets,
                truth.waveforms,
                truth.istft,
            )
            assert float(loss(wrong)) > best


@pytest.mark.parametrize("name", OURS)
def test_descends(make: Callable[..., Estimates], name: str) -> None:
    """Following the gradient from masks of a quarter leads to a lower loss."""
    loss = get_loss(name).eval()
    z = torch.zeros(3, 4, 2, 12, 129, requires_grad=True)
    optimizer = torch.optim.Adam([z], lr=0.03)
    values = []
    for _ in range(25):
        masks, logits = apply_head(loss.head, z)
        parts = make()
        value = loss(Estimates(masks, parts.mixture, parts.targets, parts.waveforms, parts.istft, logits))
        optimizer.zero_grad()
        value.backward()
        optimizer.step()
        values.append(float(value.detach()))
    assert values[-1] < values[0] - 1e-3 * abs(values[0])


def test_dissimilarity_is_not_lowest_at_the_truth(truth: Estimates) -> None:
    """It pays to be louder than the truth, away from the silence of the other stems."""
    louder = Estimates(1.2 * truth.masks.detach(), truth.mixture, truth.targets)
    assert get_loss("dissimilarity")(louder) < get_loss("dissimilarity")(truth)


def _scaled(make: Callable[..., Estimates], factor: float) -> Estimates:
    """Random masks, those of the first item times ``factor``."""
    torch.manual_seed(7)
    masks = torch.rand(3, 4, 2, 12, 129)
    masks[0] *= factor
    return make(masks=masks)


@pytest.mark.parametrize("name", ["si_sdr_time", "si_sdr_freq"])
def test_si_sdr_is_of_every_item_and_stem(make: Callable[..., Estimates], name: str) -> None:
    """The scale of one item does not matter; in upstream's form, over everything at once, it does."""
    ours, theirs = get_loss(name), get_loss(f"{name}_upstream")
    plain, scaled = _scaled(make, 1.0), _scaled(make, 4.0)
    torch.testing.assert_close(ours(plain), ours(scaled), atol=1e-3, rtol=0)
    assert abs(float((theirs(plain) - theirs(scaled)).detach())) > 1.0


def test_a_soft_item_counts_as_much_as_a_loud_one(make: Callable[..., Estimates]) -> None:
    """Estimates of a soft item that are wrong: upstream's form hardly sees them."""
    gains = torch.ones(BATCH, STEMS)
    gains[0] = 0.01
    torch.manual_seed(7)
    masks = torch.rand(3, 4, 2, 12, 129)
    wrong = masks.clone()
    wrong[0] = wrong[0].roll(1, dims=0).square()
    change = {}
    for name in ("min_snr_sd_sdr", "min_snr_sd_sdr_upstream"):
        loss = get_loss(name)
        change[name] = abs(float((loss(make(gains, wrong)) - loss(make(gains, masks))).detach()))
    assert change["min_snr_sd_sdr"] > 100 * change["min_snr_sd_sdr_upstream"]


def test_upstream_min_snr_is_not_a_number_for_opposite_estimates(make: Callable[..., Estimates]) -> None:
    opposite = make(masks=-torch.ones(3, 4, 2, 12, 129))
    assert torch.isnan(get_loss("min_snr_sd_sdr_upstream")(opposite))
    assert torch.isfinite(get_loss("min_snr_sd_sdr")(opposite))


def test_upstream_si_sdr_is_infinite_in_silence(make: Callable[..., Estimates]) -> None:
    assert torch.isinf(get_loss("si_sdr_time_upstream")(make(gains=torch.zeros(BATCH, STEMS))))


def test_upstream_binary_cross_entropy_cannot_reach_zero(truth: Estimates) -> None:
    """Right and certain answers: with ReLU outputs as logits "not this stem" costs log 2 each; ours costs nothing."""
    alone = truth.targets.abs().amax(1, keepdim=True) > 0
    certain = torch.where(truth.masks.detach() > 0.5, 30.0, 0.0) * alone
    ours = Estimates(truth.masks, truth.mixture, truth.targets, logits=60 * truth.masks.detach() - 30)
    theirs = Estimates(certain, truth.mixture, truth.targets)
    assert get_loss("binary_cross_entropy")(ours) < 1e-6
    assert float(get_loss("binary_cross_entropy_upstream")(theirs)) > (STEMS - 1) * 0.69


def test_upstream_cross_entropy_wants_masks_without_bound(truth: Estimates) -> None:
    """As a mask, a right answer of one is perfect; as a logit it is not: 10 is better, and ruins the estimate."""
    masks = truth.masks.detach()
    loss = get_loss("cross_entropy_upstream")
    right, loud = (Estimates(k * masks, truth.mixture, truth.targets) for k in (1, 10))
    assert loss(loud) < loss(right) - 0.5
    assert get_loss("l2_freq")(loud) > get_loss("l2_freq")(right)


def test_upstream_snr_psa_is_not_best_at_its_own_target(make: Callable[..., Estimates]) -> None:
    """Masks that give the phase-sensitive target exactly: near the bound of -20 dB for ours only."""
    parts = make()
    exact = parts.phase_sensitive_targets / parts.mixture_magnitude
    estimates = Estimates(exact, parts.mixture, parts.targets)
    assert get_loss("snr_psa")(estimates) < -19.9
    assert get_loss("snr_psa_upstream")(estimates) > -10


def test_upstream_dissimilarity_weighs_its_own_stem_less(make: Callable[..., Estimates]) -> None:
    estimates = make()
    difference = get_loss("dissimilarity")(estimates) - get_loss("dissimilarity_upstream")(estimates)
    torch.testing.assert_close(difference, 0.1 * get_loss("l2_freq")(estimates))


def test_ideal_ratio_masks_add_to_one(make: Callable[..., Estimates]) -> None:
    masks = ratio_masks(make())
    torch.testing.assert_close(masks.sum(1), torch.ones(masks.sum(1).shape))


def test_estimates_and_waveforms_are_in_time(make: Callable[..., Estimates]) -> None:
    """Masks of one for every stem give the mixture in each."""
    estimates = make(masks=torch.ones(3, 4, 2, 12, 129))
    mixture = estimates.target_waveforms.sum(1, keepdim=True)
    torch.testing.assert_close(estimates.estimate_waveforms, mixture.expand(-1, 4, -1, -1), atol=1e-5, rtol=1e-4)


def test_a_cut_from_the_middle_is_in_time(make: Callable[..., Estimates]) -> None:
    """Frames and samples from the fifth hop on, as in training that leaves out a warm-up."""
    whole = make(masks=torch.ones(3, 4, 2, 12, 129))
    cut = Estimates(
        whole.masks[..., 5:, :],
        whole.mixture[..., 5:, :],
        whole.targets[..., 5:, :],
        whole.waveforms[..., 5 * HOP :],
        whole.istft,
    )
    mixture = cut.target_waveforms.sum(1, keepdim=True)
    torch.testing.assert_close(cut.estimate_waveforms, mixture.expand(-1, 4, -1, -1), atol=1e-5, rtol=1e-4)


def test_the_discriminator_learns_to_tell(make: Callable[..., Estimates]) -> None:
    estimates, loss = make(), AdversarialLoss(stems=STEMS, learning_rate=5e-3)
    estimates.masks.requires_grad_(False)

    def mistakes() -> float:
        with torch.no_grad():
            real = loss._judge(estimates.mixture_magnitude, estimates.target_magnitudes)
            fake = loss._judge(estimates.mixture_magnitude, estimates.estimate_magnitudes)
        return float((real - 1).square().mean() + fake.square().mean())

    for _ in range(200):
        loss(estimates)
    assert mistakes() < 0.25, "saying a half every time makes 0.5"


def test_the_discriminator_rests_in_evaluation_and_without_gradients(make: Callable[..., Estimates]) -> None:
    estimates, loss = make(), AdversarialLoss(stems=STEMS)
    before = {k: v.clone() for k, v in loss.discriminator.state_dict().items()}
    loss.eval()(estimates).backward()
    with torch.no_grad():
        loss.train()(estimates)
    after = loss.discriminator.state_dict()
    assert all(torch.equal(before[k], after[k]) for k in before)
    assert all(p.grad is None for p in loss.discriminator.parameters()), "the model's gradients stay out of it"
    loss(estimates)
    assert not all(torch.equal(before[k], after[k]) for k in before)


def test_the_discriminator_resumes(make: Callable[..., Estimates]) -> None:
    estimates = make()
    straight, first, second = (AdversarialLoss(stems=STEMS) for _ in range(3))
    for _ in range(4):
        expected = straight(estimates)
    for _ in range(2):
        first(estimates)
    second.load_state_dict(first.state_dict())
    for _ in range(2):
        resumed = second(estimates)
    torch.testing.assert_close(resumed, expected, rtol=0, atol=0)


def test_deep_features_are_fixed() -> None:
    torch.manual_seed(1)
    first = get_loss("deep_feature")
    torch.manual_seed(2)
    second = get_loss("deep_feature")
    for a, b in zip(first.parameters(), second.parameters(), strict=True):
        assert torch.equal(a, b)
        assert not a.requires_grad


def test_building_a_loss_leaves_the_random_numbers_alone() -> None:
    torch.manual_seed(1)
    expected = torch.rand(3)
    torch.manual_seed(1)
    for name in list_losses():
        get_loss(name)
    assert torch.equal(torch.rand(3), expected)
