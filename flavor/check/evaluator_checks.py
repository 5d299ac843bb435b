"""The checks of an evaluator: one table, in the order in which they are made."""

from __future__ import annotations

from flavor.check.report import Check

STARTS = Check(
    "starts",
    "the preprocess command, if there is one, ends with exit code 0, and the evaluator starts",
    "run the command by itself in this folder: it must end with exit code 0, in time",
)
ENDS = Check(
    "ends",
    "the command judges one model and ends by itself with exit code 0, in time",
    "end the script after one model: flavor-fv starts it again for the next one",
)
REPORTS = Check(
    "reports a result",
    "a valid $OUTPUT_PATH/result.json, or a valid info.json of SaveInfoJson, is there at its end",
    "call SaveInfoJson, or write result.json as docs/evaluation.md says",
)
KNOWN = Check(
    "uses known names",
    "each name in result.json, if there is one, is among those of docs/evaluation.md",
    "correct the name: flavor leaves out what stands under it",
)
EXAMPLES = Check(
    "counts its examples",
    "metadata.datasetSize is more than 0",
    "set metadata.datasetSize to the number of examples on which the model was judged",
)
MEASURES = Check(
    "measures something",
    "each metric, and each value in a table of result.json, is a finite number, and there is one",
    "report a metric as a number: SaveInfoJson({..., 'metrics': {'accuracy': 0.9}}), or a table with values",
)
KEEPS = Check(
    "keeps the model",
    "the file at $WEIGHT_PATH is the same after the script has ended",
    "read the model from os.environ['WEIGHT_PATH'], and save nothing there",
)
SAME = Check(
    "measures the same again",
    "a second start with the same model gives the same metrics",
    "set the seeds of all random generators, so that models can be compared by their metrics",
)
USES = Check(
    "judges the model",
    "a model whose weights are all 0 gives other metrics",
    "load the model from os.environ['WEIGHT_PATH'] before it is measured",
)

EVALUATOR_CHECKS: tuple[Check, ...] = (STARTS, ENDS, REPORTS, KNOWN, EXAMPLES, MEASURES, KEEPS, SAME, USES)
