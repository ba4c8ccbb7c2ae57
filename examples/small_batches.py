"""A segmentation network for batches of two: batch norm out, group norm in, each layer with its own number."""

import torch
import torchvision

import idealgroups as ig

model = torchvision.models.segmentation.lraspp_mobilenet_v3_large(weights=None, weights_backbone=None, num_classes=4)
images = torch.randn(2, 3, 96, 96)

model, plan = ig.convert(model, images)
print(plan)

optimizer = torch.optim.SGD(model.parameters(), lr=0.01, momentum=0.9)
labels = torch.randint(0, 4, (2, 96, 96))
for _ in range(2):
    loss = torch.nn.functional.cross_entropy(model(images)["out"], labels)
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
print(f"loss {loss.item():.3f}")
