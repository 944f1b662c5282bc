"""The field's 10-fold verification, a loop over folds and thresholds, against `evaluate`'s scoring of the same rows.

    python benchmarks/verification.py               # LFW's 6,000 pairs at 512; asked: a tenth of the loop's time

The loop is the field's script written out: 400 thresholds for the accuracy, 4,000 for TAR at one FAR, each counted
anew in every fold. `evaluate` gives the same accuracy to the last digit, and besides it ROC, AUC, EER and TAR at three
FARs. Embedding is left out: it is the same on both sides.
"""

import argparse
import itertools
import statistics
import time

import numpy as np

from common import write_result
from synface.core import scores
from synface.core.sphere import normalize
from synface.evaluate.verification import Protocol, measure

DIM, FOLDS, FAR = 512, 10, 1e-3


def counted(threshold: float, distance: np.ndarray, same: np.ndarray) -> tuple[float, float, float]:
    """Accuracy, TAR and FAR at one threshold."""
    accepted = np.less(distance, threshold)
    genuine, impostor = np.sum(accepted & same), np.sum(accepted & ~same)
    right = genuine + np.sum(~accepted & ~same)
    return float(right) / len(same), genuine / max(np.sum(same), 1), impostor / max(np.sum(~same), 1)


def loop(left: np.ndarray, right: np.ndarray, same: np.ndarray) -> tuple[float, float]:
    """Mean accuracy over folds, and mean TAR at `FAR`, threshold by threshold."""
    distance = np.sum(np.square(left - right), 1)
    edges = scores.fold_bounds(len(same), FOLDS)
    accuracies, tars = [], []
    for first, last in itertools.pairwise(edges):
        test = np.zeros(len(same), bool)
        test[first:last] = True
        coarse, fine = np.arange(0, 4, 0.01), np.arange(0, 4, 0.001)
        on_train = [counted(t, distance[~test], same[~test])[0] for t in coarse]
        accuracies.append(counted(coarse[int(np.argmax(on_train))], distance[test], same[test])[0])
        far = np.array([counted(t, distance[~test], same[~test])[2] for t in fine])
        chosen = fine[np.flatnonzero(far <= FAR)[-1]]
        tars.append(counted(chosen, distance[test], same[test])[1])
    return float(np.mean(accuracies)), float(np.mean(tars))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--pairs", type=int, default=6000)
    parser.add_argument("--rounds", type=int, default=3)
    args = parser.parse_args()
    draws = np.random.default_rng(0)
    same = draws.random(args.pairs) < 0.5
    left = normalize(draws.standard_normal((args.pairs, DIM)))
    other = normalize(draws.standard_normal((args.pairs, DIM)))
    right = normalize(np.where(same[:, None], left + 1.5 * other, other))
    rows = np.arange(2 * args.pairs)
    protocol = Protocol("verification", rows[0::2], rows[1::2], same, {})
    embedding = np.stack([left, right], 1).reshape(-1, DIM)
    times = []
    for _ in range(args.rounds):
        start = time.process_time()
        accuracy, tar = loop(left, right, same)
        middle = time.process_time()
        numbers = measure(embedding, protocol, (1e-3, 1e-2, 1e-1), "strict").numbers
        times.append((middle - start, time.process_time() - middle))
        if numbers["accuracy"] != accuracy:
            raise AssertionError(f"accuracy {numbers['accuracy']!r}, the loop's {accuracy!r}")
    result = {
        "pairs": args.pairs,
        "accuracy": accuracy,
        "tar_at_far_1e-3": {"loop, mean of folds": tar, "evaluate": numbers["tar_at_far"]["0.001"]["tar"]},
        "loop_cpu_s": [round(a, 4) for a, _ in times],
        "evaluate_cpu_s": [round(b, 4) for _, b in times],
        "share": round(statistics.median(b / a for a, b in times), 4),
    }
    write_result("verification", result)


if __name__ == "__main__":
    main()
