"""Take a torchvision ViT to a second task: run it cell by cell, or as a script.

``python experiments/studies/second_task.py --small`` needs no download: a random little ViT and the
digits that scikit-learn carries.
"""

# %% A pretrained backbone, and images of a task that it has never seen
import sys

import torch
from sklearn.datasets import load_digits
from torchvision.models import VisionTransformer, ViT_B_16_Weights, vit_b_16

from recast_core import RecastConfig, TaskLibrary, attach, mimic
from recast_core.backbones import Preprocess
from recast_core.fitting import fit
from recast_core.recipe import Recipe

small = "--small" in sys.argv
torch.manual_seed(0)
model = (
    VisionTransformer(16, 4, num_layers=4, num_heads=4, hidden_dim=64, mlp_dim=256)
    if small
    else vit_b_16(weights=ViT_B_16_Weights.DEFAULT)
)
digits = load_digits()
pixels = torch.from_numpy(digits.images * 15.9).to(torch.uint8)[: 1797 if small else 300]
images, labels = Preprocess(model.image_size)(pixels), torch.from_numpy(digits.target)
train, test = slice(0, 2 * len(images) // 3), slice(2 * len(images) // 3, len(images))

# %% Mimicry writes its MLP weights as combinations of templates; then only coefficients train
bank = mimic(model, RecastConfig(target="mlp"))
net = attach(model, bank)
net.print_trainable_parameters()

# %% Learn the task: a handful of coefficients, and a head in closed form
found = fit(net, images[train], labels[train], classes=10, recipe=Recipe(epochs=2))
tasks = TaskLibrary(bank)
tasks.add("digits", found.coefficients, found.head, classes=[str(d) for d in range(10)])
tasks.save("tasks")

# %% Swap it in, predict, swap it out: the backbone's own logits are as they were
tasks.activate(net, "digits")
with torch.no_grad():
    accuracy = (net(images[test]).argmax(1) == labels[test]).float().mean()
print(f"digits: {accuracy:.1%} of {len(images[test])} test images")
tasks.deactivate(net)
