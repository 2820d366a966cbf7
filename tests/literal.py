"""Every method's equation written out in float64, with the numbers of `every_method`: the judge of its layers.

Each function takes inputs (rows, in), W₀ (out, in) and the trained tensors of one matrix, and gives x·ΔWᵀ.
"""

from math import sqrt

import torch
from transformers.pytorch_utils import Conv1D

from every_method import SEED
from kinds import equation_4
from randlora.adapter.weights import read_weight
from randlora.bases import DenseBases
from randlora.bases.rng import random_words
from sizes import sizes


def uniform(stream, i, size):
    """Entries of random vector i: the bytes of its words, lowest first, as odd multiples of 1/256 in (-1, 1)."""
    words = random_words(SEED, stream, range(i, i + 1), -(-size // 4))[0].tolist()
    entries = [(2 * (word >> shift & 255) - 255) / 256 for word in words for shift in (0, 8, 16, 24)]
    return torch.tensor(entries[:size], dtype=torch.float64)


def combination(coefficients, stream, shape):
    k = len(coefficients)
    return sum(coefficients[i] * uniform(stream, i, shape[0] * shape[1]).view(shape) / sqrt(k) for i in range(k))


def singular_triples(W):
    """Of the weight rounded to bfloat16, u on the side of a vector of multiples of the golden ratio, less integers."""
    U, sigma, Vh = torch.linalg.svd(W.bfloat16().double(), full_matrices=False)
    direction = torch.tensor([(i * (1 + sqrt(5)) / 2) % 1 - 0.5 for i in range(1, len(U) + 1)], dtype=torch.float64)
    for j in range(len(sigma)):
        u, v = U[:, j], Vh[j]
        yield (u, sigma[j], v) if direction @ u > 0 else (-u, sigma[j], -v)


def nola(x, W, alpha, beta):
    A, B = combination(alpha, 2, (3, W.shape[1])), combination(beta, 3, (W.shape[0], 3))
    return x @ (2 / 3 * B @ A).T


def pranc(x, W, alpha):
    return x @ combination(alpha, 4, W.shape).T


def lora_xs(x, W, R):
    triples = list(singular_triples(W))[:3]
    delta = torch.zeros_like(W)
    for i in range(3):
        for j in range(3):
            delta = delta + 8 / 3 * R[i, j] * triples[j][1] * torch.outer(triples[i][0], triples[j][2])
    return x @ delta.T


def svft(x, W, M):
    triples = list(singular_triples(W))
    m = len(triples)
    band = [(i, j) for i in range(m) for j in range(m) if abs(i - j) <= 1]
    delta = torch.zeros_like(W)
    for value, (i, j) in zip(M, band, strict=True):
        delta = delta + value * torch.outer(triples[i][0], triples[j][2])
    return x @ delta.T


def hydralora(x, W, A, B, router):
    outputs = []
    for row in x:
        scores = torch.exp(router @ row)
        omega = scores / scores.sum()
        outputs.append(sum(8 / 3 * omega[i] * B[i] @ A @ row for i in range(len(B))))
    return torch.stack(outputs)


def randlora_a(x, W, lambda_, gamma):
    (n, r), m = lambda_.shape, gamma.shape[1]
    M = max(W.shape)
    bases = DenseBases("normal", SEED, separate=True)
    A, B = bases.form(sizes(r, m, M), torch.device("cpu"), torch.float64)
    left, right = torch.zeros(M, r, dtype=torch.float64), torch.zeros(r, m, dtype=torch.float64)
    for j in range(n):
        left = left + B[:, j::n] @ torch.diag(lambda_[j])
        right = right + A[j::n] @ torch.diag(gamma[j])
    delta = 2 * sqrt(r / n) / m ** (4 / 3) * bases.scale(r) * left @ right
    return x @ (delta.T if W.shape[1] == m else delta)


def eight_bits(entries):
    """What bfloat16 and float16 both hold."""
    return entries.bfloat16().half().double()


def spectral(x, W, lambda_, gamma):
    (n, r), m = lambda_.shape, gamma.shape[1]
    M = max(W.shape)
    triples = list(singular_triples(W))
    tall = W.shape[1] == m  # out ≥ in: left vectors on the large side
    large = [eight_bits(sqrt(M) * (u if tall else v)) for u, _, v in triples]
    small = [eight_bits(sqrt(m) * (v if tall else u)) for u, _, v in triples]
    delta = torch.zeros(M, m, dtype=torch.float64)
    for j in range(n):
        for k in range(r):
            delta = delta + lambda_[j, k] * torch.outer(large[(j * r + k) % m], small[k] * gamma[j])
    delta = 2 * sqrt(r) / m ** (4 / 3) * delta
    return x @ (delta.T if tall else delta)


def hybrid(x, W, lambda_, gamma, A, B):
    (n, r), m = lambda_.shape, gamma.shape[1]
    bases = DenseBases("normal", SEED)
    A_R, B_R = bases.form(sizes(r, m, max(W.shape)), torch.device("cpu"), torch.float64)
    delta = torch.zeros(max(W.shape), m, dtype=torch.float64)
    for j in range(n):
        delta = delta + B_R[:, j::n] @ torch.diag(lambda_[j]) @ A_R @ torch.diag(gamma[j])
    delta = 2 * sqrt(r) / m ** (4 / 3) * bases.scale(r) * delta
    return x @ (delta.T if W.shape[1] == m else delta) + x @ (3 / 2 * B @ A).T


def khatri_rao(A, B, out, inner, alpha):
    """Entry c·width + d of row i is alpha·B[i, c]·A[i, d]; rows lie along the smaller side, of a square the outputs."""
    delta = torch.zeros(out, inner, dtype=A.dtype)
    width = A.shape[1]
    for i in range(min(out, inner)):
        for place in range(max(out, inner)):
            value = alpha * B[i, place // width] * A[i, place % width]
            delta[(i, place) if out <= inner else (place, i)] = value
    return delta


def kradapter(x, W, A, B):
    return x @ khatri_rao(A, B, *W.shape, 1.0).T


UPDATES = {
    "nola": nola,
    "pranc": pranc,
    "lora_xs": lora_xs,
    "svft": svft,
    "randlora_a": randlora_a,
    "spectral": spectral,
    "hybrid": hybrid,
    "kradapter": kradapter,
}
"""Of the methods that are not RandLoRA itself, for which there is `kinds.equation_4`."""


def delta_weight(layer, method, adapter="default"):
    """ΔW of the adapter on a layer of any kind, matrix by matrix, in the layout of its weight; differentiable."""
    if method not in UPDATES:
        return equation_4(layer, adapter)
    base = layer.get_base_layer()
    weight = read_weight(base).detach().double()
    trained = [getattr(layer, name)[adapter].weight.double() for name in layer.adapter_layer_names]
    if weight.ndim == 2:
        weight, trained = weight[None], [tensor[None] for tensor in trained]
    inputs = torch.eye(weight.shape[-1], dtype=torch.float64)
    matrices = [UPDATES[method](inputs, *parts).T for parts in zip(weight, *trained, strict=True)]
    if getattr(base, "padding_idx", None) is not None:
        kept = torch.arange(len(matrices[0])) != base.padding_idx
        matrices[0] = matrices[0] * kept[:, None]
    return matrices[0].T if isinstance(base, Conv1D) else torch.stack(matrices).reshape(base.weight.shape)
