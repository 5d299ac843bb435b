#!/bin/sh
# Linear regression by gradient descent in awk, as one site of a federation. No Python in here: the events and
# the client information go through the command `flavor`.
set -eu
export LC_ALL=C # numbers with a point
. "$(dirname "$0")/safetensors.sh"

STEPS=40 RATE=0.5
data=$INPUT_PATH/data.csv
examples=$(($(wc -l < "$data") - 1))
weight="0 0 0" bias=0

# mse   The mean squared error of the model on this site's data.
mse() {
    awk -F, -v weight="$weight" -v bias="$bias" '
        BEGIN { n = split(weight, w, " ") }
        NR > 1 {
            error = bias - $(n + 1)
            for (i = 1; i <= n; i++) error += w[i] * $i
            sum += error * error
        }
        END { printf "%.6g\n", sum / (NR - 1) }
    ' "$data"
}

# train   Prints the model after STEPS steps of gradient descent: weights, then bias.
train() {
    awk -F, -v weight="$weight" -v bias="$bias" -v steps="$STEPS" -v rate="$RATE" '
        BEGIN { n = split(weight, w, " ") }
        NR > 1 { for (i = 1; i <= n + 1; i++) x[NR - 1, i] = $i }
        END {
            rows = NR - 1
            for (step = 1; step <= steps; step++) {
                for (i = 0; i <= n; i++) slope[i] = 0
                for (row = 1; row <= rows; row++) {
                    error = bias - x[row, n + 1]
                    for (i = 1; i <= n; i++) error += w[i] * x[row, i]
                    slope[0] += error
                    for (i = 1; i <= n; i++) slope[i] += error * x[row, i]
                }
                bias -= rate * slope[0] / rows
                for (i = 1; i <= n; i++) w[i] -= rate * slope[i] / rows
            }
            for (i = 1; i <= n; i++) printf "%.9g ", w[i]
            printf "%.9g\n", bias
        }
    ' "$data"
}

# Tell the server that all preparations for training have been completed
flavor event set TrainInitDone

# Wait for the server, round after round; it prints the round's number
while round=$(flavor event wait TrainStarted); status=$?; [ "$status" -eq 0 ]; do

    # Load the global model (there is none in the first round, without pre-trained weights)
    if [ -e "$GLOBAL_MODEL_PATH" ]; then
        weight=$(read_tensor "$GLOBAL_MODEL_PATH" weight)
        bias=$(read_tensor "$GLOBAL_MODEL_PATH" bias)
    fi

    # Evaluate the global model, then train it on this site's data
    error=$(mse)
    model=$(train)
    weight=${model% *} bias=${model##* }
    echo "round $round: mse $error before training; weight $weight, bias $bias after it"

    # Save the local model
    write_tensors "$LOCAL_MODEL_PATH" weight "$weight" bias "$bias"

    # Save client information; -1 is for what is not tracked
    flavor info save - << JSON
{
  "metadata": {"epoch": $round, "datasetSize": $examples, "importance": 1.0},
  "metrics": {
    "basic/confusion_tp": -1, "basic/confusion_fp": -1, "basic/confusion_fn": -1, "basic/confusion_tn": -1,
    "mse": $error
  }
}
JSON

    # Tell the server that this round of training work has ended
    flavor event set TrainFinished
done

# 6 says that the run is finished; anything else is a failure, already explained on stderr
[ "$status" -eq 6 ] || exit "$status"
