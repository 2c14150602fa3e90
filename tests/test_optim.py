"""Adam is torch's Adam, rates follow their schedules, and the average of the weights is its formula."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn

from nelbo.core import Progress
from nelbo.core.registry import lookup, names
from nelbo.optim import Adam, AdamW, Optimizer, WeightAverage
from nelbo.schedules import Cosine, Linear


def small_net(seed: int = 0) -> nn.Sequential:
    torch.manual_seed(seed)
    return nn.Sequential(nn.Linear(5, 7), nn.Tanh(), nn.Linear(7, 3))


def steps(net: nn.Module, optimizer: torch.optim.Optimizer, n: int, before=lambda index: None) -> None:
    stream = torch.Generator().manual_seed(1)
    for index in range(n):
        before(index)
        optimizer.zero_grad()
        net(torch.randn(4, 5, generator=stream)).square().sum().backward()
        optimizer.step()


@pytest.mark.parametrize(
    ("spec", "reference"),
    [
        (Adam(lr=1e-2), lambda p: torch.optim.Adam(p, lr=1e-2, fused=False, foreach=False)),
        (
            Adam(lr=1e-2, betas=(0.5, 0.9), eps=1e-3, weight_decay=0.1),
            lambda p: torch.optim.Adam(
                p, lr=1e-2, betas=(0.5, 0.9), eps=1e-3, weight_decay=0.1, foreach=False
            ),
        ),
        (AdamW(lr=1e-2), lambda p: torch.optim.AdamW(p, lr=1e-2, weight_decay=0.01, foreach=False)),
    ],
)
def test_it_is_torchs_own_method(spec, reference):
    mine, theirs = small_net(), small_net()
    steps(mine, spec.build(mine.parameters()), 12)
    steps(theirs, reference(theirs.parameters()), 12)
    moved = False
    for a, b, start in zip(mine.parameters(), theirs.parameters(), small_net().parameters(), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-6, atol=1e-6)
        moved |= not torch.allclose(a, start, atol=1e-3)
    assert moved


@pytest.mark.parametrize("schedule", [Linear(start=1e-3, end=1e-1, steps=4), Cosine(start=0.1, end=0.01)])
def test_the_rate_follows_its_schedule(schedule):
    net = small_net()
    spec = Adam(lr=schedule)
    optimizer = spec.build(net.parameters())
    assert optimizer.param_groups[0]["lr"] == schedule(Progress())
    for step in (0, 2, 5):
        progress = Progress(step=step, steps=5)
        spec.set_rate(optimizer, progress)
        assert [group["lr"] for group in optimizer.param_groups] == [schedule(progress)]


def test_a_scheduled_rate_changes_the_steps():
    still, moving = small_net(), small_net()
    steps(still, Adam(lr=1e-2).build(still.parameters()), 5)
    spec = Adam(lr=Linear(start=1e-2, end=1e-1, steps=5))
    optimizer = spec.build(moving.parameters())
    steps(moving, optimizer, 5, lambda index: spec.set_rate(optimizer, Progress(step=index, steps=5)))
    assert not torch.allclose(still[0].weight, moving[0].weight, atol=1e-3)


def test_a_constant_rate_is_left_alone():
    spec = Adam(lr=0.5)
    optimizer = spec.build(small_net().parameters())
    optimizer.param_groups[0]["lr"] = 0.25
    spec.set_rate(optimizer, Progress())
    assert optimizer.param_groups[0]["lr"] == 0.25


@pytest.mark.parametrize("name", names("optimizer"))
def test_every_optimizer_trains(name):
    net = small_net()
    before = [p.clone() for p in net.parameters()]
    spec: Optimizer = lookup("optimizer", name)()
    steps(net, spec.build(net.parameters()), 2)
    assert all(not torch.equal(a, b) for a, b in zip(before, net.parameters(), strict=True))


@pytest.mark.parametrize("decay", [0.2, 0.3, 0.999])
@pytest.mark.parametrize("dial", [False, True])
def test_the_average_is_its_formula_and_buffers_are_copied(decay, dial):
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(4, 4), nn.BatchNorm1d(4))
    average = WeightAverage(net, decay)
    expected = [p.detach().double().clone() for p in net.parameters()]
    for n in range(6):
        with torch.no_grad():
            for p in net.parameters():
                p.add_(torch.randn_like(p))
        net(torch.randn(8, 4))  # moves the running statistics
        share = average.share(Progress(step=n))
        average.update(net, torch.tensor(share) if dial else share)
        now_decay = min(decay, (1 + n) / (10 + n))
        expected = [
            now_decay * a + (1 - now_decay) * p.detach()
            for a, p in zip(expected, net.parameters(), strict=True)
        ]
    for kept, formula, now in zip(average.module.parameters(), expected, net.parameters(), strict=True):
        torch.testing.assert_close(kept, formula.float(), rtol=1e-5, atol=1e-6)
        assert not torch.allclose(kept, now)
        assert not kept.requires_grad
    buffers = list(zip(average.module.buffers(), net.buffers(), strict=True))
    assert len(buffers) == 3
    for kept, now in buffers:
        assert torch.equal(kept, now)
        assert kept.data_ptr() != now.data_ptr()
    assert not average.module.training
    assert net.training


@pytest.mark.parametrize("decay", [0.0, 0.1])
@pytest.mark.parametrize(("spec", "plain"), [(Adam, torch.optim.Adam), (AdamW, torch.optim.AdamW)])
def test_adam_is_torch_s_adam_to_the_last_bit(spec, plain, decay):
    torch.manual_seed(0)
    mine = nn.Sequential(nn.Linear(5, 4), nn.Linear(4, 3), nn.Linear(3, 2)).requires_grad_()
    theirs = copy.deepcopy(mine)
    built = spec(lr=0.01, betas=(0.5, 0.99), weight_decay=decay).build(mine.parameters())
    reference = plain(theirs.parameters(), lr=0.01, betas=(0.5, 0.99), weight_decay=decay, fused=True)
    for step in range(5):
        x = torch.randn(7, 5)
        for net, optimizer in ((mine, built), (theirs, reference)):
            optimizer.zero_grad()
            net[:2](x).square().sum().backward()  # the last layer has no gradient, and keeps its weights
            optimizer.step()
        if step == 2:  # what one saves the other loads
            state = reference.state_dict()
            assert built.state_dict()["state"].keys() == state["state"].keys()
            built.load_state_dict(built.state_dict())
    for a, b in zip(mine.parameters(), theirs.parameters(), strict=True):
        assert torch.equal(a, b)
