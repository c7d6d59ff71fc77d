"""SAM in the Trainer of Hugging Face: gradient accumulation, several processes, LoRA.

Watch out for accumulation: eps needs the whole gradient, so the second pass must repeat all micro-batches.
Needs `pip install . accelerate peft transformers` in this repository.
"""

from contextlib import nullcontext
from typing import Any

import torch
from peft import LoraConfig, get_peft_model
from transformers import LlamaConfig, LlamaForCausalLM, PrinterCallback, Trainer, TrainingArguments

from sam.optim import SAM


class SAMTrainer(Trainer):
    """A Trainer with SAM around its optimizer; it clips the second gradient and steps as always."""

    def create_optimizer(self, model: Any = None) -> Any:
        """Wrap the Trainer's own optimizer. With LoRA, only the LoRA weights are trained, and perturbed."""
        weights = [weight for weight in self.model.parameters() if weight.requires_grad]
        self.optimizer, self.passes = SAM(weights, super().create_optimizer(model), rho=0.05), list[Any]()
        return self.optimizer

    def training_step(self, model: Any, inputs: Any, num_items_in_batch: Any = None) -> Any:
        """Make the first pass over a micro-batch; after the last one, make the second pass over all."""
        self.passes.append((inputs, torch.get_rng_state(), torch.cuda.get_rng_state_all()))
        loss = super().training_step(model, inputs, num_items_in_batch)
        if self.accelerator.sync_gradients:
            with self.optimizer.optimizer.perturbed_weights():  # self.optimizer is accelerate's wrapper
                while self.passes:
                    inputs, state, gpu_states = self.passes.pop(0)
                    torch.set_rng_state(state)  # the same dropout in both passes
                    torch.cuda.set_rng_state_all(gpu_states)
                    with self.accelerator.no_sync(model) if self.passes else nullcontext():
                        super().training_step(model, inputs, num_items_in_batch)
        return loss


def main() -> list[float]:
    """Train the LoRA weights of a tiny Llama on texts that repeat one word."""
    torch.manual_seed(0)
    data = [{"input_ids": text, "labels": text} for text in torch.randint(20, (800, 1)).expand(-1, 8)]
    size: Any = {"hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 64}
    model: Any = LlamaForCausalLM(LlamaConfig(vocab_size=20, initializer_range=0.3, **size))
    model = get_peft_model(model, LoraConfig(task_type="CAUSAL_LM", target_modules="all-linear", r=16))
    batch: Any = {"per_device_train_batch_size": 16, "gradient_accumulation_steps": 2, "num_train_epochs": 1}
    quiet: Any = {"logging_steps": 1, "save_strategy": "no", "report_to": "none", "disable_tqdm": True}
    trainer = SAMTrainer(model, TrainingArguments(learning_rate=3e-2, **batch, **quiet), train_dataset=data)
    trainer.remove_callback(PrinterCallback)
    trainer.train()
    losses = [entry["loss"] for entry in trainer.state.log_history if "loss" in entry]
    print(f"loss {losses[0]:.3f} -> {losses[-1]:.3f}")
    return losses


if __name__ == "__main__":
    main()
