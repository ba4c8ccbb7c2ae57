"""A model that raises on the example inputs: the sentence names the mistake, and it is true."""

from __future__ import annotations

import contextlib
import pickle
import warnings
from collections import UserDict
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset

import idealgroups as ig
from idealgroups.errors import IdealGroupsError, InternalError, NoNormalizationError, internal
from idealgroups.measuring import regroup
from idealgroups.measuring.observer import Observer

X = torch.randn(4, 3, 8, 8)


def body() -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(3, 8, 3, padding=1),
        nn.BatchNorm2d(8),
        nn.ReLU(),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(8, 5),
    )


class Keywords(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.body = body()

    def forward(self, image: Tensor, mask: Tensor | None = None) -> Tensor:
        return self.body(image if mask is None else image * mask)


class Raises(nn.Module):
    def __init__(self, error: Exception) -> None:
        super().__init__()
        self.body, self.tail, self.error = body(), nn.Sequential(nn.Identity()), error
        self.tail[0].register_forward_pre_hook(self.explode)

    def explode(self, module: nn.Module, args: Any) -> None:
        raise self.error

    def forward(self, x: Tensor) -> Tensor:
        return self.tail(self.body(x))


class Catches(Raises):
    """A layer that fails and is caught is not the one to blame for what fails later."""

    def forward(self, x: Tensor) -> Tensor:
        with contextlib.suppress(ValueError):
            self.tail(x)
        return self.body(x.flatten(1))


@pytest.mark.parametrize(
    ("model", "inputs", "message"),
    [
        (
            body(),
            torch.randn(4, 1, 8, 8),
            r"0 \(Conv2d\) takes 3 channels but the example inputs of shape 4x1x8x8 have 1;",
        ),
        (
            nn.Sequential(body(), nn.Linear(4, 2)),
            X,
            r"1 \(Linear\) takes 4 features but its inputs of shape 4x5 have 5",
        ),
        (body(), (X, torch.arange(4)), r"takes \(input\), .* a batch with labels, pass the samples alone, inputs\[0\]"),
        (body(), [X, torch.arange(4)], r"are a list, .*batch with labels, pass the samples alone, inputs\[0\]"),
        (
            Keywords(),
            {"images": X},
            r"takes \(image, mask\), .*no argument images.* a dict is passed as",
        ),
        (body(), X.double(), r"the example inputs are float64 and 0 \(Conv2d\) computes in float32; .*torch.float32"),
        (body(), (X * 255).to(torch.uint8), r"are uint8 .* with .to\(torch.float32\) / 255 if they are images"),
        (body(), torch.randn(4, 192), r"0 \(Conv2d\) takes inputs of 4 axes, .* 4x192 have 2"),
        (body(), X.movedim(1, -1), r"of shape 4x8x8x3 have 8; .*\.movedim\(-1, 1\)"),
        (body(), X * torch.nan, r"loss is not finite; .*absolute values up to nan"),
        (body(), X[:0], r"inputs 0x3x8x8 are empty; pass at least one sample"),
        (body(), X * 1e30, r"no weight layer received a gradient; .*absolute values up to \d"),
        (Raises(ValueError("boom")), X, r"raised ValueError: boom in tail.0 \(Identity\) — on inputs 4x3x8x8"),
        (Catches(ValueError("boom")), X, r"body.0 \(Conv2d\) takes inputs of 4 axes"),
        (Raises(MemoryError()), X, r"memory does not suffice for a training step on inputs 4x3x8x8; give fewer"),
    ],
)
def test_the_mistake_is_named(model: nn.Module, inputs: Any, message: str) -> None:
    with pytest.raises(IdealGroupsError, match=message) as caught:
        ig.plan(model, inputs)
    assert caught.value.__cause__ is None
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "inputs",
    [
        torch.zeros(4, 3, 8, 8),
        (torch.zeros(4, 3, 8, 8), None),
        {"image": torch.zeros(4, 3, 8, 8)},
        UserDict(image=torch.zeros(4, 3, 8, 8), mask=torch.zeros(4, 1, 1, 1)),
    ],
)
def test_zeros_are_refused_in_whatever_holds_them(inputs: Any) -> None:
    with pytest.raises(IdealGroupsError, match="all zeros"):
        ig.plan(Keywords(), inputs)


def test_zeros_beside_a_signal_are_not_refused() -> None:
    class Tokens(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.table, self.conv, self.norm = nn.Embedding(9, 8), nn.Conv1d(8, 8, 3), nn.BatchNorm1d(8)
            self.head = nn.Linear(8, 2)

        def forward(self, tokens: Tensor, mask: Tensor) -> Tensor:
            x = self.table(tokens).mT + mask
            return self.head(self.norm(self.conv(x)).relu().mean(-1))

    assert ig.plan(Tokens(), (torch.randint(9, (4, 16)), torch.zeros(4, 1, 16))).num_groups


def test_any_mapping_is_passed_as_keywords() -> None:
    model = Keywords()
    assert ig.plan(model, UserDict(image=X)).num_groups == ig.plan(model, X).num_groups


def test_the_cause_is_kept_and_the_error_can_be_sent_to_another_process() -> None:
    with pytest.raises(IdealGroupsError) as caught:
        ig.plan(Raises(ValueError("boom")), X)
    assert isinstance(caught.value.cause, ValueError)
    again = pickle.loads(pickle.dumps(caught.value))
    assert (type(again), str(again)) == (IdealGroupsError, str(caught.value))


def test_no_norm_has_an_error_of_its_own() -> None:
    with pytest.raises(NoNormalizationError):
        ig.plan(nn.Linear(3, 3), torch.randn(2, 3))


@pytest.mark.parametrize("name", ["forward_moments", "gradient_sums"])
def test_a_fault_of_ours_is_not_blamed_on_the_model(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*args: Any) -> Any:
        raise IndexError("off by one")

    monkeypatch.setattr(regroup, name, broken)
    observer = Observer(body(), X)
    with pytest.raises(
        InternalError, match=r"internal error of idealgroups .*IndexError: off by one.*report"
    ) as caught:
        observer.observe({"1": 2}, with_curves=True)
    assert isinstance(caught.value.__cause__, IndexError)


def test_what_a_user_can_fix_passes_through_our_own_code() -> None:
    with pytest.raises(IdealGroupsError, match="as it is"), internal("testing"):
        raise IdealGroupsError("as it is")


def test_what_a_model_prints_does_not_reach_standard_output(capsys: pytest.CaptureFixture[str]) -> None:
    class Talks(Keywords):
        def forward(self, image: Tensor, mask: Tensor | None = None) -> Tensor:
            print("forward")
            return super().forward(image, mask)

    ig.plan(Talks(), X)
    written = capsys.readouterr()
    assert "forward" not in written.out
    assert "forward" in written.err


def test_routing_that_depends_on_the_groups_is_said() -> None:
    class Route(nn.Module):
        """Mean zero over the batch is true behind batch norm and false behind group norm."""

        def __init__(self) -> None:
            super().__init__()
            self.stem, self.norm = nn.Conv2d(3, 16, 3, padding=1), nn.BatchNorm2d(16)
            self.first, self.second = (nn.Sequential(nn.Conv2d(16, 16, 1), nn.BatchNorm2d(16)) for _ in range(2))
            self.head = nn.Linear(16, 5)

        def forward(self, x: Tensor) -> Tensor:
            x = self.norm(self.stem(x))
            expert = self.first if x.mean((0, 2, 3)).abs().max() < 1e-4 else self.second
            return self.head(expert(x).relu().mean((2, 3)))

    with pytest.raises(IdealGroupsError, match=r"first\.1 ran when .* leave it out with exclude='first\.1'"):
        ig.plan(Route(), X)


class Loaded(Dataset[Tensor]):
    def __len__(self) -> int:
        return 4

    def __getitem__(self, index: int) -> Tensor:
        return X[index]


@pytest.mark.parametrize(
    ("inputs", "message"),
    [
        (X.numpy(), r"hold a NumPy array \(4x3x8x8, float32\).* torch\.from_numpy"),
        ((X, {"mask": X.numpy()}), "hold a NumPy array"),
        ({"image": [X.numpy().astype("uint8")]}, r"hold a NumPy array \(4x3x8x8, uint8\)"),
        (
            DataLoader(Loaded(), batch_size=2),
            "are a DataLoader; take one batch, .* such as batch\\[0\\] or",
        ),
        (Loaded(), "are a Loaded; take one batch"),
        ({"images": X, "label": X}, r"there is no argument images\).* batch\['images'\]"),
        (X[None], "have 5; is the batch there twice"),
    ],
)
def test_inputs_as_people_hold_them_are_told_apart(inputs: Any, message: str) -> None:
    with pytest.raises(IdealGroupsError, match=message):
        ig.plan(Keywords(), inputs)


@pytest.mark.parametrize("kind", [2, 3])
def test_a_missing_batch_axis_is_named(kind: int) -> None:
    convolution, norm = {2: (nn.Conv2d, nn.BatchNorm2d), 3: (nn.Conv3d, nn.BatchNorm3d)}[kind]
    net = nn.Sequential(convolution(3, 8, 3, padding=1), norm(8), nn.ReLU())
    with pytest.raises(IdealGroupsError, match=r"add it with \.unsqueeze\(0\)"):
        ig.plan(net, torch.randn(3, *([8] * kind)))


def test_a_model_that_takes_arrays_is_planned_with_them() -> None:
    class Arrays(Keywords):
        def forward(self, image: Any, mask: Tensor | None = None) -> Tensor:
            return super().forward(torch.from_numpy(image), mask)

    assert ig.plan(Arrays(), X.numpy()).num_groups


@pytest.mark.parametrize("inputs", [[X[0]], ([X[0]],), [[X[0]], [{"boxes": X[0]}]]])
def test_a_detector_in_training_mode_asks_for_its_targets(inputs: Any) -> None:
    class Detector(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.body = body()

        def forward(self, images: list[Tensor], targets: list[Any] | None = None) -> Tensor:
            assert targets is not None, "targets should not be none when in training mode"
            return self.body(torch.stack(images))

    with pytest.raises(IdealGroupsError, match=r"give a tuple of both, \(inputs, targets\)"):
        ig.plan(Detector(), inputs)


def test_an_optimizer_itself_is_one_line() -> None:
    net = body()
    with pytest.raises(IdealGroupsError, match="no optimizer of class SGD; choose one of the words sgd, dp-sgd, adam"):
        ig.plan(net, X, optimizer=torch.optim.SGD(net.parameters(), 0.1))  # type: ignore[arg-type]


def test_arrays_for_a_trained_network_are_not_called_one_example() -> None:
    net = body()
    net(X)  # fills the running statistics
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with pytest.raises(IdealGroupsError, match="hold a NumPy array"):
            ig.convert(net, X.numpy())


class Scaled(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8))

    def forward(self, x: torch.Tensor, *, scale: float) -> torch.Tensor:
        return scale * self.layers(x)


def test_a_loader_is_said_before_a_missing_argument() -> None:
    with pytest.raises(IdealGroupsError, match="the example inputs are a DataLoader"):
        ig.plan(Scaled(), DataLoader(X))


def test_a_tuple_of_images_is_told_how_it_is_passed() -> None:
    """As to a detector, whose second argument are the targets."""

    class Detector(Scaled):
        def forward(self, images: list[torch.Tensor], targets: Any = None) -> torch.Tensor:  # type: ignore[override]
            return self.layers(torch.stack([image[:, :8, :8] for image in images]))

    with pytest.raises(IdealGroupsError, match=r"IndexError.*passed as positional arguments; .*\(\[x, y\],\)"):
        ig.plan(Detector(), tuple(X[:2]))


def test_a_loss_of_two_arguments_is_told_that_it_gets_one() -> None:
    with pytest.raises(IdealGroupsError, match=r"missing 1 required .* it is given the model's output alone"):
        ig.plan(body(), X, loss=nn.CrossEntropyLoss())


@pytest.mark.parametrize("given", [X.numpy(), X, [X]])
def test_a_missing_argument_is_said_before_the_kind_of_the_inputs(given: Any) -> None:
    with pytest.raises(IdealGroupsError, match=r"missing a required (keyword-only )?argument: 'scale'"):
        ig.plan(Scaled(), given)
