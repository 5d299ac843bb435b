"""A small character-level transformer, and the text it reads."""

import torch
from torch import nn
from torch.nn import functional as F

CONTEXT = 64  # characters that it sees at once
ALPHABET = "\n" + "".join(map(chr, range(32, 127)))


def encoded(text):
    """The text as numbers below 96."""
    return torch.tensor([ALPHABET.index(character) for character in text], dtype=torch.uint8)


def turned(x):
    """Rotary positions (Su et al. 2021, arXiv 2104.09864): pairs of features turn by an angle that grows with place."""
    length, half = x.shape[-2], x.shape[-1] // 2
    angle = torch.arange(length)[:, None] * 100.0 ** (-torch.arange(half) / half)
    a, b = x.chunk(2, dim=-1)
    return torch.cat([a * angle.cos() - b * angle.sin(), a * angle.sin() + b * angle.cos()], dim=-1)


class Block(nn.Module):
    def __init__(self, width, heads):
        super().__init__()
        self.heads = heads
        self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.qkv, self.mix = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.up, self.down = nn.Linear(width, 4 * width), nn.Linear(4 * width, width)

    def forward(self, x):
        batch, length, width = x.shape
        qkv = self.qkv(self.norm1(x)).view(batch, length, 3, self.heads, width // self.heads)
        q, k, v = qkv.permute(2, 0, 3, 1, 4)
        seen = F.scaled_dot_product_attention(turned(q), turned(k), v, is_causal=True)
        x = x + self.mix(seen.transpose(1, 2).reshape(batch, length, width))
        return x + self.down(F.gelu(self.up(self.norm2(x))))


class CharModel(nn.Module):
    """Two layers, 106,240 parameters; the output layer is the embedding itself."""

    def __init__(self, width=64, heads=4, layers=2):
        super().__init__()
        self.characters = nn.Embedding(len(ALPHABET), width)
        self.blocks = nn.ModuleList(Block(width, heads) for _ in range(layers))
        self.norm = nn.LayerNorm(width)
        nn.init.normal_(self.characters.weight, std=0.05)
        for name, parameter in self.blocks.named_parameters():
            if parameter.dim() > 1:
                residual = name.endswith(("mix.weight", "down.weight"))
                scale = 0.5 / (2 * layers) ** 0.5 if residual else 0.5
                nn.init.normal_(parameter, std=scale / parameter.shape[1] ** 0.5)
            elif name.endswith("bias"):
                nn.init.zeros_(parameter)

    def forward(self, x, y):
        """The mean cross entropy, in nats a character, of predicting `y` after `x`, both [batch, length]."""
        h = self.characters(x)
        for block in self.blocks:
            h = block(h)
        scores = self.norm(h) @ self.characters.weight.T
        return F.cross_entropy(scores.flatten(0, 1), y.flatten())


def batch(text, size, generator):
    """`size` random pieces of the text, and the same shifted by one character."""
    starts = torch.randint(len(text) - CONTEXT, (size, 1), generator=generator)
    pieces = text[starts + torch.arange(CONTEXT + 1)].long()
    return pieces[:, :-1], pieces[:, 1:]


@torch.no_grad()
def evaluated(model, text, most=None):
    """The loss on all of a text, cut into pieces one after the other (or on the first `most` of them)."""
    pieces = text[: (len(text) - 1) // CONTEXT * CONTEXT + 1].long()
    x, y = pieces[:-1].view(-1, CONTEXT)[:most], pieces[1:].view(-1, CONTEXT)[:most]
    total = sum(len(x_) * model(x_, y_).item() for x_, y_ in zip(x.split(256), y.split(256), strict=True))
    return total / len(x)
