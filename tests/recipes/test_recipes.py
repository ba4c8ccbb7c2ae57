"""Each recipe with its real library: saved, loaded into a fresh network, the same outputs and groups."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

import idealgroups as ig
import networks

os.environ |= {"HF_HUB_OFFLINE": "1", "WANDB_DISABLED": "true"}
pytestmark = [pytest.mark.recipe, pytest.mark.filterwarnings("default")]


def build() -> nn.Module:
    model = networks.plain(width=16, depth=2)
    for module in model.modules():
        if isinstance(module, nn.ReLU):
            module.inplace = False  # Opacus does not take it
    return model


def images(size: int = 8, number: int = 8) -> Tensor:
    return torch.randn(number, 3, size, size)


def same(model: nn.Module, loaded: nn.Module, x: Any) -> None:
    """Same groups, and the same outputs."""
    assert ig.groups(loaded) == ig.groups(model) != {}
    model.eval(), loaded.eval()
    with torch.no_grad():
        first, second = model(x), loaded(x)
    torch.testing.assert_close(getattr(second, "logits", second), getattr(first, "logits", first))


def test_timm(tmp_path: Path) -> None:
    timm = pytest.importorskip("timm")
    from recipes.with_timm import create_converted, load_converted

    x = images(32, 2)
    model = create_converted("test_resnet", x, num_classes=5)
    ema = timm.utils.ModelEmaV3(model, decay=0.5)
    optimizer = torch.optim.SGD(model.parameters(), 0.1)
    model(x).sum().backward()
    optimizer.step()
    ema.update(model)
    saver = timm.utils.CheckpointSaver(model, optimizer, model_ema=ema, checkpoint_dir=str(tmp_path))
    saver.save_checkpoint(epoch=1, metric=0.5)
    same(model, load_converted("test_resnet", tmp_path / "last.pth.tar", num_classes=5), x)
    both = torch.load(tmp_path / "last.pth.tar", weights_only=False)  # our own file
    same(ema.module, ig.restore(timm.create_model("test_resnet", num_classes=5), both["state_dict_ema"]), x)


def test_diffusers(tmp_path: Path) -> None:
    diffusers = pytest.importorskip("diffusers")
    from diffusers.training_utils import EMAModel

    from recipes.with_diffusers import convert, from_pretrained

    unet = diffusers.UNet2DModel(
        sample_size=8,
        block_out_channels=(16, 32),
        norm_num_groups=8,
        layers_per_block=1,
        down_block_types=("DownBlock2D", "DownBlock2D"),
        up_block_types=("UpBlock2D", "UpBlock2D"),
    )
    inputs = {"sample": images(), "timestep": torch.arange(8)}
    unet = convert(unet, inputs)
    ema = EMAModel(unet.parameters(), model_cls=diffusers.UNet2DModel, model_config=unet.config)
    unet.save_pretrained(tmp_path / "model")
    ema.save_pretrained(tmp_path / "ema")
    for folder in ("model", "ema"):
        loaded = from_pretrained(diffusers.UNet2DModel, tmp_path / folder)
        assert ig.groups(loaded) == ig.groups(unet) != {}
        with torch.no_grad():
            torch.testing.assert_close(loaded(**inputs).sample, unet(**inputs).sample)


def test_transformers(tmp_path: Path) -> None:
    transformers = pytest.importorskip("transformers")
    from recipes.with_transformers import GroupNormResNetForImageClassification, convert

    config = transformers.ResNetConfig(embedding_size=16, hidden_sizes=[16, 32], depths=[1, 1], num_labels=3)
    x = images(32)
    model = convert(config, x)
    samples = [{"pixel_values": image, "labels": torch.tensor(0)} for image in x]

    def trainer(network: nn.Module, steps: int) -> Any:
        arguments = transformers.TrainingArguments(
            str(tmp_path), max_steps=steps, save_steps=1, report_to=[], use_cpu=True, disable_tqdm=True
        )
        return transformers.Trainer(network, arguments, train_dataset=samples)

    trainer(model, 1).train()
    same(model, GroupNormResNetForImageClassification.from_pretrained(tmp_path / "checkpoint-1"), x)
    resumed = GroupNormResNetForImageClassification(
        transformers.ResNetConfig.from_pretrained(tmp_path / "checkpoint-1")
    )
    trainer(resumed, 2).train(resume_from_checkpoint=True)
    assert ig.groups(resumed) == ig.groups(model)


def test_lightning(tmp_path: Path) -> None:
    lightning = pytest.importorskip("lightning")
    from recipes.with_lightning import GroupNormMixin

    class Classifier(GroupNormMixin):
        def __init__(self) -> None:
            super().__init__()
            self.net = build()
            self.example_input_array = images()

        def forward(self, x: Tensor) -> Tensor:
            return self.net(x)

        def training_step(self, batch: Any, index: int) -> Tensor:
            return nn.functional.cross_entropy(self.net(batch[0]), batch[1])

        def configure_optimizers(self) -> Any:
            assert any(isinstance(module, nn.GroupNorm) for module in self.net.modules())
            return torch.optim.SGD(self.parameters(), 0.1)

    loader = DataLoader(TensorDataset(images(), torch.zeros(8, dtype=torch.long)), batch_size=4)
    quiet = {"logger": False, "enable_progress_bar": False, "enable_model_summary": False, "accelerator": "cpu"}
    first = Classifier()
    trainer = lightning.Trainer(max_epochs=1, default_root_dir=tmp_path, **quiet)
    trainer.fit(first, loader)
    trainer.save_checkpoint(tmp_path / "last.ckpt")
    same(first.net, Classifier.load_from_checkpoint(tmp_path / "last.ckpt").net, images())
    same(first.net, ig.restore(build(), tmp_path / "last.ckpt"), images())
    resumed = Classifier()
    ig.set_groups(resumed.net, {"0.1": 1, "1.1": 1})  # as if its first batch had given others
    lightning.Trainer(max_epochs=2, default_root_dir=tmp_path, **quiet).fit(
        resumed, loader, ckpt_path=tmp_path / "last.ckpt"
    )
    assert ig.groups(resumed.net) == ig.groups(first.net)


def test_monai() -> None:
    nets = pytest.importorskip("monai.networks.nets")
    from recipes.with_monai import norm_argument

    def unet(norm: Any) -> nn.Module:
        return nets.UNet(3, 1, 2, channels=(8, 16, 32), strides=(2, 2), num_res_units=1, norm=norm)

    volume = torch.randn(2, 1, 16, 16, 16)
    norm = norm_argument(unet, volume)
    numbers = {module.num_groups for module in unet(norm).modules() if isinstance(module, nn.GroupNorm)}
    assert numbers == {norm[1]["num_groups"]}
    model, _ = ig.convert(unet("batch"), volume)
    same(model, ig.restore(unet("batch"), model.state_dict()), volume)


def test_accelerate(tmp_path: Path) -> None:
    accelerate = pytest.importorskip("accelerate")
    from recipes.with_accelerate import restore, save

    accelerator = accelerate.Accelerator(cpu=True)
    model, _ = ig.convert(build(), images())
    optimizer = torch.optim.SGD(model.parameters(), 0.1, momentum=0.9)
    model, optimizer = accelerator.prepare(model, optimizer)
    accelerator.backward(model(images()).sum())
    optimizer.step()
    save(accelerator, tmp_path)
    fresh = restore(build(), tmp_path)
    same(accelerator.unwrap_model(model), fresh, images())


def test_opacus() -> None:
    pytest.importorskip("opacus")
    from recipes.with_opacus import make_private

    data = TensorDataset(images(), torch.zeros(8, dtype=torch.long))
    private, optimizer, loader = make_private(build(), images(), DataLoader(data, batch_size=4))
    for x, y in loader:
        if len(x):
            optimizer.zero_grad()
            nn.functional.cross_entropy(private(x), y).backward()
            optimizer.step()
    same(private._module, ig.restore(build(), private.state_dict()), images())


def test_pretrained_to_private() -> None:
    pytest.importorskip("opacus")
    from recipes.pretrained_to_private import convert_on_public, tune

    pretrained = build()
    for _ in range(20):
        pretrained(images(number=32))
    pretrained.eval()
    x = images(number=64)
    model = convert_on_public(pretrained, x)
    with torch.no_grad():
        error = (model(x) - pretrained(x)).square().mean() / pretrained(x).var()
    assert error < 0.2
    before = [parameter.detach().clone() for parameter in model.parameters()]
    spent = tune(model, DataLoader(TensorDataset(x, torch.zeros(64, dtype=torch.long)), batch_size=16), epsilon=5)
    assert 0 < spent <= 5
    assert not any(torch.equal(a, b) for a, b in zip(before, model.parameters(), strict=True))


def test_stable_baselines3(tmp_path: Path) -> None:
    sb3 = pytest.importorskip("stable_baselines3")
    from stable_baselines3.common.envs import FakeImageEnv

    from recipes.with_stable_baselines3 import policy_kwargs

    env = FakeImageEnv(screen_height=36, screen_width=36, discrete=True, channel_first=True)
    agent = sb3.PPO("CnnPolicy", env, n_steps=16, batch_size=16, policy_kwargs=policy_kwargs(env.observation_space))
    agent.learn(16)
    agent.save(tmp_path / "agent")
    loaded = sb3.PPO.load(tmp_path / "agent")
    x = torch.rand(4, 1, 36, 36)
    same(agent.policy.features_extractor, loaded.policy.features_extractor, x)


def test_flower() -> None:
    pytest.importorskip("flwr")
    from flwr.common import Code, FitRes, Status, ndarrays_to_parameters, parameters_to_ndarrays
    from flwr.server.strategy import FedAvg

    from recipes.with_flower import Client, get_weights, round_config, set_weights

    server, _ = ig.convert(build(), images())
    strategy = FedAvg(on_fit_config_fn=round_config(server))
    assert strategy.on_fit_config_fn is not None
    config = strategy.on_fit_config_fn(1)
    results: list[Any] = []
    for _ in range(2):
        client = Client(build, images(), torch.zeros(8, dtype=torch.long))
        arrays, samples, metrics = client.fit(get_weights(server), config)
        assert json.loads(config["groups"]) == ig.groups(client.model)
        results.append((None, FitRes(Status(Code.OK, ""), ndarrays_to_parameters(arrays), samples, metrics)))
    averaged, _ = strategy.aggregate_fit(1, results, [])
    assert averaged is not None
    set_weights(server, parameters_to_ndarrays(averaged))
    second = client.model.state_dict()
    first = dict(zip(second, parameters_to_ndarrays(results[0][1].parameters), strict=True))
    middle = (torch.as_tensor(first["4.weight"]) + second["4.weight"]) / 2
    torch.testing.assert_close(server.state_dict()["4.weight"], middle)
