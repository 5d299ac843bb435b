"""After Redis has lost something: `flavor recover`, and a failover to a replica that lags.

After `flavor recover` sites come back one after another: the first of them does not judge a model alone. After a
failover a site hands in again what was lost of its result.

The site v3 only judges (`flavor-fv`), and so is in no record of a round. The toy evaluator of client i measures
a mean weight by 100, plus i / 1000.
"""

from __future__ import annotations

import signal

from flavor.records.evaluation import AUTOMATIC
from tests.integration.test_evaluation import evaluator, finish, start, summaries
from tests.integration.test_judging_site import judge
from tests.polled import eventually

RULE = ["--stop-when", "accuracy>=0.0345", "--quorum", 1]  # of the second model: 0.0353 of all, and 0.0348 of c1 and c2
ENDLESS = ("--rounds", "endless")


def lose(bench):
    """Have the server lose a run while its second model is judged, and rebuild it; no process is left."""
    flags = ["--hold", "--in-round", 2]
    site = judge(bench, "v3")
    coordinator, edges = start(bench, *RULE, flags=flags, rounds=3, trainer=ENDLESS)
    bench.held("c1")
    bench.held("c2")
    for process in (coordinator, site, *edges.values()):
        process.send(signal.SIGKILL)
        process.wait()
    bench.redis.flushall()
    done = bench.done("flavor", "recover", "--run", bench.run, "--store", bench.store, "--untrusted")
    assert done.wait() == 0, done.stderr
    return bench.serve("--heartbeat-timeout-s", 1, *RULE, rounds=3)


def edge(bench, client):
    return bench.edge(client, bench.trainer(*ENDLESS), "-e", evaluator())


def test_a_model_is_judged_once_the_next_round_can_be_opened(bench):
    coordinator = lose(bench)
    first = edge(bench, "c2")
    bench.logged("run.waiting", saying="1 of at least 2 clients is ready; c1: it has not come back yet")
    assert bench.runs.read_evaluation(2, AUTOMATIC) is None
    second = edge(bench, "c1")
    said = "waiting for v3, which judges the model and has not come back yet, for 60 s at most"
    bench.logged("evaluation.opened", round=2, saying=f"its global model is judged by c1, c2, v3; {said}")
    finish(coordinator, {"c2": first, "c1": second, "v3": judge(bench, "v3", "--until-end")})
    check_end(bench)


def test_a_site_that_has_judged_before_is_waited_for(bench):
    coordinator = lose(bench)
    assert bench.done("flavor", "stop", bench.run).wait() == 0
    assert coordinator.wait() == 8
    coordinator = bench.start("flavor", "resume", bench.run, "--min-clients", 1)
    first = edge(bench, "c2")
    said = "waiting for c1, v3, which judge the model and have not come back yet, for 60 s at most"
    bench.logged("evaluation.opened", round=2, saying=f"its global model is judged by c1, c2, v3; {said}")
    held = bench.logged("run.waiting", saying=f"evaluation of the model of round 2: 1 of 3 results handed in, {said}")
    assert held["held"]
    finish(coordinator, {"c2": first, "c1": edge(bench, "c1"), "v3": judge(bench, "v3", "--until-end")})
    check_end(bench)


def check_end(bench):
    assert [(each.round, each.sites, each.expected) for each in summaries(bench)] == [(1, 3, 3), (2, 3, 3)]
    assert bench.runs.read().is_met


def fail_over(bench, *lost):
    """Have the server lose these keys, and every subscriber its connection."""
    bench.redis.delete(*lost)
    assert bench.redis.client_kill_filter(_type="pubsub") >= 3


def test_what_a_failover_has_lost_of_a_result_is_handed_in_again(bench):
    """First the result alone, and then the evaluation, which is opened anew before its site has looked."""
    serve = ("--evaluate", "every", "--heartbeat-timeout-s", 30)
    coordinator, edges = start(bench, *serve, flags=("--hold", "--only", "c2"), rounds=1)
    keys, name = bench.runs.keys, (1, AUTOMATIC)
    result = keys.client("c1").result(*name)
    eventually("the result of c1", lambda: bench.redis.exists(result))
    bench.held("c2")
    fail_over(bench, result)
    eventually("its result again", lambda: bench.redis.exists(result))

    opened_ms = bench.redis.hget(keys.evaluation(*name), "opened_ms")
    edges["c1"].send(signal.SIGSTOP)
    of_sites = [keys.client(site) for site in ("c1", "c2")]
    tasks = [key for site in of_sites for key in (site.evaluation_task(*name), site.evaluations)]
    fail_over(bench, result, keys.evaluation(*name), keys.evaluating, *tasks)
    eventually(
        "the evaluation is opened anew",
        lambda: bench.redis.hget(keys.evaluation(*name), "opened_ms") not in (None, opened_ms),
    )
    edges["c1"].send(signal.SIGCONT)
    eventually("its result in the new evaluation", lambda: bench.redis.exists(result))
    bench.release("c2", "c2")
    finish(coordinator, edges)
    assert [(each.sites, each.expected) for each in summaries(bench)] == [(2, 2)]
    told = edges["c1"].stderr + edges["c1"].stdout
    assert told.count("Redis has forgotten the result of the model of round 1: handing it in again") == 2, told
    assert told.count("the evaluator judges the global model") == 1, "what was measured counts"
