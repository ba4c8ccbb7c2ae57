"""For authors of networks: construct with the planned numbers instead of converting."""

import torch
from torchvision.models import resnet18

import idealgroups as ig

plan = ig.plan(resnet18(), torch.randn(4, 3, 96, 96))
model = resnet18(norm_layer=ig.norm_layer(plan, resnet18))
assert [m.num_groups for m in model.modules() if isinstance(m, torch.nn.GroupNorm)]
print(model.layer4)
