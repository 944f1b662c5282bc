"""Vision transformers for face recognition with insightface's dimensions and state_dict names.

Dosovitskiy et al., "An image is worth 16x16 words", ICLR 2021, in the form of insightface (``arcface_torch``,
``backbones/vit.py``): patches of 9 pixels, blocks that normalise first, ReLU6 in the MLP, no class token (the
embedding sees all places), and in training random places masked and blocks skipped. Weights of that family load
strictly. Parameter counts follow from that layout: no publication states them.
"""

from dataclasses import dataclass

import torch
from torch import nn
from torch.nn import functional

PATCH = 9
HEADS = 8
MLP_RATIO = 4
FEATURE_EPS = 2e-5
INITIAL_STD = 0.02


@dataclass(frozen=True)
class Variant:
    """A published size: width, blocks, and what training leaves out.

    Attributes:
        width: of a token; a multiple of the number of heads.
        depth: blocks.
        drop_path: probability that the last block's branches are skipped for an image; rises linearly from 0.
        masked: share of the places that a training image loses.
    """

    width: int
    depth: int
    drop_path: float = 0.1
    masked: float = 0.1


VARIANTS = {
    "vit_t": Variant(256, 12),
    "vit_s": Variant(512, 12),
    "vit_b": Variant(512, 24),
    "vit_l": Variant(768, 24, 0.05, 0.05),
}


class Attention(nn.Module):
    """Multi-head self-attention; the scores and their softmax in float32 whatever autocast says."""

    def __init__(self, width: int, heads: int):
        super().__init__()
        self.heads = heads
        self.qkv = nn.Linear(width, 3 * width, bias=False)
        self.proj = nn.Linear(width, width)

    def forward(self, x_nlw: torch.Tensor) -> torch.Tensor:
        """Shape unchanged."""
        count, places, width = x_nlw.shape
        qkv = self.qkv(x_nlw).reshape(count, places, 3, self.heads, width // self.heads)
        with torch.autocast(x_nlw.device.type, enabled=False):
            query, key, value = qkv.float().permute(2, 0, 3, 1, 4)
            mixed = functional.scaled_dot_product_attention(query, key, value)
        return self.proj(mixed.transpose(1, 2).reshape(count, places, width))


class Mlp(nn.Module):
    """Two linear layers around ReLU6, place by place."""

    def __init__(self, width: int):
        super().__init__()
        self.fc1 = nn.Linear(width, MLP_RATIO * width)
        self.fc2 = nn.Linear(MLP_RATIO * width, width)

    def forward(self, x_nlw: torch.Tensor) -> torch.Tensor:
        """Shape unchanged."""
        return self.fc2(functional.relu6(self.fc1(x_nlw)))


class Block(nn.Module):
    """x + attention(norm(x)), then x + mlp(norm(x)); in training each branch is skipped for some images."""

    def __init__(self, width: int, heads: int, drop_path: float):
        super().__init__()
        self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.attn = Attention(width, heads)
        self.mlp = Mlp(width)
        self.drop_path = drop_path

    def forward(self, x_nlw: torch.Tensor) -> torch.Tensor:
        """Shape unchanged."""
        x = x_nlw + self._some(self.attn(self.norm1(x_nlw)))
        return x + self._some(self.mlp(self.norm2(x)))

    def _some(self, branch_nlw: torch.Tensor) -> torch.Tensor:
        """Stochastic depth (Huang et al., ECCV 2016): zero for some images, larger for the others."""
        if not self.training or not self.drop_path:
            return branch_nlw
        kept_n = torch.rand(len(branch_nlw), 1, 1, device=branch_nlw.device) >= self.drop_path
        return branch_nlw * kept_n / (1 - self.drop_path)


class VisionTransformer(nn.Module):
    """Images [n, 3, s, s] in [-1, 1], RGB, to raw features [n, embedding_dim] (not normalised).

    Args:
        variant: width, depth, and what training leaves out.
        embedding_dim: size of the feature.
        input_size: s (the published networks: 112, of which 12 x 12 patches see 108 pixels).
        heads: of the attention.
    """

    def __init__(self, variant: Variant, embedding_dim: int, input_size: int, heads: int = HEADS):
        super().__init__()
        width, places = variant.width, (input_size // PATCH) ** 2
        self.masked = variant.masked
        self.patch_embed = nn.ModuleDict({"proj": nn.Conv2d(3, width, PATCH, PATCH)})
        self.pos_embed = nn.Parameter(torch.zeros(1, places, width))
        self.mask_token = nn.Parameter(torch.zeros(1, 1, width))
        rates = torch.linspace(0, variant.drop_path, variant.depth, device="cpu").tolist()
        self.blocks = nn.ModuleList([Block(width, heads, rate) for rate in rates])
        self.norm = nn.LayerNorm(width)
        self.feature = nn.Sequential(
            nn.Linear(width * places, width, bias=False),
            nn.BatchNorm1d(width, eps=FEATURE_EPS),
            nn.Linear(width, embedding_dim, bias=False),
            nn.BatchNorm1d(embedding_dim, eps=FEATURE_EPS),
        )
        nn.init.trunc_normal_(self.pos_embed, std=INITIAL_STD)
        nn.init.normal_(self.mask_token, std=INITIAL_STD)
        for module in self.modules():
            if isinstance(module, nn.Linear):
                nn.init.trunc_normal_(module.weight, std=INITIAL_STD)
                if module.bias is not None:
                    nn.init.zeros_(module.bias)

    def forward(self, x_nchw: torch.Tensor) -> torch.Tensor:
        """Raw features [n, embedding_dim]."""
        x = self.patch_embed["proj"](x_nchw).flatten(2).transpose(1, 2) + self.pos_embed
        seen = self._seen(x) if self.training and self.masked else None
        if seen is not None:
            x = x.gather(1, seen)
        for block in self.blocks:
            x = block(x)
        x = self.norm(x.float())
        if seen is not None:
            everywhere = self.mask_token.to(x.dtype).expand(len(x), self.pos_embed.shape[1], -1)
            x = everywhere.scatter(1, seen, x)
        return self.feature(x.flatten(1))

    def _seen(self, x_nlw: torch.Tensor) -> torch.Tensor:
        """The places that each image keeps, int64 [n, kept, width] (equal along the width)."""
        count, places, width = x_nlw.shape
        order = torch.rand(count, places, device=x_nlw.device).argsort(1)
        return order[:, : int(places * (1 - self.masked)), None].expand(-1, -1, width)
