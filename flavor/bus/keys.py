"""Every key and channel, in one table. Nothing else in the project spells one.

All keys of a run share the Cluster hash tag `{RUN}`. flavor does not run on a cluster all the same: `create_run.lua`
also writes `flavor:runs`, and the keys of jobs (`rq:*`) have no tag.

====================================  ======  ==============================================  =====================
after `flavor:{RUN}:`                 type    holds                                           written by
====================================  ======  ==============================================  =====================
run                                   hash    run_id, protocol, release, needs, config,       coordinator, worker's
                                              state, round, rounds,                           commit, `flavor stop`
                                              global_path, global_digest, global_size,
                                              global_seal, info_path, format, state_path,
                                              state_digest, info_digest, manifest_path,
                                              manifest_digest, reason, created_ms, ended_ms,
                                              recovered_ms, recovered_round, changed,
                                              resumed_ms, resumed_round, paused_ms,
                                              best_round, best_value, best_sites, met,
                                              begun_from, global_tensors, whole_path,
                                              whole_digest, whole_size; deadline_ms, of the
                                              newest round, for sites: absent where rounds do
                                              not wait
members                               set     clients that have joined                        coordinator
public_keys                           hash    client to the public key that its updates must  coordinator, worker,
                                              be signed with                                  operator
replaced                              hash    client to the keys that an operator has          operator, `flavor
                                              replaced since the run began, oldest first      recover`
coordinator                           string  token of the coordinator's lease (expires)      coordinator
refusals                              hash    client to number of its refused updates in a row  worker, coordinator
aggregator                            string  home of the worker that keeps the run's user    worker
                                              aggregator (`--init-once`; expires)
client:CLIENT                         hash    protocol, release, state, reason, failure,      that edge
                                              exit_code, report, round, host, pid, public_key, version,
                                              told_ms, awaits, evaluates, cross, sets, remarks; the
                                              state of a site that trains nothing is `evaluator STATE`;
                                              while it moves a checkpoint phase, done, total,
                                              since_ms, bytes_s; doing, doing_round, doing_ms,
                                              reported_ms, reported, load, sent, received, moved_ms
client:CLIENT:lease                   string  token of the edge's lease (expires)             that edge
client:CLIENT:started                 string  newest round for which TrainStarted was set     that edge
client:CLIENT:taken                   string  newest round that its trainer has taken up      its trainer
client:CLIENT:idle                    string  round not finished, of a trainer that waits on  its trainer
client:CLIENT:round:N:event:EVENT     string  an event that has happened                      that edge, its trainer
client:CLIENT:round:N:update          hash    path, digest, size, format, info_path,          that edge
                                              info_digest, num_examples, public_key,
                                              signature, unread; or refused, failure,
                                              exit_code, report; and try, phases, moved
client:CLIENT:round:N:evaluation:K:update  hash  what it has measured of the model of round N, in       that edge
                                              evaluation K: info_path, info_digest, num_examples,
                                              model, public_key, signature; or refused, failure,
                                              exit_code, report; and try
client:CLIENT:log                     string  the last lines of its script's output, if the   that edge
                                              site shares them
client:CLIENT:wish                    string  a JSON: which objects it wants signed URLs of  that edge
                                              (expires)
client:CLIENT:state                   (channel) the client's hash has changed, or it lives    that edge
client:CLIENT:pulse                   (channel) what only people read of the hash has changed that edge
to:CLIENT:round:N:task                hash    what to train from: the run's global_*,         coordinator
                                              info_path, info_digest, format, rounds; opened_ms
to:CLIENT:round:N:evaluation:K:task   hash    which model to judge: global_*, info_path,      coordinator
                                              info_digest, format, opened_ms, deadline_ms
to:CLIENT:evaluations                 hash    `N K` of each evaluation that awaits it, to     coordinator, worker
                                              the server's time at which it was opened
to:CLIENT:evaluation:verdict          hash    round, number, accepted (1 or 0), reason: what  worker
                                              became of its newest result
to:CLIENT:admission                   hash    admitted (1 or 0), reason, public_key: whether   coordinator
                                              it may take part, why not, and by which key;
                                              quarantined: after how many refused updates
to:CLIENT:urls                        string  a JSON: signed URLs, which are secret, or why   coordinator, `flavor
                                              there are none (expires)                        evaluate`
to:CLIENT:round:N:verdict             hash    accepted (1 or 0), reason: what became of its   worker, coordinator
                                              update; try: of which, where it is about one;
                                              quarantined: refusals in a row, where they did;
                                              blameless: 1 where its site is not at fault;
                                              of_model: how sure it is that the global model
                                              is, or unreadable
round:N                               hash    state, expected, contributors, deadline_ms,     coordinator, worker
                                              attempt, lease, lease_ms, error, spoiled,
                                              reference, path, digest, size, info_path,
                                              info_digest, reason, manifest_path,
                                              manifest_digest, opened_ms, aggregating_ms,
                                              closed_ms, openings, left_out, resumed, pauses,
                                              earlier_openings, earlier_attempts, waits,
                                              passing_ms, away_ms, made_by, notes, told, unfit,
                                              blameless, hopeless, forgiven:CLIENT,
                                              spoilt:CLIENT; missed, client to missed
                                              deadlines in a row (JSON); outdated,
                                              client to tasks in a row that were given up as
                                              too old (JSON); chosen, where
                                              the rule left contributors out; since, in an
                                              asynchronous run: client to the round of the
                                              earlier task that it goes on with (JSON)
round:N:verdicts                      hash    client to JSON: accepted, reason, blameless,    worker, coordinator
                                              of_model (its global model is to blame),
                                              try_id, and what was inspected: path, digest,
                                              size_bytes, seal, format, num_examples,
                                              info_path, info_digest, public_key, signature,
                                              unread, constants, structure; refused_before
round:N:measured                      hash    client to JSON: phases, moved, metrics,         worker, coordinator
                                              judged_ms: what was measured of it, for people;
                                              deadlines are learned from judged_ms
round:N:entries                       hash    client to number of its entries in the log: those   worker, coordinator
                                              that it caused in this round; 0 before the first;
                                              told:CLIENT, again:CLIENT (expires after a week)
round:N:evaluation:K                  hash    state, global_*, format, expected, skipped,     coordinator, worker
                                              training, opened_ms, deadline_ms, attempt,
                                              merging_ms, error, hopeless, unneeded, closed_ms, reason,
                                              merged_*, manifest_*, subject; K is 0 for the
                                              coordinator's own, 999999999 for that on the
                                              operator's data
round:N:evaluation:K:verdicts         hash    client to JSON: accepted, reason, what was inspected, worker
                                              its first metrics; unread: why they are not known
                                              in a run that was rebuilt
round:N:evaluation:K:lease            string  token of the worker that merges its results, or worker
                                              judges its model by itself (expires)
evaluating                            hash    `N K` of each one that is not over, to its opening  coordinator, worker
evaluator                             string  token of the lease of who asks for evaluations   `flavor evaluate`
                                              (expires)
removing                              string  token of the lease while global models are        coordinator
                                              removed from the store (expires)
placed                                set     paths of models that who asks for evaluations    `flavor
                                              removes from the store                          contributions`
asked                                 hash    `N K` of each evaluation that somebody asked     `flavor evaluate`
                                              for and whose hash is there, to the server's
                                              time at which it was opened; `N` to the newest K
recorded                              hash    `N K` of each evaluation whose hash was          coordinator,
                                              removed, to the SHA-256 of its signed record     `flavor evaluate`
evaluated                             list    a JSON of each evaluation with a result, oldest worker's commit
                                              first: round, number, times, counts, metrics
unjudged                              list    a JSON of each evaluation that has failed,      coordinator, `flavor
                                              oldest first: round, number, times, reason      evaluate`
failing                               hash    K to its newest entry of `unjudged`, until an   coordinator, worker's
                                              evaluation K has a result: in_a_row counts them commit
reported                              hash    client to JSON: the rules' metrics it has reported  worker's commit,
                                                                                        `flavor revoke`
contributions                         hash    run_id, result: the newest one of `flavor        `flavor
                                              contributions` as JSON, for people              contributions`
closed                                list    a JSON of each closed round, oldest first:      worker's commit,
                                              round, times, counts, merged metrics            `flavor recover`
log                                   stream  every transition with its reason                coordinator, worker
====================================  ======  ==============================================  =====================

Outside any run: `flavor:runs`, a sorted set of run names by creation time (server clock, seconds); `flavor:removed`, a
sorted set of the names of runs that `flavor rm` has removed, by the time of that (expires); `flavor:dropped`, a stream
of jobs that workers refused to run (queue, job, reason); `flavor:resting:QUEUE`, a hash of an RQ worker's name,
or `NAME RUN` for the work of one run alone, to why it gives its work back (written by it; expires);
`flavor:fedtrain:sessions`, a hash of model name to the JSON that `aumai-fedtrain status` shows.

A client writes below `client:CLIENT` and nowhere else; what is meant for it alone lies below `to:CLIENT`, where it only
reads. Beside these it reads `run`. `flavor.bus.acl` makes Redis hold it to that.

`run`, `round:N`, events, updates, tasks, admissions and a client's verdicts are channels too. A publication on the name
of a key announces that the key has changed. Not every change of `round:N` is published: only that the round is closed,
that an attempt went wrong, and that an inspection found the store full or away. Readers never need what is published:
they read the key.
The keys of a run live until `flavor rm`; those of a round's clients go with `--keep-rounds`, and those of evaluations
as `flavor.coordinator.old_evaluations` says.
"""

from __future__ import annotations

from dataclasses import dataclass

from flavor.bus.client_keys import ClientKeys
from flavor.records.names import checked_name, is_name

RUNS = "flavor:runs"
REMOVED = "flavor:removed"
FEDTRAIN_SESSIONS = "flavor:fedtrain:sessions"
DROPPED = "flavor:dropped"


def every_run_patterns() -> tuple[str, ...]:
    """The channel patterns of what a viewer hears of every run on a server: what announces that a key has changed."""
    names = ("run", "round:*", "client:*:state", "client:*:pulse", "client:*:update", "to:*:verdict")
    return tuple(f"flavor:{{*}}:{name}" for name in names)


def parse_run_channel(channel: str) -> tuple[str, str] | None:
    """`(run, rest)` of a channel `flavor:{RUN}:rest`; None for any other."""
    run, separator, rest = channel.removeprefix("flavor:{").partition("}:")
    return (run, rest) if separator and is_name(run) and channel.startswith("flavor:{") else None


def resting_key(queue: str) -> str:
    """Hash: the workers of a queue that take no work for now, and why."""
    return f"flavor:resting:{queue}"


@dataclass(frozen=True)
class RunKeys:
    """The keys of one run."""

    run: str

    def __post_init__(self) -> None:
        checked_name(self.run, "run")

    @property
    def prefix(self) -> str:
        """What every key of the run starts with."""
        return f"flavor:{{{self.run}}}:"

    @property
    def state(self) -> str:
        """Hash: the run itself."""
        return f"{self.prefix}run"

    @property
    def members(self) -> str:
        """Set: clients that have joined."""
        return f"{self.prefix}members"

    @property
    def public_keys(self) -> str:
        """Hash: client to the public key that its updates must be signed with. No edge may write it."""
        return f"{self.prefix}public_keys"

    @property
    def replaced(self) -> str:
        """Hash: client to the keys that an operator has replaced, a line each. No edge may read it: it names sites."""
        return f"{self.prefix}replaced"

    @property
    def coordinator(self) -> str:
        """String with an expiry: the coordinator's lease."""
        return f"{self.prefix}coordinator"

    @property
    def refusals(self) -> str:
        """Hash: client to the number of its updates that were refused in a row."""
        return f"{self.prefix}refusals"

    @property
    def aggregator(self) -> str:
        """String with an expiry: the lease of the worker that keeps the process of this run's user aggregator."""
        return f"{self.prefix}aggregator"

    @property
    def log(self) -> str:
        """Stream: every transition with its reason."""
        return f"{self.prefix}log"

    @property
    def clients_pattern(self) -> str:
        """The pattern of the keys of the run's clients, among them the hash of each."""
        return f"{self.prefix}client:*"

    def client(self, client: str) -> ClientKeys:
        """The keys of one client."""
        checked_name(client, "client")
        return ClientKeys(f"{self.prefix}client:{client}", f"{self.prefix}to:{client}", client)

    def round(self, round_: int) -> str:
        """Hash: one round."""
        return f"{self.prefix}round:{round_}"

    def verdicts(self, round_: int) -> str:
        """Hash: client to verdict."""
        return f"{self.prefix}round:{round_}:verdicts"

    def measured(self, round_: int) -> str:
        """Hash: client to what was measured of it in this round. No decision is taken on it but by `judged_ms`."""
        return f"{self.prefix}round:{round_}:measured"

    @property
    def closed(self) -> str:
        """List: a summary of each closed round, oldest first. It may lack rounds, and no decision is taken on it."""
        return f"{self.prefix}closed"

    def entries(self, round_: int) -> str:
        """Hash: client to how many entries of the log it has caused in this round; round 0 is before the first."""
        return f"{self.prefix}round:{round_}:entries"

    def evaluation(self, round_: int, number: int) -> str:
        """Hash: one evaluation of the model of this round."""
        return f"{self.prefix}round:{round_}:evaluation:{number}"

    def evaluation_lease(self, round_: int, number: int) -> str:
        """String with an expiry: the lease of the worker that merges an evaluation's results, or judges its model."""
        return f"{self.prefix}round:{round_}:evaluation:{number}:lease"

    def evaluation_verdicts(self, round_: int, number: int) -> str:
        """Hash: client to what became of its result."""
        return f"{self.prefix}round:{round_}:evaluation:{number}:verdicts"

    @property
    def evaluating(self) -> str:
        """Hash: the evaluations that are not over."""
        return f"{self.prefix}evaluating"

    @property
    def evaluator(self) -> str:
        """String with an expiry: the lease of the process that asks for evaluations (`flavor evaluate`)."""
        return f"{self.prefix}evaluator"

    @property
    def removing(self) -> str:
        """String with an expiry: a lease, there while the coordinator removes global models from the store."""
        return f"{self.prefix}removing"

    @property
    def placed(self) -> str:
        """Set: paths of the models in the store that the process that asks for evaluations is to remove."""
        return f"{self.prefix}placed"

    @property
    def asked(self) -> str:
        """Hash: the evaluations that somebody asked for, and the newest number of each round's."""
        return f"{self.prefix}asked"

    @property
    def recorded(self) -> str:
        """Hash: the evaluations whose hashes were removed, to the digests of their signed records."""
        return f"{self.prefix}recorded"

    @property
    def failing(self) -> str:
        """Hash: the kinds of evaluations of which the newest has failed, each to this one as JSON."""
        return f"{self.prefix}failing"

    @property
    def unjudged(self) -> str:
        """List: each evaluation that has failed, oldest first."""
        return f"{self.prefix}unjudged"

    @property
    def evaluated(self) -> str:
        """List: a summary of each evaluation that has a result, oldest first."""
        return f"{self.prefix}evaluated"

    @property
    def reported(self) -> str:
        """Hash: client to the metrics of the run's rules that it has reported in evaluations."""
        return f"{self.prefix}reported"

    @property
    def contributions(self) -> str:
        """Hash: the newest result of `flavor contributions`. No decision is taken on it."""
        return f"{self.prefix}contributions"

    @property
    def rounds_pattern(self) -> str:
        """The channel pattern of every round."""
        return f"{self.prefix}round:*"

    @property
    def wishes_pattern(self) -> str:
        """The channel pattern of all clients' wishes for signed URLs."""
        return f"{self.prefix}client:*:wish"

    @property
    def no_wish(self) -> str:
        """Channel of that pattern, and of no client: wakes what hears wishes."""
        return f"{self.prefix}client::wish"

    @property
    def client_patterns(self) -> tuple[str, ...]:
        """The channel patterns of what a coordinator needs to hear from clients, and of the verdicts."""
        head = f"{self.prefix}client:*:"
        return f"{head}state", f"{head}update", f"{self.prefix}to:*:verdict"

    def parse_client_channel(self, channel: str) -> tuple[str, str] | None:
        """`(client, rest)` of a channel `client:CLIENT:rest` or `to:CLIENT:rest`; else None."""
        for head in (f"{self.prefix}client:", f"{self.prefix}to:"):
            if channel.startswith(head):
                client, _, rest = channel[len(head) :].partition(":")
                return (client, rest) if is_name(client) else None
        return None
