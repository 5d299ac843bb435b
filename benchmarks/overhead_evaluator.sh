# An evaluator that costs nothing: it judges no model, starts no program, and reports the same each time.
echo '{"metadata": {"epoch": 0, "datasetSize": 100, "importance": 1.0}, "metrics": {"basic/confusion_tp": -1,
 "basic/confusion_fp": -1, "basic/confusion_fn": -1, "basic/confusion_tn": -1, "accuracy": 0.5}}' \
    >"${LOCAL_MODEL_PATH%/*}/info.json"
