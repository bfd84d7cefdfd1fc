"""Bilevel training: the hyper-gradient against one that is solved exactly, and what learning λ comes to."""

from copy import deepcopy

import pytest
import torch

from MMRegCore.training.engine.bilevel import Bilevel, BilevelSettings, Step, hyper_gradient, step_of_adam
from MMRegCore.training.engine.distributed import ProcessContext

CONTEXT = ProcessContext(torch.device("cpu"))


def constant(rate):
    """One step size for all, or one for each number, whatever the gradient."""
    rate = torch.as_tensor(rate)
    return lambda parameters, gradients: Step([-rate * g for g in gradients], [rate] * len(parameters))


RATES = constant(0.1)


def bilevel_of(*weights, regularising=(), **settings):
    """Terms by the names 0, 1, …"""
    named = {str(number): weight for number, weight in enumerate(weights)}
    return Bilevel(named, regularising, BilevelSettings(**settings), CONTEXT)


class Quadratic:
    """Lower level: λ₀ ½|w - a|² + λ₁ ½ wᵀ A w; upper level: ½|w - b|²."""

    def __init__(self):
        random = torch.Generator().manual_seed(0)
        self.a, self.b, self.w = (torch.randn(4, generator=random, dtype=torch.float64) for _ in range(3))
        root = torch.randn(4, 4, generator=random, dtype=torch.float64)
        self.matrix = root @ root.T
        self.w.requires_grad_(True)

    def terms(self):
        return torch.stack([0.5 * (self.w - self.a).square().sum(), 0.5 * self.w @ self.matrix @ self.w])

    def upper(self):
        return 0.5 * (self.w - self.b).square().sum()


@pytest.mark.parametrize("rate", [torch.tensor(0.05).double(), torch.tensor([0.05, 0.0, 0.2, 0.01]).double()])
def test_the_hyper_gradient_is_the_exact_one_of_a_step(rate):
    """By automatic differentiation through the step w' = w - s ∂f/∂w, Eqs. 20 and 21; s one, or of each parameter."""
    problem = Quadratic()
    weights = torch.tensor([0.7, 1.9], dtype=torch.float64, requires_grad=True)
    gradient = weights[0] * (problem.w - problem.a) + weights[1] * (problem.matrix @ problem.w)
    after = problem.w - rate * gradient
    exact = torch.autograd.grad(0.5 * (after - problem.b).square().sum(), weights)[0]
    start = problem.w.detach().clone()
    found = hyper_gradient(problem.terms, problem.upper, [problem.w], weights.detach(), constant(rate))
    torch.testing.assert_close(found, exact, rtol=1e-8, atol=1e-12)
    assert torch.equal(problem.w.detach(), start)


def test_the_hyper_gradient_through_a_network():
    """A nonlinear one, in float32 as in training, against automatic differentiation."""
    torch.manual_seed(0)
    network = torch.nn.Sequential(torch.nn.Linear(3, 8), torch.nn.Tanh(), torch.nn.Linear(8, 2))
    x, y, x_judge, y_judge = torch.randn(20, 3), torch.randn(20, 2), torch.randn(20, 3), torch.randn(20, 2)
    names = [name for name, _ in network.named_parameters()]

    def terms_of(parameters):
        found = torch.func.functional_call(network, dict(zip(names, parameters, strict=True)), (x,))
        return torch.stack([(found - y).square().mean(), found.square().mean()])

    parameters, rate = list(network.parameters()), 0.1
    weights = torch.tensor([1.0, 0.5], requires_grad=True)
    gradients = torch.autograd.grad((weights * terms_of(parameters)).sum(), parameters, create_graph=True)
    after = [p - rate * g for p, g in zip(parameters, gradients, strict=True)]
    judged = torch.func.functional_call(network, dict(zip(names, after, strict=True)), (x_judge,))
    exact = torch.autograd.grad((judged - y_judge).square().mean(), weights)[0]
    found = hyper_gradient(
        lambda: terms_of(parameters),
        lambda: (network(x_judge) - y_judge).square().mean(),
        parameters,
        weights.detach(),
        constant(rate),
    )
    torch.testing.assert_close(found, exact, rtol=1e-4, atol=1e-7)


def test_a_clipped_gradient_makes_a_shorter_step():
    """As the training clips it before Adam steps: the direction stays, so it is as with a smaller rate."""
    problem, weights = Quadratic(), torch.tensor([0.7, 1.9], dtype=torch.float64)
    max_grad_norm = 0.1 * float(torch.autograd.grad((weights * problem.terms()).sum(), problem.w)[0].norm())
    cut = hyper_gradient(problem.terms, problem.upper, [problem.w], weights, RATES, max_grad_norm)
    shorter = hyper_gradient(problem.terms, problem.upper, [problem.w], weights, constant(0.01))
    torch.testing.assert_close(cut, shorter)


def test_the_step_is_the_one_that_adam_takes():
    w, unused = torch.randn(5, requires_grad=True), torch.zeros(2, requires_grad=True)
    adam = torch.optim.Adam([w, unused], lr=0.03, betas=(0.7, 0.9))
    random = torch.Generator().manual_seed(0)
    w.grad = torch.randn(5, generator=random)
    adam.step()
    for _ in range(4):
        before, w.grad = w.detach().clone(), torch.randn(5, generator=random)
        step = step_of_adam(adam)([w, unused], [w.grad, torch.ones(2)])
        adam.step()
        torch.testing.assert_close(w.detach() - before, step.change[0])
    assert torch.equal(step.change[1], torch.zeros(2))
    assert torch.equal(step.rates[1], torch.zeros(2))


def test_the_rates_are_what_a_gradient_comes_to():
    """The same gradient again and again: momentum and second moment settle, and a step is the rate times it."""
    w = torch.zeros(3, requires_grad=True)
    adam = torch.optim.Adam([w], lr=0.03, betas=(0.7, 0.9))
    w.grad = torch.tensor([1.0, -0.2, 5.0])
    for _ in range(200):
        adam.step()
    step = step_of_adam(adam)([w], [w.grad])
    torch.testing.assert_close(step.change[0], -step.rates[0] * w.grad)


def test_weights_do_not_change_where_the_upper_level_is_converged():
    problem = Quadratic()
    weights = torch.ones(2).double()
    found = hyper_gradient(problem.terms, lambda: 0 * problem.w.sum(), [problem.w], weights, RATES)
    assert not found.any()


def test_parameters_are_restored_when_a_loss_fails():
    problem = Quadratic()
    start = problem.w.detach().clone()

    def fails():
        raise ArithmeticError

    with pytest.raises(ArithmeticError):
        hyper_gradient(problem.terms, fails, [problem.w], torch.ones(2).double(), RATES)
    assert torch.equal(problem.w.detach(), start)


def test_learned_weights_find_the_better_compromise():
    """The lower level alone ends between a and 0; the upper level wants a: λ₁ must fall, λ₀ may rise."""
    w = torch.zeros(4, requires_grad=True)
    a = torch.tensor([1.0, -2.0, 0.5, 1.5])

    def terms():
        return torch.stack([0.5 * (w - a).square().sum(), 0.5 * w.square().sum()])

    def upper():
        return 0.5 * (w - a).square().sum()

    bilevel = bilevel_of(1.0, 5.0, every=1, learning_rate=1.0)
    optimiser = torch.optim.SGD([w], lr=0.05)
    for _ in range(150):
        bilevel.update(terms, upper, [w], constant(0.05))
        loss = (bilevel.weights * terms()).sum()
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    start = 0.5 * (a * (1 / 6) - a).square().sum()
    assert float(upper().detach()) < 0.2 * float(start)
    assert float(bilevel.weights[1]) < 1 < float(bilevel.weights[0])


def test_weights_of_zero_stay_so_and_all_others_positive():
    problem = Quadratic()
    bilevel = bilevel_of(0.0, 1e-3, every=1, learning_rate=0.5)
    for _ in range(20):
        bilevel.update(lambda: problem.terms().float(), lambda: problem.upper().float(), [problem.w], RATES)
    assert bilevel.weights[0] == 0
    assert bilevel.weights[1] > 0


def test_weights_that_are_not_learned_stay_as_they_were_set():
    """Only the ratios of all weights matter: what is compared may keep its own while the regularisation moves."""
    problem = Quadratic()
    both, second = (
        bilevel_of(0.7, 1.9, regularising={"1"}, every=1, learning_rate=0.1, learned=which)
        for which in ("all", "regularisation")
    )
    for bilevel in (both, second):
        bilevel.update(lambda: problem.terms().float(), lambda: problem.upper().float(), [problem.w], RATES)
    assert float(second.weights[0]) == pytest.approx(0.7, rel=1e-6)
    assert abs(float(both.weights[0]) - 0.7) > 0.01
    assert second.weights[1] == both.weights[1]
    assert abs(float(second.weights[1]) - 1.9) > 0.01


@pytest.mark.parametrize("scale", [1e-3, 1e-2, 1e6])
def test_a_weight_moves_by_what_there_is_to_gain_and_never_far_at_once(scale):
    """λ falls by the ratio exp(-rate · λ dF/dλ), up to a tenth."""
    problem, start = Quadratic(), torch.tensor([0.7, 1.9])

    def upper():
        return scale * problem.upper().float()

    bilevel = bilevel_of(*start.tolist(), every=1, learning_rate=0.5)
    gradient = hyper_gradient(lambda: problem.terms().float(), upper, [problem.w], start, RATES)
    bilevel.update(lambda: problem.terms().float(), upper, [problem.w], RATES)
    moved = (bilevel.weights / start).log()
    torch.testing.assert_close(moved, (-0.5 * start * gradient).clamp(-0.1, 0.1), atol=1e-6, rtol=1e-3)
    assert (moved.abs() > 0.099).all() == (scale > 1)


def test_updates_are_due_every_so_many_steps_from_the_first_on():
    never, third = (bilevel_of(1.0, every=n) for n in (0, 3))
    assert [never.due(step) for step in range(4)] == [False] * 4
    assert [third.due(step) for step in range(4)] == [False, False, False, True]
    later = bilevel_of(1.0, every=2, start_step=5)
    assert [step for step in range(10) if later.due(step)] == [6, 8]


def test_its_state_is_complete():
    problem = Quadratic()

    def advance(bilevel, count):
        for _ in range(count):
            bilevel.update(lambda: problem.terms().float(), lambda: problem.upper().float(), [problem.w], RATES)

    first, second = (bilevel_of(1.0, 2.0, every=1, learning_rate=0.1) for _ in range(2))
    advance(first, 3)
    second.load_state_dict(deepcopy(first.state_dict()))
    advance(first, 2)
    advance(second, 2)
    assert torch.equal(first.weights, second.weights)
