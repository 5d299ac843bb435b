"""The coordinator of a run: opens its rounds, has updates inspected, has rounds aggregated, and ends the run.

Its state is in Redis. A coordinator that is started again reads it, and goes on. To see what happens when the last
update of a round arrives, read `loop.py`, then `stage_open.py`:

1. The edge writes the update into Redis and publishes that. `Coordinator._serve` in `loop.py` wakes up, reads what has
   changed (`CurrentRun.read_changes`), and calls `_step`.
2. `_step` takes the stage for the state of the round from the table in `stages.py`. For an open round that is
   `OpenRound.step` in `stage_open.py`. It has the update inspected (`Inspections.request`), and waits.
3. An aggregator writes its verdict, which wakes the coordinator again. Now `OpenRound.step` works out where each client
   stands, and asks `next_step` (`flavor/policy/next_step.py`), which answers AGGREGATE.
4. `OpenRound._aggregate` fixes whose updates count, and puts the aggregation into the queue (`attempts.py`).
5. `Aggregation.step` in `stage_aggregation.py` supervises the aggregator until the round is closed. Then
   `BetweenRounds.step` in `stage_between_rounds.py` opens the next round, or ends the run.

| Question | File |
|---|---|
| How does a coordinator find its run, or create it? | `beginning.py`, `initial_model.py`; `resume.py` after its end |
| What is known of the run, its rounds and clients? | `current_run.py`, `round_as_read.py`, `members.py` |
| Who coordinates, and how long are silent clients excused? | `coordinator_lease.py` |
| Which updates are inspected, refused, or late? | `inspections.py`, `late_updates.py` |
| What does a run wait for, and where is it written? | `wait_log.py`, `store_wait.py` |
| What do sites cause in the log, and how much of it? | `client_log.py` |
| What is removed after a round? | `pruning.py` |
| Which warnings does a run begin with? | `bounds.py` |
| How does another program average the rounds itself? | `round_server.py`, `claim.py` |
"""
