"""Invertible maps: they are undone by their inverse, and their determinants are those of their Jacobians."""

from __future__ import annotations

import pytest
import torch

from nelbo.dists.flows import (
    MADE,
    AffineCoupling,
    Chain,
    Flip,
    InverseAutoregressive,
    MaskedAutoregressive,
    PlanarFlow,
    RadialFlow,
    SplineCoupling,
    flipping,
)
from nelbo.dists.flows.amortised import straighten

FLOWS = {
    "planar": PlanarFlow,
    "radial": RadialFlow,
    "inverse-autoregressive": lambda latents, context=0: InverseAutoregressive(latents, (16, 16), context),
    "spline": lambda latents, context=0: SplineCoupling(latents, 5, 16, context),
    "affine": lambda latents, context=0: AffineCoupling(latents, (16, 16), context),
    "masked-autoregressive": lambda latents, context=0: MaskedAutoregressive(latents, (16, 16), context),
    "flip": lambda latents, context=0: Flip(),
    "nothing": lambda latents, context=0: Chain(),
    "chain": lambda latents, context=0: flipping(lambda: SplineCoupling(latents, 4, 8, context), 3),
}
CONTEXT = 3


def wild(make, latents, context=CONTEXT, seed=0):
    """A flow in float64 that is far from the identity."""
    torch.manual_seed(seed)
    flow = make(latents, context).double()
    with torch.no_grad():
        for weight in flow.parameters():
            weight.copy_(torch.randn_like(weight) * (1.0 if weight.dim() == 1 else 0.3))
    return flow


@pytest.mark.parametrize("latents", [1, 2, 5])
@pytest.mark.parametrize(
    ("name", "context"),
    [(name, n) for name in FLOWS for n in (0, CONTEXT) if n or name not in ("planar", "radial")],
)
def test_the_inverse_undoes_it_and_its_determinant(name, latents, context):
    flow = wild(FLOWS[name], latents, context)
    context_BF = torch.randn(4, context).double() if context else None
    z_KBZ = 3.0 * torch.randn(50, 4, latents, dtype=torch.float64)
    y_KBZ, log_det_KB = flow(z_KBZ, context_BF)
    back_KBZ, back_det_KB = flow.inverse(y_KBZ, context_BF)
    assert log_det_KB.shape == (50, 4)
    assert torch.allclose(back_KBZ, z_KBZ, atol=1e-6, rtol=1e-6)
    assert torch.allclose(back_det_KB, -log_det_KB, atol=1e-6)


@pytest.mark.parametrize("latents", [1, 2, 5])
@pytest.mark.parametrize("name", FLOWS)
def test_the_determinant_is_that_of_the_jacobian(name, latents):
    flow, context_BF = wild(FLOWS[name], latents), torch.randn(1, CONTEXT).double()
    for z_1Z in 2.0 * torch.randn(5, 1, latents, dtype=torch.float64):
        jacobian = torch.autograd.functional.jacobian(lambda z: flow(z, context_BF)[0], z_1Z)
        _, log_det = torch.linalg.slogdet(jacobian.view(latents, latents))
        assert torch.allclose(flow(z_1Z, context_BF)[1], log_det, atol=1e-8)
        y_1Z = flow(z_1Z, context_BF)[0].detach()
        jacobian = torch.autograd.functional.jacobian(lambda y: flow.inverse(y, context_BF)[0], y_1Z)
        log_det = torch.linalg.slogdet(jacobian.view(latents, latents))[1]
        assert torch.allclose(flow.inverse(y_1Z, context_BF)[1], log_det, atol=1e-6)


@pytest.mark.parametrize("latents", [1, 3])
@pytest.mark.parametrize("name", ["planar", "radial", "inverse-autoregressive", "spline", "chain"])
def test_one_point_in_several_contexts_is_several_points(name, latents):
    flow, context_BF = wild(FLOWS[name], latents), torch.randn(4, CONTEXT).double()
    z_K1Z = torch.randn(6, 1, latents, dtype=torch.float64)
    for way in (flow.forward, flow.inverse):
        together, apart = way(z_K1Z, context_BF), way(z_K1Z.expand(6, 4, latents), context_BF)
        assert all(torch.allclose(one, other) for one, other in zip(together, apart, strict=True))


@pytest.mark.parametrize("name", FLOWS)
def test_both_directions_have_the_gradients_of_finite_differences(name):
    flow, context_BF = wild(FLOWS[name], 3), torch.randn(2, CONTEXT).double()
    z_BZ = torch.randn(2, 3, dtype=torch.float64, requires_grad=True)
    weights = tuple(flow.parameters())
    for way in (flow.forward, flow.inverse):
        assert torch.autograd.gradcheck(
            lambda z, *_, way=way: way(z, context_BF), (z_BZ, *weights), atol=1e-5, fast_mode=True
        )


@pytest.mark.parametrize("name", FLOWS)
def test_flows_begin_close_to_the_identity(name):
    torch.manual_seed(1)
    z_BZ = torch.randn(500, 6)
    y_BZ, log_det_B = FLOWS[name](6, CONTEXT)(z_BZ, torch.randn(500, CONTEXT))
    assert (y_BZ - (z_BZ.flip(-1) if name == "flip" else z_BZ)).abs().mean() < 0.1
    assert log_det_B.abs().mean() < 6 * 0.13


@pytest.mark.parametrize("name", FLOWS)
def test_flows_are_finite_in_single_precision_far_out(name):
    torch.manual_seed(2)
    flow = FLOWS[name](64, 32)
    context_BF = 100.0 * torch.randn(8, 32)
    z_BZ = (30.0 * torch.randn(8, 64)).requires_grad_()
    y_BZ, log_det_B = flow(z_BZ, context_BF)
    (y_BZ.sum() + log_det_B.sum()).backward()
    assert y_BZ.isfinite().all()
    assert log_det_B.isfinite().all()
    assert z_BZ.grad.isfinite().all()
    assert all(weight.grad.isfinite().all() for weight in flow.parameters())
    assert all(value.isfinite().all() for value in flow.inverse(z_BZ.detach(), context_BF))


@pytest.mark.parametrize("c", [-0.99, -0.5, 0.0, 1e-3, 1.0, 30.0, 1e6])
def test_the_root_along_a_plane_is_found_everywhere(c):
    v = torch.cat([10.0 ** torch.linspace(-8, 4, 200), torch.zeros(1)]).double()
    v = torch.cat([v, -v])
    t = v + c * v.tanh()
    found = straighten(t, torch.full_like(t, c))
    assert torch.allclose(found + c * found.tanh(), t, rtol=1e-12, atol=1e-14)
    assert torch.allclose(found, v, rtol=1e-9, atol=1e-12 if c < 1e3 else 1e-6)


@pytest.mark.parametrize("latents", [1, 2, 7])
@pytest.mark.parametrize("context", [0, CONTEXT])
def test_made_looks_only_back(latents, context):
    torch.manual_seed(3)
    made = MADE(latents, 2, (20, 15), context).double()
    context_BF = torch.randn(300, context, dtype=torch.float64, requires_grad=True) if context else None
    z_BZ = torch.randn(300, latents, dtype=torch.float64, requires_grad=True)
    with torch.no_grad():
        made.rest[-1].weight.normal_()
    found = made(z_BZ, context_BF)
    assert found.shape == (300, latents, 2)
    for place in range(latents):
        slope_BZ = torch.autograd.grad(found[:, place].sum(), z_BZ, retain_graph=True, allow_unused=True)[0]
        seen_Z = (slope_BZ != 0).any(0).tolist()
        assert seen_Z == [before < place for before in range(latents)]
        if context:
            assert (torch.autograd.grad(found[:, place].sum(), context_BF, retain_graph=True)[0] != 0).any()


def test_splines_leave_the_outside_alone_and_join_it_smoothly():
    flow = wild(FLOWS["spline"], 1, context=0)
    z = torch.tensor([[-7.0], [-5.0], [5.0], [123.0], [5.0 - 1e-9], [-5.0 + 1e-9]], dtype=torch.float64)
    y, log_det = flow(z)
    assert torch.allclose(y, z, atol=1e-7)
    assert torch.allclose(log_det, torch.zeros(6).double(), atol=1e-6)
