"""Distributions after Hugging Face's logits processors, in generate()'s order, for test/ops/sample.test.ts."""

import json
import pathlib
import sys

import torch
import transformers
from transformers.generation import logits_process as lp

CASES = [
    # vocab, scale of the logits, temperature, top_k, top_p, min_p, repetition_penalty, tokens seen
    (40, 2.0, 1.0, 0, 1.0, 0.0, 1.0, 0),
    (40, 2.0, 0.7, 0, 1.0, 0.0, 1.0, 0),
    (67, 3.0, 1.3, 10, 1.0, 0.0, 1.0, 0),
    (67, 3.0, 1.0, 0, 0.8, 0.0, 1.0, 0),
    (67, 3.0, 1.0, 0, 0.0, 0.0, 1.0, 0),
    (67, 1.0, 1.0, 0, 1.0, 0.1, 1.0, 0),
    (100, 3.0, 1.0, 0, 1.0, 0.0, 1.3, 30),
    (100, 3.0, 1.0, 0, 1.0, 0.0, 0.8, 30),
    (200, 3.0, 0.6, 20, 0.95, 0.0, 1.0, 0),
    (200, 2.0, 1.5, 50, 0.9, 0.05, 1.1, 60),
    (33, 1.0, 0.9, 1, 0.5, 0.5, 1.2, 5),
]


def main():
    torch.manual_seed(7)
    cases = []
    for vocab, scale, temperature, top_k, top_p, min_p, penalty, seen in CASES:
        logits = (torch.randn(1, vocab) * scale * 64).round() / 64  # short decimals, and some ties
        ids = torch.randint(vocab, (1, seen))  # with repeats
        processors = []
        if penalty != 1.0:
            processors.append(lp.RepetitionPenaltyLogitsProcessor(penalty))
        if temperature != 1.0:
            processors.append(lp.TemperatureLogitsWarper(temperature))
        if top_k:
            processors.append(lp.TopKLogitsWarper(top_k))
        if top_p < 1.0:
            processors.append(lp.TopPLogitsWarper(top_p))
        if min_p:
            processors.append(lp.MinPLogitsWarper(min_p))
        scores = logits
        for processor in processors:
            scores = processor(ids, scores)
        cases.append(
            {
                "sampling": {
                    "temperature": temperature,
                    "topK": top_k,
                    "topP": top_p,
                    "minP": min_p,
                    "repetitionPenalty": penalty,
                },
                "seen": ids[0].tolist(),
                "logits": logits[0].tolist(),
                "probabilities": torch.softmax(scores.double(), -1)[0].tolist(),
                "logprobs": torch.log_softmax(logits.double(), -1)[0].tolist(),
            }
        )
    golden = {"versions": {"torch": torch.__version__, "transformers": transformers.__version__}, "seed": 7, "cases": cases}
    folder = pathlib.Path(sys.argv[1])
    folder.mkdir(exist_ok=True)
    (folder / "golden.json").write_text(json.dumps(golden) + "\n")


if __name__ == "__main__":
    main()
