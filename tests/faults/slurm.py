#!/usr/bin/env python3
"""Stands for Slurm's `srun`, `sbatch --wait` and `scancel`, by the name under which it is called.

The "compute node" is what TEST_SLURM_NODE says, such as a network namespace without a way out. As Slurm does, it starts
a command in a session of its own, which outlives an srun that is killed, kills it where srun gets SIGTERM, returns the
command's exit code, and knows no other partition than `gpu`. `sbatch --wait` looks for the job's end as seldom as
Slurm's.
"""

import os
import signal
import subprocess
import sys
import time

called = os.path.basename(sys.argv[0])
words, options = sys.argv[1:], {}
while words and words[0].startswith("--"):
    name, _, value = words.pop(0)[2:].partition("=")
    options[name] = value
if options.get("partition", "gpu") != "gpu":
    sys.exit(f"{called}: error: Unable to allocate resources: Invalid partition name specified")
if called == "scancel":
    with open(os.path.join(os.environ["TEST_SLURM_JOBS"], options["name"])) as noted:
        os.killpg(int(noted.read()), signal.SIGTERM)
    sys.exit()
environment = {**os.environ, "SLURM_JOB_ID": os.environ.get("TEST_SLURM_JOB", "7")}
output = open(options["output"], "ab") if called == "sbatch" else None  # noqa: SIM115 - the job's
command = [*os.environ["TEST_SLURM_NODE"].split(), *(["sh"] if called == "sbatch" else []), *words]
job = subprocess.Popen(command, env=environment, start_new_session=True, stdout=output, stderr=output)
if called == "sbatch":
    print("Submitted batch job", environment["SLURM_JOB_ID"], flush=True)
    with open(os.path.join(os.environ["TEST_SLURM_JOBS"], options["job-name"]), "w") as noted:
        noted.write(str(job.pid))
else:
    signal.signal(signal.SIGTERM, lambda *_: os.killpg(job.pid, signal.SIGKILL))
while called == "sbatch" and job.poll() is None:
    time.sleep(32)  # as Slurm's, once the job has run for a minute
code = job.wait()
sys.exit(code if code >= 0 else 128 - code)
