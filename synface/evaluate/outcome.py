"""What an evaluation leaves: results.json, the scores of all pairs, and the ROC corners."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import pyarrow as pa

from synface.evaluate.verification import Measured, Protocol, average, corners
from synface.models.weights import WeightsConfig

RESULTS_FILE = "results.json"
SCORES_FILE = "data/scores.parquet"
ROC_FILE = "data/roc.parquet"

Results = dict[str, dict[str, dict[str, Any]]]  # benchmark -> protocol -> numbers


def results_content(
    results: Results, benchmarks: Mapping[str, Any], recognizer: WeightsConfig, far_rule: str
) -> dict[str, Any]:
    """results.json: numbers of every protocol, averages, and what they were measured with."""
    return {
        "results": results,
        "average": average(results),
        "benchmarks": dict(benchmarks),
        "recognizer": {
            "sha256": recognizer.sha256,
            "architecture": recognizer.architecture,
            "embedding_dim": recognizer.embedding_dim,
            "input_size": recognizer.input_size,
            "licence": recognizer.licence,
            "training_data": recognizer.training_data,
        },
        "far_rule": far_rule,
        "protocol": "flip-sum embeddings, squared L2, 10 consecutive folds, threshold from the other nine",
    }


def scores_table(measured: list[tuple[str, Protocol, Measured]]) -> pa.Table:
    """One row per pair: benchmark, protocol, pair, rows of its images, same, cosine, judged right."""
    parts = []
    for name, protocol, scored in measured:
        n = len(protocol.same_n)
        parts.append(
            pa.table(
                {
                    "benchmark": pa.array([name] * n),
                    "protocol": pa.array([protocol.name] * n),
                    "pair": np.arange(n, dtype=np.int32),
                    "left": protocol.left_n.astype(np.int32),
                    "right": protocol.right_n.astype(np.int32),
                    "same": protocol.same_n,
                    "cosine": scored.score_n,
                    "correct": scored.correct_n,
                }
            )
        )
    return pa.concat_tables(parts).combine_chunks()


def roc_table(measured: list[tuple[str, Protocol, Measured]]) -> pa.Table:
    """The corners of every ROC: benchmark, protocol, far, tar, threshold (cosine; null: accept nothing)."""
    parts = []
    for name, protocol, scored in measured:
        keep = corners(scored.curve)
        parts.append(
            pa.table(
                {
                    "benchmark": pa.array([name] * len(keep)),
                    "protocol": pa.array([protocol.name] * len(keep)),
                    "far": scored.curve.far_k[keep],
                    "tar": scored.curve.tar_k[keep],
                    "threshold": threshold_column(scored.curve.threshold_k[keep]),
                }
            )
        )
    return pa.concat_tables(parts).combine_chunks()


def threshold_column(threshold_k: np.ndarray) -> pa.Array:
    """Cosines as a column; an infinite one (accept nothing, or all) is null."""
    return pa.array(threshold_k, mask=~np.isfinite(threshold_k))
