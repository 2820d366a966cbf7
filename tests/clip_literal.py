"""CLIP with prompts as the papers write it: a caption or an image at a time, head by head, from the weights alone."""

import math

import torch


def norm(W, name, x):
    mean = x.mean(dim=-1, keepdim=True)
    variance = ((x - mean) ** 2).mean(dim=-1, keepdim=True)
    return (x - mean) / torch.sqrt(variance + 1e-5) * W[f"{name}.weight"] + W[f"{name}.bias"]


def linear(W, name, x):
    return x @ W[f"{name}.weight"].T + W[f"{name}.bias"]


def block(W, name, x, heads, *, causal):
    """One block on one sequence (tokens, width)."""
    normed = norm(W, f"{name}.layer_norm1", x)
    q, k, v = (linear(W, f"{name}.self_attn.{part}_proj", normed) for part in "qkv")
    side, outputs = x.shape[1] // heads, []
    for head in range(heads):
        own = slice(head * side, (head + 1) * side)
        scores = q[:, own] @ k[:, own].T / math.sqrt(side)
        if causal:
            later = torch.ones_like(scores).triu(1).bool()
            scores = scores.masked_fill(later, -torch.inf)
        outputs.append(torch.softmax(scores, dim=-1) @ v[:, own])
    x = x + linear(W, f"{name}.self_attn.out_proj", torch.cat(outputs, dim=1))
    inner = linear(W, f"{name}.mlp.fc1", norm(W, f"{name}.layer_norm2", x))
    return x + linear(W, f"{name}.mlp.fc2", inner * torch.sigmoid(1.702 * inner))


def caption(W, vectors, blocks, heads, deep=(), first=1):
    """Features of one caption (tokens, width), of which the last is the end; deep prompts stand from `first` on."""
    x = vectors + W["text_model.embeddings.position_embedding.weight"][: len(vectors)]
    for index in range(blocks):
        if 0 < index <= len(deep):
            length = len(deep[index - 1])
            x = torch.cat([x[:first], deep[index - 1], x[first + length :]])
        x = block(W, f"text_model.encoder.layers.{index}", x, heads, causal=True)
    return norm(W, "text_model.final_layer_norm", x)[-1] @ W["text_projection.weight"].T


def image(W, pixels, blocks, heads, prompts=()):
    """Features of one image (3, side, side)."""
    kernel = W["vision_model.embeddings.patch_embedding.weight"]
    size = kernel.shape[-1]
    rows = [W["vision_model.embeddings.class_embedding"]]
    for top in range(0, pixels.shape[1], size):
        for left in range(0, pixels.shape[2], size):
            patch = pixels[:, top : top + size, left : left + size]
            rows.append((kernel * patch).sum(dim=(1, 2, 3)))
    x = torch.stack(rows) + W["vision_model.embeddings.position_embedding.weight"]
    patches = len(x)
    if len(prompts):
        x = torch.cat([x, prompts[0]])
    x = norm(W, "vision_model.pre_layrnorm", x)
    for index in range(blocks):
        if 0 < index < len(prompts):
            x = torch.cat([x[:patches], prompts[index]])
        x = block(W, f"vision_model.encoder.layers.{index}", x, heads, causal=False)
    return norm(W, "vision_model.post_layernorm", x[0]) @ W["visual_projection.weight"].T


def unit(x):
    return x / (x * x).sum().sqrt()


def logits(W, images, captions):
    """exp(s) · cos, image by image and caption by caption; the captions of all images, or a list for each."""
    own = captions if isinstance(captions[0], list) else [captions] * len(images)
    scale = W["logit_scale"].exp()
    return torch.stack(
        [torch.stack([scale * unit(x) @ unit(t) for t in ts]) for x, ts in zip(images, own, strict=True)]
    )


def entropy(scores, labels):
    """Mean cross entropy."""
    terms = [torch.log(torch.exp(row).sum()) - row[label] for row, label in zip(scores, labels, strict=True)]
    return torch.stack(terms).mean()
