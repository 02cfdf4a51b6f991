"""A training loop of one's own: rows are proven, packed and accounted for; the loop is yours.

python examples/own_loop.py --steps 8
"""

import argparse
import itertools

import tutelage as tt


def main() -> None:
    parser = argparse.ArgumentParser(description="Train LoRA on datasets/support with a loop of one's own.")
    parser.add_argument("--model", default="smollm2-135m")
    parser.add_argument("--data", default="datasets/support/train.jsonl")
    parser.add_argument("--steps", type=int, default=8)
    parser.add_argument("--out", help="folder for the adapter; left out, nothing is saved")
    asked = parser.parse_args()

    renderer = tt.Renderer(asked.model)
    examples = tt.load_data(asked.data, renderer)
    print(examples)
    examples[0].show()

    trainer = tt.Trainer(asked.model, lora={"rank": 16})
    batches = examples.batches(batch_size=16, seed=0, epochs=100)
    for step, batch in enumerate(itertools.islice(batches, asked.steps), start=1):
        loss = trainer.forward_backward(batch)  # summed, and divided once by the batch's trained tokens
        norm = trainer.optim_step(learning_rate=1e-3)
        print(f"step {step}/{asked.steps}  loss {loss:.4f}  gradient norm {norm:.3f}")

    print(trainer.sample("Where is my parcel?", max_new_tokens=24))
    if asked.out:
        print(f"saved in {trainer.save(asked.out)}")


if __name__ == "__main__":
    main()
