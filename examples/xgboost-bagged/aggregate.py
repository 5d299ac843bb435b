"""Bag the sites' trees: the trees of the global model that all of them boosted, then the new trees of each.

So one round is one step of boosting that every site takes from the same place, and the global model's margin is the old
one plus the sum of what each site's trees add to it. This is done on XGBoost's JSON alone, without XGBoost.
"""

import json
import math
import sys

from flavor.cook.utils import GetPaths

PER_NODE = (
    *("left_children", "right_children", "parents", "default_left", "split_indices", "split_conditions", "split_type"),
    *("base_weights", "loss_changes", "sum_hessian"),
)


class Unfit(ValueError):
    """A local model that cannot be bagged with the others."""


def load(path):
    """One site's model, as the dictionary that its JSON is; `Unfit` says what is wrong with it."""
    with open(path, "rb") as file:
        content = file.read()
    try:
        model = json.loads(content)
        fault = fault_of(model)
    except (ValueError, LookupError, TypeError) as error:
        fault = f"{type(error).__name__}: {error}"
    if fault:
        raise Unfit(f"{path} is not a model as main.py saves it: {fault}")
    return model


def bag(models):
    """One model of all trees: those that `models` share, then the new ones of the first, of the second, and so on."""
    first = models[0]["learner"]
    start = int(first["attributes"]["global_iterations"])
    booster = first["gradient_booster"]["model"]
    shared = booster["iteration_indptr"][start]
    trees, classes = booster["trees"][:shared], booster["tree_info"][:shared]
    steps = booster["iteration_indptr"][: start + 1]
    for number, model in enumerate(models, start=1):
        learner = model["learner"]
        own = learner["gradient_booster"]["model"]
        for part in ("objective", "learner_model_param"):  # with another base score, trees do not add up
            if learner[part] != first[part]:
                raise Unfit(f"the {part} of local model {number} is {learner[part]}, of the first {first[part]}")
        if learner["attributes"] != first["attributes"] or own["trees"][:shared] != booster["trees"][:shared]:
            raise Unfit(f"local model {number} boosts another global model than the first does")
        steps += [step - shared + len(trees) for step in own["iteration_indptr"][start + 1 :]]
        trees += own["trees"][shared:]
        classes += own["tree_info"][shared:]
    parameters = {**booster["gbtree_model_param"], "num_trees": str(len(trees))}
    trees = [{**tree, "id": number} for number, tree in enumerate(trees)]
    made = {
        **booster,
        "gbtree_model_param": parameters,
        "trees": trees,
        "tree_info": classes,
        "iteration_indptr": steps,
    }
    learner = {**first, "attributes": {}, "gradient_booster": {"name": "gbtree", "model": made}}
    return {**models[0], "learner": learner}


def fault_of(model):
    """What is wrong with a model from elsewhere, or None.

    Nothing looks into an opaque checkpoint before this script, and XGBoost believes what it loads: a child or a feature
    that is not there would be read out of bounds, at every site.
    """
    learner = model["learner"]
    booster = learner["gradient_booster"]["model"]
    trees, classes, steps = booster["trees"], booster["tree_info"], booster["iteration_indptr"]
    if learner["gradient_booster"]["name"] != "gbtree":
        return f"a booster of the kind {learner['gradient_booster']['name']}"
    if not len(trees) == len(classes) == steps[-1] or steps[0] != 0 or steps != sorted(steps):
        return "its trees are not those of its iterations"
    if not 0 <= int(learner["attributes"]["global_iterations"]) < len(steps):
        return "it has fewer iterations than the global model"
    if not all(0 <= k < max(1, int(learner["learner_model_param"]["num_class"])) for k in classes):
        return "a tree for a class that does not exist"
    features = int(learner["learner_model_param"]["num_feature"])
    broken = [number for number, tree in enumerate(trees) if not _is_sound(tree, features)]
    return f"tree {broken[0]} is broken" if broken else None


def _is_sound(tree, features):
    """Whether each node has all its numbers, finite, a feature that exists, and two children behind it or none."""
    count = int(tree["tree_param"]["num_nodes"])
    if count < 1 or any(len(tree[name]) != count for name in PER_NODE) or any(tree["split_type"]):
        return False
    children = enumerate(zip(tree["left_children"], tree["right_children"], strict=True))
    return (
        all(
            left == right == -1 or node < min(left, right) <= max(left, right) < count
            for node, (left, right) in children
        )
        and all(0 <= feature < features for feature in tree["split_indices"])
        and all(map(math.isfinite, tree["split_conditions"]))
    )


def main():
    try:
        models = [load(path) for path in GetPaths("localModels")]
        made = bag(models)
    except Unfit as error:
        sys.exit(f"aggregate.py: {error}")
    with open(GetPaths("globalModel")[0], "w") as file:
        json.dump(made, file, separators=(",", ":"))
    trees = made["learner"]["gradient_booster"]["model"]["trees"]
    print(f"{len(models)} models bagged: {len(trees)} trees")


if __name__ == "__main__":
    main()
