"""AdamW as Loshchilov & Hutter (2019), Algorithm 2, print it and torch documents it, slowly.

Nothing of the package or of torch.optim is used here. Weights are lists of float64 tensors.
"""


class AdamW:
    """Adam with decoupled weight decay: w shrinks by lr * weight_decay, outside the two moments."""

    def __init__(self, lr, betas=(0.9, 0.999), eps=1e-8, weight_decay=1e-2):
        self.lr, self.betas, self.eps, self.weight_decay = lr, betas, eps, weight_decay
        self.first = self.second = None
        self.num_steps = 0

    def step(self, weights, grads, lr=None):
        """Return the weights after one step."""
        lr = self.lr if lr is None else lr
        beta_1, beta_2 = self.betas
        self.num_steps += 1
        if self.first is None:
            self.first, self.second = [0 * grad for grad in grads], [0 * grad for grad in grads]
        self.first = [beta_1 * old + (1 - beta_1) * grad for old, grad in zip(self.first, grads)]
        self.second = [beta_2 * old + (1 - beta_2) * grad**2 for old, grad in zip(self.second, grads)]
        stepped = []
        for weight, first, second in zip(weights, self.first, self.second):
            mean = first / (1 - beta_1**self.num_steps)
            deviation = (second / (1 - beta_2**self.num_steps)) ** 0.5
            stepped.append(weight - lr * self.weight_decay * weight - lr * mean / (deviation + self.eps))
        return stepped
