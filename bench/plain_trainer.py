"""The peer: what a transformers user writes, under torchrun. Trains the same job as job() in common.py."""

import json
import sys
from pathlib import Path

import torch.distributed as dist
from datasets import load_dataset
from transformers import (
    AutoModelForSequenceClassification,
    AutoTokenizer,
    DataCollatorWithPadding,
    Trainer,
    TrainerCallback,
    TrainingArguments,
)


class StepTimes(TrainerCallback):
    """Writes when each step ended."""

    def __init__(self, file):
        self.file, self.times = file, []

    def on_step_end(self, args, state, control, **kwargs):
        import time

        self.times.append(time.time())
        if len(self.times) == 1 and state.is_world_process_zero:
            print("first step", flush=True)

    def on_train_end(self, args, state, control, **kwargs):
        if self.file and state.is_world_process_zero:
            Path(self.file).write_text(json.dumps(self.times))


def main():
    """`plain_trainer.py FOLDER STEPS [TIMES]`: train on FOLDER/data.jsonl from FOLDER/model into FOLDER/plain."""
    folder, steps = Path(sys.argv[1]), int(sys.argv[2])
    args = TrainingArguments(
        output_dir=str(folder / "plain"),
        use_cpu=True,
        max_steps=steps,
        per_device_train_batch_size=8,
        logging_steps=10,
        save_steps=steps,
        learning_rate=1e-4,
        dataloader_pin_memory=False,
        disable_tqdm=True,
    )
    tokenizer = AutoTokenizer.from_pretrained(folder / "model")
    with args.main_process_first():
        data = load_dataset("json", data_files=str(folder / "data.jsonl"), split="train")
        labels = sorted(set(data["label"]))

        def encode(rows):
            encoded = tokenizer(rows["text"], max_length=64, truncation=True)
            encoded["labels"] = [labels.index(label) for label in rows["label"]]
            return encoded

        data = data.map(encode, batched=True, remove_columns=data.column_names)
    model = AutoModelForSequenceClassification.from_pretrained(folder / "model", num_labels=len(labels))
    times = StepTimes(sys.argv[3] if len(sys.argv) > 3 else None)
    trainer = Trainer(
        model, args, DataCollatorWithPadding(tokenizer), data, processing_class=tokenizer, callbacks=[times]
    )
    trainer.train()
    trainer.save_model()
    if dist.is_initialized():
        dist.destroy_process_group()


if __name__ == "__main__":
    main()
