"""SAM with a Hugging Face transformer: AdamW with two parameter groups, warm-up, dropout.

Watch out for dropout: each pass draws new masks, so the second gradient would be that of another network.
Restoring the random state from before the first pass gives both passes the same masks.

Needs `pip install . transformers` in this repository.
"""

import torch
from torch import Tensor, nn
from transformers import BertConfig, BertForSequenceClassification, get_linear_schedule_with_warmup

from sam.optim import SAM


def make_batches(num_batches: int) -> list[dict[str, Tensor]]:
    """Return batches of sentences; the label is 1 if the first word is from the second half of the words."""
    words = torch.randint(0, 20, (num_batches, 32, 8))
    return [{"input_ids": batch, "labels": (batch[:, 0] >= 10).long()} for batch in words]


def train(model: nn.Module, batches: list[dict[str, Tensor]]) -> list[float]:
    """Train on each batch once and return the losses of the first passes."""
    decayed = {"params": [w for w in model.parameters() if w.ndim > 1], "weight_decay": 0.01}
    others = {"params": [w for w in model.parameters() if w.ndim <= 1], "weight_decay": 0.0}
    optimizer = SAM([decayed, others], torch.optim.AdamW, rho=0.02, lr=3e-3)
    scheduler = get_linear_schedule_with_warmup(optimizer, len(batches) // 10, len(batches))
    losses = []
    for batch in batches:
        random_state = torch.get_rng_state()  # on a GPU: torch.cuda.get_rng_state()
        loss = model(**batch).loss
        loss.backward()
        optimizer.first_step()  # to w + eps
        torch.set_rng_state(random_state)
        model(**batch).loss.backward()
        optimizer.second_step()  # back to w, then AdamW's step
        scheduler.step()
        losses.append(loss.item())
    return losses


def main() -> list[float]:
    """Train a tiny BERT and print how its loss fell."""
    torch.manual_seed(0)
    config = BertConfig(
        vocab_size=20, hidden_size=32, num_hidden_layers=2, num_attention_heads=2, intermediate_size=64
    )
    losses = train(BertForSequenceClassification(config).train(), make_batches(80))
    print(f"loss {losses[0]:.3f} -> {losses[-1]:.3f}")
    return losses


if __name__ == "__main__":
    main()
