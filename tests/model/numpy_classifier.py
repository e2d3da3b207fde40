"""A one-layer sa_sdp classifier and its backward pass in NumPy, with DynaProp at every place."""

import math

import numpy as np

EPSILON = 1e-12


def cut(values, threshold):
    """Prune: what is smaller in magnitude becomes zero."""
    return np.where(np.abs(values) < threshold, 0.0, values)


def normal_cdf(x):
    return 0.5 * (1 + np.vectorize(math.erf)(x / math.sqrt(2)))


def gelu_slope(x):
    return normal_cdf(x) + x * np.exp(-x * x / 2) / math.sqrt(2 * math.pi)


class NumpyClassifier:
    """Gradients of the mean cross entropy, sequence by sequence over real positions alone.

    Parameters
    ----------
    weights : arrays by the names of the PyTorch model
    heads : number of heads
    tau_i, tau_t : thresholds by operation; a place that is missing is not pruned
    """

    def __init__(self, weights, heads, tau_i, tau_t):
        self.weights, self.heads = weights, heads
        self.tau_i, self.tau_t = tau_i, tau_t
        self.gradients = {name: np.zeros_like(value) for name, value in weights.items()}
        self.pruned = set()

    def store(self, name, values):
        kept = cut(values, self.tau_i.get(name, 0))
        if (kept != values).any():
            self.pruned.add(name)
        return kept

    def unstore(self, name, gradient, values):
        """The gradient of what was stored: none where it was pruned."""
        return gradient * (np.abs(values) >= self.tau_i.get(name, 0))

    def enter(self, name, gradient):
        """The gradient as products read it."""
        kept = cut(gradient, self.tau_t.get(name, 0))
        if (kept != gradient).any():
            self.pruned.add(f"{name} gradient")
        return kept

    def linear(self, module, values):
        return values @ self.weights[f"{module}.weight"].T + self.weights[f"{module}.bias"]

    def unlinear(self, module, name, gradient, values):
        gradient = self.enter(name, gradient)
        self.gradients[f"{module}.weight"] += gradient.T @ values
        self.gradients[f"{module}.bias"] += gradient.sum(0)
        return gradient @ self.weights[f"{module}.weight"]

    def norm(self, module, values):
        centred = values - values.mean(-1, keepdims=True)
        deviation = np.sqrt((centred**2).mean(-1, keepdims=True) + EPSILON)
        unit = centred / deviation
        made = unit * self.weights[f"{module}.weight"] + self.weights[f"{module}.bias"]
        return made, (unit, deviation)

    def unnorm(self, module, gradient, kept):
        unit, deviation = kept
        self.gradients[f"{module}.weight"] += (gradient * unit).sum(0)
        self.gradients[f"{module}.bias"] += gradient.sum(0)
        inner = gradient * self.weights[f"{module}.weight"]
        mean = inner.mean(-1, keepdims=True)
        return (inner - mean - unit * (inner * unit).mean(-1, keepdims=True)) / deviation

    def run(self, ids, lengths, labels):
        """Add the gradients of a batch; the mean loss."""
        total = 0.0
        for row, length, label in zip(ids, lengths, labels, strict=True):
            total += self.one(row[:length], label, len(ids))
        return total / len(ids)

    def one(self, ids, label, batch):
        layer, n = "encoder.layers.0", len(ids)
        weights = self.weights
        embedded = weights["encoder.embeddings.word.weight"][ids]
        embedded = embedded + weights["encoder.embeddings.position.weight"][:n]
        embedded = embedded + weights["encoder.embeddings.token_type.weight"][0]
        raw, kept = {}, {}
        raw["embedding"], kept_0 = self.norm("encoder.embeddings.norm", embedded)
        hidden = self.store("embedding", raw["embedding"])
        for name in ("query", "key", "value"):
            raw[name] = self.linear(f"{layer}.{name}", hidden)
            kept[name] = self.store(name, raw[name])
        size = kept["query"].shape[1] // self.heads
        scale = size**-0.5
        contexts, inside = [], []
        for head in range(self.heads):
            part = slice(head * size, (head + 1) * size)
            score = kept["query"][:, part] * scale @ kept["key"][:, part].T
            exponents = np.exp(self.store("score", score))
            share = exponents / exponents.sum(-1, keepdims=True)
            share_kept = self.store("attention_softmax", share)
            inside.append((part, score, share, share_kept))
            contexts.append(share_kept @ kept["value"][:, part])
        raw["context"] = np.concatenate(contexts, 1)
        context = self.store("context", raw["context"])
        raw["attention_output"] = self.linear(f"{layer}.attention_output", context)
        attended = self.store("attention_output", raw["attention_output"])
        raw["attention_norm"], kept_1 = self.norm(f"{layer}.attention_norm", attended + hidden)
        middle = self.store("attention_norm", raw["attention_norm"])
        before_gelu = self.linear(f"{layer}.feed_forward.0", middle)
        raw["feed_forward_0"] = before_gelu * normal_cdf(before_gelu)
        inner = self.store("feed_forward_0", raw["feed_forward_0"])
        raw["feed_forward_1"] = self.linear(f"{layer}.feed_forward.1", inner)
        outer = self.store("feed_forward_1", raw["feed_forward_1"])
        raw["feed_forward_norm"], kept_2 = self.norm(f"{layer}.feed_forward_norm", outer + middle)
        last = self.store("feed_forward_norm", raw["feed_forward_norm"])
        raw["pooler"] = self.linear("encoder.pooler", last[:1])
        pooled = self.store("pooler", raw["pooler"])
        raw["pooler_tanh"] = np.tanh(pooled)
        read = self.store("pooler_tanh", raw["pooler_tanh"])
        logits = self.linear("classifier", read)[0]
        answers = np.exp(logits - logits.max())
        answers /= answers.sum()
        loss = -np.log(answers[label])

        # Backward, from the mean loss over the batch.
        answers[label] -= 1
        gradient = self.unlinear("classifier", "classifier", answers[None] / batch, read)
        gradient = self.unstore("pooler_tanh", gradient, raw["pooler_tanh"])
        gradient = gradient * (1 - raw["pooler_tanh"] ** 2)
        gradient = self.unstore("pooler", gradient, raw["pooler"])
        into_last = np.zeros_like(last)
        into_last[:1] = self.unlinear("encoder.pooler", "pooler", gradient, last[:1])
        into_last = self.unstore("feed_forward_norm", into_last, raw["feed_forward_norm"])
        added = self.unnorm(f"{layer}.feed_forward_norm", into_last, kept_2)
        gradient = self.unstore("feed_forward_1", added, raw["feed_forward_1"])
        gradient = self.unlinear(f"{layer}.feed_forward.1", "feed_forward_1", gradient, inner)
        gradient = self.unstore("feed_forward_0", gradient, raw["feed_forward_0"])
        gradient = gradient * gelu_slope(before_gelu)
        gradient = self.unlinear(f"{layer}.feed_forward.0", "feed_forward_0", gradient, middle)
        into_middle = self.unstore("attention_norm", added + gradient, raw["attention_norm"])
        added = self.unnorm(f"{layer}.attention_norm", into_middle, kept_1)
        gradient = self.unstore("attention_output", added, raw["attention_output"])
        gradient = self.unlinear(f"{layer}.attention_output", "attention_output", gradient, context)
        gradient = self.enter("context", self.unstore("context", gradient, raw["context"]))
        into = {name: np.zeros_like(values) for name, values in kept.items()}
        for part, score, share, share_kept in inside:
            into["value"][:, part] = share_kept.T @ gradient[:, part]
            shares = gradient[:, part] @ kept["value"][:, part].T
            shares = self.unstore("attention_softmax", shares, share)
            scores = share * (shares - (shares * share).sum(-1, keepdims=True))
            scores = self.enter("score", self.unstore("score", scores, score))
            into["query"][:, part] = scores @ kept["key"][:, part] * scale
            into["key"][:, part] = scores.T @ kept["query"][:, part] * scale
        into_hidden = added
        for name, values in into.items():
            values = self.unstore(name, values, raw[name])
            into_hidden = into_hidden + self.unlinear(f"{layer}.{name}", name, values, hidden)
        into_hidden = self.unstore("embedding", into_hidden, raw["embedding"])
        gradient = self.unnorm("encoder.embeddings.norm", into_hidden, kept_0)
        np.add.at(self.gradients["encoder.embeddings.word.weight"], ids, gradient)
        self.gradients["encoder.embeddings.position.weight"][:n] += gradient
        self.gradients["encoder.embeddings.token_type.weight"][0] += gradient.sum(0)
        return loss
